//! Calling a function with the Windows x64 convention, on a stack of its own.

/// What goes into a call and what comes out; the assembly below knows the offsets.
#[repr(C)]
pub(super) struct Frame {
    target: u64,
    /// At least four words.
    arguments: *const u64,
    count: u64,
    /// Where the stack starts, growing down; a multiple of 16.
    stack: u64,
    integer: u64,
    float: u64,
}

/// What a function returned: `rax`, and the low half of `xmm0`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Returned {
    pub(crate) integer: u64,
    pub(crate) float: u64,
}

// The first four arguments go to both an integer and a float register, as for a variadic call:
// the callee reads the one its signature says. The rest lie above the 32 bytes of home space.
std::arch::global_asm!(
    ".globl hpbuild_harness_call",
    "hpbuild_harness_call:",
    "push rbp",
    "mov rbp, rsp",
    "push rbx",
    "push r12",
    "mov rbx, rdi",
    "mov r12, rsp",
    "mov rsp, [rbx + 24]",
    "mov rcx, [rbx + 16]",
    "sub rcx, 4",
    "lea rax, [rcx * 8 + 47]",
    "and rax, -16",
    "sub rsp, rax",
    "mov rsi, [rbx + 8]",
    "add rsi, 32",
    "lea rdi, [rsp + 32]",
    "cld",
    "rep movsq",
    "mov r10, [rbx + 8]",
    "mov rcx, [r10]",
    "mov rdx, [r10 + 8]",
    "mov r8, [r10 + 16]",
    "mov r9, [r10 + 24]",
    "movq xmm0, rcx",
    "movq xmm1, rdx",
    "movq xmm2, r8",
    "movq xmm3, r9",
    "call [rbx]",
    "mov [rbx + 32], rax",
    "movq [rbx + 40], xmm0",
    "mov rsp, r12",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
);

unsafe extern "sysv64" {
    fn hpbuild_harness_call(frame: *mut Frame);
}

/// Calls `target` with integer or float words as `arguments` on the stack that ends at `stack`.
///
/// # Safety
/// `target` is code in the Windows x64 convention that takes these arguments, `stack` is the
/// upper end of writable memory, and the thread has its environment block.
pub(super) unsafe fn call(target: u64, arguments: &[u64], stack: u64) -> Returned {
    let mut padded = [0; 4];
    let words = if arguments.len() < padded.len() {
        padded[..arguments.len()].copy_from_slice(arguments);
        &padded
    } else {
        arguments
    };
    let mut frame = Frame {
        target,
        arguments: words.as_ptr(),
        count: words.len() as u64,
        stack,
        integer: 0,
        float: 0,
    };
    // SAFETY: the frame and the words outlive the call; the rest is the caller's promise.
    unsafe { hpbuild_harness_call(&mut frame) };
    Returned {
        integer: frame.integer,
        float: frame.float,
    }
}
