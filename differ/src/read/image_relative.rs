//! Places in data that hold an address as its distance from the image base.
//!
//! The linker records them nowhere that stays in the image (`IMAGE_REL_*_ADDR32NB` needs no base
//! relocation), yet they change whenever anything moves. What has them has a fixed shape, and a
//! name that tells which: the run-time type information and the descriptions of thrown objects of
//! the Microsoft C++ ABI (LLVM's `MicrosoftCXXABI.cpp` and `CGCXXABI` lay out the same). Each
//! leads to others, so that those without a name are found, too.

use hpbuild_metadata::{Rva, Side};
use rustc_hash::FxHashSet;

use crate::image::{DataSymbol, Fixup, FixupKind};
use crate::pe::Pe;

/// More entries than a list of base classes or of types has; what claims them is not believed.
const MAX_ENTRIES: u32 = 1 << 12;

/// Virtual, multiple and ambiguous inheritance, as flags.
const MAX_ATTRIBUTES: u32 = 7;

/// A structure of known shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Shape {
    /// `??_R4`: what a vtable says of the object.
    Locator,
    /// `??_R3`: a class and the number of its bases.
    Hierarchy,
    /// `??_R2`: this many base classes.
    Bases(u32),
    /// `??_R1`: a base class.
    Base,
    /// `_TI`: a thrown object.
    Thrown,
    /// `_CTA`: the types it can be caught as.
    Types,
    /// `_CT`: one of them.
    Type,
}

impl Shape {
    /// The shape of what has this linkage name.
    fn of(name: &str) -> Option<Self> {
        // Type descriptors, `??_R0`, hold pointers proper.
        const PREFIXES: [(&str, Shape); 6] = [
            ("??_R4", Shape::Locator),
            ("??_R3", Shape::Hierarchy),
            ("??_R1", Shape::Base),
            ("_CTA", Shape::Types),
            ("_CT??_R0", Shape::Type),
            ("_TI", Shape::Thrown),
        ];
        let (prefix, shape) = PREFIXES
            .into_iter()
            .find(|(prefix, _)| name.starts_with(prefix))?;
        // `_TI1?AVfailure@@`, `_CTA1?AV..`, with flags before the count: `_TIC2PEAX`.
        let rest = &name[prefix.len()..];
        let is_own = match shape {
            Shape::Thrown | Shape::Types => {
                let flags = rest.trim_start_matches(['C', 'V', 'U']);
                flags.starts_with(|c: char| c.is_ascii_digit())
            }
            _ => true,
        };
        is_own.then_some(shape)
    }

    /// How many bytes it takes, where it says no more than one thing.
    const fn size(self) -> Option<u32> {
        match self {
            Shape::Locator => Some(24),
            Shape::Hierarchy => Some(16),
            Shape::Base => Some(28),
            _ => None,
        }
    }

    /// Where in it addresses stand, and the shape of what they lead to.
    fn fields(self) -> &'static [(u32, Option<Shape>)] {
        match self {
            Shape::Locator => &[(12, None), (16, Some(Shape::Hierarchy)), (20, None)],
            Shape::Hierarchy | Shape::Bases(_) | Shape::Types => &[],
            Shape::Base => &[(0, None), (24, Some(Shape::Hierarchy))],
            Shape::Thrown => &[(4, None), (8, None), (12, Some(Shape::Types))],
            Shape::Type => &[(4, None), (24, None)],
        }
    }
}

/// Whether what a vtable says of its object stands here, by what is in it: compilers keep the
/// names of classes that only one object knows to themselves. It holds its own address, and the
/// description of the class that it leads to begins with a zero and two small numbers.
pub(crate) fn is_locator<S: Side>(pe: &Pe<S>, rva: Rva<S>) -> bool {
    let word = |at: Rva<S>, offset: u32| {
        let bytes = pe.bytes(at.checked_add(offset)?, 4)?;
        bytes.first_chunk().map(|word| u32::from_le_bytes(*word))
    };
    let is_own = word(rva, 0) == Some(1) && word(rva, 20) == Some(rva.get());
    let data = |offset| {
        let target = word(rva, offset).map(Rva::new)?;
        let section = pe.section_at(target)?;
        (!section.is_code()).then_some(target)
    };
    let (true, Some(_), Some(class)) = (is_own, data(12), is_own.then(|| data(16)).flatten())
    else {
        return false;
    };
    let small = |offset, most| word(class, offset).is_some_and(|it| it <= most);
    word(class, 0) == Some(0) && small(4, MAX_ATTRIBUTES) && small(8, MAX_ENTRIES)
}

/// What the structures tell.
pub(super) struct Told<S: Side> {
    /// The places in named data and in what it leads to, in what vtables lead to, and those that
    /// the linker tells of; sorted, unique.
    pub(super) places: Vec<Rva<S>>,
    /// Where something ends that vtables lead to.
    pub(super) ends: Vec<Rva<S>>,
}

/// Looks for such structures, and for what they lead to.
pub(super) fn told<S: Side>(pe: &Pe<S>, data: &[DataSymbol<S>], fixups: &[Fixup<S>]) -> Told<S> {
    let mut walk = Walk {
        pe,
        seen: FxHashSet::default(),
        told: Told {
            places: Vec::new(),
            ends: Vec::new(),
        },
    };
    let targets = pe.base_relocations.iter().filter_map(|place| {
        let bytes = pe.bytes(*place, 8)?.first_chunk()?;
        pe.rva_of(u64::from_le_bytes(*bytes))
    });
    let locators = targets.filter(|rva| is_locator(pe, *rva));
    walk.follow(locators.map(|rva| (rva, Shape::Locator)).collect());
    // A name may say what is not so, and then nothing ends there.
    let ends = walk.told.ends.len();
    let named = data.iter().filter_map(|symbol| {
        let name = symbol.decorated.as_deref().unwrap_or(&symbol.name);
        Some((symbol.rva, Shape::of(name)?))
    });
    walk.follow(named.collect());
    walk.told.ends.truncate(ends);
    let mut told = walk.told;
    told.places.extend(fixups.iter().filter_map(|fixup| {
        let is_data = !pe.section_at(fixup.place)?.is_code();
        (is_data && fixup.kind == FixupKind::ImageRelative).then_some(fixup.place)
    }));
    told.places.sort_unstable();
    told.places.dedup();
    told
}

/// What was seen on the way.
struct Walk<'a, S: Side> {
    pe: &'a Pe<S>,
    seen: FxHashSet<(Rva<S>, Shape)>,
    told: Told<S>,
}

impl<S: Side> Walk<'_, S> {
    /// Goes on from each structure to those that it leads to.
    fn follow(&mut self, mut open: Vec<(Rva<S>, Shape)>) {
        while let Some((at, shape)) = open.pop() {
            if !self.seen.insert((at, shape)) {
                continue;
            }
            let end = shape.size().and_then(|size| at.checked_add(size));
            self.told.ends.extend(end);
            let word = |offset: u32| {
                let bytes = self.pe.bytes(at.checked_add(offset)?, 4)?;
                bytes.first_chunk().map(|word| u32::from_le_bytes(*word))
            };
            let mut field = |offset: u32, leads_to: Option<Shape>| {
                // None, or something else of the same name.
                let target = word(offset).map(Rva::new)?;
                self.pe.section_at(target)?;
                self.told.places.push(at.checked_add(offset)?);
                open.extend(leads_to.map(|shape| (target, shape)));
                Some(())
            };
            for (offset, leads_to) in shape.fields() {
                _ = field(*offset, *leads_to);
            }
            match shape {
                Shape::Hierarchy => {
                    let count = word(8).unwrap_or(0).min(MAX_ENTRIES);
                    _ = field(12, Some(Shape::Bases(count)));
                }
                Shape::Bases(count) => {
                    (0..count).for_each(|index| _ = field(4 * index, Some(Shape::Base)));
                }
                Shape::Types => {
                    let count = word(0).unwrap_or(0).min(MAX_ENTRIES);
                    (1..=count).for_each(|index| _ = field(4 * index, Some(Shape::Type)));
                }
                _ => {}
            }
        }
    }
}
