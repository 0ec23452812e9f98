//! The exception directory: which stretches of code have which unwind data.

use hpbuild_metadata::{Machine, Rva, Side};

use super::headers::{Headers, directory};
use super::view::{Fault, View, u32_at};
use super::{RuntimeFunction, Unwind};

pub(super) fn read<S: Side>(
    view: &View<'_, S>,
    headers: &Headers,
    machine: Machine,
) -> Result<Vec<RuntimeFunction<S>>, Fault> {
    let Some((start, size)) = headers.directory(directory::EXCEPTION) else {
        return Ok(Vec::new());
    };
    let stride = match machine {
        Machine::X64 => 12,
        Machine::Arm64 => 8,
    };
    let bytes = view.bytes(start, size, "exception directory")?;
    if bytes.len() % stride != 0 {
        return Err(Fault::new(
            "exception directory",
            format!("entries of {stride} bytes"),
            format!("{:#x} bytes", bytes.len()),
        ));
    }
    let mut functions: Vec<RuntimeFunction<S>> = Vec::with_capacity(bytes.len() / stride);
    for (index, entry) in bytes.chunks_exact(stride).enumerate() {
        // Some linkers fill the directory up with empty entries.
        if bytes[index * stride..].iter().all(|byte| *byte == 0) {
            break;
        }
        let what = format!("exception directory entry {index}");
        let function = match machine {
            Machine::X64 => x64(view, entry, &what)?,
            Machine::Arm64 => {
                let next = bytes.get((index + 1) * stride..).unwrap_or_default();
                arm64(view, entry, u32_at(next, 0), &what)?
            }
        };
        if function.end <= function.begin || function.end.get() > view.image_size {
            return Err(Fault::new(
                what,
                format!(
                    "code that starts at {} and ends inside the image",
                    function.begin
                ),
                format!("an end at {}", function.end),
            ));
        }
        // Unwinders search by bisection, so an entry out of order is an entry not found.
        if let Some(before) = functions
            .last()
            .filter(|before| before.end > function.begin)
        {
            return Err(Fault::new(
                what,
                format!(
                    "code that starts at or behind {}, where the one before ends",
                    before.end
                ),
                format!("{}", function.begin),
            ));
        }
        functions.push(function);
    }
    Ok(functions)
}

fn x64<S: Side>(view: &View<'_, S>, entry: &[u8], what: &str) -> Result<RuntimeFunction<S>, Fault> {
    let unwind = u32_at(entry, 8);
    // RUNTIME_FUNCTION_INDIRECT: the rest of the word is the RVA of another entry.
    let (bytes, indirect) = if unwind & 1 == 0 {
        (4, false)
    } else {
        (12, true)
    };
    view.bytes(unwind & !1, bytes, what)?;
    let place = Rva::new(unwind & !1);
    Ok(RuntimeFunction {
        begin: Rva::new(u32_at(entry, 0)),
        end: Rva::new(u32_at(entry, 4)),
        unwind: if indirect {
            Unwind::Shared(place)
        } else {
            Unwind::Info(place)
        },
    })
}

/// The low two bits of the second word say what it is: an address, unwind data packed into the
/// word (1: a whole function, 2: a fragment without a prologue), or the address of another entry
/// whose unwind data this one shares. The public documentation calls the last one reserved;
/// released images have it, on short thunks. Its length is stored nowhere.
fn arm64<S: Side>(
    view: &View<'_, S>,
    entry: &[u8],
    next: u32,
    what: &str,
) -> Result<RuntimeFunction<S>, Fault> {
    let begin: Rva<S> = Rva::new(u32_at(entry, 0));
    let word = u32_at(entry, 4);
    let (length, unwind) = match word & 3 {
        0 => {
            let header = u32_at(view.bytes(word, 4, what)?, 0);
            // Function length: the low 18 bits, in words.
            ((header & 0x3_ffff) * 4, Unwind::Info(Rva::new(word)))
        }
        // Function length: 11 bits above the flag, in words.
        1 | 2 => (((word >> 2) & 0x7ff) * 4, Unwind::Packed(word)),
        _ => {
            view.bytes(word & !3, 8, what)?;
            let rest = view.tail(begin.get()).unwrap_or_default().len() as u32;
            let to_next = next.checked_sub(begin.get()).filter(|_| next != 0);
            let length = to_next.map_or(rest, |length| length.min(rest));
            (length, Unwind::Shared(Rva::new(word & !3)))
        }
    };
    let end = begin.checked_add(length).ok_or_else(|| {
        Fault::new(
            what,
            "code inside the image",
            format!("{begin} and {length:#x} bytes"),
        )
    })?;
    Ok(RuntimeFunction { begin, end, unwind })
}
