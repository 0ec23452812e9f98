//! Stopping the threads that run in images, and letting them go on.
//!
//! Every such thread has a place in a fixed table. To stop one, its flag is set and it is sent a
//! signal; the handler notes where the thread was and waits on the flag. Nothing here allocates
//! or locks: a stopped thread may hold the allocator's lock or any other.

use std::cell::Cell;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

/// Most threads that can be in images at once.
pub(crate) const MAX_THREADS: usize = 64;

const RUNNING: u32 = 1;
const STOPPED: u32 = 2;

/// Milliseconds within which every thread must have stopped.
const PATIENCE: i64 = 5000;

struct Place {
    /// Kernel thread id; 0 for a free place.
    id: AtomicI32,
    state: AtomicU32,
    /// 1 while the thread is to stand still; the handler waits on it.
    stop: AtomicU32,
    /// Where the thread was when it stopped.
    pointer: AtomicU64,
}

static PLACES: [Place; MAX_THREADS] = [const {
    Place {
        id: AtomicI32::new(0),
        state: AtomicU32::new(0),
        stop: AtomicU32::new(0),
        pointer: AtomicU64::new(0),
    }
}; MAX_THREADS];

thread_local! {
    static OWN: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// A thread did not stop in time.
pub(crate) struct NotStopped;

/// Installs the handler. Once per process, before the first thread enters.
pub(super) fn install() {
    // SAFETY: `on_signal` has the signature that SA_SIGINFO asks for and does only what a signal
    // handler may.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigaction(libc::SIGUSR2, &action, std::ptr::null_mut());
    }
}

/// Takes part from now on. Must not happen while another thread patches.
pub(super) fn enter() {
    // SAFETY: asks for the caller's own id.
    let id = unsafe { libc::gettid() };
    let free = PLACES.iter().position(|place| {
        let taken = place
            .id
            .compare_exchange(0, id, Ordering::SeqCst, Ordering::SeqCst);
        taken.is_ok()
    });
    let index = free.expect("at most 64 threads run in images");
    OWN.set(index);
    PLACES[index].state.store(RUNNING, Ordering::SeqCst);
}

/// Takes part no longer.
pub(super) fn leave() {
    let index = OWN.replace(usize::MAX);
    if let Some(place) = PLACES.get(index) {
        place.state.store(0, Ordering::SeqCst);
        place.id.store(0, Ordering::SeqCst);
    }
}

/// Stops every thread in the table but the caller's own.
pub(super) fn all() -> Result<(), NotStopped> {
    let own = OWN.get();
    // SAFETY: asks for this process's id.
    let process = unsafe { libc::getpid() };
    for (index, place) in PLACES.iter().enumerate() {
        let id = place.id.load(Ordering::SeqCst);
        if index == own || id == 0 {
            continue;
        }
        place.stop.store(1, Ordering::SeqCst);
        // SAFETY: sends a signal that has a handler to a thread of this process.
        unsafe { libc::syscall(libc::SYS_tgkill, process, id, libc::SIGUSR2) };
    }
    let deadline = milliseconds() + PATIENCE;
    for (index, place) in PLACES.iter().enumerate() {
        // A thread that leaves meanwhile needs no stopping.
        let is_here = || index != own && place.id.load(Ordering::SeqCst) != 0;
        while is_here() && place.state.load(Ordering::SeqCst) != STOPPED {
            if milliseconds() > deadline {
                return Err(NotStopped);
            }
            // SAFETY: yields the processor.
            unsafe { libc::sched_yield() };
        }
    }
    Ok(())
}

/// Whether `test` holds for the place where any of the stopped threads was.
pub(super) fn any_pointer(test: impl Fn(u64) -> bool) -> bool {
    PLACES.iter().any(|place| {
        let stopped = place.state.load(Ordering::SeqCst) == STOPPED;
        stopped && test(place.pointer.load(Ordering::SeqCst))
    })
}

/// Lets every stopped thread go on, and waits until none is in the handler any more.
pub(super) fn resume_all() {
    for place in &PLACES {
        if place.stop.swap(0, Ordering::SeqCst) == 1 {
            // SAFETY: wakes waiters on a word that lives as long as the process.
            unsafe {
                let word = place.stop.as_ptr();
                libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, i32::MAX);
            }
        }
    }
    for place in &PLACES {
        while place.state.load(Ordering::SeqCst) == STOPPED {
            // SAFETY: yields the processor.
            unsafe { libc::sched_yield() };
        }
    }
}

fn milliseconds() -> i64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: fills in a timespec of our own.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

extern "C" fn on_signal(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(place) = PLACES.get(OWN.get()) else {
        return;
    };
    // SAFETY: the kernel passes a valid context to a handler installed with SA_SIGINFO; errno is
    // this thread's own.
    unsafe {
        let errno = *libc::__errno_location();
        let registers = &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let pointer = registers[libc::REG_RIP as usize] as u64;
        place.pointer.store(pointer, Ordering::SeqCst);
        // A signal sent for a stop that is already over must not announce one.
        if place.stop.load(Ordering::SeqCst) == 1 {
            place.state.store(STOPPED, Ordering::SeqCst);
            while place.stop.load(Ordering::SeqCst) == 1 {
                let word = place.stop.as_ptr();
                libc::syscall(
                    libc::SYS_futex,
                    word,
                    libc::FUTEX_WAIT,
                    1,
                    std::ptr::null::<u8>(),
                );
            }
            place.state.store(RUNNING, Ordering::SeqCst);
        }
        *libc::__errno_location() = errno;
    }
}
