//! Instructions as text.

use super::super::Text;

fn line(word: u32, name: Option<&str>) -> String {
    let text = Text::new().expect("capstone with arm64");
    text.line(word, 0x1_8000_1000, |_| name.map(str::to_owned))
}

#[test]
fn operands_are_named() {
    for (word, name, expected) in [
        (0x9400_0010, Some("parse"), "bl parse"),
        (0x9400_0010, None, "bl #0x180001040"),
        (0xb000_0008, Some("page(table)"), "adrp x8, page(table)"),
        (0xf944_0109, Some("low(table)"), "ldr x9, [x8, low(table)]"),
        (0x9104_0108, Some("low(table)"), "add x8, x8, low(table)"),
        (0x3608_0103, Some("skip"), "tbz w3, #1, skip"),
        (0xd65f_03c0, Some("never"), "ret"),
        (0xffff_ffff, None, ".word 0xffffffff"),
    ] {
        assert_eq!(line(word, name), expected);
    }
}

#[test]
fn the_operand_is_shown_to_the_namer() {
    let text = Text::new().expect("capstone with arm64");
    let mut seen = String::new();
    text.line(0xf944_0109, 0, |operand| {
        seen = operand.to_owned();
        None
    });
    assert_eq!(seen, "0x800");
}
