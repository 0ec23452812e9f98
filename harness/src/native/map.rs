//! Reserving, filling and protecting the memory of one image.

use std::io;
use std::ptr;

use hpbuild_metadata::Side;

use super::runtime;
use super::thread;
use crate::engine::Write;
use crate::engine::hpat::Hpat;
use crate::error::Error;
use crate::image::{Image, PAGE};

/// Windows maps images at multiples of this.
const GRANULARITY: usize = 0x1_0000;

/// One image in this process, with its address table behind it. Never unmapped: a thread may be
/// on its way through it until the process ends.
#[derive(Debug)]
pub(super) struct Mapping {
    start: usize,
    /// Bytes of image and address table.
    size: usize,
    /// The protection of every page, as `PROT_*` bits.
    pages: Vec<i32>,
}

impl Mapping {
    pub(super) fn new<S: Side>(image: &Image<S>, blocks: u32) -> Result<Self, Error> {
        let hpat = Hpat::behind(image, blocks);
        let size = (image.size + hpat.size()) as usize;
        let start = reserve(size).map_err(|error| {
            let expected = format!("{size:#x} bytes of address space");
            Error::image::<S>("mapping", expected, error.to_string())
        })?;
        let mut pages = vec![libc::PROT_READ; size / PAGE as usize];
        for section in &image.sections {
            let first = (section.start.get() / PAGE) as usize;
            let count = (section.size / PAGE) as usize;
            let mut protection = libc::PROT_NONE;
            for (wanted, bit) in [
                (section.readable, libc::PROT_READ),
                (section.writable, libc::PROT_WRITE),
                (section.executable, libc::PROT_EXEC),
            ] {
                protection |= if wanted { bit } else { 0 };
            }
            pages[first..first + count].fill(protection);
        }
        for (offset, is_code) in hpat.pages() {
            let bits = if is_code {
                libc::PROT_READ | libc::PROT_EXEC
            } else {
                libc::PROT_READ
            };
            pages[(offset / PAGE) as usize] = bits;
        }
        let mapping = Self { start, size, pages };
        mapping.fill(image);
        for (index, &protection) in mapping.pages.iter().enumerate() {
            mapping.set_protection(index, protection);
        }
        Ok(mapping)
    }

    /// The image's bytes, its imports and its thread-local storage index.
    fn fill<S: Side>(&self, image: &Image<S>) {
        let mut memory = image.relocated(self.start as u64);
        for import in &image.imports {
            let address = runtime::resolve(&import.dll, &import.name);
            let slot = import.slot.get() as usize;
            memory[slot..slot + 8].copy_from_slice(&address.to_le_bytes());
        }
        if let Some(tls) = &image.tls {
            let template = tls.template.start as usize..tls.template.end as usize;
            let index = thread::add_tls(&memory[template], tls.zero_fill as usize);
            let at = tls.index.get() as usize;
            memory[at..at + 4].copy_from_slice(&index.to_le_bytes());
        }
        self.store(0, &memory);
    }

    pub(super) fn address(&self) -> u64 {
        self.start as u64
    }

    pub(super) fn snapshot(&self) -> Vec<u8> {
        let mut copy = vec![0u8; self.size];
        for (index, &protection) in self.pages.iter().enumerate() {
            if protection & libc::PROT_READ == 0 {
                continue;
            }
            let at = index * PAGE as usize;
            // SAFETY: the page belongs to this mapping and is readable. Threads of the image may
            // write to it meanwhile; a torn copy of such data is acceptable, and code is written
            // by the caller alone.
            unsafe {
                let from = (self.start + at) as *const u8;
                ptr::copy_nonoverlapping(from, copy.as_mut_ptr().add(at), PAGE as usize);
            }
        }
        copy
    }

    /// Whether `bytes` stand at `offset`. Neither allocates nor locks.
    pub(super) fn holds(&self, offset: u32, bytes: &[u8]) -> bool {
        let offset = offset as usize;
        if offset + bytes.len() > self.size {
            return false;
        }
        // SAFETY: the range was just checked to lie inside this mapping, whose page the caller
        // has made readable.
        let present =
            unsafe { std::slice::from_raw_parts((self.start + offset) as *const u8, bytes.len()) };
        present == bytes
    }

    /// Stores `bytes` at `offset`; two bytes go in one store, as an entry's short jump must.
    /// Neither allocates nor locks.
    pub(super) fn store(&self, offset: u32, bytes: &[u8]) {
        let offset = offset as usize;
        assert!(
            offset + bytes.len() <= self.size,
            "a write outside the mapping"
        );
        let at = (self.start + offset) as *mut u8;
        if let [low, high] = *bytes {
            let both = u16::from_le_bytes([low, high]);
            // SAFETY: inside this mapping, made writable by the caller. Assembly, because the
            // address may be odd and the store must be a single one all the same.
            unsafe {
                std::arch::asm!("mov word ptr [{at}], {both:x}", at = in(reg) at,
                    both = in(reg) both, options(nostack, preserves_flags));
            }
            return;
        }
        // SAFETY: inside this mapping, made writable by the caller.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) }
    }

    /// Makes the pages that `writes` touch writable, without taking any right away.
    pub(super) fn unprotect<S: Side>(&self, writes: &[Write<S>]) {
        self.each_page(writes, |page, protection| {
            self.set_protection(page, protection | libc::PROT_READ | libc::PROT_WRITE);
        });
    }

    /// Gives the pages that `writes` touch their own protection again.
    pub(super) fn protect<S: Side>(&self, writes: &[Write<S>]) {
        self.each_page(writes, |page, protection| {
            self.set_protection(page, protection)
        });
    }

    fn each_page<S: Side>(&self, writes: &[Write<S>], mut change: impl FnMut(usize, i32)) {
        let mut touched: Vec<usize> = writes
            .iter()
            .flat_map(|write| {
                let start = write.at.get() as usize;
                let end = start + write.after.as_slice().len() - 1;
                [start / PAGE as usize, end / PAGE as usize]
            })
            .collect();
        touched.sort_unstable();
        touched.dedup();
        for page in touched {
            if let Some(&protection) = self.pages.get(page) {
                change(page, protection);
            }
        }
    }

    fn set_protection(&self, page: usize, protection: i32) {
        let at = (self.start + page * PAGE as usize) as *mut libc::c_void;
        // SAFETY: the page belongs to this mapping.
        let status = unsafe { libc::mprotect(at, PAGE as usize, protection) };
        assert_eq!(status, 0, "the system refuses to protect a page");
    }
}

/// Reserves writable memory at a multiple of the granularity. What lies around it stays reserved.
fn reserve(size: usize) -> io::Result<usize> {
    // SAFETY: a fresh anonymous mapping at an address of the system's choice.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size + GRANULARITY,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok((start as usize).next_multiple_of(GRANULARITY))
}
