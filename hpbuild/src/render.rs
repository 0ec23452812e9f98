//! Values to text.

pub(crate) mod diff;
pub(crate) mod fold;
pub(crate) mod html;
pub(crate) mod package;
pub(crate) mod sarif;
pub(crate) mod test;

use std::borrow::Cow;

/// A value as JSON, for programs and for people who look at it.
pub(crate) fn json(value: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("reports hold plain data");
    text.push('\n');
    text
}

/// Whether a character does something else than being seen: control characters, which a terminal
/// obeys, and those that hide or turn around what stands beside them (Unicode's bidirectional and
/// zero-width controls).
pub(crate) fn misleads(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

/// Text from a file, fit for a terminal: what misleads is shown by number.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(misleads) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if misleads(character) {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out.into()
}

/// Text in at most `width` columns, with a mark where it was cut.
pub(crate) fn cut(text: &str, width: usize) -> Cow<'_, str> {
    match text.char_indices().nth(width) {
        None => text.into(),
        Some(_) => {
            let end = text.char_indices().nth(width.saturating_sub(1));
            let end = end.map_or(text.len(), |(at, _)| at);
            format!("{}\u{2026}", &text[..end]).into()
        }
    }
}

/// A name in at most `width` columns: without template arguments first, cut if that is not enough.
pub(crate) fn short_name(name: &str, width: usize) -> String {
    if name.chars().count() <= width {
        return name.to_owned();
    }
    let shorter = without_arguments(name).unwrap_or_else(|| name.to_owned());
    cut(&shorter, width).into_owned()
}

/// The name with `<...>` for each list of template arguments; `None` where the brackets of the
/// name do not match, as in the names of operators.
fn without_arguments(name: &str) -> Option<String> {
    let mut out = String::new();
    let mut depth = 0_usize;
    let mut before = ' ';
    for character in name.chars() {
        match character {
            '<' => {
                if depth == 0 {
                    out.push_str("<...>");
                }
                depth += 1;
            }
            '>' if before == '-' && depth == 0 => out.push('>'),
            '>' if before == '-' => {}
            '>' => depth = depth.checked_sub(1)?,
            _ if depth == 0 => out.push(character),
            _ => {}
        }
        before = character;
    }
    (depth == 0).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit() {
        let name = "std::map<int, std::pair<a, b>>::find(std::less<int> const &)";
        assert_eq!(short_name(name, 100), name);
        assert_eq!(
            short_name(name, 50),
            "std::map<...>::find(std::less<...> const &)"
        );
        assert_eq!(short_name(name, 12), "std::map<..\u{2026}");
        assert_eq!(short_name("a::operator<<(int)", 10), "a::operat\u{2026}");
        assert_eq!(short_name("\u{e9}\u{e9}\u{e9}", 2), "\u{e9}\u{2026}");
        assert_eq!(short_name("ab", 0), "\u{2026}");
    }

    #[test]
    fn terminals_get_no_orders() {
        assert_eq!(plain("a\u{1b}[31mb\u{202e}c"), "a\\u{1b}[31mb\\u{202e}c");
        assert_eq!(plain("plain <b>"), "plain <b>");
    }
}
