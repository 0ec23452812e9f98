//! Turning a fault of an image into a record for the parent.
//!
//! A fault ends the child: what the image's state is worth afterwards nobody knows. The handler
//! writes the raw facts as one line and leaves; the parent knows what lies where and names it.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// Exit code of a child that has reported a fault or another early end.
pub(crate) const EXIT: i32 = 77;

/// Ranges whose code bytes the handler may read: the images.
static CODE: [(AtomicU64, AtomicU64); 4] = [const { (AtomicU64::new(0), AtomicU64::new(0)) }; 4];

/// Installs the handlers. Once per process, before images run.
pub(crate) fn install() {
    super::suspend::install();
    // SAFETY: `on_fault` has the signature that SA_SIGINFO asks for and does only what a signal
    // handler may.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        for signal in [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGTRAP,
        ] {
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// Lets the handler read code between `start` and `end`, which must stay mapped.
pub(crate) fn may_read(start: u64, end: u64) {
    let free = CODE
        .iter()
        .find(|range| range.1.load(Ordering::SeqCst) == 0);
    if let Some(range) = free {
        range.0.store(start, Ordering::SeqCst);
        range.1.store(end, Ordering::SeqCst);
    }
}

/// Ends the child because the image did something that ends a process.
pub(crate) fn stop(kind: &str, detail: &str) -> ! {
    let line = serde_json::json!({ "stopped": { "kind": kind, "detail": detail } });
    let mut out = std::io::stdout();
    // Where the parent is gone there is nobody left to tell.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    // SAFETY: ends the process without running anything of the image's.
    unsafe { libc::_exit(EXIT) }
}

extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes valid pointers to a handler installed with SA_SIGINFO.
    let (address, pointer, stack, rcx) = unsafe {
        let registers = &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let register = |number: i32| registers[number as usize] as u64;
        (
            (*info).si_addr() as u64,
            register(libc::REG_RIP),
            register(libc::REG_RSP),
            register(libc::REG_RCX),
        )
    };
    let readable = is_code(pointer);
    let code = if readable && signal != libc::SIGBUS && address != pointer {
        // SAFETY: inside an image, and not what could not be fetched.
        u64::from(unsafe { (pointer as *const u16).read_unaligned() })
    } else {
        0
    };
    let caller = if readable { 0 } else { caller(stack) };
    let mut line = Line::new();
    line.text("{\"fault\":{\"signal\":");
    line.number(signal as u64);
    for (name, value) in [
        (",\"address\":", address),
        (",\"pointer\":", pointer),
        (",\"stack\":", stack),
        (",\"code\":", code),
        (",\"rcx\":", rcx),
        (",\"caller\":", caller),
    ] {
        line.text(name);
        line.number(value);
    }
    line.text("}}\n");
    // SAFETY: writes a buffer of our own and ends the process.
    unsafe {
        libc::write(1, line.bytes.as_ptr().cast(), line.length);
        libc::_exit(EXIT)
    }
}

/// Whether two bytes at `address` lie in an image.
fn is_code(address: u64) -> bool {
    CODE.iter().any(|(start, end)| {
        let (start, end) = (start.load(Ordering::SeqCst), end.load(Ordering::SeqCst));
        start <= address && address.saturating_add(2) <= end
    })
}

/// Words of the stack that are searched for a return address.
const SEARCHED: u64 = 256;

/// The first word on the stack that points into an image: where a function of the harness was
/// probably called from. 0 where there is none, or `stack` is not on this thread's stack.
fn caller(stack: u64) -> u64 {
    let range = super::thread::stack();
    if !stack.is_multiple_of(8) || !range.contains(&stack) {
        return 0;
    }
    let end = range.end.min(stack + 8 * SEARCHED);
    (stack..end)
        .step_by(8)
        // SAFETY: between the stack pointer and the end of this thread's own stack.
        .map(|at| unsafe { *(at as *const u64) })
        .find(|&word| is_code(word))
        .unwrap_or(0)
}

/// A line of text made without allocating.
struct Line {
    bytes: [u8; 256],
    length: usize,
}

impl Line {
    fn new() -> Self {
        Self {
            bytes: [0; 256],
            length: 0,
        }
    }

    fn text(&mut self, text: &str) {
        for &byte in text.as_bytes() {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = byte;
                self.length += 1;
            }
        }
    }

    fn number(&mut self, mut value: u64) {
        let mut digits = [0u8; 20];
        let mut start = digits.len();
        loop {
            start -= 1;
            digits[start] = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                break;
            }
        }
        for &digit in &digits[start..] {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = digit;
                self.length += 1;
            }
        }
    }
}
