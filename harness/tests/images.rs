//! The hand-made pair of `tests/images`, loaded, patched, called and reverted for real.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::path::Path;

use hpbuild_harness::report::{FaultKind, Outcome, SessionReport, Status, Value};
use hpbuild_harness::{ChildProgram, Report, Request, Scenario, Verdict, test};
use hpbuild_metadata::Rva;

const BASE: &[u8] = include_bytes!("images/base-x64.dll");
const FIXED: &[u8] = include_bytes!("images/fixed-x64.dll");
const PATCH: &[u8] = include_bytes!("images/patch-x64.dll");
const OLDER: &[u8] = include_bytes!("images/older-x64.dll");

fn child() -> ChildProgram {
    ChildProgram {
        program: env!("CARGO_BIN_EXE_hpbuild-harness-child").into(),
        arguments: Vec::new(),
    }
}

fn run(request: &Request<'_>) -> Report {
    test(request, &mut |_| ()).unwrap()
}

fn scenario(text: &str) -> Scenario {
    Scenario::parse(text, Path::new(".")).unwrap()
}

fn print(report: &Report) -> String {
    serde_json::to_string_pretty(report).unwrap()
}

#[test]
fn patch_goes_in_reaches_its_functions_and_comes_out() {
    let report = run(&Request::new(BASE, PATCH, child()));
    assert_eq!(report.verdict, Verdict::Passed, "{}", print(&report));
    let names: Vec<&str> = report.steps.iter().map(|step| step.name.as_str()).collect();
    let expected = [
        "match",
        "apply",
        "follow",
        "apply again",
        "revert",
        "apply after revert",
    ];
    assert_eq!(names, expected);
    assert_eq!(report.patch.functions, 4);
    assert_eq!(report.backend, "native");
}

/// The scenario of the whole repository in small: an overflow before, a refusal after.
const OVERFLOW: &str = r##"
[[session]]
name = "a record longer than the output"
[session.buffers.in]
hex = "20 0102030405060708 0102030405060708 0102030405060708 0102030405060708"
[session.buffers.out]
zero = 16
guard = true
[[session.call]]
function = "parse_record"
args = ["&in", "#in", "&out", "#out"]
before = { fault = "guard-page" }
after = { returns = -1, buffers = { out = { hex = "00000000" } } }
"##;

fn session<'r>(report: &'r Report, name: &str) -> &'r SessionReport {
    report
        .sessions
        .iter()
        .find(|session| session.name == name)
        .unwrap()
}

#[test]
fn a_crash_of_the_base_is_a_result_and_the_patch_mends_it() {
    let scenario = scenario(OVERFLOW);
    let mut request = Request::new(BASE, PATCH, child());
    request.scenario = Some(&scenario);
    request.fixed = Some(FIXED);
    request.older = Some(OLDER);
    let report = run(&request);
    assert_eq!(report.verdict, Verdict::Passed, "{}", print(&report));
    let call = &session(&report, "a record longer than the output").calls[0];
    let Outcome::Fault(fault) = &call.before else {
        panic!("{}", print(&report));
    };
    assert_eq!(fault.kind, FaultKind::GuardPage);
    assert!(fault.place.starts_with("base+0x10"), "{fault:?}");
    assert_eq!(fault.detail, "beside buffer out");
    assert_eq!(call.reverted, call.before);
    assert!(matches!(
        call.after,
        Outcome::Returned {
            value: Value::Signed(-1),
            ..
        }
    ));
    assert_eq!(call.fixed.as_ref(), Some(&call.after));
    assert_eq!(call.over_older.as_ref(), Some(&call.after));
}

#[test]
fn an_unmet_expectation_and_a_difference_from_fixed_fail() {
    // The older patch does not mend the record and changes what `duplicate` appends.
    let text = OVERFLOW.to_owned()
        + r##"
[[session]]
name = "copy"
[session.buffers.text]
text = "abc"
[session.buffers.copy]
zero = 8
[[session.call]]
function = "duplicate"
args = ["&text", 3]
result = "ptr"
bind = "copy"
[[session.call]]
function = "parse_record"
args = ["$copy", 1, "&copy", 8]
"##;
    let scenario = scenario(&text);
    let mut request = Request::new(BASE, OLDER, child());
    request.scenario = Some(&scenario);
    request.fixed = Some(FIXED);
    let report = run(&request);
    assert_eq!(report.verdict, Verdict::Failed);
    let failures = &session(&report, "a record longer than the output").calls[0].failures;
    let expected = [
        "after: expected a return, found the fault guard-page at base+0x1045",
        "patched is not as fixed: the fault guard-page at base+0x1045 against a return of -1",
    ];
    let place = failures[0].rsplit(' ').next().unwrap();
    let expected = expected.map(|line| line.replace("base+0x1045", place));
    assert_eq!(failures[..], expected);
    // 'a' is 97: far more than there is, so each side goes its own way.
    assert_eq!(session(&report, "copy").status, Status::Failed);
}

/// Every way a call can end, each seen on base and patched code alike.
#[test]
fn every_kind_of_ending_is_told_apart() {
    let cases = [
        ("trap", "[]", "illegal-instruction", ""),
        ("deepen", "[1000000]", "stack-overflow", "the stack ran out"),
        ("call_abort", "[]", "abort", "abort was called"),
        ("divide", "[1, 0]", "arithmetic", ""),
        ("first_of", "[16]", "access-violation", "address 0x10"),
        (
            "call_missing",
            "[1]",
            "unresolved-import",
            "import KERNEL32.dll!not_there is not provided by the harness",
        ),
    ];
    let mut text = String::new();
    for (function, arguments, fault, _) in cases {
        text += &format!(
            "[[session]]\nname = \"{function}\"\n[[session.call]]\nfunction = \"{function}\"\n\
             args = {arguments}\nexpect = {{ fault = \"{fault}\" }}\n\
             [[session.call]]\nfunction = \"get_counter\"\n"
        );
    }
    let scenario = scenario(&text);
    let mut request = Request::new(BASE, PATCH, child());
    request.scenario = Some(&scenario);
    let report = run(&request);
    assert_eq!(report.verdict, Verdict::Passed, "{}", print(&report));
    for (function, _, _, detail) in cases {
        let calls = &session(&report, function).calls;
        let Outcome::Fault(fault) = &calls[0].after else {
            panic!("{}", print(&report));
        };
        assert_eq!(fault.detail, detail);
        assert_eq!(calls[1].after, Outcome::NotRun);
    }
}

#[test]
fn a_call_that_never_returns_is_ended() {
    let text = r##"
[load]
timeout-ms = 300
[[session]]
[[session.call]]
function = "spin"
result = "void"
expect = { fault = "timeout" }
"##;
    let scenario = scenario(text);
    let mut request = Request::new(BASE, PATCH, child());
    request.scenario = Some(&scenario);
    let report = run(&request);
    assert_eq!(report.verdict, Verdict::Passed, "{}", print(&report));
}

#[test]
fn state_arguments_and_results_are_the_images_own() {
    let text = r##"
[load]
dll-main = true

[[session]]
name = "state"
patch-after = 2
[session.buffers.in]
hex = "03 616263"
[session.buffers.out]
fill = { byte = 0x2e, count = 8 }
[[session.call]]
function = "parse_record"
args = ["&in", "#in", "&out", "#out"]
expect = { returns = 3, buffers = { out = { hex = "6162632e" } } }
[[session.call]]
function = "get_counter"
expect = { returns = 41 }
[[session.call]]
function = "parse_record"
args = ["&in", "#in", "&out+4", 4]
expect = { returns = 3, buffers = { out = { at = 4, text = "abc." } } }
[[session.call]]
function = "get_counter"
expect = { returns = 42 }
[[session.call]]
function = "score"
args = [2]
before = { returns = 47 }
after = { returns = 1048 }

[[session]]
name = "what a process needs"
[[session.call]]
function = "times_attached"
expect = { returns = 11 }
[[session.call]]
function = "next_per_thread"
expect = { returns = 8 }
[[session.call]]
function = "large_frame"
args = [9]
expect = { returns = 9 }
[[session.call]]
function = "half_of"
args = [5.0]
result = "f64"
expect = { returns = 2.5 }
[[session.call]]
function = "sum6"
args = [1, 2, 3, 4, 5, 6]
result = "i64"
expect = { returns = 654321 }
[[session.call]]
function = "word_at"
args = [2]
result = "ptr"
bind = "word"
expect = { returns = "not-null" }
[[session.call]]
function = "first_of"
args = ["$word"]
expect = { returns = 116 }

[[session]]
name = "heap"
[session.buffers.text]
text = "xyz"
[[session.call]]
function = "duplicate"
args = ["&text", 3]
result = "ptr"
bind = "copy"
[[session.call]]
function = "first_of"
args = ["$copy"]
expect = { returns = 120 }
[[session.call]]
function = "release"
args = ["$copy"]
result = "void"
[[session.call]]
function = "release"
args = ["$copy"]
result = "void"
expect = { fault = "heap-corruption" }
"##;
    let scenario = scenario(text);
    let mut request = Request::new(BASE, PATCH, child());
    request.scenario = Some(&scenario);
    request.fixed = Some(FIXED);
    let report = run(&request);
    assert_eq!(report.verdict, Verdict::Passed, "{}", print(&report));
}

#[test]
fn a_guarded_heap_shows_overflow_and_use_after_free() {
    let text = r##"
[load]
heap-guard = true
[[session]]
[[session.call]]
function = "heap_block"
args = [32]
result = "ptr"
bind = "block"
[[session.call]]
function = "touch"
args = ["$block", 31]
result = "void"
expect = {}
[[session.call]]
function = "touch"
args = ["$block", 32]
result = "void"
expect = { fault = "guard-page" }
[[session]]
name = "freed"
[[session.call]]
function = "heap_block"
args = [32]
result = "ptr"
bind = "block"
[[session.call]]
function = "release"
args = ["$block"]
result = "void"
[[session.call]]
function = "first_of"
args = ["$block"]
expect = { fault = "guard-page" }
"##;
    let scenario = scenario(text);
    let mut request = Request::new(BASE, PATCH, child());
    request.scenario = Some(&scenario);
    let report = run(&request);
    assert_eq!(report.verdict, Verdict::Passed, "{}", print(&report));
}

/// Threads call into the base while the patch comes and goes under them. The child's allocator
/// shares the lock of the images' heap, and one thread is stopped while it holds it.
#[test]
fn threads_may_run_in_the_base_while_it_is_patched() {
    let text = r##"
[background]
threads = 4
rounds = 100
[background.buffers.out]
zero = 64
[background.buffers.in]
hex = "04 01020304"
[[background.call]]
function = "fill"
args = ["&out", 64, 7]
[[background.call]]
function = "score"
args = [5]
"##;
    let scenario = scenario(text);
    let mut request = Request::new(BASE, PATCH, child());
    request.scenario = Some(&scenario);
    let report = run(&request);
    assert_eq!(report.verdict, Verdict::Passed, "{}", print(&report));
    let step = report
        .steps
        .iter()
        .find(|step| step.name == "background")
        .unwrap();
    // Both kinds of answers must have been seen, or the threads were not there.
    for line in &step.details[1..] {
        let count: u64 = line.split(' ').next().unwrap().parse().unwrap();
        assert!(count > 0, "{:?}", step.details);
    }
    let held = "200 times a thread was stopped while it held the heap lock";
    assert_eq!(step.details.last().unwrap(), held);
}

#[test]
fn generated_calls_hold_the_patched_base_against_the_fixed_image() {
    let text = r##"
[[generate]]
function = "parse_record"
args = ["&in", "#in", "&out", "#out"]
cases = 60
seed = 3
[generate.buffers.in]
max-size = 24
guard = true
[generate.buffers.out]
max-size = 16
zero = true
guard = true
[[generate]]
function = "score"
args = [{ min = -5, max = 5 }]
cases = 10
"##;
    let scenario = scenario(text);
    let mut request = Request::new(BASE, PATCH, child());
    request.scenario = Some(&scenario);
    request.fixed = Some(FIXED);
    let report = run(&request);
    assert_eq!(report.verdict, Verdict::Passed, "{}", print(&report));
    let [parse, score] = report.generated.as_slice() else {
        panic!("{}", print(&report));
    };
    assert!(parse.base_faults > 10, "{parse:?}");
    assert_eq!(parse.patched_faults, 0);
    assert_eq!(score.different, 10);
    // The older patch is none for these functions, and that shows.
    request.patch = OLDER;
    let report = run(&request);
    assert_eq!(report.verdict, Verdict::Failed);
    assert_eq!(report.generated[1].failures.len(), 8);
}

#[test]
fn a_callout_can_stop_the_patch() {
    let report = run(&Request::new(
        BASE,
        include_bytes!("images/callout1-x64.dll"),
        child(),
    ));
    assert_eq!(report.verdict, Verdict::Passed, "{}", print(&report));
    let report = run(&Request::new(
        BASE,
        include_bytes!("images/callout0-x64.dll"),
        child(),
    ));
    assert_eq!(report.verdict, Verdict::Failed);
    let last = report.steps.last().unwrap();
    assert_eq!((last.name.as_str(), last.status), ("apply", Status::Failed));
    assert!(
        last.failures[0].contains("reason 0: expected a status of success"),
        "{last:?}"
    );
}

#[test]
fn a_scenario_that_names_what_is_not_there_is_an_error() {
    let cases = [
        (
            "function = \"nothing\"",
            "scenario: nothing: no such function in the base",
        ),
        (
            "function = \"counter\"",
            "scenario: counter: no such function in the base",
        ),
        (
            "rva = 0xffffffff",
            "scenario: rva 0xffffffff: no such function in the base",
        ),
    ];
    for (function, expected) in cases {
        let scenario = scenario(&format!("[[session]]\n[[session.call]]\n{function}"));
        let mut request = Request::new(BASE, PATCH, child());
        request.scenario = Some(&scenario);
        let error = test(&request, &mut |_| ()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn symbols_name_functions_that_are_no_exports() {
    let text = r##"
[[session]]
[[session.call]]
function = "inner"
args = [4]
before = { returns = 51 }
after = { returns = 1052 }
"##;
    let scenario = scenario(text);
    let mut request = Request::new(BASE, PATCH, child());
    request.scenario = Some(&scenario);
    request.fixed = Some(FIXED);
    let place = |file: &[u8], name: &str| {
        let pe = goblin::pe::PE::parse(file).unwrap();
        let export = pe
            .exports
            .iter()
            .find(|export| export.name == Some(name))
            .unwrap();
        export.rva as u32
    };
    request
        .base_symbols
        .insert("inner".to_owned(), Rva::new(place(BASE, "score")));
    request
        .fixed_symbols
        .insert("inner".to_owned(), Rva::new(place(FIXED, "score")));
    let report = run(&request);
    assert_eq!(report.verdict, Verdict::Passed, "{}", print(&report));
    assert!(report.sessions[0].calls[0].fixed.is_some());
}

#[test]
fn a_child_without_a_job_says_so_and_ends() {
    let output = std::process::Command::new(child().program)
        .arg("/nowhere/job.json")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.starts_with("{\"failed\":\"child process: reading the job: "),
        "{said}"
    );
}
