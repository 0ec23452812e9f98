//! The functions that images import, by name.
//!
//! A name that is not here does not keep an image from loading: the import is bound to a stub
//! that reports the name when it is called, and only then.

mod crt;
mod kernel;
mod math;

use std::sync::Mutex;

use super::faults;

/// Libraries whose functions these are. An equal name in any other DLL means something else.
const LIBRARIES: [&str; 9] = [
    "kernel32",
    "kernelbase",
    "ntdll",
    "msvcrt",
    "ucrtbase",
    "vcruntime140",
    "vcruntime140_1",
    "api-ms-win-crt-",
    "api-ms-win-core-",
];

/// The address to store in the slot of an import.
pub(super) fn resolve(dll: &str, name: &str) -> u64 {
    let library = dll.to_ascii_lowercase();
    let library = library.strip_suffix(".dll").unwrap_or(&library);
    let known = LIBRARIES.iter().any(|known| match known.strip_suffix('-') {
        Some(prefix) => library.starts_with(prefix),
        None => library == *known,
    });
    let found = known
        .then(|| {
            crt::find(name)
                .or_else(|| kernel::find(name))
                .or_else(|| math::find(name))
        })
        .flatten();
    found.unwrap_or_else(|| stub(format!("{dll}!{name}")))
}

/// Names of the imports that are not provided, in the order of their stubs.
static MISSING: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Code that calls [`missing`] with its number.
fn stub(name: String) -> u64 {
    let mut names = MISSING.lock().unwrap_or_else(|broken| broken.into_inner());
    let number = names.len() as u32;
    names.push(name);
    // mov ecx, number; mov rax, missing; jmp rax
    let mut code = vec![0xb9];
    code.extend_from_slice(&number.to_le_bytes());
    code.extend_from_slice(&[0x48, 0xb8]);
    code.extend_from_slice(&(missing as *const () as u64).to_le_bytes());
    code.extend_from_slice(&[0xff, 0xe0]);
    // SAFETY: a fresh page of our own, filled before it becomes executable and never changed.
    unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let page = libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0);
        assert_ne!(page, libc::MAP_FAILED, "no memory for an import's stub");
        std::ptr::copy_nonoverlapping(code.as_ptr(), page.cast(), code.len());
        libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_EXEC);
        page as u64
    }
}

extern "win64" fn missing(number: u32) {
    let names = MISSING.lock().unwrap_or_else(|broken| broken.into_inner());
    let name = names.get(number as usize).map_or("?", String::as_str);
    faults::stop("unresolved-import", name)
}

/// Makes `find`, from an imported name to the address of our function.
macro_rules! provide {
    ($($name:literal => $function:path;)*) => {
        pub(super) fn find(name: &str) -> Option<u64> {
            match name {
                $($name => Some($function as *const () as u64),)*
                _ => None,
            }
        }
    };
}
use provide;
