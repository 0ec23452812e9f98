//! The buffers of a session in memory, with inaccessible pages around them.
#![allow(unsafe_code)]

use std::collections::BTreeMap;

use crate::error::Error;
use crate::job::RangeKind;
use crate::native::heap;
use crate::native::thread::STACK_GUARD;
use crate::outcome::{BufferState, Effects};
use crate::running::Running;
use crate::scenario::{Argument, Buffer, Field, Session};

const PAGE: usize = 0x1000;
/// Inaccessible bytes before and behind each buffer's pages.
const GUARD: usize = STACK_GUARD;
/// What stands behind a buffer up to the end of its page.
const SLACK: u8 = 0xfb;

/// The buffers of one session, at their places.
pub(super) struct Buffers {
    placed: Vec<Placed>,
}

struct Placed {
    name: String,
    /// The whole mapping, with its guards.
    area: usize,
    area_size: usize,
    /// First byte of the buffer.
    start: usize,
    size: usize,
    /// First byte that may not be accessed.
    end: usize,
}

/// Where the images lie.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Start of the image that is called.
    pub(super) target: u64,
    images: Vec<std::ops::Range<u64>>,
}

impl Known {
    pub(super) fn of(running: &Running) -> Self {
        let base = (running.base.mapping, running.base.image.size);
        let patches = running
            .patches
            .iter()
            .map(|p| (p.loaded.mapping, p.loaded.image.size));
        let place = |(mapping, size)| {
            let start = running.space.address(mapping);
            start..start + u64::from(size)
        };
        Self {
            target: running.space.address(base.0),
            images: std::iter::once(base).chain(patches).map(place).collect(),
        }
    }
}

/// Values that earlier calls returned, by the name they are bound to.
pub(super) type Bound = BTreeMap<String, u64>;

impl Buffers {
    /// Allocates the buffers of `session`, with their first contents. `announce` is told about
    /// every guard.
    pub(super) fn place(
        session: &Session,
        announce: &mut dyn FnMut(RangeKind, &str, u64, u64),
    ) -> Result<Self, Error> {
        let mut buffers = Self { placed: Vec::new() };
        for buffer in &session.buffers {
            let placed = allocate(buffer)?;
            let (area, end) = (placed.area as u64, placed.end as u64);
            announce(RangeKind::Guard, &buffer.name, area, area + GUARD as u64);
            announce(RangeKind::Guard, &buffer.name, end, end + GUARD as u64);
            buffers.placed.push(placed);
        }
        buffers.fill(session);
        Ok(buffers)
    }

    /// Puts the first contents into the buffers again.
    pub(super) fn fill(&self, session: &Session) {
        for (buffer, placed) in session.buffers.iter().zip(&self.placed) {
            // SAFETY: the buffer's own pages, as long as `allocate` made them.
            unsafe {
                let to = placed.start as *mut u8;
                std::ptr::copy_nonoverlapping(buffer.bytes.as_ptr(), to, placed.size);
                let slack = placed.start + placed.size;
                std::ptr::write_bytes(slack as *mut u8, SLACK, placed.end - slack);
            }
        }
        for buffer in &session.buffers {
            self.set(&buffer.fields, &Bound::new());
        }
    }

    /// Stores values in buffers.
    pub(super) fn set(&self, fields: &[Field], bound: &Bound) {
        for field in fields {
            let Some(placed) = self.placed.iter().find(|p| p.name == field.buffer) else {
                continue;
            };
            assert!(
                field.at + field.size <= placed.size,
                "a field outside its buffer"
            );
            let bytes = self.value(&field.value, bound).to_le_bytes();
            // SAFETY: inside the buffer, as was just checked.
            unsafe {
                let to = (placed.start + field.at) as *mut u8;
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, field.size);
            }
        }
    }

    /// The word that stands for an argument.
    pub(super) fn value(&self, argument: &Argument, bound: &Bound) -> u64 {
        match argument {
            Argument::Integer(value) => *value as u64,
            Argument::Float(value) => value.to_bits(),
            Argument::Bound(name) => bound.get(name).copied().unwrap_or(0),
            Argument::Buffer { name, offset } => {
                let placed = self.placed.iter().find(|placed| placed.name == *name);
                placed.map_or(0, |placed| (placed.start + offset) as u64)
            }
        }
    }

    /// What a call that returned `integer` and `float` has left behind.
    pub(super) fn effects(&self, known: &Known, integer: u64, float: u64) -> Effects {
        let heap = heap::range();
        let token = |word: u64| self.token(known, heap, word);
        let state = |placed: &Placed| {
            // SAFETY: the buffer's own pages up to the guard.
            let (bytes, slack) = unsafe {
                let slack = placed.start + placed.size;
                (
                    std::slice::from_raw_parts(placed.start as *const u8, placed.size).to_vec(),
                    std::slice::from_raw_parts(slack as *const u8, placed.end - slack),
                )
            };
            let words = bytes.chunks_exact(8).enumerate();
            let pointers = words.filter_map(|(index, word)| {
                let word = u64::from_le_bytes(word.try_into().ok()?);
                Some((8 * index, token(word)?))
            });
            BufferState {
                name: placed.name.clone(),
                pointers: pointers.collect(),
                overrun: slack.iter().any(|&byte| byte != SLACK),
                bytes,
            }
        };
        Effects {
            integer,
            float,
            token: token(integer),
            buffers: self.placed.iter().map(state).collect(),
        }
    }

    /// What `word` points to, where that is something known.
    fn token(&self, known: &Known, heap: (u64, u64), word: u64) -> Option<String> {
        // No mapping lies this low; this spares small numbers the search.
        if word < 0x1_0000 {
            return None;
        }
        for placed in &self.placed {
            let (start, end) = (placed.start as u64, placed.end as u64);
            if (start..=end).contains(&word) {
                return Some(format!("&{}+{}", placed.name, word - start));
            }
        }
        if (heap.0..heap.1).contains(&word) {
            return Some(format!("heap+{:#x}", word - heap.0));
        }
        let image = known.images.iter().any(|image| image.contains(&word));
        image.then(|| "image".to_owned())
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        for placed in &self.placed {
            // SAFETY: mapped by `allocate`, and the session that was given it is over.
            unsafe { libc::munmap(placed.area as *mut libc::c_void, placed.area_size) };
        }
    }
}

fn allocate(buffer: &Buffer) -> Result<Placed, Error> {
    let size = buffer.bytes.len();
    let pages = size.next_multiple_of(PAGE).max(PAGE);
    let area_size = GUARD + pages + GUARD;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh anonymous mapping at an address of the system's choice, of which the inner
    // pages are then made accessible.
    let (area, status) = unsafe {
        let area = libc::mmap(
            std::ptr::null_mut(),
            area_size,
            libc::PROT_NONE,
            flags,
            -1,
            0,
        );
        if area == libc::MAP_FAILED {
            (area, -1)
        } else {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            (
                area,
                libc::mprotect(area.byte_add(GUARD), pages, protection),
            )
        }
    };
    if status != 0 {
        let message = std::io::Error::last_os_error();
        return Err(Error::child("allocating a buffer", message));
    }
    let first = area as usize + GUARD;
    let end = first + pages;
    Ok(Placed {
        name: buffer.name.clone(),
        area: area as usize,
        area_size,
        start: if buffer.guard { end - size } else { first },
        size,
        end,
    })
}
