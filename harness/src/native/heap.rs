//! The process heap that images allocate from.
//!
//! One lock, as the Windows heap has, and addresses that depend on the order of calls alone: the
//! same calls on base, fixed and patched code give the same offsets, so pointers can be compared.
//! Fresh memory is filled with 0xcd, so that reading what was never written gives the same on
//! every run.
//!
//! With [`set_guarded`] every block ends at an inaccessible page, and a freed block becomes
//! inaccessible: overflow and use after free fault where they happen.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

/// Address space of the heap. Pages are only taken when touched.
const ARENA: usize = 8 << 30;
/// The largest block.
const MAX_BLOCK: usize = 1 << 30;
const PAGE: usize = 0x1000;
/// Bytes before a block: its size, and a mark.
const HEADER: usize = 16;
const MARK: u64 = 0x6b6c_6f62_7061_6568;
const CLASSES: usize = 31;

static LOCK: AtomicU32 = AtomicU32::new(0);
static START: AtomicUsize = AtomicUsize::new(0);
static NEXT: AtomicUsize = AtomicUsize::new(0);
static GUARDED: AtomicBool = AtomicBool::new(false);
/// Freed blocks by size class, each holding the address of the next.
static FREE: [AtomicUsize; CLASSES] = [const { AtomicUsize::new(0) }; CLASSES];

/// Holds the heap's lock until dropped.
pub struct HeapLock(());

impl HeapLock {
    /// Waits for the lock. Not reentrant.
    pub fn take() -> Self {
        while LOCK.swap(1, Ordering::Acquire) != 0 {
            std::thread::yield_now();
        }
        HeapLock(())
    }
}

/// Whether some thread holds the lock at this moment.
pub(crate) fn is_locked() -> bool {
    LOCK.load(Ordering::SeqCst) != 0
}

impl Drop for HeapLock {
    fn drop(&mut self) {
        LOCK.store(0, Ordering::Release);
    }
}

/// Whether a thread is ready to hold the lock while threads stand still.
static HOLDER: AtomicBool = AtomicBool::new(false);
/// Whether it shall.
static HOLD: AtomicBool = AtomicBool::new(false);
/// Whether it does.
static HELD: AtomicBool = AtomicBool::new(false);

/// Makes the calling thread, which must be one of those that are stopped, the one that holds the
/// lock whenever threads are stopped; until `over`.
pub(crate) fn hold_while_stopped(over: &AtomicBool) {
    HOLDER.store(true, Ordering::SeqCst);
    while !over.load(Ordering::SeqCst) {
        if HOLD.load(Ordering::SeqCst) {
            let lock = HeapLock::take();
            HELD.store(true, Ordering::SeqCst);
            while HOLD.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            HELD.store(false, Ordering::SeqCst);
            drop(lock);
        }
        std::thread::yield_now();
    }
    HOLDER.store(false, Ordering::SeqCst);
}

/// Whether a thread has called [`hold_while_stopped`] and not come back.
pub(crate) fn has_holder() -> bool {
    HOLDER.load(Ordering::SeqCst)
}

/// Has the holder, where there is one, take the lock. From here to [`let_go`] the caller may not
/// allocate.
pub(super) fn have_held() {
    if has_holder() {
        HOLD.store(true, Ordering::SeqCst);
        while !HELD.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    }
}

/// Has the holder drop the lock, and waits until it has.
pub(super) fn let_go() {
    HOLD.store(false, Ordering::SeqCst);
    while HELD.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
}

/// Puts a guard page behind every block from now on. Before the first allocation.
pub(crate) fn set_guarded(guarded: bool) {
    GUARDED.store(guarded, Ordering::SeqCst);
}

/// Where the heap lies; reserved on first use.
pub(crate) fn range() -> (u64, u64) {
    let lock = HeapLock::take();
    let start = start() as u64;
    drop(lock);
    (start, start + ARENA as u64)
}

/// The arena; the caller holds the lock.
fn start() -> usize {
    let start = START.load(Ordering::Relaxed);
    if start != 0 {
        return start;
    }
    // SAFETY: a fresh anonymous mapping at an address of the system's choice.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            ARENA,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    assert_ne!(start, libc::MAP_FAILED, "no address space for the heap");
    START.store(start as usize, Ordering::Relaxed);
    NEXT.store(start as usize, Ordering::Relaxed);
    start as usize
}

/// Takes `size` bytes from the end of the arena; the caller holds the lock.
fn bump(size: usize) -> Option<usize> {
    let end = start() + ARENA;
    let at = NEXT.load(Ordering::Relaxed);
    let next = at.checked_add(size).filter(|&next| next <= end)?;
    NEXT.store(next, Ordering::Relaxed);
    Some(at)
}

/// The power of two that holds a block with its header.
fn class_of(size: usize) -> usize {
    (size.max(16) + HEADER).next_power_of_two().trailing_zeros() as usize
}

/// A block of `size` bytes, aligned to 16; null where there is no room.
pub(super) fn allocate(size: usize, zeroed: bool) -> *mut u8 {
    if size > MAX_BLOCK {
        return ptr::null_mut();
    }
    let lock = HeapLock::take();
    let block = if GUARDED.load(Ordering::Relaxed) {
        take_guarded(size)
    } else {
        take(size)
    };
    drop(lock);
    let Some(block) = block else {
        return ptr::null_mut();
    };
    // SAFETY: the block is ours, with a header before it and `size` bytes behind.
    unsafe {
        let header = (block - HEADER) as *mut u64;
        header.write_unaligned(size as u64);
        header.add(1).write_unaligned(MARK);
        ptr::write_bytes(block as *mut u8, if zeroed { 0 } else { 0xcd }, size);
    }
    block as *mut u8
}

fn take(size: usize) -> Option<usize> {
    let class = class_of(size);
    let first = FREE.get(class)?.load(Ordering::Relaxed);
    if first == 0 {
        return Some(bump(1 << class)? + HEADER);
    }
    // SAFETY: a freed block keeps the address of the next one in its first bytes.
    let next = unsafe { *(first as *const usize) };
    FREE[class].store(next, Ordering::Relaxed);
    Some(first)
}

fn take_guarded(size: usize) -> Option<usize> {
    // Blocks keep their alignment, so up to 15 bytes may lie between a block and its guard page.
    let room = size.next_multiple_of(16);
    let pages = (room + HEADER).next_multiple_of(PAGE);
    let at = bump(pages + PAGE)?;
    // SAFETY: pages of the arena that nothing uses yet.
    let status =
        unsafe { libc::mprotect((at + pages) as *mut libc::c_void, PAGE, libc::PROT_NONE) };
    (status == 0).then_some(at + pages - room)
}

/// The size of a block; `None` for an address that is none.
pub(super) fn size_of(block: *const u8) -> Option<usize> {
    let start = START.load(Ordering::Relaxed);
    let at = block as usize;
    if !at.is_multiple_of(16) || at < start + HEADER || at >= NEXT.load(Ordering::Relaxed) {
        return None;
    }
    // SAFETY: inside the arena. A block that was freed while guarded faults here, as it should.
    let (size, mark) = unsafe {
        let header = (at - HEADER) as *const u64;
        (header.read_unaligned(), header.add(1).read_unaligned())
    };
    (mark == MARK).then_some(size as usize)
}

/// Gives a block back; `false` for an address that is no block, or no longer.
pub(super) fn release(block: *mut u8) -> bool {
    let Some(size) = size_of(block) else {
        return false;
    };
    let at = block as usize;
    let lock = HeapLock::take();
    if GUARDED.load(Ordering::Relaxed) {
        let first = (at - HEADER) & !(PAGE - 1);
        let end = (at + size).next_multiple_of(PAGE);
        // SAFETY: the block's own pages, which from now on nobody may touch.
        unsafe { libc::mprotect(first as *mut libc::c_void, end - first, libc::PROT_NONE) };
    } else {
        let class = &FREE[class_of(size)];
        // SAFETY: the block is ours again; every class has room for an address.
        unsafe {
            *((at - 8) as *mut u64) = 0;
            *(at as *mut usize) = class.load(Ordering::Relaxed);
        }
        class.store(at, Ordering::Relaxed);
    }
    drop(lock);
    true
}

/// A block of `size` bytes with the old block's contents; the old one is given back.
pub(super) fn resize(block: *mut u8, size: usize, zeroed: bool) -> *mut u8 {
    if block.is_null() {
        return allocate(size, zeroed);
    }
    let Some(old) = size_of(block) else {
        super::faults::stop("heap-corruption", "a block that is none is resized");
    };
    let new = allocate(size, zeroed);
    if !new.is_null() {
        // SAFETY: two blocks, each at least this long.
        unsafe { ptr::copy_nonoverlapping(block, new, old.min(size)) };
        release(block);
    }
    new
}
