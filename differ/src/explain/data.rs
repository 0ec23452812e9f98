//! What differs in data that changed code reaches: which entries, from what to what.
//!
//! The instructions around a changed table are the same on both sides, so their diff says nothing.
//! This looks at the data itself, entry by entry where types or the reading instruction tell what an
//! entry is, and follows pointers to what has other contents. It only describes: that something
//! differs was found by [`crate::meaning`], and where nothing is found here, that still stands.
//!
//! Images decide how large tables are and how far they lead, so all of it is bounded: the bytes and
//! pointers that are looked at, the entries that are told, and the length of what is told of one.

mod jump_table;
mod stretch;

use hpbuild_metadata::{Base, Fixed, Rva, Side};
use rustc_hash::FxHashSet;
use serde::Serialize;

use super::name_at;
use super::value::{is_wide, is_word, quoted, short, short_path, text, whole_text};
use crate::decode::{Access, ReferenceKind};
use crate::image::Image;
use crate::meaning::{
    Comparer, DataChange, Difference, Meaning, Operand, Target, is_read_only, pointer_at,
    relative_entries,
};
use crate::types::Steps;
use stretch::Stretch;

pub(super) use jump_table::of_jump_table;

/// Entries that are told of one piece of data.
const ENTRIES: usize = 4;
/// Bytes that are looked at for one reference.
const BYTES: usize = 1 << 18;
/// Pointers that are looked at for one reference.
const POINTERS: usize = 1 << 10;
/// Types and members that are looked at for one reference.
const STEPS: u32 = 1 << 14;
/// Pointers to pointers that are followed.
const DEPTH: usize = 6;

/// How the names of strings and numbers begin that compilers name after their contents.
const MADE: [&str; 5] = ["??_C@", "__real@", "__xmm@", "__ymm@", "__zmm@"];

/// What differs in one thing that an instruction reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contents {
    /// Bytes from the start of the base function to the instruction.
    pub base_offset: Option<u32>,
    /// Bytes from the start of the fixed function to the instruction.
    pub fixed_offset: Option<u32>,
    /// The base's name of what is reached, or, in angle brackets, what it is.
    pub name: String,
    /// The same as a person reads it.
    pub display: String,
    /// What differs in it.
    #[serde(flatten)]
    pub differences: Differences,
}

/// Entries that differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Differences {
    /// The first ones, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<Entry>,
    /// How many further entries differ.
    #[serde(skip_serializing_if = "is_none")]
    pub more: u32,
    /// Whether the end was not reached, so that there may be more than that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub at_least: bool,
}

/// An entry that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Where it stands, to be read behind the name: `[3].limit`, `+0x8`, `[1] -> other[2]`; empty
    /// for the whole.
    pub place: String,
    /// Its value in the base.
    pub base: String,
    /// Its value in the fixed image.
    pub fixed: String,
}

// The signature is serde's.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_none(count: &u32) -> bool {
    *count == 0
}

/// What differs between what two operands lead to, whose targets have other contents.
pub(super) fn of_operands(
    comparer: &Comparer<'_>,
    base: &Operand<Base>,
    fixed: &Operand<Fixed>,
    access: Option<Access>,
) -> Differences {
    let mut search = Search::new(comparer);
    let places = (base.reference.target, fixed.reference.target);
    let kind = base.reference.kind;
    search.reach(places, kind, access, String::new());
    if search.found.is_empty() && kind == ReferenceKind::Address {
        let before = comparer.changed_before(base, fixed);
        let distance = before.map(|(_, (b, _))| places.0.get() - b.rva.get());
        let prefix = distance.map_or_else(String::new, |bytes| format!("-{bytes:#x}"));
        let reach = before.map(|(_, reach)| reach);
        if let Some((b, f)) = reach.or_else(|| comparer.reach(base, fixed).map(|it| it.0)) {
            search.stretch(&Stretch {
                places: (b.rva, f.rva),
                sizes: (b.size, f.size),
                exact: false,
                types: (0, 0),
                access,
                prefix: &prefix,
            });
        }
    }
    search.found
}

/// What differs between a piece of named data and its partner.
pub(crate) fn of_symbol(comparer: &Comparer<'_>, change: &DataChange) -> Differences {
    let places = (
        comparer.base.data_symbol(change.base).rva,
        comparer.fixed.data_symbol(change.fixed).rva,
    );
    let mut search = Search::new(comparer);
    let tables = (comparer.in_base(places.0), comparer.in_fixed(places.1));
    if let (Target::JumpTable(b), Target::JumpTable(f)) = tables {
        let is_same = |b, f| comparer.compare(b, f, ReferenceKind::Jump) == Meaning::Same;
        let name = (
            |rva| name_of(comparer.base, rva),
            |rva| name_of(comparer.fixed, rva),
        );
        return of_jump_table(comparer, (b, f), is_same, name);
    }
    search.symbols(change, None, "");
    search.found
}

impl Differences {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn push(&mut self, place: impl FnOnce() -> String, values: impl FnOnce() -> (String, String)) {
        if self.entries.len() < ENTRIES {
            let (base, fixed) = values();
            self.entries.push(Entry {
                place: short_path(place()),
                base,
                fixed,
            });
        } else {
            self.more = self.more.saturating_add(1);
        }
    }
}

/// A search for what differs, and what it may still look at.
struct Search<'a> {
    comparer: &'a Comparer<'a>,
    steps: Steps,
    bytes: usize,
    pointers: usize,
    depth: usize,
    /// Pairs of places that were looked at: data may lead in circles.
    visited: FxHashSet<(Rva<Base>, Rva<Fixed>)>,
    found: Differences,
}

impl<'a> Search<'a> {
    fn new(comparer: &'a Comparer<'a>) -> Self {
        Self {
            comparer,
            steps: Steps::new(STEPS),
            bytes: BYTES,
            pointers: POINTERS,
            depth: 0,
            visited: FxHashSet::default(),
            found: Differences::default(),
        }
    }

    /// Looks at what stands at two addresses.
    fn reach(
        &mut self,
        places: (Rva<Base>, Rva<Fixed>),
        kind: ReferenceKind,
        access: Option<Access>,
        prefix: String,
    ) {
        if self.depth >= DEPTH {
            return;
        }
        let comparer = self.comparer;
        self.depth += 1;
        let targets = (comparer.in_base(places.0), comparer.in_fixed(places.1));
        let pair = match targets {
            (Target::Data { id: b, .. }, Target::Data { id: f, .. }) => {
                let at = comparer.fixed.data_symbol(f).rva;
                let partner = comparer.fixed_data_of(b);
                let partner = partner.filter(|it| comparer.fixed.data_symbol(*it).rva == at);
                partner.map(|fixed| DataChange { base: b, fixed })
            }
            _ => None,
        };
        match pair {
            Some(pair) => self.symbols(&pair, access, &prefix),
            None if !self.visited.insert(places) => {}
            None if self.relative(places, &prefix) => {}
            None => {
                let extents = (
                    comparer.extent(places.0, kind),
                    comparer.extent_fixed(places.1, kind),
                );
                if let (Some(b), Some(f)) = extents {
                    self.stretch(&Stretch {
                        places,
                        sizes: (b.size, f.size),
                        exact: b.exact && f.exact,
                        types: (0, 0),
                        access,
                        prefix: &prefix,
                    });
                }
            }
        }
        self.depth -= 1;
    }

    /// Looks at a piece of named data and its partner, whole.
    fn symbols(&mut self, pair: &DataChange, access: Option<Access>, prefix: &str) {
        let comparer = self.comparer;
        let b = comparer.base.data_symbol(pair.base);
        let f = comparer.fixed.data_symbol(pair.fixed);
        if !self.visited.insert((b.rva, f.rva)) {
            return;
        }
        let before = self.found.clone();
        let word = |read_only| match read_only {
            true => "read-only".to_owned(),
            false => "writable".to_owned(),
        };
        let read_only = (
            is_read_only(comparer.base, b.rva),
            is_read_only(comparer.fixed, f.rva),
        );
        if read_only.0 != read_only.1 {
            let words = (word(read_only.0), word(read_only.1));
            self.found.push(|| prefix.to_owned(), || words);
        }
        if self.relative((b.rva, f.rva), prefix) && self.found != before {
            return;
        }
        self.stretch(&Stretch {
            places: (b.rva, f.rva),
            sizes: (b.size, f.size),
            exact: b.sized_by_type && f.sized_by_type,
            types: (b.type_index, f.type_index),
            access,
            prefix,
        });
        // The pointer before a vtable leads to the type of its objects.
        if self.found == before
            && let (Some(b), Some(f)) = (
                locator_place(comparer.base, b.rva),
                locator_place(comparer.fixed, f.rva),
            )
        {
            self.pointer((b, f), true, || format!("{prefix}-0x8"));
        }
    }

    /// Looks at two tables of distances from their own start; false where they are none.
    fn relative(&mut self, (base, fixed): (Rva<Base>, Rva<Fixed>), prefix: &str) -> bool {
        let (b, f) = (self.comparer.base, self.comparer.fixed);
        let is_relative = b.relative_tables.binary_search(&base).is_ok()
            && f.relative_tables.binary_search(&fixed).is_ok();
        if !is_relative {
            return false;
        }
        let (Some(b), Some(f)) = (
            relative_entries(&b.pe, &b.boundaries, base),
            relative_entries(&f.pe, &f.boundaries, fixed),
        ) else {
            return false;
        };
        if b.len() != f.len() {
            let entries = |count| format!("{count} entries");
            let counts = (entries(b.len()), entries(f.len()));
            self.found.push(|| prefix.to_owned(), || counts);
        }
        for (index, targets) in b.into_iter().zip(f).enumerate() {
            if !self.target(targets, || format!("{prefix}[{index}]")) {
                break;
            }
        }
        true
    }

    /// Looks at a pointer on both sides; false where no more pointers may be looked at.
    fn pointer(
        &mut self,
        (base, fixed): (Rva<Base>, Rva<Fixed>),
        absolute: bool,
        place: impl Fn() -> String,
    ) -> bool {
        let targets = (
            pointer_at(self.comparer.base, base, absolute),
            pointer_at(self.comparer.fixed, fixed, absolute),
        );
        match targets {
            (Some(b), Some(f)) => self.target((b, f), place),
            _ => true,
        }
    }

    /// Looks at what two pointers lead to; false where no more pointers may be looked at.
    fn target(
        &mut self,
        (base, fixed): (Rva<Base>, Rva<Fixed>),
        place: impl Fn() -> String,
    ) -> bool {
        let comparer = self.comparer;
        let Some(left) = self.pointers.checked_sub(1) else {
            self.found.at_least = true;
            return false;
        };
        self.pointers = left;
        let kind = ReferenceKind::Address;
        let Meaning::Different(difference) = comparer.compare(base, fixed, kind) else {
            return true;
        };
        if let Some(texts) = self.texts((base, fixed)) {
            self.found.push(place, || texts);
            return true;
        }
        let names = (name_of(comparer.base, base), name_of(comparer.fixed, fixed));
        let is_content = !matches!(difference, Difference::Call | Difference::Data);
        let known = self.found.clone();
        if is_content {
            // Its bytes are what is told behind it.
            let is_constant = names.0.starts_with("<constant");
            let name = if is_constant { "<constant>" } else { &names.0 };
            let prefix = format!("{} -> {name}", place());
            self.reach((base, fixed), kind, None, prefix);
        }
        if self.found == known && (names.0 != names.1 || !is_content) {
            self.found.push(place, || names);
        }
        true
    }

    /// The texts that two addresses lead to, where they are texts without a name of the program's.
    fn texts(&self, (base, fixed): (Rva<Base>, Rva<Fixed>)) -> Option<(String, String)> {
        let (b, f) = (self.comparer.base, self.comparer.fixed);
        let kind = ReferenceKind::Address;
        let sizes = (
            self.comparer.extent(base, kind)?.size as usize,
            self.comparer.extent_fixed(fixed, kind)?.size as usize,
        );
        if !is_literal(b, self.comparer.in_base(base))
            || !is_literal(f, self.comparer.in_fixed(fixed))
        {
            return None;
        }
        let (b, f) = (b.pe.bytes_from(base), f.pe.bytes_from(fixed));
        let (_, texts) = texts(&b[..b.len().min(sizes.0)], &f[..f.len().min(sizes.1)])?;
        Some(texts)
    }
}

/// Two constants as texts that differ, where both are texts, and bytes of a character.
fn texts(base: &[u8], fixed: &[u8]) -> Option<(u8, (String, String))> {
    // One letter in a larger constant is a number, and so may two be.
    let may_be = |bytes: &[u8], text: &str, width: usize| {
        let length = match width {
            1 => text.len(),
            _ => 2 * text.encode_utf16().count(),
        };
        length > width || bytes.len() <= length + width
    };
    let is_text = |bytes: &[u8], text: &str, width: u8| match width {
        1 => is_word(text) || whole_text(bytes).is_some_and(|whole| whole == text),
        _ => is_wide(bytes, text),
    };
    [1, 2].into_iter().find_map(|width| {
        let (b, f) = (text(base, width)?, text(fixed, width)?);
        let both = may_be(base, &b, width.into()) && may_be(fixed, &f, width.into());
        let one = is_text(base, &b, width) || is_text(fixed, &f, width);
        let quoted = (both && one).then(|| quoted(&b, &f)).flatten()?;
        Some((width, quoted))
    })
}

/// Whether this is a constant without a name in the source.
pub(super) fn is_literal<S: Side>(image: &Image<S>, target: Target<S>) -> bool {
    match target {
        Target::Data { id, .. } => {
            let symbol = image.data_symbol(id);
            let linkage = symbol.decorated.as_deref().unwrap_or(&symbol.name);
            linkage.is_empty() || MADE.iter().any(|start| linkage.starts_with(start))
        }
        Target::Anonymous(_) => true,
        _ => false,
    }
}

/// The place of the pointer before a vtable, where there is a pointer.
fn locator_place<S: Side>(image: &Image<S>, vtable: Rva<S>) -> Option<Rva<S>> {
    let place = Rva::new(vtable.get().checked_sub(8)?);
    let relocated = image.pe.relocations_in(place, 8);
    relocated.contains(&place).then_some(place)
}

/// A name for what stands at an address.
pub(super) fn name_of<S: Side>(image: &Image<S>, rva: Rva<S>) -> String {
    short(name_at(image, rva, 0).unwrap_or_else(|| format!("rva {rva}")))
}
