//! The child process of the tests.
//!
//! Its allocator takes the same lock as the heap of the images. So an engine that allocated
//! between stopping threads and letting them go on would wait for a lock that a stopped thread
//! holds, and the test would run into its time limit.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod locked {
    use std::alloc::{GlobalAlloc, Layout, System};

    use hpbuild_harness::HeapLock;

    pub(crate) struct Locked;

    // SAFETY: passes everything on to the system's allocator.
    unsafe impl GlobalAlloc for Locked {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let _lock = HeapLock::take();
            // SAFETY: the caller's promise is passed on.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            let _lock = HeapLock::take();
            // SAFETY: the caller's promise is passed on.
            unsafe { System.dealloc(block, layout) }
        }
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[global_allocator]
static ALLOCATOR: locked::Locked = locked::Locked;

fn main() {
    let job = std::env::args_os().next_back().unwrap_or_default();
    std::process::exit(hpbuild_harness::child_main(job.as_ref()));
}
