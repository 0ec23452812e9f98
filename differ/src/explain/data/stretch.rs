//! Two stretches of data, entry by entry.

use hpbuild_metadata::{Base, Fixed, Rva, Side};

use super::super::value::{is_usual, numbers, quoted, text};
use super::{Search, name_of, texts};
use crate::decode::Access;
use crate::image::Image;
use crate::meaning::pointer_at;
use crate::types::{Form, Scalar};

/// How far before a difference the start of a text is looked for, in bytes.
const BEFORE: usize = 256;

/// Two stretches of data that correspond.
pub(super) struct Stretch<'p> {
    pub(super) places: (Rva<Base>, Rva<Fixed>),
    pub(super) sizes: (u32, u32),
    /// Whether the sizes are certain.
    pub(super) exact: bool,
    /// Their types; 0 for none.
    pub(super) types: (u32, u32),
    /// How they are read.
    pub(super) access: Option<Access>,
    /// How their place is named, behind the name of what led here.
    pub(super) prefix: &'p str,
}

/// An entry: where it starts, how many bytes it has, and its values where it is no number.
struct Entry {
    start: usize,
    size: usize,
    form: Form,
    /// Behind the prefix.
    path: String,
    texts: Option<(String, String)>,
}

/// The bytes of both sides.
type Both<'b> = (&'b [u8], &'b [u8]);

impl Search<'_> {
    /// Looks at two stretches, piece by piece: what stands between pointers, and the pointers.
    pub(super) fn stretch(&mut self, stretch: &Stretch<'_>) {
        let (base, fixed) = (self.comparer.base, self.comparer.fixed);
        let sizes = stretch.sizes;
        let told = || (format!("{} bytes", sizes.0), format!("{} bytes", sizes.1));
        let before = self.found.clone();
        if stretch.exact && sizes.0 != sizes.1 {
            self.found.push(|| stretch.prefix.to_owned(), told);
        }
        let b = base.pe.bytes_from(stretch.places.0);
        let f = fixed.pe.bytes_from(stretch.places.1);
        let b = &b[..b.len().min(sizes.0 as usize)];
        let f = &f[..f.len().min(sizes.1 as usize)];
        let common = b.len().min(f.len());
        let end = common.min(self.bytes);
        self.bytes -= end;
        self.found.at_least |= end < common;
        self.pieces(stretch, (b, f), end);
        if self.found == before && sizes.0 != sizes.1 {
            self.found.push(|| stretch.prefix.to_owned(), told);
        }
    }

    fn pieces(&mut self, stretch: &Stretch<'_>, (b, f): Both<'_>, end: usize) {
        let mut b_pointers = Pointers::new(self.comparer.base, stretch.places.0, end);
        let mut f_pointers = Pointers::new(self.comparer.fixed, stretch.places.1, end);
        let mut at = 0;
        while at < end {
            let next = (b_pointers.from(at), f_pointers.from(at));
            let starts = [next.0, next.1].into_iter().flatten();
            let pointer = starts.map(|it| it.at).min().unwrap_or(end);
            if let Some(differing) = first_difference(&b[at..pointer], &f[at..pointer]) {
                let place = at + differing;
                let entry = self.entry(stretch, (b, f), place, at..pointer);
                at = (entry.start + entry.size).max(place + 1);
                let values = || {
                    let range = entry.start..entry.start + entry.size;
                    let number = || numbers(&b[range.clone()], &f[range.clone()], entry.form);
                    entry.texts.clone().unwrap_or_else(number)
                };
                self.found
                    .push(|| format!("{}{}", stretch.prefix, entry.path), values);
                continue;
            }
            if pointer >= end {
                break;
            }
            let here = |next: Option<Pointer>| next.filter(|it| it.at == pointer);
            let here = (here(next.0), here(next.1));
            let absolute = [here.0, here.1].into_iter().flatten().any(|it| it.absolute);
            if !self.pointers(stretch, pointer, here, absolute) {
                break;
            }
            at = pointer + if absolute { 8 } else { 4 };
        }
    }

    /// Looks at a place where one side at least has a pointer; false where no more may be looked
    /// at.
    fn pointers(
        &mut self,
        stretch: &Stretch<'_>,
        at: usize,
        here: (Option<Pointer>, Option<Pointer>),
        absolute: bool,
    ) -> bool {
        let Ok(offset) = u32::try_from(at) else {
            return false;
        };
        let places = (
            stretch.places.0.checked_add(offset),
            stretch.places.1.checked_add(offset),
        );
        let (Some(b), Some(f)) = places else {
            return false;
        };
        let path = match self.scalar(stretch, at) {
            Some(scalar) if scalar.start as usize == at => scalar.path,
            _ if stretch.sizes.0 <= 8 => String::new(),
            _ => format!("+{at:#x}"),
        };
        let place = || format!("{}{path}", stretch.prefix);
        if here.0 == here.1 {
            return self.pointer((b, f), absolute, place);
        }
        let values = || {
            (
                led_to(self.comparer.base, b, here.0),
                led_to(self.comparer.fixed, f, here.1),
            )
        };
        self.found.push(place, values);
        true
    }

    /// The scalar that holds a byte, where the types of both sides say the same of it.
    fn scalar(&mut self, stretch: &Stretch<'_>, at: usize) -> Option<Scalar> {
        let offset = u32::try_from(at).ok()?;
        let (b, f) = stretch.types;
        if b == 0 || f == 0 {
            return None;
        }
        let base = &self.comparer.base.types;
        let b = base.scalar_at(b, offset, &mut self.steps)?;
        let f = self
            .comparer
            .fixed
            .types
            .scalar_at(f, offset, &mut self.steps)?;
        ((b.start, b.size, b.form) == (f.start, f.size, f.form)).then_some(f)
    }

    /// The entry of which the byte at `at` is the first that differs. It lies in `within`.
    fn entry(
        &mut self,
        stretch: &Stretch<'_>,
        (b, f): Both<'_>,
        at: usize,
        within: std::ops::Range<usize>,
    ) -> Entry {
        if let Some(scalar) = self.scalar(stretch, at)
            && let Some(entry) = typed(&scalar, (b, f), at)
        {
            return entry;
        }
        let whole = stretch.sizes.0.max(stretch.sizes.1) as usize;
        let path = |start: usize, size: usize| match size >= whole {
            true => String::new(),
            false => format!("+{start:#x}"),
        };
        let is_narrow = stretch.access.is_none_or(|access| access.size <= 2);
        if is_narrow && let Some(entry) = in_text((b, f), (within.start, at), &path) {
            return entry;
        }
        let fits = |size: usize| {
            let start = at - at % size;
            let end = start + size;
            (within.start <= start && end <= within.end).then_some(start)
        };
        // What vectors hold nobody knows.
        let access = stretch.access.filter(|it| it.size <= 8);
        let access = access.map(|it| (usize::from(it.size), it));
        if let Some((size, access)) = access
            && let Some(start) = fits(size)
        {
            let range = start..start + size;
            let is_float = access.float && is_usual(&b[range.clone()]) && is_usual(&f[range]);
            let form = match (is_float, access.signed) {
                (true, _) => Form::Float,
                (_, true) => Form::Signed,
                _ => Form::Unsigned,
            };
            let path = path(start, size);
            return Entry {
                start,
                size,
                form,
                path,
                texts: None,
            };
        }
        let (start, size) = [4, 1]
            .into_iter()
            .find_map(|size| Some((fits(size)?, size)))
            .unwrap_or((at, 1));
        Entry {
            start,
            size,
            form: Form::Unsigned,
            path: path(start, size),
            texts: None,
        }
    }
}

/// The entry that a type tells of.
fn typed(scalar: &Scalar, (b, f): Both<'_>, at: usize) -> Option<Entry> {
    let (start, size) = (scalar.start as usize, scalar.size as usize);
    let end = start.checked_add(size)?;
    let (b, f) = (b.get(start..end)?, f.get(start..end)?);
    let entry = |start, size, path, texts| Entry {
        start,
        size,
        form: scalar.form,
        path,
        texts,
    };
    match scalar.form {
        Form::Text(width) if size > usize::from(width) => {
            let texts = text(b, width).zip(text(f, width));
            let texts = texts.and_then(|(b, f)| quoted(&b, &f));
            if texts.is_some() {
                return Some(entry(start, size, scalar.path.clone(), texts));
            }
            // No text, or behind its end.
            let width = usize::from(width);
            let index = (at - start) / width;
            let path = format!("{}[{index}]", scalar.path);
            Some(entry(start + index * width, width, path, None))
        }
        _ => Some(entry(start, size, scalar.path.clone(), None)),
    }
}

/// The text in which the byte at `at` lies, on both sides. What stands before `from` was told.
fn in_text(
    (b, f): Both<'_>,
    (from, at): (usize, usize),
    path: &dyn Fn(usize, usize) -> String,
) -> Option<Entry> {
    let first = at.saturating_sub(BEFORE).max(from);
    let zero = b[first..at].iter().rposition(|byte| *byte == 0);
    // Texts of wide characters, which hold zeros, are only looked for at the start.
    let starts = [first, zero.map_or(first, |zero| first + zero + 1)];
    // One letter at the end of something larger is a number.
    let is_more = |start: usize, width: u8| start == 0 || b.len() - start > 2 * usize::from(width);
    let found = |start: usize| {
        let found = texts(&b[start..], &f[start..]).filter(|(width, _)| is_more(start, *width));
        Some((start, found?))
    };
    let (start, (width, texts)) = starts.into_iter().find_map(found)?;
    let end_of = |bytes: &[u8]| {
        let mut units = bytes[start..].chunks_exact(width.into());
        let zero = units.position(|unit| unit.iter().all(|byte| *byte == 0));
        zero.map_or(bytes.len(), |zero| start + (zero + 1) * usize::from(width))
    };
    let end = end_of(b).max(end_of(f)).min(b.len().min(f.len()));
    let size = end.checked_sub(start)?;
    Some(Entry {
        start,
        size,
        form: Form::Unsigned,
        path: match start {
            0 => String::new(),
            _ => path(start, size),
        },
        texts: Some(texts),
    })
}

/// A pointer in a stretch.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Pointer {
    /// Bytes from the start.
    at: usize,
    /// Whether it is a virtual address, of eight bytes, or else an RVA, of four.
    absolute: bool,
}

/// The pointers of a stretch, asked for in order.
struct Pointers {
    all: Vec<Pointer>,
    next: usize,
}

impl Pointers {
    fn new<S: Side>(image: &Image<S>, start: Rva<S>, length: usize) -> Self {
        let size = u32::try_from(length).unwrap_or(u32::MAX);
        let offset = |place: Rva<S>| place.checked_sub(start).map(|at| at as usize);
        let all = image.pointers_in(start, size).into_iter();
        let all = all.filter_map(|(place, absolute)| {
            let at = offset(place)?;
            let end = at + if absolute { 8 } else { 4 };
            (end <= length).then_some(Pointer { at, absolute })
        });
        Self {
            all: all.collect(),
            next: 0,
        }
    }

    /// The first one at or behind `at`, which never gets smaller.
    fn from(&mut self, at: usize) -> Option<Pointer> {
        while self.all.get(self.next).is_some_and(|it| it.at < at) {
            self.next += 1;
        }
        self.all.get(self.next).copied()
    }
}

/// What stands at a place that holds a pointer, or where the other side has one.
fn led_to<S: Side>(image: &Image<S>, place: Rva<S>, pointer: Option<Pointer>) -> String {
    if let Some(pointer) = pointer {
        let target = pointer_at(image, place, pointer.absolute);
        return target.map_or_else(|| "outside".into(), |target| name_of(image, target));
    }
    match image.pe.bytes(place, 8) {
        Some(bytes) if bytes.iter().any(|byte| *byte != 0) => {
            let digits: String = bytes.iter().rev().map(|it| format!("{it:02x}")).collect();
            format!("0x{digits}")
        }
        _ => "0".into(),
    }
}

/// The first place at which two stretches of equal length differ.
fn first_difference(base: &[u8], fixed: &[u8]) -> Option<usize> {
    const BLOCK: usize = 64;
    let mut blocks = base.chunks(BLOCK).zip(fixed.chunks(BLOCK));
    let block = blocks.position(|(b, f)| b != f)? * BLOCK;
    let mut rest = base[block..].iter().zip(&fixed[block..]);
    rest.position(|(b, f)| b != f).map(|at| block + at)
}
