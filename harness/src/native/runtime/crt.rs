//! The C runtime: memory, strings, and the ways to end a process.
//!
//! Every function here is called by code of an image with arguments that nobody has checked, and
//! is as unsafe as its C original: a wrong pointer faults, and the fault is the result.

use std::ffi::{c_char, c_void};

use super::super::{faults, heap};

super::provide! {
    "malloc" => malloc;
    "calloc" => calloc;
    "realloc" => realloc;
    "free" => free;
    "_msize" => msize;
    "memcpy" => memcpy;
    "memmove" => memmove;
    "memset" => memset;
    "memcmp" => memcmp;
    "memchr" => memchr;
    "strlen" => strlen;
    "strnlen" => strnlen;
    "strcpy" => strcpy;
    "strncpy" => strncpy;
    "strcat" => strcat;
    "strncat" => strncat;
    "strcmp" => strcmp;
    "strncmp" => strncmp;
    "_stricmp" => strcasecmp;
    "_strnicmp" => strncasecmp;
    "strchr" => strchr;
    "strrchr" => strrchr;
    "strstr" => strstr;
    "strspn" => strspn;
    "strcspn" => strcspn;
    "_strdup" => strdup;
    "strdup" => strdup;
    "wcslen" => wcslen;
    "toupper" => toupper;
    "tolower" => tolower;
    "isalpha" => isalpha;
    "isdigit" => isdigit;
    "isalnum" => isalnum;
    "isspace" => isspace;
    "isupper" => isupper;
    "islower" => islower;
    "isxdigit" => isxdigit;
    "isprint" => isprint;
    "ispunct" => ispunct;
    "atoi" => atoi;
    "strtol" => strtol;
    "strtoul" => strtoul;
    "strtoll" => strtoll;
    "_strtoi64" => strtoll;
    "strtoull" => strtoull;
    "_strtoui64" => strtoull;
    "strtod" => strtod;
    "abs" => abs;
    "labs" => abs;
    "llabs" => llabs;
    "qsort" => qsort;
    "bsearch" => bsearch;
    "_errno" => errno;
    "time" => time64;
    "_time64" => time64;
    "abort" => abort;
    "exit" => exit;
    "_exit" => exit;
    "_Exit" => exit;
    "_purecall" => purecall;
    "_invalid_parameter_noinfo_noreturn" => invalid_parameter;
    "_invalid_parameter_noinfo" => invalid_parameter;
    "_assert" => assert_failed;
    "__C_specific_handler" => handler;
    "_initterm" => initterm;
    "_initterm_e" => initterm;
    "_cexit" => nothing;
    "_initialize_onexit_table" => nothing;
    "_register_onexit_function" => nothing;
    "_execute_onexit_table" => nothing;
    "_seh_filter_dll" => nothing;
    "_configure_narrow_argv" => nothing;
    "_initialize_narrow_environment" => nothing;
    "__std_type_info_destroy_list" => nothing;
}

/// Functions that differ from the C library of the host in the calling convention alone.
macro_rules! forward {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $result:ty;)*) => {$(
        unsafe extern "win64" fn $name($($argument: $kind),*) -> $result {
            // SAFETY: the image's arguments, passed on as they are.
            unsafe { libc::$name($($argument),*) }
        }
    )*};
}

forward! {
    memcmp(a: *const c_void, b: *const c_void, size: usize) -> i32;
    memchr(bytes: *const c_void, byte: i32, size: usize) -> *mut c_void;
    strlen(text: *const c_char) -> usize;
    strnlen(text: *const c_char, most: usize) -> usize;
    strcpy(to: *mut c_char, from: *const c_char) -> *mut c_char;
    strncpy(to: *mut c_char, from: *const c_char, size: usize) -> *mut c_char;
    strcat(to: *mut c_char, from: *const c_char) -> *mut c_char;
    strncat(to: *mut c_char, from: *const c_char, size: usize) -> *mut c_char;
    strcmp(a: *const c_char, b: *const c_char) -> i32;
    strncmp(a: *const c_char, b: *const c_char, size: usize) -> i32;
    strcasecmp(a: *const c_char, b: *const c_char) -> i32;
    strncasecmp(a: *const c_char, b: *const c_char, size: usize) -> i32;
    strchr(text: *const c_char, byte: i32) -> *mut c_char;
    strrchr(text: *const c_char, byte: i32) -> *mut c_char;
    strstr(text: *const c_char, part: *const c_char) -> *mut c_char;
    strspn(text: *const c_char, set: *const c_char) -> usize;
    strcspn(text: *const c_char, set: *const c_char) -> usize;
    toupper(c: i32) -> i32;
    tolower(c: i32) -> i32;
    isalpha(c: i32) -> i32;
    isdigit(c: i32) -> i32;
    isalnum(c: i32) -> i32;
    isspace(c: i32) -> i32;
    isupper(c: i32) -> i32;
    islower(c: i32) -> i32;
    isxdigit(c: i32) -> i32;
    isprint(c: i32) -> i32;
    ispunct(c: i32) -> i32;
    atoi(text: *const c_char) -> i32;
    strtoll(text: *const c_char, end: *mut *mut c_char, radix: i32) -> i64;
    strtoull(text: *const c_char, end: *mut *mut c_char, radix: i32) -> u64;
    strtod(text: *const c_char, end: *mut *mut c_char) -> f64;
}

// Copies go byte after byte from the start, so that one which runs into inaccessible memory faults
// at the first such byte, on every run and every processor. Wide copies touch the end first.

unsafe extern "win64" fn memcpy(to: *mut u8, from: *const u8, size: usize) -> *mut u8 {
    // SAFETY: the image's arguments, as they are.
    unsafe {
        std::arch::asm!("rep movsb", inout("rcx") size => _, inout("rdi") to => _,
            inout("rsi") from => _, options(nostack, preserves_flags));
    }
    to
}

unsafe extern "win64" fn memmove(to: *mut u8, from: *const u8, size: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= size {
        // SAFETY: the image's arguments; going up does not overwrite what is still to be read.
        return unsafe { memcpy(to, from, size) };
    }
    let last = size.wrapping_sub(1);
    // SAFETY: the image's arguments, from the end because the target overlaps it.
    unsafe {
        std::arch::asm!("std", "rep movsb", "cld", inout("rcx") size => _,
            inout("rdi") to.wrapping_add(last) => _, inout("rsi") from.wrapping_add(last) => _,
            options(nostack));
    }
    to
}

unsafe extern "win64" fn memset(to: *mut u8, byte: i32, size: usize) -> *mut u8 {
    // SAFETY: the image's arguments, as they are.
    unsafe {
        std::arch::asm!("rep stosb", inout("rcx") size => _, inout("rdi") to => _,
            in("al") byte as u8, options(nostack, preserves_flags));
    }
    to
}

extern "win64" fn malloc(size: usize) -> *mut u8 {
    heap::allocate(size, false)
}

extern "win64" fn calloc(count: usize, size: usize) -> *mut u8 {
    heap::allocate(count.saturating_mul(size), true)
}

extern "win64" fn realloc(block: *mut u8, size: usize) -> *mut u8 {
    heap::resize(block, size, false)
}

extern "win64" fn free(block: *mut u8) {
    if !block.is_null() && !heap::release(block) {
        faults::stop(
            "heap-corruption",
            "a block that is none, or no longer, is freed",
        );
    }
}

extern "win64" fn msize(block: *const u8) -> usize {
    heap::size_of(block).unwrap_or(usize::MAX)
}

unsafe extern "win64" fn strdup(text: *const c_char) -> *mut u8 {
    // SAFETY: the image's text, which ends somewhere or faults.
    unsafe {
        let size = libc::strlen(text) + 1;
        let copy = heap::allocate(size, false);
        if !copy.is_null() {
            std::ptr::copy_nonoverlapping(text.cast(), copy, size);
        }
        copy
    }
}

unsafe extern "win64" fn wcslen(text: *const u16) -> usize {
    let mut length = 0;
    // SAFETY: the image's text, which ends somewhere or faults.
    while unsafe { *text.add(length) } != 0 {
        length += 1;
    }
    length
}

// `long` has 32 bits on Windows, and the conversions saturate there.
unsafe extern "win64" fn strtol(text: *const c_char, end: *mut *mut c_char, radix: i32) -> i32 {
    // SAFETY: as for the original.
    let wide = unsafe { libc::strtoll(text, end, radix) };
    wide.clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

unsafe extern "win64" fn strtoul(text: *const c_char, end: *mut *mut c_char, radix: i32) -> u32 {
    // SAFETY: as for the original.
    let wide = unsafe { libc::strtoull(text, end, radix) };
    u32::try_from(wide).unwrap_or(u32::MAX)
}

extern "win64" fn abs(value: i32) -> i32 {
    value.wrapping_abs()
}

extern "win64" fn llabs(value: i64) -> i64 {
    value.wrapping_abs()
}

type Compare = unsafe extern "win64" fn(*const u8, *const u8) -> i32;

/// Heap sort in place: no allocation, and no harm from an order that contradicts itself.
unsafe extern "win64" fn qsort(base: *mut u8, count: usize, size: usize, compare: Compare) {
    let at = |index: usize| base.wrapping_add(index.wrapping_mul(size));
    // SAFETY: elements of the image's array, compared by the image's function.
    let less = |a: usize, b: usize| unsafe { compare(at(a), at(b)) < 0 };
    // SAFETY: two different elements of the array.
    let swap = |a: usize, b: usize| unsafe { std::ptr::swap_nonoverlapping(at(a), at(b), size) };
    let sift = |mut parent: usize, end: usize| loop {
        let mut child = 2 * parent + 1;
        if child >= end {
            return;
        }
        if child + 1 < end && less(child, child + 1) {
            child += 1;
        }
        if !less(parent, child) {
            return;
        }
        swap(parent, child);
        parent = child;
    };
    for parent in (0..count / 2).rev() {
        sift(parent, count);
    }
    for end in (1..count).rev() {
        swap(0, end);
        sift(0, end);
    }
}

unsafe extern "win64" fn bsearch(
    key: *const u8,
    base: *const u8,
    count: usize,
    size: usize,
    compare: Compare,
) -> *const u8 {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        let element = base.wrapping_add(middle.wrapping_mul(size));
        // SAFETY: an element of the image's array, compared by the image's function.
        match unsafe { compare(key, element) } {
            0 => return element,
            less if less < 0 => high = middle,
            _ => low = middle + 1,
        }
    }
    std::ptr::null()
}

extern "win64" fn errno() -> *mut i32 {
    // SAFETY: this thread's own.
    unsafe { libc::__errno_location() }
}

/// The same moment on every run: results must not depend on when they were made.
pub(super) const NOW: i64 = 1_700_000_000;

unsafe extern "win64" fn time64(out: *mut i64) -> i64 {
    if !out.is_null() {
        // SAFETY: where the image wants the time.
        unsafe { *out = NOW }
    }
    NOW
}

extern "win64" fn abort() {
    faults::stop("abort", "abort was called")
}

extern "win64" fn exit(code: i32) {
    faults::stop("exit", &format!("exit was called with {code}"))
}

extern "win64" fn purecall() {
    faults::stop("abort", "a pure virtual function was called")
}

extern "win64" fn invalid_parameter() {
    faults::stop(
        "abort",
        "a C runtime function was called with an invalid parameter",
    )
}

unsafe extern "win64" fn assert_failed(text: *const c_char) {
    // SAFETY: the image's text, which ends somewhere or faults.
    let text = unsafe { std::ffi::CStr::from_ptr(text) };
    faults::stop(
        "abort",
        &format!("assertion failed: {}", text.to_string_lossy()),
    )
}

extern "win64" fn handler() {
    faults::stop(
        "abort",
        "structured exception handling is not provided by the harness",
    )
}

/// Calls a table of initialisers, as the DLL's own start-up code asks.
unsafe extern "win64" fn initterm(first: *const u64, end: *const u64) -> i32 {
    let mut at = first;
    while at < end {
        // SAFETY: entries of the image's own table, each null or a function.
        unsafe {
            let function = *at;
            if function != 0 {
                let function: extern "win64" fn() -> i32 = std::mem::transmute(function);
                function();
            }
            at = at.add(1);
        }
    }
    0
}

extern "win64" fn nothing() -> u64 {
    0
}
