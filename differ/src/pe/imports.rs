//! The import and the delay import directory.

use hpbuild_metadata::{Rva, Side};

use super::headers::{Headers, directory};
use super::view::{Fault, View, u32_at};
use super::{DelayDescriptor, Import, ImportSymbol};

/// Set in a 64-bit thunk that names an ordinal.
const BY_ORDINAL: u64 = 1 << 63;

/// What both directories say.
pub(super) struct Tables<S: Side> {
    /// Every slot of both, sorted by address.
    pub(super) imports: Vec<Import<S>>,
    /// Descriptors of DLLs that are loaded late.
    pub(super) descriptors: Vec<DelayDescriptor<S>>,
    /// Where the tables of DLLs that are loaded at once stand, and how many bytes each has: the
    /// descriptors, and for each DLL its name, its slots and the list of what they are filled by.
    pub(super) spans: Vec<(Rva<S>, u32)>,
}

pub(super) fn read<S: Side>(view: &View<'_, S>, headers: &Headers) -> Result<Tables<S>, Fault> {
    let mut imports = Vec::new();
    let mut descriptors = Vec::new();
    let mut spans = Vec::new();
    if let Some((start, _)) = headers.directory(directory::IMPORT) {
        read_bound(view, start, &mut imports, &mut spans)?;
    }
    if let Some((start, _)) = headers.directory(directory::DELAY_IMPORT) {
        read_delayed(view, start, &mut imports, &mut descriptors)?;
    }
    imports.sort_by_key(|import| import.slot);
    for pair in imports.windows(2) {
        if pair[1].slot.get() - pair[0].slot.get() < 8 {
            return Err(Fault::new(
                "import address table",
                "slots at least 8 bytes apart",
                format!("{} and {}", pair[0].slot, pair[1].slot),
            ));
        }
    }
    Ok(Tables {
        imports,
        descriptors,
        spans,
    })
}

/// The list ends with the first descriptor that names no DLL or no slots, and not with the
/// directory's size, which linkers fill in differently and loaders do not read.
fn read_bound<S: Side>(
    view: &View<'_, S>,
    start: u32,
    imports: &mut Vec<Import<S>>,
    spans: &mut Vec<(Rva<S>, u32)>,
) -> Result<(), Fault> {
    for index in 0u32.. {
        let what = format!("import descriptor {index}");
        let descriptor: [u8; 20] = view.mapped(entry(start, index, 20, &what)?, &what)?;
        let (names, dll, slots) = (
            u32_at(&descriptor, 0),
            u32_at(&descriptor, 12),
            u32_at(&descriptor, 16),
        );
        // The last one tells of nothing, and is a part of the table as well.
        spans.push((Rva::new(entry(start, index, 20, &what)?), 20));
        if dll == 0 || slots == 0 {
            break;
        }
        let first = imports.len();
        let list = List {
            names: if names == 0 { slots } else { names },
            slots,
            dll,
            delayed: false,
        };
        let names = list.names;
        read_slots(view, list, &what, imports)?;
        // A zero ends either list.
        let count = u32::try_from(imports.len() - first + 1).unwrap_or(u32::MAX);
        let bytes = count.saturating_mul(8);
        spans.extend([(Rva::new(names), bytes), (Rva::new(slots), bytes)]);
        let name = view.text(dll, &what)?;
        let bytes = u32::try_from(name.len()).map_or(u32::MAX, |length| length.saturating_add(1));
        spans.push((Rva::new(dll), bytes));
    }
    Ok(())
}

fn read_delayed<S: Side>(
    view: &View<'_, S>,
    start: u32,
    imports: &mut Vec<Import<S>>,
    descriptors: &mut Vec<DelayDescriptor<S>>,
) -> Result<(), Fault> {
    for index in 0u32.. {
        let what = format!("delay import descriptor {index}");
        let place = entry(start, index, 32, &what)?;
        let descriptor: [u8; 32] = view.mapped(place, &what)?;
        let dll = u32_at(&descriptor, 4);
        if dll == 0 {
            break;
        }
        // Without this bit the fields are 32-bit virtual addresses, which a 64-bit image has not.
        let attributes = u32_at(&descriptor, 0);
        if attributes & 1 == 0 {
            let expected = "Attributes with bit 0 set (addresses are RVAs)";
            return Err(Fault::new(what, expected, format!("{attributes:#x}")));
        }
        let list = List {
            names: u32_at(&descriptor, 16),
            slots: u32_at(&descriptor, 12),
            dll,
            delayed: true,
        };
        descriptors.push((Rva::new(place), view.text(dll, &what)?));
        read_slots(view, list, &what, imports)?;
    }
    Ok(())
}

/// What a descriptor of either kind says, as RVAs.
struct List {
    names: u32,
    slots: u32,
    dll: u32,
    delayed: bool,
}

fn read_slots<S: Side>(
    view: &View<'_, S>,
    list: List,
    what: &str,
    imports: &mut Vec<Import<S>>,
) -> Result<(), Fault> {
    let first = imports.len();
    for index in 0u32.. {
        let thunk = view.u64(entry(list.names, index, 8, what)?, what)?;
        if thunk == 0 {
            break;
        }
        let slot = entry(list.slots, index, 8, what)?;
        view.u64(slot, what)?;
        // Each slot takes 8 bytes of the image, so more of them must share some.
        if imports.len() >= (view.image_size / 8) as usize || imports.len() >= view.file.len() {
            let expected = "import lists that do not overlap";
            return Err(Fault::new(
                what,
                expected,
                format!("{} imports", imports.len()),
            ));
        }
        let symbol = if thunk & BY_ORDINAL != 0 {
            let ordinal = u16::try_from(thunk & !BY_ORDINAL)
                .map_err(|_| Fault::new(what, "an ordinal of 16 bits", format!("{thunk:#x}")))?;
            ImportSymbol::Ordinal(ordinal)
        } else {
            let name = u32::try_from(thunk)
                .ok()
                .and_then(|rva| rva.checked_add(2))
                .ok_or_else(|| Fault::new(what, "the RVA of a name", format!("{thunk:#x}")))?;
            ImportSymbol::Name(view.text(name, what)?)
        };
        imports.push(Import {
            slot: Rva::new(slot),
            dll: view.text(list.dll, what)?,
            symbol,
            delayed: list.delayed,
        });
    }
    if imports.len() == first {
        view.text(list.dll, what)?;
    }
    Ok(())
}

fn entry(start: u32, index: u32, size: u32, what: &str) -> Result<u32, Fault> {
    index
        .checked_mul(size)
        .and_then(|offset| start.checked_add(offset))
        .ok_or_else(|| Fault::new(what, "a list inside the image", format!("rva {start:#x}")))
}
