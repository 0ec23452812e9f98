//! Which object file gave which span of the image: the code of units, and what the section
//! definitions of the COFF symbol table add.

use hpbuild_metadata::{CompilandId, Rva, Side};
use rustc_hash::FxHashMap;

use super::sections::SectionDefinition;
use super::units::UnitFacts;
use super::{code_part, short};
use crate::image::{Compiland, Contribution};
use crate::lines::LineRecords;
use crate::pe::Pe;

/// The code of units as contributions, and what section definitions add to it, with compilands
/// for the files they name. Units may claim the same code, as where functions were folded; then it
/// counts for the first.
pub(super) fn contributions<S: Side>(
    pe: &Pe<S>,
    units: &[UnitFacts],
    definitions: Vec<SectionDefinition>,
    compilands: &mut Vec<Compiland>,
) -> Vec<Contribution<S>> {
    let mut found = Vec::new();
    for (index, unit) in units.iter().enumerate() {
        for range in &unit.ranges {
            let Some((rva, size)) = code_part(pe, *range) else {
                continue;
            };
            found.push(Contribution {
                rva,
                size,
                compiland: CompilandId::new(index),
                characteristics: pe
                    .section_at(rva)
                    .map_or(0, |section| section.characteristics),
            });
        }
    }
    keep_disjoint(&mut found);
    let further = usable(pe, definitions);
    let mut files: FxHashMap<&str, usize> = FxHashMap::default();
    for (index, unit) in units.iter().enumerate() {
        files.entry(short(&unit.name)).or_insert(index);
    }
    // Units are exact about code; a definition has the filler between functions, too.
    let covered = found.clone();
    for (file, rva, size, characteristics) in &further {
        let (rva, size, characteristics) = (*rva, *size, *characteristics);
        let end = rva.get().saturating_add(size);
        let next = covered
            .partition_point(|other| other.rva.get().saturating_add(other.size) <= rva.get());
        if covered.get(next).is_some_and(|other| other.rva.get() < end) {
            continue;
        }
        let compiland = *files.entry(short(file)).or_insert_with(|| {
            compilands.push(Compiland {
                name: file.as_str().into(),
                short_name: crate::names::of_object(file).into(),
                place: Box::default(),
                tool: None,
                lines: LineRecords::default(),
            });
            compilands.len() - 1
        });
        found.push(Contribution {
            rva,
            size,
            compiland: CompilandId::new(compiland),
            characteristics,
        });
    }
    keep_disjoint(&mut found);
    found
}

/// The section definitions that say something: file, place, size, characteristics.
fn usable<S: Side>(
    pe: &Pe<S>,
    definitions: Vec<SectionDefinition>,
) -> Vec<(String, Rva<S>, u32, u32)> {
    let mut counts: FxHashMap<_, u32> = FxHashMap::default();
    let identity = |definition: &SectionDefinition| {
        let at = (definition.place.section, definition.size);
        (definition.file.clone(), at)
    };
    for definition in &definitions {
        *counts.entry(identity(definition)).or_default() += 1;
    }
    let mut further = Vec::new();
    for definition in &definitions {
        let Some(rva) = pe.rva_of_place(definition.place) else {
            continue;
        };
        let Some(section) = pe.section_at(rva) else {
            continue;
        };
        let room = section.size - rva.checked_sub(section.rva).unwrap_or(0);
        // Variables without a name are known by their place in the section of their file. An
        // object that names no file counts for the one before it, so that may say too little.
        let is_ambiguous = section.is_writable() && counts[&identity(definition)] > 1;
        let Some(file) = definition.file.clone() else {
            continue;
        };
        if definition.size == 0 || definition.size > room || is_ambiguous {
            continue;
        }
        further.push((file, rva, definition.size, section.characteristics));
    }
    further
}

/// Sorts by address and drops what reaches into an earlier one.
fn keep_disjoint<S: Side>(found: &mut Vec<Contribution<S>>) {
    found.sort_by_key(|contribution| (contribution.rva, contribution.compiland));
    let mut end = 0;
    found.retain(|contribution| {
        let is_free = contribution.rva.get() >= end;
        if is_free {
            end = contribution.rva.get().saturating_add(contribution.size);
        }
        is_free
    });
}
