//! Making the calls of sessions, one after the other.

use super::memory::{Bound, Buffers, Known};
use super::{emit, range};
use crate::error::Error;
use crate::job::{Patching, PlacedSession, Record};
use crate::native::thread;
use crate::outcome::Effects;
use crate::running::Running;
use crate::scenario::Call;

/// Makes every call and reports its effects. The patches are applied once, before the call that
/// the first session names.
pub(super) fn run(
    running: &mut Running,
    patching: Patching,
    sessions: &[PlacedSession],
) -> Result<(), Error> {
    let mut patched = patching == Patching::Untouched;
    let known = Known::of(running);
    for (number, placed) in sessions.iter().enumerate() {
        emit(&Record::Session(number));
        let buffers = Buffers::place(&placed.session, &mut range)?;
        let mut bound = Bound::new();
        for (index, call) in placed.session.calls.iter().enumerate() {
            if !patched && index >= placed.session.patch_after {
                patched = true;
                if let Err(refusal) = patch(running, patching) {
                    emit(&Record::Refused(refusal));
                    return Ok(());
                }
            }
            emit(&Record::Call(index));
            let effects = make(&known, &buffers, call, placed.places[index], &bound);
            if let Some(name) = &call.bind {
                bound.insert(name.clone(), effects.integer);
            }
            emit(&Record::Returned(effects));
        }
    }
    Ok(())
}

fn patch(running: &mut Running, patching: Patching) -> Result<(), String> {
    for index in 0..running.patches.len() {
        running
            .apply(index)
            .map_err(|refusal| refusal.to_string())?;
    }
    if patching == Patching::Reverted {
        running.revert().map_err(|refusal| refusal.to_string())?;
    }
    Ok(())
}

/// Makes one call of the function at `place` in the target.
pub(super) fn make(
    known: &Known,
    buffers: &Buffers,
    call: &Call,
    place: u32,
    bound: &Bound,
) -> Effects {
    buffers.set(&call.fields, bound);
    let arguments: Vec<u64> = call
        .arguments
        .iter()
        .map(|argument| buffers.value(argument, bound))
        .collect();
    let target = known.target + u64::from(place);
    let returned = thread::call(target, &arguments);
    buffers.effects(known, returned.integer, returned.float)
}
