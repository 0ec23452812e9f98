//! Calls in threads while the patch is applied and reverted under them.
//!
//! Whatever moment a call falls into, it must do what base code does or what patched code does;
//! both are recorded first, with nobody else around. One more thread takes the heap's lock
//! again and again, so that it is stopped with it: an engine that allocated while threads stand still
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
/// Turns of a loop for which the heap's lock is held.
const HELD: u32 = 2000;
/// Rounds after which the parent is told that there is progress.
const SIGN_OF_LIFE: usize = 64;
/// Rounds that may follow until a thread was stopped with the heap's lock.
const MORE: usize = 1000;
/// Failures named.
const SHOWN: usize = 8;

/// What the threads saw, added up.
#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    as_base: AtomicU64,
    as_patched: AtomicU64,
}

pub(super) fn run(
    running: &mut Running,
    background: &Background,
    places: &[u32],
) -> Result<(), Error> {
    let start = Instant::now();
    let known = Known::of(running);
    let session = &background.session;
    let buffers = Buffers::place(session, &mut range)?;
    let once = || pass(&known, &buffers, session, places);
    let as_base = once();
    if let Err(refusal) = apply(running) {
        emit(&Record::Refused(refusal));
        return Ok(());
    }
    let as_patched = once();
    let redirects = running.active.redirects.by_entry.len();
    if let Err(refusal) = running.revert() {
        emit(&Record::Refused(refusal.to_string()));
        return Ok(());
    }
    let counts = Counts::default();
    let over = AtomicBool::new(false);
    let ready = AtomicU64::new(0);
    let (mut failures, patching) = std::thread::scope(|scope| {
        let caller = || {
            thread::enter(|_| {
                let buffers = Buffers::place(session, &mut |_, _, _, _| ())?;
                ready.fetch_add(1, Ordering::SeqCst);
                let mut failures = Vec::new();
                while !over.load(Ordering::SeqCst) && failures.is_empty() {
                    let seen = pass(&known, &buffers, session, places);
                    failures = judge(session, &seen, &as_base, &as_patched, &counts);
                }
                Ok::<_, Error>(failures)
            })
        };
        let callers: Vec<_> = (0..background.threads)
            .map(|_| scope.spawn(caller))
            .collect();
        while ready.load(Ordering::SeqCst) < background.threads as u64
            && !callers.iter().any(|caller| caller.is_finished())
        {
            std::thread::yield_now();
        }
        let patching = rounds(running, background.rounds);
        over.store(true, Ordering::SeqCst);
        let mut failures = Vec::new();
        for caller in callers {
            match caller.join() {
                Ok(Ok(found)) => failures.extend(found),
                Ok(Err(error)) => failures.push(error.to_string()),
                Err(_) => failures.push("a calling thread panicked".to_owned()),
            }
        }
        (failures, patching)
    });
    failures.truncate(SHOWN);
    let mut stopped_with_lock = 0;
    match patching {
        // A patch that redirects nothing stops nobody.
        Ok(0) if redirects > 0 => {
            failures.push("no thread was stopped while it held the heap lock".to_owned())
        }
        Ok(count) => stopped_with_lock = count,
        Err(failure) => failures.push(failure),
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    if count(&counts.calls) == 0 {
        failures.push("no call was made".to_owned());
    }
    let details = vec![
        format!(
            "{} threads, {} rounds",
            background.threads, background.rounds
        ),
        format!("{} calls", count(&counts.calls)),
        format!("{} did what only the base does", count(&counts.as_base)),
        format!(
            "{} did what only the patched base does",
            count(&counts.as_patched)
        ),
        format!("{stopped_with_lock} times a thread was stopped while it held the heap lock"),
    ];
    emit(
        &Step {
            name: "background",
            failures,
            details,
            microseconds: u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
        }
        .record(),
    );
    Ok(())
}

fn apply(running: &mut Running) -> Result<(), String> {
    for index in 0..running.patches.len() {
        running
            .apply(index)
            .map_err(|refusal| refusal.to_string())?;
    }
    Ok(())
}

/// Applies and reverts again and again, with a thread that takes the heap's lock as often as it
/// can. Returns how often the threads were stopped while one of them held it; where that never
/// was, it goes on for some more rounds.
fn rounds(running: &mut Running, rounds: usize) -> Result<u64, String> {
    let over = AtomicBool::new(false);
    let entered = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let holder = scope.spawn(|| thread::enter(|_| hold_heap_lock(&entered, &over)));
        while !entered.load(Ordering::SeqCst) && !holder.is_finished() {
            std::thread::yield_now();
        }
        let before = stopped_with_heap_lock();
        let held = || stopped_with_heap_lock() - before;
        let mut result = Ok(());
        let mut round = 0;
        while result.is_ok() && (round < rounds || (held() == 0 && round < rounds + MORE)) {
            if round % SIGN_OF_LIFE == 0 {
                emit(&Record::Alive);
            }
            result = apply(running);
            std::thread::sleep(PAUSE);
            result = result.and_then(|()| running.revert().map_err(|refusal| refusal.to_string()));
            std::thread::sleep(PAUSE);
            round += 1;
        }
        over.store(true, Ordering::SeqCst);
        holder
            .join()
            .map_err(|_| "the lock's holder panicked".to_owned())?;
        result.map(|()| held())
    })
}

/// Takes and drops the heap's lock until `over`.
fn hold_heap_lock(entered: &AtomicBool, over: &AtomicBool) {
    entered.store(true, Ordering::SeqCst);
    let idle = || (0..HELD).for_each(|_| std::hint::spin_loop());
    while !over.load(Ordering::SeqCst) {
        let lock = heap::HeapLock::take();
        idle();
        drop(lock);
        idle();
        std::thread::yield_now();
    }
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
fn judge(
    session: &Session,
    seen: &[Effects],
    as_base: &[Effects],
    as_patched: &[Effects],
    counts: &Counts,
) -> Vec<String> {
    let mut failures = Vec::new();
    for (index, call) in session.calls.iter().enumerate() {
        let (seen, base, patched) = (&seen[index], &as_base[index], &as_patched[index]);
        counts.calls.fetch_add(1, Ordering::Relaxed);
        let like_base = compare_effects(seen, base, call.result);
        let like_patched = compare_effects(seen, patched, call.result);
        match (like_base, like_patched) {
            (Ok(()), Ok(())) => {}
            (Ok(()), Err(_)) => _ = counts.as_base.fetch_add(1, Ordering::Relaxed),
            (Err(_), Ok(())) => _ = counts.as_patched.fetch_add(1, Ordering::Relaxed),
            (Err(base), Err(patched)) => failures.push(format!(
                "{}: neither as the base ({base}) nor as patched ({patched})",
                call.function
            )),
        }
    }
    failures
}
