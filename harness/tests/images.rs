//! The hand-made pair of `tests/images`, loaded, patched, called and reverted for real.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::collections::BTreeMap;
use std::path::Path;

use hpbuild_harness::report::{FaultKind, Outcome, Status, Value};
use hpbuild_harness::{ChildProgram, Report, Request, Scenario, Verdict, test};

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
