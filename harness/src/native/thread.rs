//! What a thread needs to run code of an image: an environment block behind `gs`, a stack of a
//! known size, thread-local storage, and a second stack for signal handlers.
//!
//! Linux programs use `fs` for their own thread-local storage and leave `gs` alone, so both
//! worlds fit into one thread.

use std::cell::Cell;
use std::ptr;
use std::sync::Mutex;

use super::call::{self, Returned};
use super::suspend;

/// Bytes of stack, as Windows gives a thread by default.
pub(crate) const STACK: usize = 1 << 20;
/// Inaccessible bytes below it, and between our own guard pages and what they guard.
pub(crate) const STACK_GUARD: usize = 1 << 16;
/// Bytes of the second stack for signal handlers.
const SIGNAL_STACK: usize = 1 << 16;

/// `ARCH_SET_GS` of `arch_prctl`.
const ARCH_SET_GS: i32 = 0x1001;
/// Most images with thread-local storage.
const TLS_BLOCKS: usize = 64;

/// Offsets in the thread environment block.
mod teb {
    pub(super) const STACK_BASE: usize = 0x08;
    pub(super) const STACK_LIMIT: usize = 0x10;
    pub(super) const SELF: usize = 0x30;
    pub(super) const PROCESS_ID: usize = 0x40;
    pub(super) const THREAD_ID: usize = 0x48;
    pub(super) const TLS_POINTER: usize = 0x58;
    pub(super) const PEB: usize = 0x60;
    pub(super) const LAST_ERROR: usize = 0x68;
    /// `DeallocationStack`: the lowest address of the stack.
    pub(super) const STACK_BOTTOM: usize = 0x1478;
    pub(super) const SIZE: usize = 0x2000;
}

struct Template {
    bytes: Vec<u8>,
    zero_fill: usize,
}

static TEMPLATES: Mutex<Vec<Template>> = Mutex::new(Vec::new());

thread_local! {
    static BLOCK: Cell<usize> = const { Cell::new(0) };
    static STACK_TOP: Cell<u64> = const { Cell::new(0) };
}

/// Registers an image's thread-local storage and returns its index. Threads that are already
/// running do not get it: map images first.
pub(super) fn add_tls(bytes: &[u8], zero_fill: usize) -> u32 {
    let mut templates = TEMPLATES
        .lock()
        .unwrap_or_else(|broken| broken.into_inner());
    assert!(
        templates.len() < TLS_BLOCKS,
        "more images with thread-local storage than expected"
    );
    templates.push(Template {
        bytes: bytes.to_vec(),
        zero_fill,
    });
    (templates.len() - 1) as u32
}

/// The stack of the thread that runs, for the parent to name faults in it: lowest usable
/// address, and end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stack {
    pub(crate) low: u64,
    pub(crate) high: u64,
}

/// Runs `work` on this thread with everything that [`call()`] needs.
pub(crate) fn enter<T>(work: impl FnOnce(Stack) -> T) -> T {
    let area = pages(STACK_GUARD + STACK);
    let low = area + STACK_GUARD;
    let high = low + STACK;
    // SAFETY: the lower part of an area of our own, which nothing uses yet.
    unsafe { libc::mprotect(area as *mut libc::c_void, STACK_GUARD, libc::PROT_NONE) };
    let block = pages(teb::SIZE);
    let store = |offset: usize, value: usize| {
        // SAFETY: all offsets lie inside the block that was just allocated.
        unsafe { *((block + offset) as *mut usize) = value }
    };
    store(teb::STACK_BASE, high);
    store(teb::STACK_LIMIT, low);
    store(teb::STACK_BOTTOM, low);
    store(teb::SELF, block);
    store(teb::PROCESS_ID, std::process::id() as usize);
    // SAFETY: asks for the caller's own id.
    store(teb::THREAD_ID, unsafe { libc::gettid() } as usize);
    store(teb::TLS_POINTER, tls_blocks());
    store(teb::PEB, pages(0x1000));
    set_signal_stack();
    // SAFETY: nothing else in this process uses `gs`.
    let status = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, block) };
    assert_eq!(status, 0, "the system refuses to set gs");
    BLOCK.set(block);
    STACK_TOP.set(high as u64);
    suspend::enter();
    let result = work(Stack {
        low: low as u64,
        high: high as u64,
    });
    suspend::leave();
    STACK_TOP.set(0);
    result
}

/// Calls code of an image on this thread's stack.
///
/// # Panics
/// Outside of [`enter`].
pub(crate) fn call(target: u64, arguments: &[u64]) -> Returned {
    let top = STACK_TOP.get();
    assert_ne!(
        top, 0,
        "a call into an image from a thread that has not entered"
    );
    // SAFETY: `enter` has made the stack and the environment block. That the target is code which
    // takes these arguments cannot be known: this is a child process made to find that out.
    unsafe { call::call(target, arguments, top) }
}

/// Addresses of this thread's stack; empty outside of [`enter`]. Does nothing that a signal handler
/// may not.
pub(super) fn stack() -> std::ops::Range<u64> {
    let top = STACK_TOP.get();
    top.saturating_sub(STACK as u64)..top
}

/// This thread's last error, as `GetLastError` returns it.
pub(super) fn last_error() -> u32 {
    // SAFETY: the block of a thread that has entered, which every caller of this has.
    unsafe { *((BLOCK.get() + teb::LAST_ERROR) as *const u32) }
}

pub(super) fn set_last_error(error: u32) {
    // SAFETY: as above.
    unsafe { *((BLOCK.get() + teb::LAST_ERROR) as *mut u32) = error }
}

/// Zeroed pages that are never given back: a thread's memory may be pointed to from anywhere.
fn pages(size: usize) -> usize {
    // SAFETY: a fresh anonymous mapping at an address of the system's choice.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    assert_ne!(start, libc::MAP_FAILED, "no memory for a thread's stack");
    start as usize
}

/// A fresh copy of every image's thread-local storage, and the array that points to them.
fn tls_blocks() -> usize {
    let templates = TEMPLATES
        .lock()
        .unwrap_or_else(|broken| broken.into_inner());
    let array = pages(TLS_BLOCKS * 8);
    for (index, template) in templates.iter().enumerate() {
        let block = pages((template.bytes.len() + template.zero_fill).max(1));
        // SAFETY: the block was just allocated with room for the template; the index is below
        // the array's length because `add_tls` sees to it.
        unsafe {
            let from = template.bytes.as_ptr();
            ptr::copy_nonoverlapping(from, block as *mut u8, template.bytes.len());
            *(array as *mut usize).add(index) = block;
        }
    }
    array
}

fn set_signal_stack() {
    let stack = libc::stack_t {
        ss_sp: pages(SIGNAL_STACK) as *mut libc::c_void,
        ss_flags: 0,
        ss_size: SIGNAL_STACK,
    };
    // SAFETY: memory of our own that is never given back.
    unsafe { libc::sigaltstack(&stack, ptr::null_mut()) };
}
