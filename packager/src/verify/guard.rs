//! The tables of the load config by which the system guards control flow: targets of indirect
//! calls, and places at which code goes on after an exception.
//!
//! Offsets and flags: `IMAGE_LOAD_CONFIG_DIRECTORY64` of the public SDK.

use super::fault;
use super::pe::View;
use super::walk::Walk;

/// `IMAGE_GUARD_CF_INSTRUMENTED` and `IMAGE_GUARD_CF_FUNCTION_TABLE_PRESENT`.
const CALLS: u32 = 0x500;
/// `IMAGE_GUARD_EH_CONTINUATION_TABLE_PRESENT`.
const CONTINUATIONS: u32 = 0x0040_0000;

/// Checks both tables against the pieces where they were found.
pub(super) fn check(walk: &mut Walk<'_>) {
    let base = &walk.parts.base;
    let wanted = [(base.guard_cf, CALLS), (base.guard_eh, CONTINUATIONS)];
    let wanted = wanted
        .iter()
        .filter(|(has, _)| *has)
        .fold(0, |flags, (_, flag)| flags | flag);
    let (config, _) = walk.view.directory(10);
    let flags = walk.view.u32(config.saturating_add(0x90)).unwrap_or(0);
    if flags != wanted {
        let (wanted, found) = (format!("{wanted:#x}"), format!("{flags:#x}"));
        walk.faults.push(fault("GuardFlags", wanted, found));
    }
    for (field, name) in [
        (0x80, "GuardCFFunctionTable"),
        (0x108, "GuardEHContinuationTable"),
    ] {
        let entries = match entries(walk.view, config.saturating_add(field)) {
            Ok(entries) => entries,
            Err(found) => {
                let expected = "pointer and count of a table in data";
                walk.faults.push(fault(name, expected, found));
                continue;
            }
        };
        let ascending = entries.windows(2).all(|pair| pair[0] < pair[1]);
        let is_code = |rva: &u32| walk.view.section_at(*rva).is_some_and(|it| it.is_code());
        if !ascending || !entries.iter().all(is_code) {
            let found = format!("{entries:x?}");
            walk.faults
                .push(fault(name, "ascending places in code", found));
        }
        if field == 0x108 {
            check_continuations(walk, &entries, name);
        }
    }
}

/// The entries must be the places of the parts and no others.
fn check_continuations(walk: &mut Walk<'_>, entries: &[u32], name: &str) {
    let mut expected = Vec::new();
    for place in &walk.parts.continuations {
        let start = walk.rvas.get(place.piece.index()).copied().flatten();
        // A piece that nothing in the image leads to has no place, and is never entered.
        expected.extend(start.map(|start| i64::from(start) + place.offset));
    }
    expected.sort_unstable();
    let found: Vec<i64> = entries.iter().copied().map(i64::from).collect();
    if found != expected {
        let (expected, found) = (format!("{expected:x?}"), format!("{found:x?}"));
        walk.faults.push(fault(name, expected, found));
    }
}

/// The entries of the table whose pointer, an address that the loader adjusts, stands at `field`,
/// before its count.
fn entries(view: &View<'_>, field: u32) -> Result<Vec<u32>, String> {
    let pointer = view.u64(field).unwrap_or(0);
    let count = view.u64(field.saturating_add(8)).unwrap_or(0);
    if pointer == 0 && count == 0 {
        return Ok(Vec::new());
    }
    let wrong = || format!("{pointer:#x} and {count}");
    let rva = pointer
        .checked_sub(view.image_base)
        .and_then(|rva| u32::try_from(rva).ok())
        .ok_or_else(wrong)?;
    let size = u32::try_from(count)
        .ok()
        .and_then(|count| count.checked_mul(4))
        .ok_or_else(wrong)?;
    let in_data = view.section_at(rva).is_some_and(|it| !it.is_code());
    if !in_data || count == 0 || !view.relocations.contains(&field) {
        return Err(wrong());
    }
    let bytes = view.bytes(rva, size).ok_or_else(wrong)?;
    let word = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u32::from(*byte))
    };
    Ok(bytes.chunks_exact(4).map(word).collect())
}
