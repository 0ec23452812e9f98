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

/// A place behind pointers, of which only the first and the last are named where it is very long.
pub(super) fn short_path(path: String) -> String {
    const LED: &str = " -> ";
    let is_long = path.chars().nth(NAME).is_some();
    match (path.split_once(LED), path.rsplit_once(LED)) {
        (Some((first, _)), Some((before, last))) if is_long && before.contains(LED) => {
            short(format!("{first}{LED}...{LED}{last}"))
        }
        _ => short(path),
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

/// The text that the whole of a nameless constant is. Numbers look like short texts: those of two or
/// three letters must end with the one zero that leaves no room for filler, or stand among others,
/// and texts without a zero must look like words.
pub(crate) fn whole_text(bytes: &[u8]) -> Option<String> {
    let narrow = text(bytes, 1).filter(|text| is_narrow(bytes, text));
    narrow.or_else(|| text(bytes, 2).filter(|text| is_wide(bytes, text)))
}

fn is_narrow(bytes: &[u8], text: &str) -> bool {
    let rest = bytes.get(text.len()..).unwrap_or_default();
    let length = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1);
    let others = &bytes[text.len().min(length)..length];
    let mut others = others.split(|byte| *byte == 0).skip(1);
    let is_text = |other: &[u8], least: usize| {
        other.len() >= least && other.iter().all(|byte| is_letter(*byte))
    };
    match text.len() {
        0 | 1 => false,
        2 | 3 if others.clone().next().is_none() => rest == [0],
        2 | 3 => others.all(|it| is_text(it, 2)),
        4..8 if rest.is_empty() => is_word(text),
        4..8 => others.all(|it| is_text(it, 0)),
        // Whatever is behind it.
        _ => true,
    }
}

/// Whether texts of one-byte characters have this byte.
fn is_letter(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | b'\r' | 0x1b | 0x20..=0x7e | 0x80..=0xff)
}

/// Whether a short text looks like words rather than like a number.
pub(super) fn is_word(text: &str) -> bool {
    let is_usual = |it: char| it.is_ascii_alphanumeric() || " _-./:,%".contains(it);
    text.len() >= 4 && text.chars().all(is_usual)
}

/// Whether a text of two-byte characters in these bytes is one that people would write: ended, and
/// in Latin letters of which most have no accent, or some in one other script. Any two bytes are
/// some letter.
pub(super) fn is_wide(bytes: &[u8], text: &str) -> bool {
    let units = text.encode_utf16().count();
    let is_ended = bytes.get(2 * units..2 * units + 2) == Some(&[0, 0]);
    let mut scripts = text.chars().map(script).filter(|it| *it != Script::Latin);
    let is_usual = match scripts.next() {
        None => 2 * text.chars().filter(char::is_ascii).count() > units,
        Some(Script::Other) => false,
        Some(first) => units >= 4 && scripts.all(|it| it == first),
    };
    units >= 2 && is_ended && is_usual
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Script {
    /// With punctuation, which all scripts share.
    Latin,
    Greek,
    Cyrillic,
    Semitic,
    Chinese,
    Korean,
    Other,
}

fn script(character: char) -> Script {
    match character {
        '\0'..'\u{250}' | '\u{2000}'..'\u{2070}' => Script::Latin,
        '\u{370}'..'\u{400}' => Script::Greek,
        '\u{400}'..'\u{530}' => Script::Cyrillic,
        '\u{590}'..'\u{700}' => Script::Semitic,
        '\u{3000}'..'\u{3100}' | '\u{4e00}'..'\u{a000}' | '\u{ff00}'..'\u{fff0}' => Script::Chinese,
        '\u{ac00}'..'\u{d7a4}' => Script::Korean,
        _ => Script::Other,
    }
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

/// A text in quotes from its character `from` on, cut where it is long.
pub(crate) fn quote(text: &str, from: usize) -> String {
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
    fn long_paths_keep_their_end() {
        let path = |names: &[&str]| short_path(names.join(" -> "));
        let long = "x".repeat(NAME);
        assert_eq!(path(&["a", "b", "c[1]"]), "a -> b -> c[1]");
        assert_eq!(path(&["a", &long, "b", "c[1]"]), "a -> ... -> c[1]");
        assert_eq!(path(&["a", &long]).chars().count(), NAME + 3);
    }

    #[test]
    fn texts_among_numbers() {
        let whole = |bytes: &[u8]| whole_text(bytes);
        for is_text in [
            &b"ab\0"[..],
            b"abc\0",
            b"GET\0PUT\0\0\0\0\0",
            b"four\0\0\0\0",
            b"four",
            b"a text\0\x01\x02"[..7].as_ref(),
            b"a longer text\0\x01\x02\x03",
            b"a text without an end",
        ] {
            assert!(whole(is_text).is_some(), "{is_text:?}");
        }
        for is_number in [
            &b""[..],
            b"0",
            b"0\0",
            b"0 \0\0",
            b"0 \0\x001 \0\0",
            b"AB",
            b"AFKPU\0\x03\x07",
            b"\x24\x23\x40\x3b",
            b"0\0\0\x001\0\0\0",
        ] {
            assert_eq!(whole(is_number), None, "{is_number:?}");
        }
        let wide =
            |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
        for text in ["ab\0", "\u{43f}\u{440}, a\0", "\u{d55c}\u{ae00}ab\0"] {
            assert_eq!(whole(&wide(text)).as_deref(), text.strip_suffix('\0'));
        }
        // Not ended, one letter, and numbers that are letters of scripts nobody mixes.
        for numbers in [
            "ab",
            "a\0",
            "\u{504b}U\u{d0c}\u{150e}\0",
            "\u{43f}\u{6f22}ab\0",
            "\u{12c}\u{136}\u{140}\u{14a}\0",
        ] {
            assert_eq!(whole(&wide(numbers)), None, "{numbers:?}");
        }
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
