//! The kernel32 basics: heap, locks, thread-local values, memory, time.
//!
//! Handles are numbers that only these functions understand. Times stand still, so that results
//! do not depend on when they were made.

use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use super::super::{faults, heap, thread};
use super::crt::NOW;

super::provide! {
    "GetProcessHeap" => process_heap;
    "HeapCreate" => heap_create;
    "HeapDestroy" => succeed;
    "HeapAlloc" => heap_alloc;
    "HeapFree" => heap_free;
    "HeapReAlloc" => heap_realloc;
    "HeapSize" => heap_size;
    "LocalAlloc" => local_alloc;
    "LocalFree" => local_free;
    "GlobalAlloc" => local_alloc;
    "GlobalFree" => local_free;
    "InitializeCriticalSection" => initialize_section;
    "InitializeCriticalSectionAndSpinCount" => initialize_section;
    "InitializeCriticalSectionEx" => initialize_section;
    "EnterCriticalSection" => enter_section;
    "TryEnterCriticalSection" => try_enter_section;
    "LeaveCriticalSection" => leave_section;
    "DeleteCriticalSection" => nothing;
    "InitializeSRWLock" => initialize_lock;
    "AcquireSRWLockExclusive" => acquire_exclusive;
    "ReleaseSRWLockExclusive" => release_exclusive;
    "AcquireSRWLockShared" => acquire_exclusive;
    "ReleaseSRWLockShared" => release_exclusive;
    "GetLastError" => get_last_error;
    "SetLastError" => set_last_error;
    "GetCurrentThreadId" => current_thread;
    "GetCurrentProcessId" => current_process;
    "GetCurrentProcess" => current_process_handle;
    "Sleep" => sleep;
    "SwitchToThread" => switch_to_thread;
    "VirtualAlloc" => virtual_alloc;
    "VirtualFree" => virtual_free;
    "TlsAlloc" => tls_alloc;
    "TlsFree" => succeed;
    "TlsGetValue" => tls_get;
    "TlsSetValue" => tls_set;
    "FlsAlloc" => tls_alloc;
    "FlsFree" => succeed;
    "FlsGetValue" => tls_get;
    "FlsSetValue" => tls_set;
    "QueryPerformanceCounter" => performance_counter;
    "QueryPerformanceFrequency" => performance_frequency;
    "GetTickCount" => tick_count;
    "GetTickCount64" => tick_count;
    "GetSystemTimeAsFileTime" => system_time;
    "IsProcessorFeaturePresent" => nothing;
    "IsDebuggerPresent" => nothing;
    "OutputDebugStringA" => nothing;
    "OutputDebugStringW" => nothing;
    "EncodePointer" => same;
    "DecodePointer" => same;
    "InitializeSListHead" => initialize_list;
    "DisableThreadLibraryCalls" => succeed;
    "SetUnhandledExceptionFilter" => nothing;
    "UnhandledExceptionFilter" => nothing;
    "ExitProcess" => exit_process;
    "TerminateProcess" => terminate_process;
    "RaiseException" => raise_exception;
    "RaiseFailFastException" => fail_fast;
}

/// Made up, and unlike any address.
const PROCESS_HEAP: u64 = 0x6865_6170;
const ZERO_MEMORY: u32 = 8;
const LOCAL_ZERO: u32 = 0x40;

extern "win64" fn process_heap() -> u64 {
    PROCESS_HEAP
}

extern "win64" fn heap_create() -> u64 {
    PROCESS_HEAP
}

extern "win64" fn heap_alloc(_: u64, flags: u32, size: usize) -> *mut u8 {
    heap::allocate(size, flags & ZERO_MEMORY != 0)
}

extern "win64" fn heap_free(_: u64, _: u32, block: *mut u8) -> i32 {
    i32::from(block.is_null() || heap::release(block))
}

extern "win64" fn heap_realloc(_: u64, flags: u32, block: *mut u8, size: usize) -> *mut u8 {
    heap::resize(block, size, flags & ZERO_MEMORY != 0)
}

extern "win64" fn heap_size(_: u64, _: u32, block: *const u8) -> usize {
    heap::size_of(block).unwrap_or(usize::MAX)
}

extern "win64" fn local_alloc(flags: u32, size: usize) -> *mut u8 {
    heap::allocate(size, flags & LOCAL_ZERO != 0)
}

extern "win64" fn local_free(block: *mut u8) -> u64 {
    if block.is_null() || heap::release(block) {
        0
    } else {
        block as u64
    }
}

/// What we keep in a `CRITICAL_SECTION`'s 40 bytes: its owner and how often it entered.
#[repr(C)]
struct Section {
    owner: AtomicU32,
    count: AtomicU32,
}

unsafe extern "win64" fn initialize_section(section: *mut Section) -> i32 {
    // SAFETY: the image's critical section, larger than ours.
    unsafe {
        (*section).owner.store(0, Ordering::SeqCst);
        (*section).count.store(0, Ordering::SeqCst);
    }
    1
}

unsafe extern "win64" fn try_enter_section(section: *mut Section) -> i32 {
    let own = current_thread();
    // SAFETY: a critical section that was initialised above, or all zero.
    let section = unsafe { &*section };
    let taken = section.owner.load(Ordering::SeqCst) == own
        || section
            .owner
            .compare_exchange(0, own, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
    if taken {
        section.count.fetch_add(1, Ordering::SeqCst);
    }
    i32::from(taken)
}

unsafe extern "win64" fn enter_section(section: *mut Section) {
    // SAFETY: passed on.
    while unsafe { try_enter_section(section) } == 0 {
        std::thread::yield_now();
    }
}

unsafe extern "win64" fn leave_section(section: *mut Section) {
    // SAFETY: a critical section that this thread has entered.
    let section = unsafe { &*section };
    if section.count.fetch_sub(1, Ordering::SeqCst) == 1 {
        section.owner.store(0, Ordering::SeqCst);
    }
}

unsafe extern "win64" fn initialize_lock(lock: *mut AtomicU64) {
    // SAFETY: the image's lock, one pointer large.
    unsafe { (*lock).store(0, Ordering::SeqCst) }
}

unsafe extern "win64" fn acquire_exclusive(lock: *mut AtomicU64) {
    // SAFETY: the image's lock, one pointer large.
    while unsafe { (*lock).swap(1, Ordering::Acquire) } != 0 {
        std::thread::yield_now();
    }
}

unsafe extern "win64" fn release_exclusive(lock: *mut AtomicU64) {
    // SAFETY: the image's lock, one pointer large.
    unsafe { (*lock).store(0, Ordering::Release) }
}

extern "win64" fn get_last_error() -> u32 {
    thread::last_error()
}

extern "win64" fn set_last_error(error: u32) {
    thread::set_last_error(error);
}

extern "win64" fn current_thread() -> u32 {
    // SAFETY: asks for the caller's own id.
    (unsafe { libc::gettid() }) as u32
}

extern "win64" fn current_process() -> u32 {
    std::process::id()
}

extern "win64" fn current_process_handle() -> i64 {
    -1
}

extern "win64" fn sleep(milliseconds: u32) {
    std::thread::sleep(std::time::Duration::from_millis(milliseconds.into()));
}

extern "win64" fn switch_to_thread() -> i32 {
    std::thread::yield_now();
    1
}

const COMMIT: u32 = 0x1000;
const RELEASE: u32 = 0x8000;
/// Longest allocation of whole pages.
const MAX_PAGES: usize = 1 << 30;

/// Writable pages, whatever protection was asked for; an address to start at is not honoured
/// unless memory was reserved there before.
extern "win64" fn virtual_alloc(address: *mut c_void, size: usize, kind: u32, _: u32) -> u64 {
    if !address.is_null() && kind & COMMIT != 0 {
        return address as u64;
    }
    if size == 0 || size > MAX_PAGES {
        return 0;
    }
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh anonymous mapping at an address of the system's choice.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), size, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        0
    } else {
        start as u64
    }
}

/// Freed pages stay reserved and become inaccessible: how many there were is not recorded, so
/// the first alone.
extern "win64" fn virtual_free(address: *mut c_void, _: usize, kind: u32) -> i32 {
    if kind & RELEASE == 0 {
        return 1;
    }
    // SAFETY: takes rights away from a page that the image gives back.
    i32::from(unsafe { libc::mprotect(address, 4096, libc::PROT_NONE) } == 0)
}

static NEXT_VALUE: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static VALUES: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Most thread-local values, as on Windows.
const MAX_VALUES: u32 = 1088;

extern "win64" fn tls_alloc() -> u32 {
    let next = NEXT_VALUE.fetch_add(1, Ordering::SeqCst);
    if next < MAX_VALUES { next } else { u32::MAX }
}

extern "win64" fn tls_get(index: u32) -> u64 {
    VALUES.with_borrow(|values| values.get(index as usize).copied().unwrap_or(0))
}

extern "win64" fn tls_set(index: u32, value: u64) -> i32 {
    if index >= MAX_VALUES {
        return 0;
    }
    VALUES.with_borrow_mut(|values| {
        if values.len() <= index as usize {
            values.resize(index as usize + 1, 0);
        }
        values[index as usize] = value;
    });
    1
}

static COUNTER: AtomicI64 = AtomicI64::new(0);

/// Moves on by one with every question, so that loops which wait for it end.
unsafe extern "win64" fn performance_counter(out: *mut i64) -> i32 {
    // SAFETY: where the image wants the value.
    unsafe { *out = COUNTER.fetch_add(1, Ordering::SeqCst) };
    1
}

unsafe extern "win64" fn performance_frequency(out: *mut i64) -> i32 {
    // SAFETY: where the image wants the value.
    unsafe { *out = 10_000_000 };
    1
}

extern "win64" fn tick_count() -> u64 {
    1000
}

unsafe extern "win64" fn system_time(out: *mut u64) {
    // 100-nanosecond steps since 1601.
    // SAFETY: where the image wants the value.
    unsafe { *out = (NOW as u64 + 11_644_473_600) * 10_000_000 }
}

extern "win64" fn same(pointer: u64) -> u64 {
    pointer
}

unsafe extern "win64" fn initialize_list(list: *mut [u64; 2]) {
    // SAFETY: the image's list head, 16 bytes.
    unsafe { *list = [0; 2] }
}

extern "win64" fn nothing() -> u64 {
    0
}

extern "win64" fn succeed() -> u64 {
    1
}

extern "win64" fn exit_process(code: u32) {
    faults::stop("exit", &format!("ExitProcess was called with {code}"))
}

extern "win64" fn terminate_process(_: u64, code: u32) {
    faults::stop(
        "exit",
        &format!("TerminateProcess was called with {code:#x}"),
    )
}

extern "win64" fn raise_exception(code: u32) {
    faults::stop("exception", &format!("exception {code:#010x} was raised"))
}

extern "win64" fn fail_fast() {
    faults::stop("fail-fast", "RaiseFailFastException was called")
}
