//! Reading DER element by element, and the few bytes it takes to write one.
//!
//! A signature covers *encoded* bytes. The reader therefore hands out slices of the input and
//! never re-encodes: what is hashed is what stands in the file. It is strict (definite and
//! minimal lengths, one-byte tags) and does not recurse, so nesting costs a hostile file nothing.

use const_oid::ObjectIdentifier;

use crate::error::Error;

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const NULL: u8 = 0x05;
pub(crate) const OID: u8 = 0x06;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
/// Context-specific, constructed, number `n`.
pub(crate) const fn context(n: u8) -> u8 {
    0xa0 | n
}
/// Context-specific, primitive, number `n`.
pub(crate) const fn context_primitive(n: u8) -> u8 {
    0x80 | n
}

/// One element: its tag, its contents, and both with the length between.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) whole: &'a [u8],
    pub(crate) value: &'a [u8],
}

impl<'a> Element<'a> {
    /// The elements inside this one.
    pub(crate) fn children(&self, place: &'static str) -> Elements<'a> {
        Elements::new(self.value, place)
    }
}

/// A run of elements, read from front to back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elements<'a> {
    rest: &'a [u8],
    place: &'static str,
}

impl<'a> Elements<'a> {
    /// The elements in `bytes`; `place` is the structure's name in errors.
    pub(crate) fn new(bytes: &'a [u8], place: &'static str) -> Self {
        Self { rest: bytes, place }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn place(&self) -> &'static str {
        self.place
    }

    /// The tag of the next element, if there is one.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next element, whatever it is.
    pub(crate) fn any(&mut self, what: &str) -> Result<Element<'a>, Error> {
        let fail = |expected: &str, found: String| {
            Err(Error::format(
                format!("{}: {what}", self.place),
                expected,
                found,
            ))
        };
        let [tag, first, ..] = *self.rest else {
            return fail("an element", "the end".into());
        };
        if tag & 0x1f == 0x1f {
            return fail("a one-byte tag", format!("{tag:#04x}"));
        }
        let (header, length) = match first {
            0..=0x7f => (2, usize::from(first)),
            0x81..=0x84 => {
                let count = usize::from(first & 0x7f);
                let Some(bytes) = self.rest.get(2..2 + count) else {
                    return fail("a length", "the end".into());
                };
                let length = bytes.iter().fold(0u64, |sum, b| sum << 8 | u64::from(*b));
                if length < 0x80 || length >> (8 * (count - 1)) == 0 {
                    return fail(
                        "a length in its shortest form",
                        format!("{length:#x} in {count} bytes"),
                    );
                }
                (2 + count, usize::try_from(length).unwrap_or(usize::MAX))
            }
            _ => return fail("a definite length below 4 GiB", format!("{first:#04x}")),
        };
        let end = header.saturating_add(length);
        let Some(whole) = self.rest.get(..end) else {
            let found = format!("{length} with {} left", self.rest.len() - header);
            return fail("a length inside the structure", found);
        };
        self.rest = &self.rest[end..];
        Ok(Element {
            tag,
            whole,
            value: &whole[header..],
        })
    }

    /// The next element, which must carry `tag`.
    pub(crate) fn expect(&mut self, tag: u8, what: &str) -> Result<Element<'a>, Error> {
        let place = self.place;
        let element = self.any(what)?;
        if element.tag != tag {
            return Err(Error::format(
                format!("{place}: {what}"),
                format!("tag {tag:#04x}"),
                format!("{:#04x}", element.tag),
            ));
        }
        Ok(element)
    }

    /// The next element if it carries `tag`; otherwise nothing is read.
    pub(crate) fn optional(&mut self, tag: u8, what: &str) -> Result<Option<Element<'a>>, Error> {
        if self.peek() == Some(tag) {
            self.any(what).map(Some)
        } else {
            Ok(None)
        }
    }

    /// A SEQUENCE, opened.
    pub(crate) fn sequence(&mut self, what: &'static str) -> Result<Elements<'a>, Error> {
        Ok(self.expect(SEQUENCE, what)?.children(what))
    }

    /// An INTEGER that must have exactly this small value.
    pub(crate) fn version(&mut self, value: u8) -> Result<(), Error> {
        let element = self.expect(INTEGER, "version")?;
        if element.value != [value] {
            return Err(Error::format(
                format!("{}: version", self.place),
                value.to_string(),
                crate::digest::hex(element.value),
            ));
        }
        Ok(())
    }

    /// Nothing may follow.
    pub(crate) fn finish(self) -> Result<(), Error> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Error::format(
            self.place,
            "no further element",
            format!("{} more bytes", self.rest.len()),
        ))
    }
}

/// The one element that fills `bytes` from end to end.
pub(crate) fn only<'a>(
    bytes: &'a [u8],
    tag: u8,
    place: &'static str,
) -> Result<Element<'a>, Error> {
    let mut elements = Elements::new(bytes, place);
    let element = elements.expect(tag, "outermost element")?;
    elements.finish()?;
    Ok(element)
}

/// An AlgorithmIdentifier: its object identifier's bytes, and its parameters if they are neither
/// absent nor NULL.
pub(crate) fn algorithm<'a>(
    elements: &mut Elements<'a>,
    what: &'static str,
) -> Result<(&'a [u8], Option<Element<'a>>), Error> {
    let mut inner = elements.sequence(what)?;
    let oid = inner.expect(OID, "algorithm")?.value;
    let mut parameters = None;
    if !inner.is_empty() {
        let element = inner.any("parameters")?;
        if element.tag != NULL || !element.value.is_empty() {
            parameters = Some(element);
        }
    }
    inner.finish()?;
    Ok((oid, parameters))
}

/// The dotted form of an object identifier, for messages.
pub(crate) fn oid_text(bytes: &[u8]) -> String {
    ObjectIdentifier::from_bytes(bytes).map_or_else(
        |_| format!("0x{}", crate::digest::hex(bytes)),
        |oid| oid.to_string(),
    )
}

/// `tag`, length and `parts` one behind the other.
pub(crate) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let skip = bytes.iter().take_while(|b| **b == 0).count();
        out.push(0x80 | (bytes.len() - skip) as u8);
        out.extend_from_slice(&bytes[skip..]);
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// An encoded object identifier.
pub(crate) fn oid(oid: ObjectIdentifier) -> Vec<u8> {
    element(OID, &[oid.as_bytes()])
}
