//! The debug directory: which PDB belongs to the image, and the extended characteristics.

use hpbuild_metadata::Side;

use super::CodeView;
use super::headers::{Headers, directory};
use super::view::{Fault, View, u16_at, u32_at};

/// `IMAGE_DEBUG_TYPE_CODEVIEW`.
const CODEVIEW: u32 = 2;
/// `IMAGE_DEBUG_TYPE_EX_DLLCHARACTERISTICS`.
const EX_DLL_CHARACTERISTICS: u32 = 20;

/// What the debug directory says.
#[derive(Default)]
pub(super) struct Debug {
    pub(super) codeview: Option<CodeView>,
    pub(super) ex_dll_characteristics: u32,
    /// RVA and size of what the entries stand for, as far as it is mapped.
    pub(super) spans: Vec<(u32, u32)>,
}

pub(super) fn read<S: Side>(view: &View<'_, S>, headers: &Headers) -> Result<Debug, Fault> {
    let mut debug = Debug::default();
    let Some((start, size)) = headers.directory(directory::DEBUG) else {
        return Ok(debug);
    };
    let entries = view.bytes(start, size, "debug directory")?;
    for (index, entry) in entries.chunks_exact(28).enumerate() {
        let what = format!("debug directory entry {index}");
        debug.spans.push((u32_at(entry, 20), u32_at(entry, 16)));
        match u32_at(entry, 12) {
            CODEVIEW if debug.codeview.is_none() => {
                debug.codeview = codeview(data(view, entry, &what)?, &what)?;
            }
            EX_DLL_CHARACTERISTICS => {
                let data = data(view, entry, &what)?;
                if data.len() < 4 {
                    return Err(Fault::new(what, "4 bytes", format!("{}", data.len())));
                }
                debug.ex_dll_characteristics |= u32_at(data, 0);
            }
            _ => {}
        }
    }
    Ok(debug)
}

/// The bytes an entry stands for. Debuggers find them by their place in the file, so that comes
/// first; not every entry is mapped.
fn data<'a, S: Side>(view: &View<'a, S>, entry: &[u8], what: &str) -> Result<&'a [u8], Fault> {
    let (size, rva, file_at) = (u32_at(entry, 16), u32_at(entry, 20), u32_at(entry, 24));
    if file_at == 0 {
        return view.bytes(rva, size, what);
    }
    let start = file_at as usize;
    start
        .checked_add(size as usize)
        .and_then(|end| view.file.get(start..end))
        .ok_or_else(|| {
            Fault::new(
                what,
                format!("{size:#x} bytes at file offset {file_at:#x}"),
                format!("a file of {:#x} bytes", view.file.len()),
            )
        })
}

/// An RSDS record. Older kinds (NB10 and before) name PDBs that cannot be read any more and count
/// as none.
fn codeview(data: &[u8], what: &str) -> Result<Option<CodeView>, Fault> {
    if !data.starts_with(b"RSDS") {
        return Ok(None);
    }
    let (Some(rest), Some(path)) = (data.get(8..16), data.get(24..)) else {
        let found = format!("{} bytes", data.len());
        return Err(Fault::new(
            what,
            "an RSDS record of at least 24 bytes",
            found,
        ));
    };
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect::<String>()
    };
    let guid = format!(
        "{:08X}-{:04X}-{:04X}-{}-{}",
        u32_at(data, 4),
        u16_at(rest, 0),
        u16_at(rest, 2),
        hex(&rest[4..6]),
        hex(data.get(14..20).unwrap_or_default()),
    );
    let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(Some(CodeView {
        guid,
        age: u32_at(data, 20),
        pdb_path: String::from_utf8_lossy(path).into(),
    }))
}
