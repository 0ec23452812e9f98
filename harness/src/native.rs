//! The native backend: images mapped into this process and executed, on Linux x64.
//!
//! All of the crate's `unsafe` is in this folder. It runs foreign machine code, so it is used in
//! a child process alone: a crash of the image ends the child, and the parent reports it.
//!
//! What Windows gives a DLL is provided as far as test images need it: sections with their
//! protections, imports bound to our own C runtime and kernel functions, a thread environment
//! block behind `gs`, thread-local storage, a heap, and a stack of a known size. Not provided:
//! structured exception handling (a fault ends the call), and other DLLs.

pub(crate) mod call;
pub(crate) mod faults;
pub(crate) mod heap;
mod map;
mod runtime;
pub(crate) mod suspend;
pub(crate) mod thread;

use std::sync::atomic::{AtomicU64, Ordering, fence};

use hpbuild_metadata::{Machine, Rva, Side};

use crate::engine::plan::is_in_way;
use crate::engine::{Refusal, Status, Write};
use crate::error::Error;
use crate::image::Image;
use crate::space::{MappingId, changed_since};
use map::Mapping;

/// How often threads are let run on a little because one is in the middle of an entry.
const ATTEMPTS: u32 = 1000;

/// How often code was written while a stopped thread held the heap's lock.
static STOPPED_WITH_HEAP_LOCK: AtomicU64 = AtomicU64::new(0);

/// How often code was written so far while a stopped thread held the heap's lock.
pub(crate) fn stopped_with_heap_lock() -> u64 {
    STOPPED_WITH_HEAP_LOCK.load(Ordering::SeqCst)
}

/// This process as a space for images.
#[derive(Debug, Default)]
pub(crate) struct Native {
    mappings: Vec<Mapping>,
}

impl Native {
    /// Maps an image, binds its imports and sets its protections.
    pub(crate) fn map<S: Side>(
        &mut self,
        image: &Image<S>,
        blocks: u32,
    ) -> Result<MappingId, Error> {
        if image.machine != Machine::X64 {
            let found = image.machine.name();
            return Err(Error::image::<S>(
                "machine",
                "x64, which this host runs",
                found,
            ));
        }
        let mapping = Mapping::new(image, blocks)?;
        self.mappings.push(mapping);
        Ok(MappingId(self.mappings.len() - 1))
    }

    pub(crate) fn address(&self, id: MappingId) -> u64 {
        self.mappings[id.0].address()
    }

    pub(crate) fn snapshot(&self, id: MappingId) -> Vec<u8> {
        self.mappings[id.0].snapshot()
    }

    /// Stops every thread that runs in images, writes, and lets them go on.
    ///
    /// Pages are made writable before the threads stop and protected again after they go on, so
    /// that in between there is nothing but copying: no allocation, no lock, no call that might
    /// do either. A stopped thread may hold any lock there is.
    pub(crate) fn perform<S: Side>(
        &mut self,
        id: MappingId,
        writes: &[Write<S>],
    ) -> Result<(), Refusal> {
        let mapping = &self.mappings[id.0];
        mapping.unprotect(writes);
        // Only writes into code that may be running need the threads to stand still.
        let result = if writes.iter().any(|write| write.code) {
            perform_stopped(mapping, writes)
        } else {
            write_all(mapping, writes)
        };
        mapping.protect(writes);
        result.map_err(|failure| match failure {
            Failure::Changed(index) => changed_since(&writes[index]),
            Failure::Busy => Refusal::new::<S>(
                Status::ConflictingAddresses,
                "threads",
                "all stopped outside the bytes to be written",
                "one that does not stop, or never leaves them",
            ),
        })
    }

    /// Calls the patch's callout as Windows does: `status f(&{1, reason, 0}, 12)`.
    pub(crate) fn callout(&self, id: MappingId, rva: u32, reason: u32) -> i32 {
        let argument = [1u32, reason, 0];
        let target = self.address(id) + u64::from(rva);
        let arguments = [argument.as_ptr() as u64, 12];
        thread::call(target, &arguments).integer as i32
    }
}

/// Why writes were not performed. No text: it is made while threads are stopped.
enum Failure {
    /// The place of this write has changed since the plan.
    Changed(usize),
    /// No safe moment was found.
    Busy,
}

fn perform_stopped<S: Side>(mapping: &Mapping, writes: &[Write<S>]) -> Result<(), Failure> {
    heap::have_held();
    let mut result = None;
    for _ in 0..ATTEMPTS {
        result = try_stopped(mapping, writes);
        suspend::resume_all();
        if result.is_some() {
            break;
        }
        std::thread::yield_now();
    }
    heap::let_go();
    result.unwrap_or(Err(Failure::Busy))
}

/// Stops the threads and writes; `None` where one stands in the way. The caller lets them go on.
fn try_stopped<S: Side>(mapping: &Mapping, writes: &[Write<S>]) -> Option<Result<(), Failure>> {
    let in_way = |pointer: u64| {
        let rva = pointer.wrapping_sub(mapping.address());
        u32::try_from(rva).is_ok_and(|rva| is_in_way(Machine::X64, writes, Rva::new(rva)))
    };
    if suspend::all().is_err() {
        return Some(Err(Failure::Busy));
    }
    if suspend::any_pointer(in_way) {
        return None;
    }
    if heap::is_locked() {
        STOPPED_WITH_HEAP_LOCK.fetch_add(1, Ordering::SeqCst);
    }
    Some(write_all(mapping, writes))
}

/// Copies bytes, and nothing else. Takes back what it has done where a place has changed.
fn write_all<S: Side>(mapping: &Mapping, writes: &[Write<S>]) -> Result<(), Failure> {
    for (index, write) in writes.iter().enumerate() {
        let at = write.at.get();
        if mapping.holds(at, write.before.as_slice()) {
            mapping.store(at, write.after.as_slice());
            continue;
        }
        for done in writes[..index].iter().rev() {
            mapping.store(done.at.get(), done.before.as_slice());
        }
        return Err(Failure::Changed(index));
    }
    fence(Ordering::SeqCst);
    Ok(())
}
