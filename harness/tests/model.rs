//! Images that this host may not be able to run, and inputs that nothing can be done with.

use std::path::Path;

use hpbuild_harness::report::Status;
use hpbuild_harness::{ChildProgram, Error, Report, Request, Scenario, Verdict, test};

const ARM64_BASE: &[u8] = include_bytes!("images/base-arm64.dll");
const ARM64_FIXED: &[u8] = include_bytes!("images/fixed-arm64.dll");
const ARM64_PATCH: &[u8] = include_bytes!("images/patch-arm64.dll");
const ARM64_OLDER: &[u8] = include_bytes!("images/older-arm64.dll");
const X64_BASE: &[u8] = include_bytes!("images/base-x64.dll");
const X64_PATCH: &[u8] = include_bytes!("images/patch-x64.dll");

/// A child that must not be needed.
fn no_child() -> ChildProgram {
    ChildProgram {
        program: "/nowhere/at/all".into(),
        arguments: Vec::new(),
    }
}

fn run(request: &Request<'_>) -> Result<Report, Error> {
    test(request, &mut |_| ())
}

#[test]
fn arm64_is_patched_on_a_model_and_the_report_says_so() {
    let scenario = "[[session]]\n[[session.call]]\nfunction = \"score\"";
    let scenario = Scenario::parse(scenario, Path::new(".")).unwrap();
    let mut request = Request::new(ARM64_BASE, ARM64_PATCH, no_child());
    request.older = Some(ARM64_OLDER);
    request.fixed = Some(ARM64_FIXED);
    request.scenario = Some(&scenario);
    let report = run(&request).unwrap();
    assert_eq!(
        (report.verdict, report.backend),
        (Verdict::Incomplete, "model")
    );
    assert_eq!(report.steps.len(), 6);
    assert!(
        report
            .steps
            .iter()
            .all(|step| step.status == Status::Passed)
    );
    assert!(report.sessions.is_empty());
    let expected = [
        "patch of sequence 1: 2 functions redirected",
        "patch of sequence 2: 4 functions redirected",
    ];
    assert_eq!(report.steps[1].details, expected);
}

#[test]
fn a_patch_for_another_base_fails_the_match() {
    let mut other = ARM64_BASE.to_vec();
    let nt = u32::from_le_bytes(other[0x3c..0x40].try_into().unwrap()) as usize;
    other[nt + 8] ^= 1;
    let report = run(&Request::new(&other, ARM64_PATCH, no_child())).unwrap();
    assert_eq!(report.verdict, Verdict::Failed);
    let [step] = report.steps.as_slice() else {
        panic!("{:?}", report.steps);
    };
    assert_eq!((step.name.as_str(), step.status), ("match", Status::Failed));
    assert!(step.failures[0].starts_with("base: identity: expected time stamp 0x"));
    assert!(step.failures[0].ends_with("(status 0xc0000059)"));
}

#[test]
fn a_patch_for_another_machine_fails_the_match() {
    for (base, patch) in [(X64_BASE, ARM64_PATCH), (ARM64_BASE, X64_PATCH)] {
        let report = run(&Request::new(base, patch, no_child())).unwrap();
        assert_eq!(report.verdict, Verdict::Failed);
        let failure = &report.steps[0].failures[0];
        assert!(
            failure.starts_with("patch: machine: expected "),
            "{failure}"
        );
    }
}

#[test]
fn unusable_inputs_are_errors() {
    let error = |request: &Request<'_>| run(request).unwrap_err().to_string();
    let swapped = error(&Request::new(ARM64_PATCH, ARM64_BASE, no_child()));
    let expected =
        "patch: load config: expected a hotpatch table (HotPatchTableOffset), found none";
    assert_eq!(swapped, expected);
    let mut mixed = Request::new(X64_BASE, X64_PATCH, no_child());
    mixed.fixed = Some(ARM64_FIXED);
    assert_eq!(error(&mixed), "fixed: machine: expected x64, found arm64");
    mixed.fixed = None;
    mixed.hpat_blocks = 0;
    let blocks = "base: hot patch address table: expected 1 to 64 blocks, found 0";
    assert_eq!(error(&mixed), blocks);
    let text = error(&Request::new(b"MZ", X64_PATCH, no_child()));
    assert!(
        text.starts_with("base: DOS header: expected a readable PE file, found "),
        "{text}"
    );
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn a_child_that_cannot_be_started_is_an_error() {
    let error = run(&Request::new(X64_BASE, X64_PATCH, no_child()))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("child process: starting it: /nowhere/at/all: "),
        "{error}"
    );
    // A program that is no child says something else, or nothing.
    let mut request = Request::new(X64_BASE, X64_PATCH, no_child());
    request.child.program = "/bin/echo".into();
    let error = run(&request).unwrap_err().to_string();
    assert!(
        error.starts_with("child process: reading its answers: "),
        "{error}"
    );
    request.child.program = "/bin/true".into();
    let report = run(&request).unwrap();
    assert_eq!(report.verdict, Verdict::Failed);
    assert!(report.steps[0].failures[0].starts_with("crash at unknown: the process ended with"));
}
