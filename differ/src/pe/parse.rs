//! Bytes to [`Pe`].

use std::path::Path;
use std::sync::OnceLock;

use hpbuild_metadata::{BaseIdentity, Machine, Rva, Side};

use super::headers::{self, Headers, directory};
use super::view::{Fault, View};
use super::{
    Opened, Pe, Unsupported, UnsupportedKind, debug, exceptions, exports, imports, load_config,
    relocations, tls,
};
use crate::error::Error;

/// `IMAGE_DLLCHARACTERISTICS_EX_HOTPATCH_COMPATIBLE`.
const HOTPATCH_COMPATIBLE: u32 = 0x80;

/// COFF machine of 32-bit x86.
const X86: u16 = 0x14c;
/// COFF machine of Arm64EC object files and, rarely, images.
const ARM64EC: u16 = 0xa641;
/// COFF machine of Arm64X files.
const ARM64X: u16 = 0xa64e;

impl<S: Side> Pe<S> {
    /// Reads the PE file `bytes`, which came from `path`.
    ///
    /// An image that is understood and of a kind that cannot be hotpatched is not an error but
    /// [`Opened::Unsupported`].
    ///
    /// # Errors
    /// [`Error::Format`] where the bytes are no PE file, or where a structure that matters for
    /// hotpatching is broken, with its place.
    pub fn parse(path: &Path, bytes: Vec<u8>) -> Result<Opened<S>, Error> {
        open(path, bytes).map_err(|fault| Error::Format {
            path: path.to_path_buf(),
            place: fault.place,
            expected: fault.expected,
            found: fault.found,
        })
    }
}

fn open<S: Side>(path: &Path, file: Vec<u8>) -> Result<Opened<S>, Fault> {
    let headers = headers::read(&file)?;
    let sections = headers::sections(&file, &headers)?;
    let view = View::new(&file, &sections, headers.image_base, headers.image_size);
    let machine = match machine(&view, &headers)? {
        Ok(machine) => machine,
        Err(unsupported) => return Ok(Opened::Unsupported(unsupported)),
    };
    let load_config = load_config::read(&view, &headers)?;
    let chpe = load_config
        .as_ref()
        .map_or(0, |config| config.chpe_metadata);
    if chpe != 0 {
        let kind = match machine {
            Machine::X64 => UnsupportedKind::Arm64Ec,
            Machine::Arm64 => UnsupportedKind::Arm64X,
        };
        return Ok(Opened::Unsupported(chpe_evidence(kind, chpe)));
    }
    let debug = debug::read(&view, &headers)?;
    let entry_point = match headers.entry_point {
        0 => None,
        rva => Some(view.inside(rva, "AddressOfEntryPoint")?),
    };
    let exports = exports::read(&view, &headers)?;
    let imports::Tables {
        imports,
        descriptors: delay_descriptors,
        spans: import_spans,
    } = imports::read(&view, &headers)?;
    let base_relocations = relocations::read(&view, &headers)?;
    let runtime_functions = exceptions::read(&view, &headers, machine)?;
    let tls = tls::read(&view, &headers)?;
    Ok(Opened::Pe(Box::new(Pe {
        path: path.to_path_buf(),
        machine,
        image_base: headers.image_base,
        image_size: headers.image_size,
        identity: BaseIdentity {
            time_date_stamp: headers.time_date_stamp,
            checksum: headers.checksum,
        },
        characteristics: headers.characteristics,
        dll_characteristics: headers.dll_characteristics,
        ex_dll_characteristics: debug.ex_dll_characteristics,
        subsystem: headers.subsystem,
        memory: headers.memory,
        entry_point,
        exports,
        imports,
        delay_descriptors,
        linker_tables: linker_tables(&headers, import_spans, &debug.spans),
        base_relocations,
        runtime_functions,
        load_config,
        codeview: debug.codeview,
        hotpatch_compatible: debug.ex_dll_characteristics & HOTPATCH_COMPATIBLE != 0,
        tls,
        exception_directory: headers
            .directory(directory::EXCEPTION)
            .map(|(start, size)| (Rva::new(start), size)),
        // Where it is broken nothing else can be misread, so it is passed on as it stands.
        resources: headers
            .directory(directory::RESOURCE)
            .map(|(rva, size)| (Rva::new(rva), size)),
        sha256: OnceLock::new(),
        sections,
        file,
    })))
}

/// Where linkers put what they make for loaders and debuggers, sorted by address.
fn linker_tables<S: Side>(
    headers: &Headers,
    imports: Vec<(Rva<S>, u32)>,
    debug: &[(u32, u32)],
) -> Vec<(Rva<S>, u32)> {
    let directories = [directory::EXPORT, directory::DEBUG];
    let directories = directories.into_iter();
    let directories = directories.filter_map(|index| headers.directory(index));
    let others = directories.chain(debug.iter().copied());
    let mut found = imports;
    found.extend(others.map(|(start, size)| (Rva::new(start), size)));
    found.retain(|(start, size)| start.get() != 0 && *size > 0);
    found.sort_unstable();
    found.dedup();
    found
}

/// The machine of an image that can be hotpatched, or what the image is instead.
fn machine<S: Side>(
    view: &View<'_, S>,
    headers: &Headers,
) -> Result<Result<Machine, Unsupported>, Fault> {
    let number = headers.machine;
    let by_machine = |kind| Unsupported {
        kind,
        field: "Machine",
        value: number.into(),
    };
    // A managed image's machine says little: portable ones claim to be x86.
    if let Some((rva, _)) = headers.directory(directory::COM_DESCRIPTOR) {
        return Ok(Err(Unsupported {
            kind: UnsupportedKind::Managed,
            field: "COM descriptor directory",
            value: rva.into(),
        }));
    }
    if number == X86 {
        // A broken load config does not make an x86 image into anything else.
        return Ok(Err(match load_config::chpe_32(view, headers) {
            Ok(chpe) if chpe != 0 => chpe_evidence(UnsupportedKind::ChpeX86, chpe),
            _ => by_machine(UnsupportedKind::X86),
        }));
    }
    let Some(machine) = Machine::from_coff(number) else {
        return Ok(Err(by_machine(match number {
            ARM64EC => UnsupportedKind::Arm64Ec,
            ARM64X => UnsupportedKind::Arm64X,
            _ => UnsupportedKind::OtherMachine(number),
        })));
    };
    if !headers.wide {
        return Err(Fault::new(
            format!("optional header Magic at {:#x}", headers.optional_at),
            format!("0x20b, as the machine is {machine}"),
            "0x10b",
        ));
    }
    Ok(Ok(machine))
}

fn chpe_evidence(kind: UnsupportedKind, value: u64) -> Unsupported {
    Unsupported {
        kind,
        field: "CHPEMetadataPointer",
        value,
    }
}
