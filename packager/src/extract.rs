//! From what the differ found to the pieces of a patch: the changed functions, and whatever they
//! need that the base does not have.
//!
//! | what a changed function needs | where it gets it |
//! |---|---|
//! | a function that is the same in the base | the base |
//! | another changed function | the patch, when called; the base's entry, when its address is taken, so that pointers compare equal everywhere |
//! | a new function, a cold part, a funclet | a copy in the patch |
//! | writable data of the base | the base |
//! | new data, changed constants, constants without pointers that are read in place | a copy |
//! | unchanged constants whose address is taken | the base |
//! | constants without a name | the base, where their address is taken and it is known where the base has them, unchanged; a copy otherwise |
//! | imports, guard pointers | slots that mirror the base's |
//!
//! What fits none of these is refused by name; nothing is guessed. In the end copies that overlap become
//! one, so that what is copied has one address, whoever leads to it, and those go that the base has.

mod alike;
pub(crate) mod brought;
mod code;
mod constants;
mod continuations;
mod copies;
mod cxx;
mod data;
mod ends;
mod function;
mod handler;
mod kept;
mod places;
mod previous;
mod table;
mod throw;
pub(crate) mod unnamed;
mod unwind;
mod x64_image_base;

use std::cell::OnceCell;

use hpbuild_differ::Diff;
use hpbuild_differ::compare::Changed;
use hpbuild_differ::image::FunctionKind;
use hpbuild_differ::meaning::{Comparer, Fresh};
use hpbuild_metadata::{Base, Fixed, FunctionId, Rva, Sequence};
use rustc_hash::FxHashMap;

use crate::piece::{BaseFacts, ImportUse, Parts, Piece, PieceId, Redirect, RuntimeEntry, Target};
use crate::refusal::{Code, Refusal};

pub use previous::Previous;

/// What to put into the patch.
#[derive(Clone, Debug)]
pub struct Options {
    /// Order of the patch among the patches over the same base.
    pub sequence: Sequence,
    /// Whether functions in which only numbers of source lines changed go in too.
    pub with_line_numbers: bool,
    /// An older patch over the same base, whose redirections must all be carried.
    pub previous: Option<Previous>,
}

impl Options {
    /// A first patch without line numbers.
    pub fn first() -> Self {
        Self {
            sequence: Sequence::FIRST,
            with_line_numbers: false,
            previous: None,
        }
    }
}

/// Something that becomes a piece once.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    Function(FunctionId<Fixed>),
    /// Data at a place with a size.
    Data(Rva<Fixed>, u32),
    /// Constants without a name.
    Constants(constants::Span),
    /// Unwind info of a place of code.
    Unwind(Rva<Fixed>),
    /// A table of a C++ frame handler.
    Cxx(cxx::CxxTable),
    /// A type descriptor of C++.
    Type(Rva<Fixed>),
    /// A description of what is thrown.
    Thrown(Rva<Fixed>, throw::Thrown),
}

/// What is being put together.
struct Extraction<'a> {
    diff: &'a Diff,
    comparer: Comparer<'a>,
    /// Where the base has unnamed writable data, once it is asked for.
    unnamed: OnceCell<unnamed::Unnamed>,
    /// What writable data without a name is new, once it is asked for.
    fresh: OnceCell<Fresh<'a>>,
    /// Where operands and pointers of the fixed image lead, sorted, once it is asked for.
    reached: OnceCell<Vec<Rva<Fixed>>>,
    /// Fixed functions that take the place of base functions, each with the first of these.
    replaced: FxHashMap<FunctionId<Fixed>, FunctionId<Base>>,
    pieces: Vec<Option<Piece>>,
    ids: FxHashMap<Source, PieceId>,
    open: Vec<(Source, PieceId)>,
    runtime: Vec<RuntimeEntry>,
    imports: Vec<ImportUse>,
    refusals: Vec<Refusal>,
}

/// Extracts the changed functions of `diff`.
///
/// # Errors
/// Everything that cannot be expressed in a patch, all at once.
pub fn extract(diff: &Diff, options: &Options) -> Result<Parts, Vec<Refusal>> {
    let changed: Vec<&Changed> = diff
        .comparison
        .changed
        .iter()
        .filter(|change| options.with_line_numbers || !change.is_line_number_only())
        .filter(|change| !change.in_owner)
        .collect();
    let mut extraction = Extraction {
        diff,
        comparer: diff.comparer(),
        unnamed: OnceCell::new(),
        fresh: OnceCell::new(),
        reached: OnceCell::new(),
        replaced: (changed
            .iter()
            .rev()
            .map(|change| (change.fixed, change.base)))
        .collect(),
        pieces: Vec::new(),
        ids: FxHashMap::default(),
        open: Vec::new(),
        runtime: Vec::new(),
        imports: Vec::new(),
        refusals: Vec::new(),
    };
    let mut redirects: Vec<_> = changed
        .iter()
        .map(|change| extraction.redirect(change))
        .collect();
    redirects.sort_by_key(|redirect: &Redirect| redirect.base);
    for pair in redirects.windows(2) {
        if pair[0].base == pair[1].base {
            let message = "the fixed image has several functions in its place";
            extraction.refuse(Code::NoEntry, &pair[0].name, None, message);
        }
    }
    extraction.run();
    if let Some(previous) = &options.previous {
        let refusals = previous.check(&diff.base, options.sequence, &redirects);
        extraction.refusals.extend(refusals);
    }
    let parts = copies::joined(extraction.finish(options, redirects)?)?;
    let mut parts = kept::kept(diff, &diff.comparer(), parts);
    parts.brought = brought::brought(diff, &parts, options.previous.as_ref());
    Ok(parts)
}

impl<'a> Extraction<'a> {
    /// The redirection of one base function.
    fn redirect(&mut self, change: &Changed) -> Redirect {
        let base = &self.diff.base;
        let rva = base.function(change.base).rva;
        let mut original = [0; 4];
        for (to, from) in original.iter_mut().zip(base.pe.bytes_from(rva)) {
            *to = *from;
        }
        // Of the names of a body that the linker folded not all need to have changed.
        let sides = ((base, change.base), (&self.diff.fixed, change.fixed));
        let name = self.diff.pairing.shown_names(sides.0, sides.1).0;
        let name = name.into_boxed_str();
        let needed = match base.pe.machine {
            hpbuild_metadata::Machine::X64 => 2,
            hpbuild_metadata::Machine::Arm64 => 4,
        };
        if base.function(change.base).size < needed {
            self.refuse(
                Code::EntryTooShort,
                &name,
                None,
                format!("{} bytes", base.function(change.base).size),
            );
        }
        let is_cold = base.function(change.base).kind == FunctionKind::Separated
            || self.diff.fixed.function(change.fixed).kind == FunctionKind::Separated;
        if is_cold {
            let message = "a cold part changed, and its function did not";
            self.refuse(Code::NoEntry, &name, None, message);
        }
        Redirect {
            name,
            base: rva,
            original,
            piece: self.piece_of(Source::Function(change.fixed)),
        }
    }

    /// The piece that `source` becomes; made later, where it is new.
    fn piece_of(&mut self, source: Source) -> PieceId {
        if let Some(id) = self.ids.get(&source) {
            return *id;
        }
        let id = PieceId(u32::try_from(self.pieces.len()).expect("fewer than 2^32 pieces"));
        self.pieces.push(None);
        self.ids.insert(source, id);
        self.open.push((source, id));
        id
    }

    /// Makes pieces until nothing new is needed.
    fn run(&mut self) {
        while let Some((source, id)) = self.open.pop() {
            let piece = match source {
                Source::Function(function) => self.function(function, id),
                Source::Data(rva, size) => self.data(rva, size, 0, id),
                Source::Constants(span) => self.constants(span, id),
                Source::Unwind(rva) => self.unwind_info(rva),
                Source::Cxx(table) => self.cxx(table),
                Source::Type(rva) => self.type_descriptor(rva),
                Source::Thrown(rva, what) => self.thrown(rva, what),
            };
            self.pieces[id.index()] = Some(piece);
        }
    }

    fn finish(
        mut self,
        options: &Options,
        redirects: Vec<Redirect>,
    ) -> Result<Parts, Vec<Refusal>> {
        if !self.refusals.is_empty() {
            self.refusals.sort();
            self.refusals.dedup();
            return Err(self.refusals);
        }
        let base = &self.diff.base;
        let guard_flags = base
            .pe
            .load_config
            .as_ref()
            .map_or(0, |config| config.guard_flags);
        let continuations = self.continuations();
        self.runtime.sort_by_key(|entry| (entry.code, entry.begin));
        let functions = self.ids.iter().filter_map(|(source, id)| match source {
            Source::Function(function) => Some((*function, *id)),
            _ => None,
        });
        let mut functions: Vec<_> = functions.collect();
        functions.sort();
        let stem = base
            .path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        Ok(Parts {
            machine: base.pe.machine,
            sequence: options.sequence,
            base: BaseFacts {
                stem: stem.unwrap_or_default().into_boxed_str(),
                identity: base.pe.identity,
                image_size: base.pe.image_size,
                // IMAGE_GUARD_CF_INSTRUMENTED.
                guard_cf: guard_flags & 0x100 != 0,
                guard_eh: continuations::has_table(base),
                ex_characteristics: base.pe.ex_dll_characteristics,
            },
            pieces: self.pieces.into_iter().flatten().collect(),
            code: functions.into_iter().map(|(_, id)| id).collect(),
            runtime: self.runtime,
            continuations,
            redirects,
            imports: self.imports,
            brought: Vec::new(),
        })
    }

    fn refuse(&mut self, rule: Code, name: &str, offset: Option<u32>, message: impl Into<String>) {
        self.refusals.push(Refusal {
            rule,
            name: name.into(),
            offset,
            message: message.into(),
        });
    }

    /// The patch's slot for an import of the fixed image, if the base has the same import.
    fn import(&mut self, index: usize) -> Option<Target> {
        let wanted = &self.diff.fixed.pe.imports[index];
        let found = self.diff.base.pe.imports.iter().find(|import| {
            import.symbol == wanted.symbol && import.dll.eq_ignore_ascii_case(&wanted.dll)
        })?;
        let known = self
            .imports
            .iter()
            .position(|import| import.slot == found.slot);
        let index = known.unwrap_or_else(|| {
            self.imports.push(ImportUse {
                slot: found.slot,
                dll: found.dll.clone(),
                symbol: found.symbol.clone(),
                delayed: found.delayed,
            });
            self.imports.len() - 1
        });
        Some(Target::Import(index as u32))
    }

    /// The base's place for a pointer that the loader sets: its guard pointers and cookie.
    fn loader_pointer(&self, rva: Rva<Fixed>) -> Option<LoaderPointer> {
        let fixed = self.diff.fixed.pe.load_config.as_ref()?;
        let base = self.diff.base.pe.load_config.as_ref();
        let mirror = |place: Option<Rva<Base>>| Some(LoaderPointer::Mirrored(place));
        if fixed.guard_cf_check == Some(rva) {
            return mirror(base.and_then(|base| base.guard_cf_check));
        }
        if fixed.guard_cf_dispatch == Some(rva) {
            return mirror(base.and_then(|base| base.guard_cf_dispatch));
        }
        if fixed.security_cookie == Some(rva) {
            return Some(LoaderPointer::Cookie(
                base.and_then(|base| base.security_cookie),
            ));
        }
        let index = fixed
            .guard_pointers
            .iter()
            .position(|place| *place == rva)?;
        let same_shape =
            base.filter(|base| base.guard_pointers.len() == fixed.guard_pointers.len());
        mirror(same_shape.map(|base| base.guard_pointers[index]))
    }
}

/// A place that the loader or the C runtime fills at start.
enum LoaderPointer {
    /// Its value is mirrored in a slot.
    Mirrored(Option<Rva<Base>>),
    /// Only the base's is right.
    Cookie(Option<Rva<Base>>),
}
