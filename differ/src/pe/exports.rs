//! The export directory.

use hpbuild_metadata::Side;

use super::headers::{Headers, directory};
use super::view::{Fault, View, u16_at, u32_at};
use super::{Export, ExportTarget};

/// Ordinals are 16 bits wide wherever they are imported or named.
const MOST: u32 = 0x1_0000;

/// Every export, in the order of the address table; an address with several names occurs several
/// times, in the order of the names.
pub(super) fn read<S: Side>(
    view: &View<'_, S>,
    headers: &Headers,
) -> Result<Vec<Export<S>>, Fault> {
    let Some((start, size)) = headers.directory(directory::EXPORT) else {
        return Ok(Vec::new());
    };
    let table = view.bytes(start, 40, "export directory")?;
    let base = u32_at(table, 16);
    let (functions, names) = (u32_at(table, 20), u32_at(table, 24));
    for (what, count) in [("NumberOfFunctions", functions), ("NumberOfNames", names)] {
        if count > MOST {
            return Err(Fault::new(
                format!("export directory {what}"),
                format!("at most {MOST:#x}"),
                format!("{count:#x}"),
            ));
        }
    }
    let addresses = array(
        view,
        u32_at(table, 28),
        functions,
        4,
        "export address table",
    )?;
    let name_pointers = array(
        view,
        u32_at(table, 32),
        names,
        4,
        "export name pointer table",
    )?;
    let ordinals = array(view, u32_at(table, 36), names, 2, "export ordinal table")?;

    let mut named = Vec::with_capacity(names as usize);
    for (index, (ordinal, name)) in ordinals
        .chunks_exact(2)
        .zip(name_pointers.chunks_exact(4))
        .enumerate()
    {
        let what = || format!("export name {index}");
        let ordinal = u16_at(ordinal, 0);
        if u32::from(ordinal) >= functions {
            let expected = format!("an index below NumberOfFunctions {functions:#x}");
            return Err(Fault::new(what(), expected, format!("{ordinal:#x}")));
        }
        named.push((ordinal, view.text(u32_at(name, 0), &what())?));
    }
    named.sort_by_key(|(ordinal, _)| *ordinal);

    let mut exports = Vec::with_capacity(functions.max(names) as usize);
    let mut named = named.into_iter().peekable();
    for (index, address) in addresses.chunks_exact(4).enumerate() {
        let address = u32_at(address, 0);
        let what = format!("export address {index}");
        let ordinal = base.checked_add(index as u32).ok_or_else(|| {
            Fault::new(
                "export directory Base",
                "a smaller number",
                format!("{base:#x}"),
            )
        })?;
        let mut names = Vec::new();
        while let Some((_, name)) = named.next_if(|(of, _)| usize::from(*of) == index) {
            names.push(Some(name));
        }
        if address == 0 {
            continue; // an ordinal that is not used
        }
        if names.is_empty() {
            names.push(None);
        }
        for name in names {
            let target = if address.checked_sub(start).is_some_and(|at| at < size) {
                ExportTarget::Forward(view.text(address, &what)?)
            } else {
                ExportTarget::Rva(view.inside(address, &what)?)
            };
            exports.push(Export {
                ordinal,
                name,
                target,
            });
        }
    }
    Ok(exports)
}

fn array<'a, S: Side>(
    view: &View<'a, S>,
    rva: u32,
    count: u32,
    size: u32,
    what: &str,
) -> Result<&'a [u8], Fault> {
    if count == 0 {
        return Ok(&[]);
    }
    // Neither factor can be large enough to overflow: `count` is at most `MOST`.
    view.bytes(rva, count * size, what)
}
