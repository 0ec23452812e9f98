//! The base relocation directory.

use hpbuild_metadata::{Rva, Side};

use super::headers::{Headers, directory};
use super::view::{Fault, View, u16_at, u32_at};

/// `IMAGE_REL_BASED_ABSOLUTE`: filler.
const ABSOLUTE: u16 = 0;
/// `IMAGE_REL_BASED_DIR64`.
const DIR64: u16 = 10;

/// Every place that holds a 64-bit virtual address, sorted.
pub(super) fn read<S: Side>(view: &View<'_, S>, headers: &Headers) -> Result<Vec<Rva<S>>, Fault> {
    let Some((start, size)) = headers.directory(directory::BASE_RELOCATION) else {
        return Ok(Vec::new());
    };
    let bytes = view.bytes(start, size, "base relocation directory")?;
    let mut places = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        if rest.iter().all(|byte| *byte == 0) {
            break;
        }
        let block = start + at as u32;
        let (page, length) = (u32_at(rest, 0), u32_at(rest, 4) as usize);
        if length < 8 || length > rest.len() || length % 2 != 0 {
            return Err(Fault::new(
                format!("base relocation block at rva {block:#x}"),
                format!("an even SizeOfBlock from 8 to {:#x}", rest.len()),
                format!("{length:#x}"),
            ));
        }
        for entry in rest[8..length].chunks_exact(2) {
            let entry = u16_at(entry, 0);
            match entry >> 12 {
                ABSOLUTE => {}
                DIR64 => places.push(place(view, block, page, entry & 0xfff)?),
                other => {
                    return Err(Fault::new(
                        format!("base relocation block at rva {block:#x}"),
                        "entries of type DIR64 (10)",
                        format!("type {other}"),
                    ));
                }
            }
        }
        at += length;
    }
    places.sort_unstable();
    for pair in places.windows(2) {
        // The loader would add the distance once for each of them.
        if pair[1].get() - pair[0].get() < 8 {
            return Err(Fault::new(
                "base relocation directory",
                "places at least 8 bytes apart",
                format!("{} and {}", pair[0], pair[1]),
            ));
        }
    }
    Ok(places)
}

fn place<S: Side>(view: &View<'_, S>, block: u32, page: u32, offset: u16) -> Result<Rva<S>, Fault> {
    let what = || format!("base relocation block at rva {block:#x}");
    let rva = page
        .checked_add(offset.into())
        .ok_or_else(|| Fault::new(what(), "a page inside the image", format!("{page:#x}")))?;
    view.mapped::<8>(rva, &what())?;
    Ok(Rva::new(rva))
}
