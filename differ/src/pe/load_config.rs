//! The load config directory and the tables it points to.
//!
//! Offsets follow the format reference, section 1.1, and `IMAGE_LOAD_CONFIG_DIRECTORY64` of the
//! public SDK. The structure has grown with every Windows release and says itself how long it is;
//! a field behind that length is zero.

use hpbuild_metadata::{Rva, Side};

use super::LoadConfig;
use super::headers::{Headers, directory};
use super::view::{Fault, View, u16_at, u32_at, u64_at};

/// Bytes of the structure that are read: up to and with `GuardMemcpyFunctionPointer`.
const KNOWN: usize = 0x140;
/// Offset of `CHPEMetadataPointer` in the 32-bit structure.
const CHPE_32: usize = 0x7c;

/// Reads the structure's bytes, as many as it says it has and we know.
fn structure<S: Side>(
    view: &View<'_, S>,
    headers: &Headers,
) -> Result<Option<(u32, [u8; KNOWN])>, Fault> {
    let Some((start, _)) = headers.directory(directory::LOAD_CONFIG) else {
        return Ok(None);
    };
    let size = view.u32(start, "load config Size")?;
    let bytes = view.bytes(start, size, "load config directory")?;
    let mut known = [0; KNOWN];
    for (to, from) in known.iter_mut().zip(bytes) {
        *to = *from;
    }
    Ok(Some((size, known)))
}

/// `CHPEMetadataPointer` of a 32-bit image; 0 where there is none.
pub(super) fn chpe_32<S: Side>(view: &View<'_, S>, headers: &Headers) -> Result<u64, Fault> {
    let structure = structure(view, headers)?;
    Ok(structure.map_or(0, |(_, bytes)| u32_at(&bytes, CHPE_32).into()))
}

/// Reads the 64-bit structure.
pub(super) fn read<S: Side>(
    view: &View<'_, S>,
    headers: &Headers,
) -> Result<Option<LoadConfig<S>>, Fault> {
    let Some((size, bytes)) = structure(view, headers)? else {
        return Ok(None);
    };
    let pointer =
        |at: usize, name: &str| view.rva_of(u64_at(&bytes, at), &format!("load config {name}"));
    let guard_flags = u32_at(&bytes, 0x90);
    let table = |at: usize, name: &str| {
        let what = format!("load config {name}");
        let start = view.rva_of(u64_at(&bytes, at), &what)?;
        guard_table(view, start, u64_at(&bytes, at + 8), guard_flags, &what)
    };
    let mut guard_pointers = Vec::new();
    for (at, name) in [
        (0x118, "GuardXFGCheckFunctionPointer"),
        (0x120, "GuardXFGDispatchFunctionPointer"),
        (0x128, "GuardXFGTableDispatchFunctionPointer"),
        (0x138, "GuardMemcpyFunctionPointer"),
    ] {
        guard_pointers.extend(pointer(at, name)?);
    }
    let hotpatch_table = match u32_at(&bytes, 0xf0) {
        0 => None,
        rva => Some(view.inside(rva, "load config HotPatchTableOffset")?),
    };
    Ok(Some(LoadConfig {
        size,
        guard_flags,
        settings: settings(&bytes),
        promises: promises(&bytes),
        security_cookie: pointer(0x58, "SecurityCookie")?,
        guard_cf_check: pointer(0x70, "GuardCFCheckFunctionPointer")?,
        guard_cf_dispatch: pointer(0x78, "GuardCFDispatchFunctionPointer")?,
        guard_pointers,
        guard_functions: table(0x80, "GuardCFFunctionTable")?,
        guard_imports: table(0xa0, "GuardAddressTakenIatEntryTable")?,
        guard_long_jumps: table(0xb0, "GuardLongJumpTargetTable")?,
        guard_eh_continuations: table(0x108, "GuardEHContinuationTable")?,
        chpe_metadata: u64_at(&bytes, 0xc8),
        hotpatch_table,
        dynamic_relocations: dynamic_relocations(view, u32_at(&bytes, 0xe0), u16_at(&bytes, 0xe4))?,
    }))
}

/// Fields that the loader goes by, or that it sets up the process by.
fn settings(bytes: &[u8; KNOWN]) -> Vec<(&'static str, u64)> {
    let double = |at| u64::from(u32_at(bytes, at));
    vec![
        ("GlobalFlagsClear", double(0x0c)),
        ("GlobalFlagsSet", double(0x10)),
        ("CriticalSectionDefaultTimeout", double(0x14)),
        ("DeCommitFreeBlockThreshold", u64_at(bytes, 0x18)),
        ("DeCommitTotalFreeThreshold", u64_at(bytes, 0x20)),
        ("MaximumAllocationSize", u64_at(bytes, 0x30)),
        ("VirtualMemoryThreshold", u64_at(bytes, 0x38)),
        ("ProcessAffinityMask", u64_at(bytes, 0x40)),
        ("ProcessHeapFlags", double(0x48)),
        ("DependentLoadFlags", u64::from(u16_at(bytes, 0x4e))),
    ]
}

/// Pointers that are not zero and by that say what the image is, or what protects it.
fn promises(bytes: &[u8; KNOWN]) -> Vec<&'static str> {
    let all = [
        (0x28, "LockPrefixTable"),
        (0x50, "EditList"),
        (0x58, "SecurityCookie"),
        (0xd0, "GuardRFFailureRoutine"),
        (0xf8, "EnclaveConfigurationPointer"),
        (0x118, "GuardXFGCheckFunctionPointer"),
        (0x120, "GuardXFGDispatchFunctionPointer"),
        (0x128, "GuardXFGTableDispatchFunctionPointer"),
        (0x130, "CastGuardOsDeterminedFailureMode"),
    ];
    let there = all.into_iter().filter(|(at, _)| u64_at(bytes, *at) != 0);
    there.map(|(_, name)| name).collect()
}

/// A guard table: RVAs, each followed by as many bytes of flags as `GuardFlags` says.
fn guard_table<S: Side>(
    view: &View<'_, S>,
    start: Option<Rva<S>>,
    count: u64,
    guard_flags: u32,
    what: &str,
) -> Result<Vec<Rva<S>>, Fault> {
    let Some(start) = start.filter(|_| count != 0) else {
        return Ok(Vec::new());
    };
    let stride = 4 + (guard_flags >> 28);
    let size = u32::try_from(count)
        .ok()
        .and_then(|count| count.checked_mul(stride))
        .ok_or_else(|| Fault::new(what, "a table inside the image", format!("{count} entries")))?;
    let bytes = view.bytes(start.get(), size, what)?;
    let mut entries = Vec::with_capacity(bytes.len() / stride as usize);
    for entry in bytes.chunks_exact(stride as usize) {
        entries.push(view.inside(u32_at(entry, 0), what)?);
    }
    entries.sort_unstable();
    Ok(entries)
}

/// The symbols of the dynamic value relocation table with the bytes each has. What they relocate
/// is not read: it never changes what code means, only how the loader may rewrite it.
fn dynamic_relocations<S: Side>(
    view: &View<'_, S>,
    offset: u32,
    section: u16,
) -> Result<Vec<(u64, u32)>, Fault> {
    if offset == 0 || section == 0 {
        return Ok(Vec::new());
    }
    let what = "dynamic value relocation table";
    let rva = view
        .sections
        .get(usize::from(section) - 1)
        .and_then(|section| section.rva.checked_add(offset))
        .ok_or_else(|| {
            let expected = format!("one of the {} sections", view.sections.len());
            Fault::new(
                what,
                expected,
                format!("section {section}, offset {offset:#x}"),
            )
        })?
        .get();
    let header = view.bytes(rva, 8, what)?;
    let (version, size) = (u32_at(header, 0), u32_at(header, 4));
    let body = rva.saturating_add(8);
    let mut rest = view.bytes(body, size, what)?;
    let mut symbols = Vec::new();
    while !rest.is_empty() {
        // Version 1: Symbol, size. Version 2: header size, size, Symbol, group, flags.
        let (symbol, header, length) = match version {
            1 => (u64_at(rest, 0), 12, u32_at(rest, 8)),
            2 => (u64_at(rest, 8), u32_at(rest, 0), u32_at(rest, 4)),
            _ => {
                let expected = "version 1 or 2";
                return Err(Fault::new(what, expected, format!("version {version}")));
            }
        };
        let least = if version == 1 { 12 } else { 24 };
        let entry = u64::from(header) + u64::from(length);
        if header < least || entry > rest.len() as u64 {
            let expected = format!("an entry that ends within {:#x} bytes", rest.len());
            return Err(Fault::new(what, expected, format!("{entry:#x} bytes")));
        }
        symbols.push((symbol, length));
        rest = rest.get(entry as usize..).unwrap_or_default();
    }
    Ok(symbols)
}
