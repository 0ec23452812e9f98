use std::path::Path;

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Scenario, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images");
    Scenario::parse(text, &folder).map_err(|error| error.to_string())
}

/// A session with one buffer of four bytes, and `call` as the lines of a call.
fn with_call(call: &str) -> Result<Scenario, String> {
    let head = "[[session]]\nbuffers.b.zero = 4\nbuffers.b.guard = true\n";
    parse(&format!("{head}[[session.call]]\n{call}"))
}

#[test]
fn everything_a_call_can_say_is_read() {
    let text = r##"
[load]
dll-main = true
timeout-ms = 100

[[session]]
name = "all"
patch-after = 1
[session.buffers.out]
fill = { byte = 0xaa, count = 4 }
size = 16
set = [{ at = 8, pointer = "&in+1" }, { at = 4, u16 = 0x1234 }]
[session.buffers.in]
hex = "01 02\n0304"
[session.buffers.source]
file = "build.sh"
[[session.call]]
function = "open"
result = "ptr"
bind = "h"
[[session.call]]
rva = 0x1020
args = [1, -1, 2.5, "&in", "&out+16", "#out", "$h"]
set = [{ buffer = "in", at = 0, u32 = 7 }]
before = { fault = "stack-overflow" }
after = { returns = "not-null", buffers = { out = { at = 2, text = "hi" } } }
"##;
    let scenario = parse(text).unwrap();
    assert_eq!(scenario.load.timeout_ms, 100);
    let session = &scenario.sessions[0];
    assert_eq!((session.name.as_str(), session.patch_after), ("all", 1));
    let buffer = |name: &str| session.buffers.iter().find(|b| b.name == name).unwrap();
    assert_eq!(buffer("in").bytes, [1, 2, 3, 4]);
    assert_eq!(buffer("out").bytes[..5], [0xaa, 0xaa, 0xaa, 0xaa, 0]);
    assert_eq!(buffer("out").bytes.len(), 16);
    assert!(buffer("source").bytes.starts_with(b"#!/bin/sh"));
    let pointer = |name: &str, offset| Argument::Buffer {
        name: name.to_owned(),
        offset,
    };
    assert_eq!(buffer("out").fields[0].value, pointer("in", 1));
    assert_eq!(
        (buffer("out").fields[1].size, buffer("out").fields[1].at),
        (2, 4)
    );
    let call = &session.calls[1];
    assert_eq!(call.function, Function::Rva(0x1020, None));
    let arguments = [
        Argument::Integer(1),
        Argument::Integer(-1),
        Argument::Float(2.5),
        pointer("in", 0),
        pointer("out", 16),
        Argument::Integer(16),
        Argument::Bound("h".to_owned()),
    ];
    assert_eq!(call.arguments, arguments);
    assert_eq!(
        call.before.as_ref().unwrap().fault,
        Some(FaultKind::StackOverflow)
    );
    let after = call.after.as_ref().unwrap();
    assert_eq!(after.returns, Some(Returns::NotNull));
    assert_eq!(after.buffers["out"].bytes, b"hi");
}

#[test]
fn mistakes_are_named_with_their_place() {
    let cases = [
        (
            "args = [1]",
            "session 1: call 1: expected either function or rva",
        ),
        (
            "function = \"f\"\nrva = 1",
            "session 1: call 1: expected either function or rva",
        ),
        (
            "function = \"f\"\nargs = [\"&c\"]",
            "session 1: call 1: no buffer `c`",
        ),
        (
            "function = \"f\"\nargs = [\"b\"]",
            "session 1: call 1: `b`: expected &buffer, &buffer+offset, #buffer or $bound",
        ),
        (
            "function = \"f\"\nargs = [\"&b+5\"]",
            "session 1: call 1: `&b+5` lies outside the buffer of 4 bytes",
        ),
        (
            "function = \"f\"\nargs = [\"$h\"]",
            "session 1: call 1: no earlier call binds `h`",
        ),
        (
            "function = \"f\"\nset = [{ buffer = \"b\", at = 1, u32 = 1 }]",
            "session 1: call 1: set: offset 1 lies outside buffer b of 4",
        ),
        (
            "function = \"f\"\nset = [{ buffer = \"b\", at = 18446744073709551615, u8 = 1 }]",
            "session 1: call 1: set: offset 18446744073709551615 lies outside buffer b of 4",
        ),
        (
            "function = \"f\"\nset = [{ at = 0, u8 = 1 }]",
            "session 1: call 1: set: which buffer?",
        ),
        (
            "function = \"f\"\nexpect = { fault = \"abort\", returns = 1 }",
            "session 1: call 1: a call that faults returns nothing and leaves no buffers to look at",
        ),
        (
            "function = \"f\"\nexpect = {}\nafter = {}",
            "session 1: call 1: expect stands for before and after and excludes both",
        ),
        (
            "function = \"f\"\nafter = { returns = \"many\" }",
            "session 1: call 1: returns: expected a number, null or not-null, not `many`",
        ),
        (
            "function = \"f\"\nafter = { buffers = { b = { hex = \"0\" } } }",
            "session 1: call 1: buffer b: expected hex or text",
        ),
        (
            "function = \"f\"\nafter = { buffers = { b = { at = 3, hex = \"0000\" } } }",
            "session 1: call 1: buffer b has only 4 bytes",
        ),
        (
            "function = \"f\"\nafter = { fault = \"oops\" }",
            "line 6: unknown variant `oops`",
        ),
        (
            "function = \"f\"\nresult = \"int\"",
            "line 6: unknown variant `int`",
        ),
        (
            "function = \"f\"\nexpected = 1",
            "line 6: unknown field `expected`",
        ),
    ];
    for (call, expected) in cases {
        let error = with_call(call).unwrap_err();
        assert!(
            error.starts_with(&format!("scenario: {expected}")),
            "{call}\n{error}"
        );
    }
}

#[test]
fn mistakes_outside_calls_are_named_too() {
    let call = "[[session.call]]\nfunction = \"f\"\n";
    let cases = [
        ("[[session]]\ncall = []".to_owned(), "session 1: no calls"),
        (
            format!("[[session]]\npatch-after = 1\n{call}"),
            "session 1: patch-after must be below 1",
        ),
        (
            format!("[[session]]\nbuffers.b.hex = \"0\"\n{call}"),
            "session 1: buffer b: hex: expected pairs of hexadecimal digits",
        ),
        (
            format!("[[session]]\nbuffers.b.zero = 99999999\n{call}"),
            "session 1: buffer b: at most 16777216 bytes",
        ),
        (
            format!("[[session]]\nbuffers.b = {{}}\n{call}"),
            "session 1: buffer b: expected exactly one of hex, text, zero, fill and file",
        ),
        (
            format!("[[session]]\nbuffers.b = {{ text = \"abc\", size = 3 }}\n{call}"),
            "session 1: buffer b: size 3 is less than the 4 bytes given",
        ),
        (
            "[load]\ntimeout-ms = 0".to_owned(),
            "load: timeout-ms must be from 1 to 600000",
        ),
        (
            "[background]\nthreads = 99\ncall = []".to_owned(),
            "background: threads must be from 1 to 32",
        ),
        (
            "[background]\n[[background.call]]\nfunction = \"f\"\nexpect = {}".to_owned(),
            "background: background calls take no expectation",
        ),
        (
            "[[generate]]\nfunction = \"f\"\nargs = [\"&b\"]".to_owned(),
            "generate f: no buffer `b`",
        ),
        (
            "[[generate]]\nfunction = \"f\"\nargs = [{ min = 2, max = 1 }]".to_owned(),
            "generate f: min lies above max",
        ),
        (
            "[[generate]]\nfunction = \"f\"\nargs = []\ncases = 0".to_owned(),
            "generate f: cases must be from 1 to 10000",
        ),
        (
            "[[generate]]\nfunction = \"f\"\nargs = []\nbuffers.b.max-size = 70000".to_owned(),
            "generate f: buffer b: sizes must rise, to at most 65536",
        ),
        ("a = 1".to_owned(), "line 1: unknown field `a`"),
        ("\n\n[load\n".to_owned(), "line 3: "),
    ];
    for (text, expected) in cases {
        let error = parse(&text).unwrap_err();
        assert!(
            error.starts_with(&format!("scenario: {expected}")),
            "{text}\n{error}"
        );
    }
    let missing = parse(&format!(
        "[[session]]\nbuffers.b.file = \"nothing\"\n{call}"
    ))
    .unwrap_err();
    assert!(
        missing.starts_with("scenario: session 1: buffer b: "),
        "{missing}"
    );
    assert!(missing.contains("nothing: No such file"), "{missing}");
}

#[test]
fn the_same_seed_gives_the_same_calls() {
    let text = |seed: u64| {
        format!(
            "[[generate]]\nfunction = \"f\"\nseed = {seed}\ncases = 50\n\
             args = [\"&b\", \"#b\", {{ min = -3, max = 3 }}, {{ one-of = [7, 9] }}, 5]\n\
             buffers.b = {{ min-size = 2, max-size = 9 }}"
        )
    };
    let sessions = |seed| parse(&text(seed)).unwrap().generated.remove(0).sessions;
    assert_eq!(sessions(1), sessions(1));
    assert_ne!(sessions(1), sessions(2));
    let mut sizes = Vec::new();
    for session in sessions(1) {
        let size = session.buffers[0].bytes.len();
        let arguments = &session.calls[0].arguments;
        assert_eq!(arguments[1], Argument::Integer(size as i64));
        assert!(matches!(arguments[2], Argument::Integer(-3..=3)));
        assert!(matches!(arguments[3], Argument::Integer(7 | 9)));
        assert_eq!(arguments[4], Argument::Integer(5));
        sizes.push(size);
    }
    sizes.sort_unstable();
    sizes.dedup();
    assert_eq!(sizes, [2, 3, 4, 5, 6, 7, 8, 9]);
}

/// The example of the documentation is a scenario.
#[test]
fn the_documented_examples_are_valid() {
    let page = include_str!("../../../docs/scenarios.md");
    let examples: Vec<&str> = page
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .filter(|example| example.contains("call]]") || example.contains("[[generate]]"))
        .collect();
    assert_eq!(examples.len(), 3);
    for example in examples {
        parse(example).unwrap();
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "[\\[\\]a-z0-9=\"&#$\\n .{},-]{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn hexadecimal_round_trips(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assert_eq!(contents::from_hex(&contents::to_hex(&bytes)), Some(bytes));
    }
}
