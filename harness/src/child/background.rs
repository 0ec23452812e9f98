//! Calls in threads while the patch is applied and reverted under them.
//!
//! Whatever moment a call falls into, it must do what base code does or what patched code does;
//! both are recorded first, with nobody else around. One more thread takes the heap's lock
//! just before the threads are stopped, and is stopped with it: an engine that allocated while threads stand still
//! would wait for ever.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::memory::{Bound, Buffers, Known};
use super::session::make;
use super::{emit, range};
use crate::error::Error;
use crate::job::Record;
use crate::lifecycle::Step;
use crate::native::{heap, stopped_with_heap_lock, thread};
use crate::outcome::{Effects, compare_effects};
use crate::running::Running;
use crate::scenario::{Background, Session};

/// Time the threads run with the patch in, and with it out.
const PAUSE: Duration = Duration::from_millis(1);
/// Rounds after which the parent is told that there is progress.
const SIGN_OF_LIFE: usize = 64;
/// Failures named.
const SHOWN: usize = 8;

/// What the threads saw, added up.
#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    as_base: AtomicU64,
    as_patched: AtomicU64,
}

/// What the calls do with nobody else around.
struct Recorded {
    as_base: Vec<Effects>,
    as_patched: Vec<Effects>,
    /// Functions that the patch redirects.
    redirects: usize,
}

/// What the calling threads share.
struct Scene<'a> {
    known: &'a Known,
    session: &'a Session,
    places: &'a [u32],
    recorded: Recorded,
    counts: Counts,
    /// Threads that are calling.
    ready: AtomicU64,
    over: AtomicBool,
}

pub(super) fn run(
    running: &mut Running,
    background: &Background,
    places: &[u32],
) -> Result<(), Error> {
    let start = Instant::now();
    let known = Known::of(running);
    let session = &background.session;
    let recorded = match record(running, &known, session, places)? {
        Ok(recorded) => recorded,
        Err(refusal) => {
            emit(&Record::Refused(refusal));
            return Ok(());
        }
    };
    let scene = Scene {
        known: &known,
        session,
        places,
        recorded,
        counts: Counts::default(),
        ready: AtomicU64::new(0),
        over: AtomicBool::new(false),
    };
    let (mut failures, patching) = patch_under_calls(running, background, &scene);
    failures.truncate(SHOWN);
    let mut held = 0;
    match patching {
        // A patch that redirects nothing stops nobody; any other does so twice a round.
        Ok(count) if scene.recorded.redirects > 0 && count < 2 * background.rounds as u64 => {
            held = count;
            failures.push("threads were stopped while none held the heap lock".to_owned());
        }
        Ok(count) => held = count,
        Err(failure) => failures.push(failure),
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    let (threads, rounds) = (background.threads, background.rounds);
    let [calls, as_base, as_patched] = [
        &scene.counts.calls,
        &scene.counts.as_base,
        &scene.counts.as_patched,
    ]
    .map(count);
    if calls == 0 {
        failures.push("no call was made".to_owned());
    }
    let step = Step {
        name: "background",
        failures,
        details: vec![
            format!("{threads} threads, {rounds} rounds"),
            format!("{calls} calls"),
            format!("{as_base} did what only the base does"),
            format!("{as_patched} did what only the patched base does"),
            format!("{held} times a thread was stopped while it held the heap lock"),
        ],
        microseconds: u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
    };
    emit(&step.record());
    Ok(())
}

/// Makes the calls on base and on patched code; the inner error is a refused patch.
fn record(
    running: &mut Running,
    known: &Known,
    session: &Session,
    places: &[u32],
) -> Result<Result<Recorded, String>, Error> {
    let buffers = Buffers::place(session, &mut range)?;
    let as_base = pass(known, &buffers, session, places);
    if let Err(refusal) = apply(running) {
        return Ok(Err(refusal));
    }
    let as_patched = pass(known, &buffers, session, places);
    let redirects = running.active.redirects.by_entry.len();
    let reverted = running.revert().map_err(|refusal| refusal.to_string());
    Ok(reverted.map(|()| Recorded {
        as_base,
        as_patched,
        redirects,
    }))
}

/// Starts the calling threads and patches under them. Returns what they found wrong, and how
/// often threads were stopped while one held the heap's lock.
fn patch_under_calls(
    running: &mut Running,
    background: &Background,
    scene: &Scene<'_>,
) -> (Vec<String>, Result<u64, String>) {
    std::thread::scope(|scope| {
        let start = |_| scope.spawn(move || thread::enter(|_| call_until_over(scene)));
        let callers: Vec<_> = (0..background.threads).map(start).collect();
        let all_ready = || scene.ready.load(Ordering::SeqCst) >= background.threads as u64;
        while !all_ready() && !callers.iter().any(|caller| caller.is_finished()) {
            std::thread::yield_now();
        }
        let patching = rounds(running, background.rounds);
        scene.over.store(true, Ordering::SeqCst);
        let mut failures = Vec::new();
        for caller in callers {
            match caller.join() {
                Ok(Ok(found)) => failures.extend(found),
                Ok(Err(error)) => failures.push(error.to_string()),
                Err(_) => failures.push("a calling thread panicked".to_owned()),
            }
        }
        (failures, patching)
    })
}

fn call_until_over(scene: &Scene<'_>) -> Result<Vec<String>, Error> {
    let buffers = Buffers::place(scene.session, &mut range)?;
    scene.ready.fetch_add(1, Ordering::SeqCst);
    let mut failures = Vec::new();
    while !scene.over.load(Ordering::SeqCst) && failures.is_empty() {
        let seen = pass(scene.known, &buffers, scene.session, scene.places);
        failures = judge(scene, &seen);
    }
    Ok(failures)
}

fn apply(running: &mut Running) -> Result<(), String> {
    for index in 0..running.patches.len() {
        running
            .apply(index)
            .map_err(|refusal| refusal.to_string())?;
    }
    Ok(())
}

/// Applies and reverts again and again, each time with a thread that holds the heap's lock when it
/// is stopped. Returns how often that was.
fn rounds(running: &mut Running, rounds: usize) -> Result<u64, String> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let holder = scope.spawn(|| thread::enter(|_| heap::hold_while_stopped(&over)));
        while !heap::has_holder() && !holder.is_finished() {
            std::thread::yield_now();
        }
        let before = stopped_with_heap_lock();
        let mut result = Ok(());
        for round in 0..rounds {
            if round % SIGN_OF_LIFE == 0 {
                emit(&Record::Alive);
            }
            result = apply(running);
            std::thread::sleep(PAUSE);
            result = result.and_then(|()| running.revert().map_err(|refusal| refusal.to_string()));
            std::thread::sleep(PAUSE);
            if result.is_err() {
                break;
            }
        }
        over.store(true, Ordering::SeqCst);
        holder
            .join()
            .map_err(|_| "the lock's holder panicked".to_owned())?;
        result.map(|()| stopped_with_heap_lock() - before)
    })
}

/// Makes every call of the session once, each from fresh buffers: which of them fell into the
/// patched time must not show in the next.
fn pass(known: &Known, buffers: &Buffers, session: &Session, places: &[u32]) -> Vec<Effects> {
    let calls = session.calls.iter().zip(places);
    let effects = calls.map(|(call, &place)| {
        buffers.fill(session);
        make(known, buffers, call, place, &Bound::new())
    });
    effects.collect()
}

/// Holds what a pass did against what base and patched code do.
fn judge(scene: &Scene<'_>, seen: &[Effects]) -> Vec<String> {
    let mut failures = Vec::new();
    for (index, call) in scene.session.calls.iter().enumerate() {
        let against =
            |recorded: &[Effects]| compare_effects(&seen[index], &recorded[index], call.result);
        scene.counts.calls.fetch_add(1, Ordering::Relaxed);
        let as_base = against(&scene.recorded.as_base);
        match (as_base, against(&scene.recorded.as_patched)) {
            (Ok(()), Ok(())) => {}
            (Ok(()), Err(_)) => _ = scene.counts.as_base.fetch_add(1, Ordering::Relaxed),
            (Err(_), Ok(())) => _ = scene.counts.as_patched.fetch_add(1, Ordering::Relaxed),
            (Err(base), Err(patched)) => failures.push(format!(
                "{}: neither as the base ({base}) nor as patched ({patched})",
                call.function
            )),
        }
    }
    failures
}
