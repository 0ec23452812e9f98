//! Making the same calls on base, patched, reverted and fixed code, and judging what they did.
//!
//! Each way runs in a child of its own, so a crash of the base says nothing about the patch.

use std::path::PathBuf;

use crate::error::Error;
use crate::job::{Patching, PlacedSession, Task};
use crate::outcome::{BufferState, Ended, compare, meets};
use crate::report::{CallReport, Change, GeneratedReport, Outcome, SessionReport, Status};
use crate::scenario::{Generated, Session};
use crate::test::Inputs;

/// Failures of generated calls that are kept.
const SHOWN: usize = 8;
/// Bytes of a changed buffer that are shown.
const SHOWN_BYTES: usize = 32;

/// The same sessions, as each kind of code did them.
struct Ways {
    before: Vec<Vec<Ended>>,
    after: Vec<Vec<Ended>>,
    reverted: Vec<Vec<Ended>>,
    fixed: Option<Vec<Vec<Ended>>>,
    over_older: Option<Vec<Vec<Ended>>>,
}

/// Runs one session in every way.
pub(crate) fn session(inputs: &Inputs<'_>, session: &Session) -> Result<SessionReport, Error> {
    let ways = every_way(inputs, std::slice::from_ref(session))?;
    let calls: Vec<CallReport> = (0..session.calls.len())
        .map(|index| judge(session, &ways, 0, index))
        .collect();
    let failed = calls.iter().any(|call| call.status == Status::Failed);
    Ok(SessionReport {
        name: session.name.clone(),
        status: if failed {
            Status::Failed
        } else {
            Status::Passed
        },
        calls,
    })
}

/// Runs generated calls in every way and adds up how they compare.
pub(crate) fn generated(
    inputs: &Inputs<'_>,
    generated: &Generated,
) -> Result<GeneratedReport, Error> {
    let ways = every_way(inputs, &generated.sessions)?;
    let faults = |calls: &[Vec<Ended>]| {
        calls
            .iter()
            .flatten()
            .filter(|call| matches!(call, Ended::Fault(_)))
            .count()
    };
    let mut report = GeneratedReport {
        function: generated.function.to_string(),
        seed: generated.seed,
        status: Status::Passed,
        cases: generated.sessions.len(),
        different: 0,
        base_faults: faults(&ways.before),
        patched_faults: faults(&ways.after),
        against_fixed: ways.fixed.is_some(),
        failures: Vec::new(),
    };
    for (case, session) in generated.sessions.iter().enumerate() {
        let (before, after) = (&ways.before[case][0], &ways.after[case][0]);
        if compare(before, after, session.calls[0].result).is_err() {
            report.different += 1;
        }
        let call = judge(session, &ways, case, 0);
        if call.status == Status::Failed {
            report.status = Status::Failed;
            if report.failures.len() < SHOWN {
                report
                    .failures
                    .push(format!("case {case}: {}", call.failures.join("; ")));
            }
        }
    }
    Ok(report)
}

fn every_way(inputs: &Inputs<'_>, sessions: &[Session]) -> Result<Ways, Error> {
    let mut in_base = Vec::new();
    let mut in_fixed = Some(Vec::new());
    for session in sessions {
        let functions = || session.calls.iter().map(|call| &call.function);
        let places: Result<Vec<u32>, _> = functions().map(|f| inputs.place_in_base(f)).collect();
        in_base.push(PlacedSession {
            session: session.clone(),
            places: places?,
        });
        let places: Result<Option<Vec<u32>>, _> =
            functions().map(|f| inputs.place_in_fixed(f)).collect();
        match (places?, &mut in_fixed) {
            (Some(places), Some(all)) => all.push(PlacedSession {
                session: session.clone(),
                places,
            }),
            _ => in_fixed = None,
        }
    }
    let on_base = |patching| run(inputs, None, false, patching, &in_base);
    Ok(Ways {
        before: on_base(Patching::Untouched)?,
        after: on_base(Patching::Applied)?,
        reverted: on_base(Patching::Reverted)?,
        fixed: match (&inputs.fixed_path, &in_fixed) {
            (Some(path), Some(placed)) => {
                Some(run(inputs, Some(path), false, Patching::Untouched, placed)?)
            }
            _ => None,
        },
        over_older: match inputs.older_path {
            Some(_) => Some(run(inputs, None, true, Patching::Applied, &in_base)?),
            None => None,
        },
    })
}

/// Runs sessions in one way. A child that ends early is followed by another for the rest.
fn run(
    inputs: &Inputs<'_>,
    fixed: Option<&PathBuf>,
    over_older: bool,
    patching: Patching,
    placed: &[PlacedSession],
) -> Result<Vec<Vec<Ended>>, Error> {
    let mut ended: Vec<Vec<Ended>> = Vec::new();
    while ended.len() < placed.len() {
        let rest = &placed[ended.len()..];
        let task = Task::Sessions {
            patching,
            sessions: rest.to_vec(),
        };
        let mut job = inputs.job(over_older, task);
        if let Some(fixed) = fixed {
            job.target = fixed.clone();
            job.target_name = "fixed".to_owned();
            job.patches.clear();
        } else if patching == Patching::Untouched {
            job.patches.clear();
        }
        let told = inputs.run(&job)?;
        if let Some(why) = told.refused() {
            return Err(Error::child("applying the patch for a session", why));
        }
        let sessions: Vec<Session> = rest.iter().map(|placed| placed.session.clone()).collect();
        let calls = told.calls(&sessions);
        if calls.is_empty() {
            let why = told.fault.map_or_else(String::new, |fault| fault.detail);
            return Err(Error::child("starting a session", why));
        }
        ended.extend(calls);
    }
    Ok(ended)
}

/// Judges call `index` of session `number`.
fn judge(session: &Session, ways: &Ways, number: usize, index: usize) -> CallReport {
    let call = &session.calls[index];
    let at = |ended: &[Vec<Ended>]| ended[number][index].clone();
    let (before, after, reverted) = (at(&ways.before), at(&ways.after), at(&ways.reverted));
    let fixed = ways.fixed.as_deref().map(at);
    let over_older = ways.over_older.as_deref().map(at);
    let mut failures = Vec::new();
    let mut fail = |way: &str, result: Result<(), String>| {
        failures.extend(result.err().map(|why| format!("{way}: {why}")));
    };
    // Calls before the patch goes in are the base's in every way.
    let patched = index >= session.patch_after;
    if let Some(expectation) = &call.before {
        fail("before", meets(&before, expectation, call.result));
    }
    let expectation = if patched { &call.after } else { &call.before };
    if let Some(expectation) = expectation {
        fail("after", meets(&after, expectation, call.result));
    }
    fail(
        "reverted is not as before",
        compare(&reverted, &before, call.result),
    );
    if let Some(fixed) = fixed.as_ref().filter(|_| patched) {
        fail(
            "patched is not as fixed",
            compare(&after, fixed, call.result),
        );
    }
    if let Some(over_older) = &over_older {
        let result = compare(over_older, &after, call.result);
        fail("over the older patch is not as alone", result);
    }
    let previous = |ended: &[Vec<Ended>]| {
        index
            .checked_sub(1)
            .map(|earlier| ended[number][earlier].clone())
    };
    let show = |ended: &Ended, ways: &[Vec<Ended>]| {
        outcome(ended, previous(ways).as_ref(), session, index)
    };
    CallReport {
        function: call.function.to_string(),
        status: if failures.is_empty() {
            Status::Passed
        } else {
            Status::Failed
        },
        before: show(&before, &ways.before),
        after: show(&after, &ways.after),
        reverted: show(&reverted, &ways.reverted),
        fixed: fixed
            .zip(ways.fixed.as_deref())
            .map(|(ended, ways)| show(&ended, ways)),
        over_older: over_older
            .zip(ways.over_older.as_deref())
            .map(|(e, ways)| show(&e, ways)),
        failures,
    }
}

/// What is reported of a call: its value, and the buffers that it changed.
fn outcome(ended: &Ended, previous: Option<&Ended>, session: &Session, index: usize) -> Outcome {
    let effects = match ended {
        Ended::Fault(fault) => return Outcome::Fault(fault.clone()),
        Ended::NotRun => return Outcome::NotRun,
        Ended::Returned(effects) => effects,
    };
    let changes = effects
        .buffers
        .iter()
        .enumerate()
        .filter_map(|(number, state)| {
            let earlier = match previous {
                Some(Ended::Returned(effects)) => &effects.buffers.get(number)?.bytes,
                _ => &session.buffers.get(number)?.bytes,
            };
            change(state, earlier)
        });
    let overruns = effects.buffers.iter().filter(|state| state.overrun);
    Outcome::Returned {
        value: effects.value(session.calls[index].result),
        changed: changes.collect(),
        overruns: overruns.map(|state| state.name.clone()).collect(),
    }
}

fn change(state: &BufferState, earlier: &[u8]) -> Option<Change> {
    let differs = |(now, before): (&u8, &u8)| now != before;
    let first = state.bytes.iter().zip(earlier).position(differs)?;
    let last = state.bytes.iter().zip(earlier).rposition(differs)?;
    let shown = (first + SHOWN_BYTES).min(last + 1);
    Some(Change {
        buffer: state.name.clone(),
        at: first,
        length: last + 1 - first,
        bytes: crate::engine::hex(&state.bytes[first..shown]),
    })
}
