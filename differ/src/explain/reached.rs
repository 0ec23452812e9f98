//! Which data that instructions reach has other contents: what [`super::data`] looks at.

use hpbuild_metadata::{Base, DataId, Fixed, Rva};

use super::aligned::Aligned;
use super::data::{self, Contents, Differences};
use super::kinds::same_but_target;
use super::value::short;
use super::{Listing, name_at};
use crate::compare::Kind;
use crate::decode::{Instruction, ReferenceKind, access};
use crate::meaning::{Comparer, DataChange, Difference, Meaning, Target};

/// References of a function whose data is told.
const REFERENCES: usize = 8;
/// References whose data is looked at, because some of it tells nothing.
const LOOKED: usize = 64;
/// Instructions of a changed stretch that are held against each other.
const ALIKE: usize = 64;

/// References of two bodies to data with other contents.
pub(super) struct Reached<'a> {
    comparer: &'a Comparer<'a>,
    /// For each instruction its partner.
    partners: [Vec<Option<usize>>; 2],
    found: Vec<Reference>,
}

/// A reference on both sides.
struct Reference {
    base: Instruction<Base>,
    fixed: Instruction<Fixed>,
    /// The array that the operand is the end of.
    ending: Option<DataChange>,
}

impl<'a> Reached<'a> {
    pub(super) fn new(comparer: &'a Comparer<'a>, aligned: &Aligned) -> Self {
        Self {
            comparer,
            partners: aligned.partners(),
            found: Vec::new(),
        }
    }

    /// Notes two instructions whose references differ in this way.
    pub(super) fn add(&mut self, kind: Kind, base: &Instruction<Base>, fixed: &Instruction<Fixed>) {
        let is_content = matches!(
            kind,
            Kind::DataContent | Kind::String | Kind::Literal | Kind::JumpTable
        );
        if is_content {
            self.found.push(Reference {
                base: *base,
                fixed: *fixed,
                ending: None,
            });
        }
    }

    /// Notes instructions of a changed stretch that do the same with data of other contents.
    pub(super) fn add_alike(
        &mut self,
        (b, removed): (&Listing<'_, Base>, &[Instruction<Base>]),
        (f, added): (&Listing<'_, Fixed>, &[Instruction<Fixed>]),
    ) {
        let refers = |kind| matches!(kind, ReferenceKind::Address | ReferenceKind::Memory(_));
        let mut from = 0;
        let added = &added[..added.len().min(ALIKE)];
        for bi in removed.iter().take(ALIKE) {
            let Some(br) = bi.reference.filter(|it| refers(it.kind)) else {
                continue;
            };
            let alike = added.iter().enumerate().skip(from);
            let alike = alike
                .filter(|(_, fi)| same_but_target((b, bi), (f, fi)))
                .find_map(|(index, fi)| Some((index, fi, fi.reference?)));
            let Some((index, fi, fr)) = alike else {
                continue;
            };
            from = index + 1;
            let meaning = self.comparer.compare(br.target, fr.target, br.kind);
            if let Meaning::Different(difference) = meaning
                && !matches!(difference, Difference::Call | Difference::Data)
            {
                self.add(Kind::DataContent, bi, fi);
            }
        }
    }

    /// Notes an operand that means the same and is the end of an array that changed.
    pub(super) fn add_end(
        &mut self,
        b: &Listing<'_, Base>,
        base: &Instruction<Base>,
        fixed: &Instruction<Fixed>,
    ) {
        let Some(ending) = self.array_before(b, base) else {
            return;
        };
        self.found.push(Reference {
            base: *base,
            fixed: *fixed,
            ending: Some(ending),
        });
    }

    fn array_before(
        &self,
        b: &Listing<'_, Base>,
        instruction: &Instruction<Base>,
    ) -> Option<DataChange> {
        let reference = instruction.reference?;
        if reference.kind != ReferenceKind::Address {
            return None;
        }
        let placed = b.image.references_of(b.id);
        let at = placed.binary_search_by_key(&instruction.offset, |it| it.offset);
        if !self.comparer.may_end_changed(b.id, &placed[at.ok()?]) {
            return None;
        }
        let last = b.image.data.partition_point(|it| it.rva < reference.target);
        let last = DataId::new(last.checked_sub(1)?);
        let base = b.image.data_aliases(last).find(|id| {
            let symbol = b.image.data_symbol(*id);
            let end = symbol.rva.checked_add(symbol.size);
            end == Some(reference.target) && !self.comparer.data_same(*id)
        })?;
        let fixed = self.comparer.pairing.fixed_data(base)?;
        Some(DataChange { base, fixed })
    }

    /// What differs in the data, each piece once, and how many references more lead to such data.
    pub(super) fn contents(
        mut self,
        b: &Listing<'_, Base>,
        f: &Listing<'_, Fixed>,
    ) -> (Vec<Contents>, u32) {
        self.found
            .sort_by_key(|it| (it.base.offset, it.fixed.offset));
        let mut known = Vec::new();
        let (mut contents, mut more) = (Vec::new(), 0_u32);
        for (index, reference) in self.found.iter().enumerate() {
            let Some(target) = reference.base.reference.map(|it| it.target) else {
                continue;
            };
            let thing = match (&reference.ending, self.comparer.in_base(target)) {
                (Some(ending), _) => b.image.data_symbol(ending.base).rva,
                (_, Target::Data { id, .. }) => b.image.data_symbol(id).rva,
                _ => target,
            };
            if known.contains(&thing) {
                continue;
            }
            if contents.len() >= REFERENCES || index >= LOOKED {
                more += 1;
                continue;
            }
            known.push(thing);
            let (name, display, differences) = self.look(reference, b, f);
            if !differences.is_empty() {
                contents.push(Contents {
                    base_offset: Some(reference.base.offset),
                    fixed_offset: Some(reference.fixed.offset),
                    name,
                    display,
                    differences,
                });
            }
        }
        (contents, more)
    }

    fn look(
        &self,
        reference: &Reference,
        b: &Listing<'_, Base>,
        f: &Listing<'_, Fixed>,
    ) -> (String, String, Differences) {
        let of_data = |id: DataId<Base>| {
            let symbol = b.image.data_symbol(id);
            (short(symbol.name.to_string()), short(symbol.display()))
        };
        let comparer = self.comparer;
        if let Some(ending) = &reference.ending {
            let (name, display) = of_data(ending.base);
            return (name, display, data::of_symbol(comparer, ending));
        }
        let (Some(br), Some(fr)) = (reference.base.reference, reference.fixed.reference) else {
            return (String::new(), String::new(), Differences::default());
        };
        let targets = (br.target, fr.target);
        let resolved = (comparer.in_base(targets.0), comparer.in_fixed(targets.1));
        if let (Target::JumpTable(base), Target::JumpTable(fixed)) = resolved {
            let is_same = |base, fixed| self.leads_alike((b, base), (f, fixed));
            let names = (|rva| place_in(b, rva), |rva| place_in(f, rva));
            let differences = data::of_jump_table(comparer, (base, fixed), is_same, names);
            let name = "<jump table>".to_owned();
            return (name.clone(), name, differences);
        }
        let access = access(f.image.pe.machine, f.code, reference.fixed.offset);
        let operands = (
            b.operand(&reference.base, br),
            f.operand(&reference.fixed, fr),
        );
        let differences = data::of_operands(comparer, &operands.0, &operands.1, access);
        let (name, display) = match resolved.0 {
            Target::Data { id, .. } if !data::is_literal(b.image, resolved.0) => of_data(id),
            _ => ("<constant>".into(), "<constant>".into()),
        };
        (name, display, differences)
    }

    /// Whether two entries of jump tables lead to code that corresponds.
    fn leads_alike(
        &self,
        (b, base): (&Listing<'_, Base>, Rva<Base>),
        (f, fixed): (&Listing<'_, Fixed>, Rva<Fixed>),
    ) -> bool {
        let inside = (b.offset_of(base), f.offset_of(fixed));
        let (Some(from), Some(to)) = inside else {
            let meaning = self.comparer.compare(base, fixed, ReferenceKind::Jump);
            return inside == (None, None) && meaning == Meaning::Same;
        };
        let (from, to) = (b.index_at(from), f.index_at(to));
        let partner_of = |side: usize, at: Option<usize>| {
            let partners: &[Option<usize>] = &self.partners[side];
            at.and_then(|at| partners.get(at).copied().flatten())
        };
        match partner_of(0, from) {
            Some(partner) => Some(partner) == to,
            // What has no partner changed where it stands, or is another block.
            None => partner_of(1, to).is_none(),
        }
    }
}

/// A place in code: in this function as its instructions have it.
fn place_in<S: hpbuild_metadata::Side>(listing: &Listing<'_, S>, rva: Rva<S>) -> String {
    match listing.offset_of(rva) {
        Some(offset) => format!("+{offset:#x}"),
        None => short(name_at(listing.image, rva, 0).unwrap_or_else(|| format!("rva {rva}"))),
    }
}
