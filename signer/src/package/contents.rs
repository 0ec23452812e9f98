//! Holding a patch image against what the manifest says of it.

use std::collections::BTreeSet;

use hpbuild_metadata::Machine;
use hpbuild_metadata::manifest::Patch;
use hpbuild_metadata::table::{
    BASE_FLAG_AMD64, BASE_FLAG_ARM64, BASE_FLAG_MACHINES, Chunk, HotPatchTable,
};

use crate::digest::{hex, sha256};
use crate::error::Error;
use crate::pe::patch_facts;

/// Checks length, digest, instruction set and hotpatch table of the image `bytes` against `patch`.
pub(super) fn check_patch(patch: &Patch, bytes: &[u8]) -> Result<(), Error> {
    let fail = |what, expected: String, found: String| {
        Err(Error::untrusted(&patch.file, what, expected, found))
    };
    if bytes.len() as u64 != patch.size {
        return fail("size", patch.size.to_string(), bytes.len().to_string());
    }
    let digest = sha256(bytes);
    if digest != patch.sha256.0 {
        return fail("sha256", patch.sha256.to_string(), hex(&digest));
    }
    let facts = patch_facts(bytes).map_err(|error| error.within(&patch.file))?;
    if facts.machine != patch.machine {
        let found = facts.machine.name().into();
        return fail("machine", patch.machine.name().into(), found);
    }
    check_table(patch, &facts.table)
}

fn check_table(patch: &Patch, table: &HotPatchTable) -> Result<(), Error> {
    let fail = |what, expected: String, found: String| {
        Err(Error::untrusted(
            format!("{}: hotpatch table", patch.file),
            what,
            expected,
            found,
        ))
    };
    if table.sequence.get() != patch.sequence {
        return fail(
            "sequence",
            patch.sequence.to_string(),
            table.sequence.to_string(),
        );
    }
    let [base] = table.bases.as_slice() else {
        return fail("bases", "1".into(), table.bases.len().to_string());
    };
    if base.identity != patch.base.identity() {
        return fail(
            "base",
            patch.base.identity().to_string(),
            base.identity.to_string(),
        );
    }
    let machine = match patch.machine {
        Machine::X64 => BASE_FLAG_AMD64,
        Machine::Arm64 => BASE_FLAG_ARM64,
    };
    let flags = base.flags & BASE_FLAG_MACHINES;
    if flags != machine && flags != 0 {
        return fail(
            "machine flags",
            format!("{machine:#x}"),
            format!("{flags:#x}"),
        );
    }
    // Several names may share one body, so the addresses are compared as sets.
    let named: BTreeSet<u32> = patch.functions.iter().map(|f| f.base_rva.get()).collect();
    let redirected: BTreeSet<u32> = base
        .chunks
        .iter()
        .filter_map(|chunk| match chunk {
            Chunk::ForwardFunction(records) => Some(records),
            _ => None,
        })
        .flatten()
        .map(|record| record.base.get())
        .collect();
    if let Some(address) = named.symmetric_difference(&redirected).next() {
        let (expected, found) = if named.contains(address) {
            (format!("{address:#x}"), "no such record".to_owned())
        } else {
            (
                "only functions of the manifest".to_owned(),
                format!("{address:#x}"),
            )
        };
        return fail("redirected functions", expected, found);
    }
    Ok(())
}
