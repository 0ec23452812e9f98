//! Is there filler before an x64 entry, which redirecting it may overwrite?
//!
//! What is filler the bytes tell ([`filler_before`]), and that nothing reaches it: a constant may
//! have the bytes of any filler.

use std::collections::BTreeMap;

use hpbuild_metadata::x64::{LONGEST, PAD, filler_before};
use hpbuild_metadata::{Base, FunctionId, Rva};
use rayon::prelude::*;

use crate::decode::{ReferenceKind, is_only_compared};
use crate::image::{DataSymbol, Image, PlacedReference};
use crate::meaning::function_behind;

/// The filler before an entry.
#[derive(Clone, Copy)]
struct Pad {
    entry: u32,
    /// Bytes of it, no fewer than are needed.
    filler: u32,
}

impl Pad {
    /// Whether something of this size at `rva` lies in the filler, or reaches over what is needed.
    fn is_reached(self, rva: Rva<Base>, size: u32) -> bool {
        let (start, end) = (rva.get(), rva.get().saturating_add(size));
        let needed = self.entry - PAD;
        let starts_inside = (self.entry - self.filler..self.entry).contains(&start);
        starts_inside || (start < needed && end > needed)
    }
}

/// Those of `bodies`, in order, that have no padding before their entry: what is there instead.
pub(super) fn in_use(
    image: &Image<Base>,
    bodies: &[FunctionId<Base>],
) -> BTreeMap<FunctionId<Base>, String> {
    let mut found = BTreeMap::new();
    let mut pads = Vec::new();
    for id in bodies {
        match padding_before(image, *id) {
            Ok(pad) => pads.push((*id, pad)),
            Err(evidence) => {
                found.insert(*id, evidence);
            }
        }
    }
    if pads.is_empty() {
        return found;
    }
    let reached = |rva: Rva<Base>, size: u32| {
        let next = pads.partition_point(|(_, pad)| pad.entry <= rva.get());
        let (id, pad) = pads.get(next)?;
        pad.is_reached(rva, size).then_some(*id)
    };
    let by_name = |symbol: &DataSymbol<Base>| {
        // Where only what follows tells its size, padding is counted in.
        let size = if symbol.sized_by_type { symbol.size } else { 1 };
        let id = reached(symbol.rva, size)?;
        Some((id, format!("{} lies there", symbol.display())))
    };
    let by_code = |user: FunctionId<Base>| {
        let name = move |placed: &PlacedReference<Base>| {
            format!(
                "{}+{:#x} reaches it",
                image.display_name(user),
                placed.offset
            )
        };
        let of = move |placed: &PlacedReference<Base>| {
            let size = match placed.reference.kind {
                ReferenceKind::Page => return None,
                ReferenceKind::Memory(size) => size.max(1).into(),
                _ => 1,
            };
            let id = reached(placed.reference.target, size)?;
            (!is_compared(image, user, placed)).then(|| (id, name(placed)))
        };
        image.references_of(user).iter().filter_map(of)
    };
    let functions = (0..image.functions.len()).into_par_iter();
    let by_code: Vec<_> = functions
        .map(FunctionId::new)
        .flat_map_iter(by_code)
        .collect();
    for (id, who) in image.data.iter().filter_map(by_name).chain(by_code) {
        let entry = image.function(id).rva;
        let what = format!("what looks like filler before rva {entry} is used: {who}");
        found.entry(id).or_insert(what);
    }
    found
}

/// Whether an address in filler is the entry behind it, joined with a number that it is compared with:
/// code that does nothing else with it reads no constant there.
fn is_compared(
    image: &Image<Base>,
    user: FunctionId<Base>,
    placed: &PlacedReference<Base>,
) -> bool {
    let reference = placed.reference;
    reference.kind == ReferenceKind::Address
        && function_behind(image, reference.target).is_some()
        && is_only_compared(image.pe.machine, image.code_of(user), placed.offset)
}

/// The filler before an entry, or what there is where that is not enough.
fn padding_before(image: &Image<Base>, id: FunctionId<Base>) -> Result<Pad, String> {
    let entry = image.function(id).rva;
    let before = id.index().checked_sub(1).map(FunctionId::new);
    // Functions lie one behind the other and do not overlap.
    let before = before.map(|id| {
        let function = image.function(id);
        (id, function.rva.get().saturating_add(function.size))
    });
    let section = image.pe.section_at(entry).map_or(0, |it| it.rva.get());
    let end = before.map_or(0, |(_, end)| end).max(section);
    let room = entry.get().saturating_sub(end);
    let shown = room.min(PAD);
    let bytes = |count: u32| {
        let start = Rva::new(entry.get() - count);
        image.pe.bytes(start, count).unwrap_or_default()
    };
    let filler = filler_before(bytes(room.min(PAD + LONGEST)));
    if filler < PAD as usize {
        let hex: Vec<String> = bytes(shown).iter().map(|b| format!("{b:02x}")).collect();
        let hex = hex.join(" ");
        let behind = match before {
            Some((id, end)) if end >= section => {
                format!("{} ends at rva {end:#x}", image.display_name(id))
            }
            _ => format!("the section starts at rva {section:#x}"),
        };
        return Err(match room {
            0 => format!("{behind}, where the entry is"),
            _ if room < PAD => {
                format!("{behind}, {room} bytes before the entry at rva {entry}: {hex}")
            }
            _ => format!("{behind}; {hex} before the entry at rva {entry} is no filler"),
        });
    }
    Ok(Pad {
        entry: entry.get(),
        filler: filler as u32,
    })
}
