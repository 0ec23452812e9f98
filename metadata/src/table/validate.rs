//! The checks that need the two images: do the records' addresses lie inside them.

use super::decode::error;
use super::{
    BASE_FLAG_AMD64, BASE_FLAG_ARM64, BASE_FLAG_MACHINES, Chunk, HotPatchBase, HotPatchTable,
    TableError,
};
use crate::identity::Machine;

/// Bytes of a pointer on both machines.
const POINTER_SIZE: u32 = 8;

impl HotPatchTable {
    /// Checks every record against the sizes of the two images as mapped (`SizeOfImage`, bytes),
    /// and the base's machine flag against `machine`, as kernels do (format reference, sections
    /// 1.4 and 2, tag X).
    ///
    /// # Errors
    /// The first record that reaches outside an image. Offsets in the error count records from
    /// the start of the chunk list, because a decoded table no longer knows its layout.
    pub fn validate(
        &self,
        machine: Machine,
        patch_size: u32,
        base_size: u32,
    ) -> Result<(), TableError> {
        if self.bases.len() != 1 {
            let found = self.bases.len().to_string();
            return Err(error(0x10, "BaseImageCount", "exactly 1", found));
        }
        self.bases
            .iter()
            .try_for_each(|base| validate_base(base, machine, patch_size, base_size))
    }
}

fn validate_base(
    base: &HotPatchBase,
    machine: Machine,
    patch_size: u32,
    base_size: u32,
) -> Result<(), TableError> {
    let flag = match machine {
        Machine::X64 => BASE_FLAG_AMD64,
        Machine::Arm64 => BASE_FLAG_ARM64,
    };
    let machines = base.flags & BASE_FLAG_MACHINES;
    if machines != 0 && machines != flag {
        return Err(error(
            4,
            "base Flags",
            format!("the machine bit of {machine} ({flag:#x}) or none"),
            format!("{machines:#x}"),
        ));
    }
    let mut index = 0;
    for chunk in &base.chunks {
        // (address, touched range before and behind it, size of its image) for both words.
        let check = |index: u32, what, rva: u32, before: u32, behind: u32, size: u32| {
            let inside = rva >= before && u64::from(rva) + u64::from(behind) <= u64::from(size);
            if inside {
                return Ok(());
            }
            let expected = format!(
                "an rva from {before:#x} to {:#x}",
                size.saturating_sub(behind)
            );
            Err(error(
                index,
                what,
                expected,
                format!("{rva:#x} in record {index}"),
            ))
        };
        // An x64 redirect writes from six bytes before the entry to two behind it; an Arm64 one
        // is held to eight bytes from the entry.
        let (before, behind) = match machine {
            Machine::X64 => (6, 2),
            Machine::Arm64 => (0, 8),
        };
        let words: Vec<_> = match chunk {
            Chunk::ForwardFunction(records) => records
                .iter()
                .map(|r| {
                    [
                        (
                            "forward FUNCTION entry",
                            r.base.get(),
                            before,
                            behind,
                            base_size,
                        ),
                        (
                            "forward FUNCTION target",
                            r.patch.get(),
                            0,
                            POINTER_SIZE,
                            patch_size,
                        ),
                    ]
                })
                .collect(),
            Chunk::ReverseFunction(records) => records
                .iter()
                .map(|r| {
                    [
                        (
                            "reverse FUNCTION entry",
                            r.patch.get(),
                            before,
                            behind,
                            patch_size,
                        ),
                        (
                            "reverse FUNCTION target",
                            r.base.get(),
                            0,
                            POINTER_SIZE,
                            base_size,
                        ),
                    ]
                })
                .collect(),
            Chunk::ReverseAbsolute(records)
            | Chunk::ReverseRel32(records)
            | Chunk::ReverseIndirect(records) => {
                let touched = if matches!(chunk, Chunk::ReverseRel32(_)) {
                    4
                } else {
                    POINTER_SIZE
                };
                records
                    .iter()
                    .map(|r| {
                        [
                            ("reverse slot", r.patch.get(), 0, touched, patch_size),
                            ("reverse target", r.base.get(), 0, POINTER_SIZE, base_size),
                        ]
                    })
                    .collect()
            }
            Chunk::CallTarget(records) | Chunk::NoCallTarget(records) => records
                .iter()
                .map(|r| [("call target", r.target.get(), 0, POINTER_SIZE, base_size); 2])
                .collect(),
            Chunk::DynamicValue(records) => {
                if let Some(at) = records.iter().position(|r| r.index == u32::MAX) {
                    let found = format!("0xffffffff in record {at}");
                    return Err(error(index, "DYNAMIC_VALUE index", "another value", found));
                }
                records
                    .iter()
                    .map(|r| [("dynamic value", r.patch.get(), 0, POINTER_SIZE, patch_size); 2])
                    .collect()
            }
        };
        for record in words {
            for (what, rva, before, behind, size) in record {
                check(index, what, rva, before, behind, size)?;
            }
            index += 1;
        }
    }
    Ok(())
}
