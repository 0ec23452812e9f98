//! What reports call things.

use serde_json::Value;

use crate::reports::{diff, prebuilt};

/// Numbers are not shown as the letters that they would be, and texts are.
#[test]
fn constants_without_a_name() {
    for (machine, place) in [("x64", ["[", "]"]), ("arm64", ["", ""])] {
        let text = |group: &str, variant: &str| {
            let folder = prebuilt(group).join(machine);
            let image = format!("hp_{group}.dll");
            diff(&folder, ["base", variant], &image, &["--verbose"])
        };
        let has = |group: &str, variant: &str, constant: &str| {
            let operand = format!("{}{constant}{}", place[0], place[1]);
            let found = text(group, variant);
            assert!(found.contains(&operand), "{machine} {operand}:\n{found}");
        };
        has("edits", "relative-table", "<relative table>");
        has("edits", "string", "\"access refused\"");
        has("reached", "bytes", "<constant 41 00>");
        has("reached", "bytes", "<constant 01 03 07 0f 1f 3f 7f 14 ...>");
        let found = text("reached", "bytes");
        assert!(found.is_ascii(), "{found}");
        has("overlooked", "tally", "<nameless data>");
    }
}

/// Variables that have another size say so.
#[test]
fn variables_that_grew() {
    let text = |group: &str, variant: &str| {
        let folder = prebuilt(group).join("x64");
        diff(
            &folder,
            ["base", variant],
            &format!("hp_{group}.dll"),
            &["--verbose"],
        )
    };
    for (group, variant, expected) in [
        (
            "edits",
            "struct",
            "the array items grew from 64 to 96 bytes (entries of 16 bytes before, of 24 after)",
        ),
        (
            "forms",
            "number",
            "the array longer grew from 16 to 128 bytes (4 entries before, 32 after)",
        ),
        (
            "objects",
            "every",
            "the variable `anonymous namespace'::derived grew from 4 to 8 bytes (rva ",
        ),
        (
            "overlooked",
            "room",
            "the room of room grew from 64 to 128 bytes (rva ",
        ),
    ] {
        let found = text(group, variant);
        assert!(found.contains(expected), "{expected}\n{found}");
    }
}

/// What only a compiler names is told to people by what it is, and to programs by its name, too.
#[test]
fn decorated_names_are_made_readable() {
    for machine in ["x64", "arm64"] {
        let root = prebuilt("patterns").join(machine);
        let report = |format: &str| {
            let rest = ["--format", format, "--verbose"];
            let rest = &rest[..if format == "text" { 3 } else { 2 }];
            diff(&root, ["base", "parent"], "hp_patterns.dll", rest)
        };
        let text = report("text");
        assert!(text.contains("the vtable Cat::`vftable' changed"), "{text}");
        assert!(text.contains("the layout of Cat changed"), "{text}");
        assert!(
            text.contains("struct Tame `RTTI Type Descriptor'"),
            "{text}"
        );
        assert!(!text.contains("??_") && !text.contains(".?A"), "{text}");
        let page = report("html");
        assert!(
            page.contains("<span class=\"name\">Cat::`vftable&#39;</span>"),
            "{page}"
        );
        let report: Value = serde_json::from_str(&report("json")).expect("JSON");
        let named = |list: &Value, name: &str| -> Value {
            let mut list = list.as_array().expect("a list").iter();
            list.find(|it| it["name"] == name).expect("a name").clone()
        };
        let vtable = named(&report["data"], "??_7Cat@@6B@");
        assert_eq!(vtable["display"], "Cat::`vftable'");
        let finding = named(&report["refusals"], ".?AUCat@@");
        assert_eq!(finding["code"], "HP031");
    }
    let text = diff(
        &prebuilt("patterns/x64"),
        ["base", "delayed"],
        "hp_patterns.dll",
        &["--verbose"],
    );
    assert!(!text.contains("??_C@"), "{text}");
    let text = diff(
        &prebuilt("exceptions/x64"),
        ["base", "thrown"],
        "hp_exceptions.dll",
        &["--verbose"],
    );
    assert!(
        text.contains("throw info of Base") && !text.contains("_TI1"),
        "{text}"
    );
}
