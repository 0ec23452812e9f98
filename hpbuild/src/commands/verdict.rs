//! The report of a pair, with what the packager says of its patch.

use std::time::Instant;

use hpbuild_differ::judge::Refusal;
use hpbuild_differ::report::Verdict;
use hpbuild_differ::{Diff, Report, Stage};
use hpbuild_packager::extract::Options;
use hpbuild_packager::{NoPatch, Refusal as NotCarried};

use super::build::build;

/// The report of `diff`. The patch is made in memory: whether a change can be hotpatched is known
/// only when there is an image that holds it. That is tried where the judge refuses, too, because
/// no refusal hides another.
pub(crate) fn report(diff: &Diff, with_line_numbers: bool, stages: &mut Vec<Stage>) -> Report {
    if Verdict::of(diff, with_line_numbers) == Verdict::Same {
        return Report::new(diff, with_line_numbers);
    }
    let start = Instant::now();
    let options = Options {
        with_line_numbers,
        ..Options::first()
    };
    let (mut report, built) = rayon::join(
        || Report::new(diff, with_line_numbers),
        || build(diff, &options),
    );
    match built {
        Ok(patch) => {
            report.refusals.extend(patch.findings);
            report.refusals.sort_by_key(|refusal| refusal.code);
        }
        Err(NoPatch::Refused(found)) => {
            report.verdict = Verdict::Refused;
            let found: Vec<Refusal> = found.iter().map(NotCarried::judged).collect();
            report.refusals.extend(found);
            report.refusals.sort_by_key(|refusal| refusal.code);
        }
        // A mistake of ours, which stops `build`; what changed is known all the same.
        Err(NoPatch::Faulty(faults)) if report.verdict == Verdict::Hotpatchable => {
            super::build::faulty(&faults).print();
        }
        // An image of what must not be patched need not be right.
        Err(NoPatch::Faulty(_)) => {}
    }
    stages.push(Stage {
        name: "build",
        time: start.elapsed(),
    });
    report
}
