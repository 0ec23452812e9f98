//! Runs what was built: on x64 Linux every patch of the prebuilt pairs is applied to its base,
//! and the patched base must answer as the fixed image does; elsewhere the same patches are
//! applied to a model of the memory.
//!
//! The program is its own child process, so it has a `main` of its own.

use std::path::Path;

use hpbuild_differ::{Differ, Input, diff};
use hpbuild_fixtures::{Build, Machine, Pair, pairs};
use hpbuild_harness::{ChildProgram, Report, Request, Scenario, Verdict};
use hpbuild_packager::build;
use hpbuild_packager::extract::Options;

/// Calls for the exported functions of a group whose result can be compared across images.
const SCENARIOS: [(&str, &str); 19] = [
    ("adjoining", include_str!("running/adjoining.toml")),
    ("aligned", include_str!("running/aligned.toml")),
    ("bare", include_str!("running/cuts.toml")),
    ("carried", include_str!("running/carried.toml")),
    ("copies", include_str!("running/copies.toml")),
    ("cuts", include_str!("running/cuts.toml")),
    ("edits", include_str!("running/edits.toml")),
    ("flags", include_str!("running/flags.toml")),
    ("folded", include_str!("running/folded.toml")),
    ("identity", include_str!("running/identity.toml")),
    ("msvc", include_str!("running/msvc.toml")),
    ("objects", include_str!("running/objects.toml")),
    ("pools", include_str!("running/pools.toml")),
    ("reached", include_str!("running/reached.toml")),
    ("rules", include_str!("running/rules.toml")),
    ("shapes", include_str!("running/shapes.toml")),
    ("tables-behind", include_str!("running/tables-behind.toml")),
    ("tls", include_str!("running/tls.toml")),
    ("vtable", include_str!("running/vtable.toml")),
];

fn main() {
    let arguments: Vec<_> = std::env::args_os().collect();
    if arguments
        .get(1)
        .is_some_and(|argument| argument == "--child")
    {
        let job = arguments.last().cloned().unwrap_or_default();
        std::process::exit(hpbuild_harness::child_main(job.as_ref()));
    }
    let mut failures = Vec::new();
    let mut ran = 0;
    for pair in pairs().expect("the prebuilt pairs") {
        let name = format!("{} {}", pair.name, pair.machine.name());
        match run(&pair) {
            Ok(None) => {}
            Ok(Some(report)) => {
                ran += 1;
                failures.extend(wrong(&pair, &report).map(|wrong| format!("{name}:\n{wrong}")));
            }
            Err(error) => failures.push(format!("{name}: {error}")),
        }
    }
    println!("{ran} patches applied, {} wrong", failures.len());
    for failure in &failures {
        eprintln!("{failure}");
    }
    if ran == 0 || !failures.is_empty() {
        std::process::exit(1);
    }
}

fn input(build: &Build) -> Input {
    Input {
        pe: build.dll.clone(),
        pdb: build.pdb.is_file().then(|| build.pdb.clone()),
    }
}

/// Builds the patch of a pair and runs it; `None` where the change is refused or there is none.
fn run(pair: &Pair) -> Result<Option<Report>, String> {
    let differ = Differ {
        base: input(&pair.base),
        fixed: input(&pair.fixed),
        symbols: Default::default(),
        policy: Default::default(),
    };
    let Ok(diff) = diff(&differ, &mut Vec::new()).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let changed = diff
        .comparison
        .changed
        .iter()
        .any(|change| !change.is_line_number_only());
    let is_refused = diff.refusals.iter().any(|refusal| refusal.refuses())
        || pair.expected.hotpatchable == Some(false);
    if !changed || is_refused {
        return Ok(None);
    }
    let patch = build(&diff, &Options::first()).map_err(|no| format!("{no:?}"))?;
    let read = |path: &Path| std::fs::read(path).map_err(|error| error.to_string());
    let (base, fixed) = (read(&pair.base.dll)?, read(&pair.fixed.dll)?);
    let group = pair.name.split('/').next();
    let scenario = SCENARIOS.iter().find(|(name, _)| group == Some(*name));
    let text = scenario.map_or("", |(_, text)| text);
    let scenario = Scenario::parse(text, Path::new(".")).map_err(|error| error.to_string())?;
    let child = ChildProgram {
        program: std::env::current_exe().map_err(|error| error.to_string())?,
        arguments: vec!["--child".into()],
    };
    let mut request = Request::new(&base, &patch.file, child);
    request.fixed = Some(&fixed);
    request.scenario = Some(&scenario);
    let report = hpbuild_harness::test(&request, &mut |_| {});
    report.map(Some).map_err(|error| error.to_string())
}

/// What is wrong with a report. On a foreign machine nothing can be called, which is no fault.
fn wrong(pair: &Pair, report: &Report) -> Option<String> {
    let native =
        cfg!(all(target_os = "linux", target_arch = "x86_64")) && pair.machine == Machine::X64;
    let expected = if native {
        Verdict::Passed
    } else {
        Verdict::Incomplete
    };
    if report.verdict == expected {
        return None;
    }
    let mut lines = vec![format!("  {:?}", report.verdict)];
    for step in &report.steps {
        lines.push(format!(
            "  {} {:?} {:?}",
            step.name, step.status, step.failures
        ));
    }
    for session in &report.sessions {
        for call in session
            .calls
            .iter()
            .filter(|call| !call.failures.is_empty())
        {
            lines.push(format!("  {} {:?}", call.function, call.failures));
        }
    }
    for call in report
        .generated
        .iter()
        .filter(|call| !call.failures.is_empty())
    {
        lines.push(format!("  {}: {:?}", call.function, call.failures));
    }
    Some(lines.join("\n"))
}
