//! The child process: does one job with real code, and says so line by line.

mod background;
mod memory;
mod session;

use std::io::Write as _;
use std::path::Path;

use hpbuild_metadata::Base;

use crate::error::Error;
use crate::image::Image;
use crate::job::{Job, Range, RangeKind, Record, Task};
use crate::lifecycle;
use crate::native::{Native, faults, heap, thread};
use crate::running::{PatchFile, Running, load};
use crate::space::Space;

/// Entry of the DLL: attached to a process.
const DLL_PROCESS_ATTACH: u64 = 1;

/// Does the job in the file `job`, and tells the parent where it cannot be done. Returns whether it
/// was. A fault of the images ends the process from within.
pub(crate) fn run(job: &Path) -> bool {
    let result = do_job(job);
    if let Err(error) = &result {
        emit(&Record::Failed(error.to_string()));
    }
    result.is_ok()
}

fn do_job(job: &Path) -> Result<(), Error> {
    let fail = |error: &dyn std::fmt::Display| Error::child("reading the job", error);
    let text = std::fs::read(job).map_err(|e| fail(&e))?;
    let job: Job = serde_json::from_slice(&text).map_err(|e| fail(&e))?;
    let read = |path: &Path| {
        let shown = path.display();
        std::fs::read(path).map_err(|e| Error::child("reading an image", format!("{shown}: {e}")))
    };
    let base = Image::<Base>::parse(&read(&job.target)?)?;
    let mut patches = Vec::new();
    for path in &job.patches {
        patches.push(PatchFile::parse(&read(path)?)?);
    }
    faults::install();
    heap::set_guarded(job.load.heap_guard);
    let space = Space::Native(Native::default());
    let mut running = load(space, base, patches, job.hpat_blocks)?;
    announce(&running, &job.target_name);
    // A thread of its own, because the stack and signal stack that `enter` sets up stay with it.
    let worker = std::thread::spawn(move || {
        thread::enter(|stack| {
            announce_stack(stack);
            if job.load.dll_main {
                attach(&running);
            }
            match job.task {
                Task::Lifecycle => {
                    lifecycle::run(&mut running, &mut |step| emit(&step.record()));
                }
                Task::Sessions { patching, sessions } => {
                    session::run(&mut running, patching, &sessions)?;
                }
                Task::Background { background, places } => {
                    background::run(&mut running, &background, &places)?;
                }
            }
            emit(&Record::Done);
            Ok(())
        })
    });
    worker
        .join()
        .unwrap_or_else(|_| Err(Error::child("running", "the child panicked")))
}

/// Writes one line for the parent.
fn emit(record: &Record) {
    let Ok(mut line) = serde_json::to_string(record) else {
        return;
    };
    line.push('\n');
    let mut out = std::io::stdout().lock();
    // A parent that is gone needs no answer.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

fn range(kind: RangeKind, name: &str, start: u64, end: u64) {
    emit(&Record::Range(Range {
        kind,
        name: name.to_owned(),
        start,
        end,
    }));
}

/// Says where the images and the heap lie, and lets the fault handler read code there.
fn announce(running: &Running, target: &str) {
    let mut mapped = vec![(
        target.to_owned(),
        running.base.mapping,
        running.base.image.size,
    )];
    let last = running.patches.len();
    for (index, patch) in running.patches.iter().enumerate() {
        let name = if index + 1 == last {
            "patch"
        } else {
            "older patch"
        };
        mapped.push((
            name.to_owned(),
            patch.loaded.mapping,
            patch.loaded.image.size,
        ));
    }
    for (name, mapping, size) in mapped {
        let start = running.space.address(mapping);
        let end = start + u64::from(size);
        faults::may_read(start, end);
        range(RangeKind::Image, &name, start, end);
    }
    let (start, end) = heap::range();
    range(RangeKind::Heap, "heap", start, end);
}

fn announce_stack(stack: thread::Stack) {
    range(RangeKind::Stack, "stack", stack.low, stack.high);
    let guard = stack.low - thread::STACK_GUARD as u64;
    range(RangeKind::StackGuard, "stack guard", guard, stack.low);
}

/// TLS callbacks and the entry point, as the Windows loader calls them.
fn attach(running: &Running) {
    let image = &running.base.image;
    let start = running.space.address(running.base.mapping);
    let callbacks = image.tls.iter().flat_map(|tls| &tls.callbacks);
    for function in callbacks.chain(&image.entry_point) {
        thread::call(
            start + u64::from(function.get()),
            &[start, DLL_PROCESS_ATTACH, 0],
        );
    }
}
