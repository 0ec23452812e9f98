//! Lines that do not fit a terminal, in several.

/// A line in as many as it takes to stay within `width` columns. Behind the first, lines begin below
/// column `hang`; before that column nothing is parted, as that is where tables have their columns.
/// A word that is too long by itself stays whole: names are copied. Escape sequences of colours
/// take no room.
pub(crate) fn folded(line: &str, hang: usize, width: usize) -> String {
    if visible(line) <= width {
        return line.to_owned();
    }
    // Of a narrow line something must be left.
    let hang = hang.min(width / 2);
    let mut out = String::with_capacity(line.len() + 16);
    let mut column = 0;
    let mut rest = line;
    while !rest.is_empty() {
        let word = rest.trim_start_matches(' ');
        let spaces = rest.len() - word.len();
        let end = word.find(' ').unwrap_or(word.len());
        let (word, behind) = word.split_at(end);
        let length = visible(word);
        if column > hang && length > 0 && column + spaces + length > width {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', hang));
            column = hang;
        } else {
            out.extend(std::iter::repeat_n(' ', spaces));
            column += spaces;
        }
        out.push_str(word);
        column += length;
        rest = behind;
    }
    out
}

/// Columns that a text takes.
pub(crate) fn visible(text: &str) -> usize {
    let mut count = 0;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            characters.by_ref().find(char::is_ascii_alphabetic);
        } else {
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::folded;

    #[test]
    fn lines_hang_below_their_text() {
        let line = "  note   HP032  one is new and will live in the patch";
        assert_eq!(folded(line, 16, 60), line);
        let expected = "  note   HP032  one is new and will live\n                in the patch";
        assert_eq!(folded(line, 16, 40), expected);
        // Where that leaves too little.
        assert_eq!(
            folded(line, 16, 20),
            "  note   HP032  one\n          is new and\n          will live\n          in the\n          \
             patch"
        );
        assert_eq!(folded("", 4, 0), "");
    }

    #[test]
    fn words_stay_whole() {
        assert_eq!(
            folded("  a name_that_is_long b", 4, 10),
            "  a name_that_is_long\n    b"
        );
        assert_eq!(
            folded("  one name_that_is_long b", 4, 10),
            "  one\n    name_that_is_long\n    b"
        );
        assert_eq!(folded("name_that_is_long", 4, 10), "name_that_is_long");
    }

    #[test]
    fn colours_take_no_room() {
        let line = "\u{1b}[1m\u{1b}[31mred\u{1b}[0m and green";
        assert_eq!(folded(line, 2, 13), line);
        assert_eq!(
            folded(line, 2, 12),
            "\u{1b}[1m\u{1b}[31mred\u{1b}[0m and\n  green"
        );
    }
}
