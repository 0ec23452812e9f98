//! The tables a loader follows, read from the laid-out memory.

use std::collections::BTreeMap;
use std::ops::Range;

use hpbuild_metadata::{Machine, Rva, Side};
use object::LittleEndian as LE;
use object::pe::ImageNtHeaders64;
use object::read::pe::{ExportTable, ExportTarget, Import as Thunk, ImportTable};

use super::headers::{Directory, Headers};
use super::{Image, Import, Tls};
use crate::error::Error;

const EXPORT: usize = 0;
const IMPORT: usize = 1;
const EXCEPTION: usize = 3;
const BASE_RELOCATION: usize = 5;
const TLS: usize = 9;
const LOAD_CONFIG: usize = 10;
const MANAGED: usize = 14;

/// Offsets in `IMAGE_LOAD_CONFIG_DIRECTORY64` (format reference, section 1.1).
const CHPE_METADATA: u32 = 0xc8;
const HOT_PATCH_TABLE: u32 = 0xf0;

/// More imports than any image has; what a hostile one could make us list is bounded by it.
const MAX_IMPORTS: usize = 16_384;
/// Longest name of an import or export that is kept.
const MAX_NAME: usize = 4096;
const MAX_CALLBACKS: u32 = 64;
/// Bytes of all export names together: they may overlap in the file, so its size is no bound.
const MAX_EXPORT_NAMES: usize = 32 << 20;

pub(super) fn read<S: Side>(headers: Headers<S>) -> Result<Image<S>, Error> {
    if headers.directory(MANAGED).is_some() {
        return Err(Error::image::<S>(
            "COM descriptor",
            "a native image",
            "a managed (.NET) one",
        ));
    }
    let table = load_config(&headers)?;
    let relocations = relocations(&headers)?;
    let imports = imports(&headers)?;
    let exports = exports(&headers)?;
    let tls = tls(&headers)?;
    let extents = extents(&headers)?;
    Ok(Image {
        machine: headers.machine,
        identity: headers.identity,
        preferred: headers.preferred,
        size: headers.size,
        entry_point: headers.entry_point,
        sections: headers.sections,
        relocations,
        imports,
        exports,
        tls,
        extents,
        table,
        memory: headers.memory,
    })
}

/// The bytes of a directory, bounded by the image.
fn bytes<'a, S: Side>(
    headers: &'a Headers<S>,
    directory: Directory,
    place: &str,
) -> Result<&'a [u8], Error> {
    let rest = headers.memory.get(directory.rva as usize..);
    rest.and_then(|rest| rest.get(..directory.size as usize))
        .ok_or_else(|| {
            let found = format!("{:#x} bytes at {:#x}", directory.size, directory.rva);
            let expected = format!("a range inside the image of {:#x} bytes", headers.size);
            Error::image::<S>(place, expected, found)
        })
}

fn word<S: Side>(headers: &Headers<S>, rva: u32) -> Option<u32> {
    let bytes = headers.memory.get(rva as usize..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

fn address<S: Side>(headers: &Headers<S>, rva: u32) -> Option<u64> {
    let bytes = headers.memory.get(rva as usize..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

/// Refuses hybrids and finds the hotpatch table.
fn load_config<S: Side>(headers: &Headers<S>) -> Result<Option<Rva<S>>, Error> {
    let Some(directory) = headers.directory(LOAD_CONFIG) else {
        return Ok(None);
    };
    let own_size = word(headers, directory.rva).ok_or_else(|| {
        let expected = format!("an rva inside the image of {:#x} bytes", headers.size);
        Error::image::<S>("load config", expected, format!("{:#x}", directory.rva))
    })?;
    let field = |offset: u32, length: u32| {
        let inside = offset + length <= own_size;
        directory.rva.checked_add(offset).filter(|_| inside)
    };
    let chpe = field(CHPE_METADATA, 8).and_then(|at| address(headers, at));
    if let Some(chpe @ 1..) = chpe {
        let kind = match headers.machine {
            Machine::X64 => "Arm64EC",
            Machine::Arm64 => "Arm64X",
        };
        let found = format!("a hybrid ({kind}, CHPE metadata at {chpe:#x})");
        return Err(Error::image::<S>("load config", "a plain image", found));
    }
    let table = field(HOT_PATCH_TABLE, 4).and_then(|at| word(headers, at));
    let Some(table @ 1..) = table else {
        return Ok(None);
    };
    // What kernels hold a patch image to (format reference, section 1.4).
    if directory.size != own_size {
        let expected = format!("the directory's size, {:#x}", directory.size);
        return Err(Error::image::<S>(
            "load config Size",
            expected,
            format!("{own_size:#x}"),
        ));
    }
    if table >= headers.size {
        let expected = format!("an rva below {:#x}", headers.size);
        return Err(Error::image::<S>(
            "HotPatchTableOffset",
            expected,
            format!("{table:#x}"),
        ));
    }
    Ok(Some(Rva::new(table)))
}

fn relocations<S: Side>(headers: &Headers<S>) -> Result<Vec<Rva<S>>, Error> {
    let place = "base relocations";
    let Some(directory) = headers.directory(BASE_RELOCATION) else {
        if headers.relocations_stripped {
            let expected = "an image that can be moved";
            return Err(Error::image::<S>(place, expected, "relocations stripped"));
        }
        return Ok(Vec::new());
    };
    let data = bytes(headers, directory, place)?;
    let mut places = Vec::new();
    for block in object::read::pe::RelocationBlockIterator::new(data) {
        let block = block.map_err(|e| Error::image::<S>(place, "a valid block", e.to_string()))?;
        for relocation in block {
            let at = relocation.virtual_address;
            match relocation.typ.0 {
                0 => {}
                10 if u64::from(at) + 8 <= u64::from(headers.size) => places.push(Rva::new(at)),
                10 => {
                    let expected = format!("8 bytes inside the image of {:#x}", headers.size);
                    return Err(Error::image::<S>(place, expected, format!("{at:#x}")));
                }
                other => {
                    let found = format!("type {other} at {at:#x}");
                    return Err(Error::image::<S>(place, "DIR64 (type 10)", found));
                }
            }
        }
    }
    Ok(places)
}

fn name_of<S: Side>(bytes: &[u8], place: &str) -> Result<String, Error> {
    if bytes.len() > MAX_NAME {
        let expected = format!("names of at most {MAX_NAME} bytes");
        return Err(Error::image::<S>(place, expected, bytes.len().to_string()));
    }
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

fn imports<S: Side>(headers: &Headers<S>) -> Result<Vec<Import<S>>, Error> {
    let place = "import table";
    let Some(directory) = headers.directory(IMPORT) else {
        return Ok(Vec::new());
    };
    let wrap = |e: object::read::Error| Error::image::<S>(place, "readable entries", e.to_string());
    let table = ImportTable::new(&headers.memory, 0, directory.rva);
    let mut imports = Vec::new();
    let mut descriptors = table.descriptors().map_err(wrap)?;
    while let Some(descriptor) = descriptors.next().map_err(wrap)? {
        let dll = table.name(descriptor.name.get(LE)).map_err(wrap)?;
        let dll = name_of::<S>(dll, place)?;
        let first = descriptor.first_thunk.get(LE);
        let names = match descriptor.original_first_thunk.get(LE) {
            0 => first,
            original => original,
        };
        let mut thunks = table.thunks(names).map_err(wrap)?;
        let mut slot = first;
        while let Some(thunk) = thunks.next::<ImageNtHeaders64>().map_err(wrap)? {
            let import = table.import::<ImageNtHeaders64>(thunk).map_err(wrap)?;
            let name = match import {
                Thunk::Ordinal(ordinal) => format!("#{ordinal}"),
                Thunk::Name(_, name) => name_of::<S>(name, place)?,
            };
            if u64::from(slot) + 8 > u64::from(headers.size) || imports.len() >= MAX_IMPORTS {
                let expected = format!("at most {MAX_IMPORTS} slots inside the image");
                return Err(Error::image::<S>(place, expected, format!("{slot:#x}")));
            }
            imports.push(Import {
                dll: dll.clone(),
                name,
                slot: Rva::new(slot),
            });
            slot += 8;
        }
    }
    Ok(imports)
}

fn exports<S: Side>(headers: &Headers<S>) -> Result<BTreeMap<String, Rva<S>>, Error> {
    let place = "export table";
    let Some(directory) = headers.directory(EXPORT) else {
        return Ok(BTreeMap::new());
    };
    let data = bytes(headers, directory, place)?;
    let wrap = |e: object::read::Error| Error::image::<S>(place, "valid entries", e.to_string());
    let table = ExportTable::parse(data, directory.rva).map_err(wrap)?;
    let mut exports = BTreeMap::new();
    let mut length = 0;
    for (pointer, index) in table.name_iter() {
        let name = table.name_from_pointer(pointer).map_err(wrap)?;
        length += name.len() + 16;
        if length > MAX_EXPORT_NAMES {
            let expected = format!("names of {MAX_EXPORT_NAMES:#x} bytes together");
            return Err(Error::image::<S>(place, expected, "more"));
        }
        let target = table.target_by_index(index).map_err(wrap)?;
        if let ExportTarget::Address(rva) = target {
            if rva >= headers.size {
                let expected = format!("an rva below {:#x}", headers.size);
                return Err(Error::image::<S>(place, expected, format!("{rva:#x}")));
            }
            exports.insert(name_of::<S>(name, place)?, Rva::new(rva));
        }
    }
    Ok(exports)
}

fn tls<S: Side>(headers: &Headers<S>) -> Result<Option<Tls<S>>, Error> {
    let Some(directory) = headers.directory(TLS) else {
        return Ok(None);
    };
    let wrong = |what: &str, found: u64| {
        let expected = format!("an address inside the image of {:#x} bytes", headers.size);
        let place = format!("TLS directory: {what}");
        Error::image::<S>(place, expected, format!("{found:#x}"))
    };
    let field = |offset: u32| {
        let at = directory.rva.checked_add(offset);
        at.and_then(|at| address(headers, at))
            .ok_or_else(|| wrong("field", offset.into()))
    };
    let rva = |what: &str, address: u64, touched: u32| {
        let rva = address.checked_sub(headers.preferred);
        rva.and_then(|rva| u32::try_from(rva).ok())
            .filter(|&rva| u64::from(rva) + u64::from(touched) <= u64::from(headers.size))
            .ok_or_else(|| wrong(what, address))
    };
    let (start, end) = (field(0)?, field(8)?);
    let template = match (start, end) {
        (0, 0) => 0..0,
        _ => rva("start of the template", start, 0)?..rva("end of the template", end, 0)?,
    };
    if template.start > template.end {
        return Err(wrong("end of the template", end));
    }
    let zero_fill = word(headers, directory.rva.saturating_add(32)).unwrap_or(0);
    if zero_fill > headers.size {
        return Err(wrong("SizeOfZeroFill", zero_fill.into()));
    }
    let index = Rva::new(rva("index", field(16)?, 4)?);
    let mut callbacks = Vec::new();
    let list = field(24)?;
    if list != 0 {
        let list = rva("callbacks", list, 8)?;
        for entry in 0..MAX_CALLBACKS {
            match address(headers, list.saturating_add(8 * entry)) {
                None => return Err(wrong("callbacks", list.into())),
                Some(0) => break,
                Some(callback) => callbacks.push(Rva::new(rva("callback", callback, 1)?)),
            }
        }
    }
    Ok(Some(Tls {
        template,
        zero_fill,
        index,
        callbacks,
    }))
}

/// Function extents from the exception directory: 12-byte entries on x64; 8-byte ones on Arm64,
/// where the length stands in the entry or in the record it names.
fn extents<S: Side>(headers: &Headers<S>) -> Result<Vec<Range<u32>>, Error> {
    let Some(directory) = headers.directory(EXCEPTION) else {
        return Ok(Vec::new());
    };
    let data = bytes(headers, directory, "exception directory")?;
    let mut extents: Vec<Range<u32>> = Vec::new();
    let mut push = |start: u32, end: u32| {
        if start < end && end <= headers.size {
            extents.push(start..end);
        }
    };
    let word_of = |entry: &[u8], at: usize| {
        let bytes = entry.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    };
    match headers.machine {
        Machine::X64 => {
            for entry in data.chunks_exact(12) {
                push(word_of(entry, 0), word_of(entry, 4));
            }
        }
        Machine::Arm64 => {
            for entry in data.chunks_exact(8) {
                let (start, unwind) = (word_of(entry, 0), word_of(entry, 4));
                let words = match unwind & 3 {
                    0 => word(headers, unwind).unwrap_or(0) & 0x3_ffff,
                    _ => (unwind >> 2) & 0x7ff,
                };
                push(start, start.saturating_add(4 * words));
            }
        }
    }
    extents.sort_by_key(|extent| (extent.start, extent.end));
    Ok(extents)
}
