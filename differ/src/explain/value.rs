//! Values of data as people read them: numbers, texts and names.

use crate::types::Form;

/// Characters of a text that are shown.
const SHOWN: usize = 48;
/// Of what two texts begin with alike, this many characters are shown where it is long.
const ALIKE: usize = 16;
/// Units of a text that are read.
const READ: usize = 1 << 12;
/// Characters of a name that are shown: input decides how long names are.
const NAME: usize = 160;
/// Numbers from here on are shown in hexadecimal.
const LARGE: u128 = 1_000_000;

/// The name, cut where it is very long.
pub(crate) fn short(name: String) -> String {
    match name.char_indices().nth(NAME) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name,
    }
}

/// Two numbers of equal length that differ, little-endian.
pub(super) fn numbers(base: &[u8], fixed: &[u8], form: Form) -> (String, String) {
    let texts = match form {
        Form::Signed => signed(base).zip(signed(fixed)).and_then(|(b, f)| {
            let small = |value: i128| value.unsigned_abs() < LARGE;
            (small(b) && small(f)).then(|| (b.to_string(), f.to_string()))
        }),
        Form::Float => float(base).zip(float(fixed)),
        Form::Text(_) => character(base).zip(character(fixed)),
        Form::Unsigned => None,
    };
    let texts = texts.or_else(|| {
        let (b, f) = (unsigned(base)?, unsigned(fixed)?);
        (b < LARGE && f < LARGE).then(|| (b.to_string(), f.to_string()))
    });
    // Two that are no number look alike, and so may others.
    texts
        .filter(|(b, f)| b != f)
        .unwrap_or_else(|| (hexadecimal(base), hexadecimal(fixed)))
}

/// Whether a floating-point number is one that people would write.
pub(super) fn is_usual(bytes: &[u8]) -> bool {
    let (value, usual) = match (bytes.try_into().map(f32::from_le_bytes), bytes.try_into()) {
        (Ok(value), _) => (f64::from(value), 1e-20..1e20),
        (_, Ok(bytes)) => (f64::from_le_bytes(bytes), 1e-100..1e100),
        _ => return false,
    };
    value == 0.0 || value.is_infinite() || usual.contains(&value.abs())
}

fn unsigned(bytes: &[u8]) -> Option<u128> {
    let mut word = [0; 16];
    word.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(u128::from_le_bytes(word))
}

fn signed(bytes: &[u8]) -> Option<i128> {
    let unused = 128
        - 8 * u32::try_from(bytes.len())
            .ok()
            .filter(|it| (1..=16).contains(it))?;
    Some((unsigned(bytes)? << unused).cast_signed() >> unused)
}

fn float(bytes: &[u8]) -> Option<String> {
    if let Ok(bytes) = bytes.try_into() {
        return Some(format!("{:?}", f32::from_le_bytes(bytes)));
    }
    let bytes = bytes.try_into().ok()?;
    Some(format!("{:?}", f64::from_le_bytes(bytes)))
}

fn character(bytes: &[u8]) -> Option<String> {
    let value = char::from_u32(u32::try_from(unsigned(bytes)?).ok()?)?;
    let is_seen = value.is_ascii_graphic() || value == ' ';
    is_seen.then(|| format!("'{value}'"))
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().rev().map(|it| format!("{it:02x}")).collect();
    format!("0x{digits}")
}

/// The text at the start of these bytes, of characters of one or two bytes: up to a zero or to the
/// end. `None` where something else stands there.
pub(super) fn text(bytes: &[u8], width: u8) -> Option<String> {
    let text = match width {
        1 => {
            let bytes = &bytes[..bytes.len().min(READ)];
            let length = bytes.iter().position(|byte| *byte == 0);
            let text = &bytes[..length.unwrap_or(bytes.len())];
            match std::str::from_utf8(text) {
                Ok(text) => text.to_owned(),
                // Cut within a character.
                Err(error) if error.error_len().is_none() && length.is_none() => {
                    String::from_utf8_lossy(&text[..error.valid_up_to()]).into_owned()
                }
                Err(_) => return None,
            }
        }
        2 => {
            let units = bytes.chunks_exact(2).take(READ);
            let units = units.map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
            let text = char::decode_utf16(units.take_while(|unit| *unit != 0));
            text.collect::<Result<_, _>>().ok()?
        }
        _ => return None,
    };
    let is_odd = |it: char| it.is_control() && !matches!(it, '\t' | '\n' | '\r' | '\u{1b}');
    (!text.contains(is_odd)).then_some(text)
}

/// Two texts that differ, quoted, with what is around the first difference. `None` where they are
/// the same.
pub(crate) fn quoted(base: &str, fixed: &str) -> Option<(String, String)> {
    if base == fixed {
        return None;
    }
    let alike = base.chars().zip(fixed.chars());
    let alike = alike.take_while(|(b, f)| b == f).count();
    let from = match alike {
        0..=SHOWN if base.chars().count().max(fixed.chars().count()) <= SHOWN => 0,
        _ => alike.saturating_sub(ALIKE),
    };
    Some((quote(base, from), quote(fixed, from)))
}

fn quote(text: &str, from: usize) -> String {
    let mut out = String::from(if from > 0 { "...\"" } else { "\"" });
    let mut rest = text.chars().skip(from);
    for character in rest.by_ref().take(SHOWN) {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if character.is_control() => out.extend(character.escape_unicode()),
            _ => out.push(character),
        }
    }
    out.push_str(if rest.next().is_some() { "\"..." } else { "\"" });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_by_what_they_are() {
        let of = |b: &[u8], f: &[u8], form| {
            let (b, f) = numbers(b, f, form);
            format!("{b} {f}")
        };
        assert_eq!(of(&[255], &[1], Form::Signed), "-1 1");
        assert_eq!(of(&[255], &[1], Form::Unsigned), "255 1");
        assert_eq!(of(&[0x61], &[0x62], Form::Text(1)), "'a' 'b'");
        assert_eq!(of(&[0x61], &[2], Form::Text(1)), "97 2");
        let (b, f) = (0x1234_5678_u32.to_le_bytes(), 7_u32.to_le_bytes());
        assert_eq!(of(&b, &f, Form::Unsigned), "0x12345678 0x00000007");
        let (b, f) = (0.1_f64.to_le_bytes(), (-2.5_f64).to_le_bytes());
        assert_eq!(of(&b, &f, Form::Float), "0.1 -2.5");
        // Two that are no number, and a length that no number has.
        let (b, f) = (0x7fc0_0000_u32.to_le_bytes(), 0x7fc0_0001_u32.to_le_bytes());
        assert_eq!(of(&b, &f, Form::Float), "0x7fc00000 0x7fc00001");
        assert_eq!(of(&[9; 17], &[8; 17], Form::Signed).len(), 2 * 36 + 1);
        assert!(is_usual(&0.1_f64.to_le_bytes()) && !is_usual(&7_u64.to_le_bytes()));
    }

    #[test]
    fn texts_around_what_differs() {
        assert_eq!(text(b"ab\0c", 1).as_deref(), Some("ab"));
        assert_eq!(text(b"a\x01", 1), None);
        assert_eq!(text(b"\xc3", 1).as_deref(), Some(""));
        assert_eq!(text(b"\xc3\0", 1), None);
        assert_eq!(text(b"a\0\xe9\0\0\0", 2).as_deref(), Some("a\u{e9}"));
        assert_eq!(text(b"\0\xd8", 2), None);
        let pair = |b, f| quoted(b, f).map(|(b, f)| format!("{b} {f}"));
        assert_eq!(pair("a\n\"", "b"), Some(r#""a\n\"" "b""#.into()));
        assert_eq!(pair("a", "a"), None);
        let (b, f) = ("x".repeat(100) + "1", "x".repeat(100) + "2");
        let tail = "x".repeat(16);
        assert_eq!(quoted(&b, &f).unwrap().1, format!("...\"{tail}2\""));
        assert_eq!(quote(&b, 0), format!("\"{}\"...", "x".repeat(48)));
    }
}
