//! The report of a pair, with what the packager says of its patch.

use std::time::Instant;

use hpbuild_differ::judge::Refusal;
use hpbuild_differ::report::Verdict;
use hpbuild_differ::{Diff, Report, Stage};
use hpbuild_packager::extract::Options;
use hpbuild_packager::{NoPatch, Refusal as NotCarried};

use super::build::build;

/// The report of `diff`. Where no rule of the judge refuses, the patch is made in memory: whether a
/// change can be hotpatched is known only when there is an image that holds it.
pub(crate) fn report(diff: &Diff, with_line_numbers: bool, stages: &mut Vec<Stage>) -> Report {
    let mut report = Report::new(diff, with_line_numbers);
    if report.verdict != Verdict::Hotpatchable {
        return report;
    }
    let start = Instant::now();
    let options = Options {
        with_line_numbers,
        ..Options::first()
    };
    match build(diff, &options) {
        Ok(_) => {}
        Err(NoPatch::Refused(found)) => {
            report.verdict = Verdict::Refused;
            let found: Vec<Refusal> = found.iter().map(NotCarried::judged).collect();
            report.refusals.extend(found);
            report.refusals.sort_by_key(|refusal| refusal.code);
        }
        // A mistake of ours, which stops `build`; what changed is known all the same.
        Err(NoPatch::Faulty(faults)) => super::build::faulty(&faults).print(),
    }
    stages.push(Stage {
        name: "build",
        time: start.elapsed(),
    });
    report
}
