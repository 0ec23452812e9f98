//! What is refused, with its place and status, and that a refusal leaves no trace.

use hpbuild_metadata::Rva;
use hpbuild_metadata::table::{Chunk, PointerAttach};

use super::{ARM64_BASE, ARM64_PATCH, X64_BASE, X64_PATCH, running};
use crate::running::Running;
use crate::space::Space;

/// Changes `running`, asserts that the patch is refused with `status` and text `part`, and that
/// neither image was touched.
fn refused(mut running: Running, change: impl FnOnce(&mut Running), status: u32, part: &str) {
    change(&mut running);
    let snapshot = |running: &Running| {
        let patch = running.patches[0].loaded.mapping;
        (
            running.space.snapshot(running.base.mapping),
            running.space.snapshot(patch),
        )
    };
    let before = snapshot(&running);
    let refusal = running.apply(0).unwrap_err();
    let text = refusal.to_string();
    assert!(text.contains(part), "{text}\ndoes not say {part}");
    assert_eq!(refusal.status.code(), status, "{text}");
    assert!(
        before == snapshot(&running),
        "a refused patch left something behind"
    );
    assert!(running.active.redirects.by_entry.is_empty());
}

fn x64() -> Running {
    running(X64_BASE, &[X64_PATCH])
}

fn arm64() -> Running {
    running(ARM64_BASE, &[ARM64_PATCH])
}

/// Stores bytes in the running base at `offset` from an exported function.
fn poke(running: &mut Running, function: &str, offset: i64, bytes: &[u8]) {
    let at = running.base.image.exports[function]
        .checked_offset(offset)
        .unwrap();
    let Space::Model(model) = &mut running.space else {
        unreachable!("these tests run on the model");
    };
    let at = at.get() as usize;
    model.mappings[0].memory[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The same in the file, so that memory and file agree and only the engine can object.
fn poke_file(running: &mut Running, function: &str, offset: i64, bytes: &[u8]) {
    poke(running, function, offset, bytes);
    let at = running.base.image.exports[function]
        .checked_offset(offset)
        .unwrap();
    let at = at.get() as usize;
    running.base.image.memory[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Makes the table agree with an entry that was changed in the file.
fn set_original(running: &mut Running, function: &str, original: u32) {
    let entry = running.base.image.exports[function];
    for chunk in &mut running.patches[0].table.bases[0].chunks {
        if let Chunk::ForwardFunction(records) = chunk {
            for record in records.iter_mut().filter(|record| record.base == entry) {
                record.original = original;
            }
        }
    }
}

const MISMATCH: u32 = 0xc000_0059;
const FORMAT: u32 = 0xc000_007b;
const CONFLICT: u32 = 0xc000_0018;

#[test]
fn a_patch_for_another_build_is_refused() {
    for make in [x64, arm64] {
        let identity = make().base.image.identity;
        let stamp = |r: &mut Running| r.base.image.identity.time_date_stamp ^= 1;
        refused(
            make(),
            stamp,
            MISMATCH,
            &format!("identity: expected {identity}, found"),
        );
        let checksum = |r: &mut Running| r.base.image.identity.checksum ^= 1;
        refused(make(), checksum, MISMATCH, "identity: expected");
        let zero = |r: &mut Running| r.patches[0].table.bases[0].identity.checksum = 0;
        refused(make(), zero, MISMATCH, "checksum 0x00000000, found");
    }
    let machines = running(ARM64_BASE, &[X64_PATCH]);
    refused(
        machines,
        |_| (),
        FORMAT,
        "patch: machine: expected arm64, found x64",
    );
}

#[test]
fn a_hooked_function_is_named() {
    // mov rax, imm64 in the middle of the function; a jump at its entry; a jump before it.
    let cases: [(i64, &[u8]); 3] = [(7, &[0x48, 0xb8]), (0, &[0xe9, 1, 2, 3, 4]), (-6, &[0x90])];
    for (offset, bytes) in cases {
        let entry = x64().base.image.exports["parse_record"];
        let place = format!("base: function at rva {entry}, byte at rva");
        refused(
            x64(),
            |r| poke(r, "parse_record", offset, bytes),
            CONFLICT,
            &place,
        );
    }
    refused(
        arm64(),
        |r| poke(r, "score", 0, &[0, 0, 0, 0x14]),
        CONFLICT,
        "function at rva",
    );
}

#[test]
fn other_original_bytes_are_refused() {
    let change = |r: &mut Running| set_original(r, "score", 0x4433_2211);
    refused(
        x64(),
        change,
        CONFLICT,
        "expected the original bytes 11 22, found 48 83",
    );
    refused(
        arm64(),
        change,
        CONFLICT,
        "expected the original bytes 11 22 33 44, found",
    );
    // The kernel compares two bytes on x64, so the other two may be anything.
    let mut same = x64();
    let entry = same.base.image.exports["score"].get() as usize;
    let [low, high] = [0, 1].map(|byte| u32::from(same.base.image.memory[entry + byte]));
    set_original(&mut same, "score", 0xffff_0000 | high << 8 | low);
    same.apply(0).unwrap();
}

#[test]
fn every_short_jump_into_the_pad_counts_as_redirected() {
    for displacement in 0xee..=0xff_u8 {
        let entry = u32::from_le_bytes([0xeb, displacement, 0x90, 0x90]);
        let change = |r: &mut Running| {
            poke_file(r, "score", 0, &entry.to_le_bytes());
            set_original(r, "score", entry);
        };
        let part = format!("a short jump into the bytes before it (eb {displacement:02x} 90 90)");
        refused(x64(), change, CONFLICT, &part);
    }
    // One less is a loop of the function's own, and not ours to judge.
    let mut own = x64();
    poke_file(&mut own, "score", 0, &[0xeb, 0xed]);
    set_original(&mut own, "score", 0xedeb);
    own.apply(0).unwrap();
}

#[test]
fn a_redirect_of_somebody_else_is_refused() {
    let change = |r: &mut Running| {
        let entry = r.base.image.exports["score"].get();
        let [a, b, c, d] = (r.base.image.size + 0x40 - entry).to_le_bytes();
        poke_file(r, "score", -5, &[0xe9, a, b, c, d, 0xeb, 0xf9]);
        set_original(r, "score", 0xf9eb);
    };
    refused(
        x64(),
        change,
        CONFLICT,
        "a redirect that this engine did not make (eb f9",
    );
    let change = |r: &mut Running| {
        let entry = r.base.image.exports["score"].get();
        let branch = 0x1400_0000 | ((r.base.image.size + 0x40 - entry) / 4);
        poke_file(r, "score", 0, &branch.to_le_bytes());
        set_original(r, "score", branch);
    };
    refused(
        arm64(),
        change,
        CONFLICT,
        "a redirect that this engine did not make",
    );
}

#[test]
fn bytes_before_an_entry_must_be_padding() {
    for bad in [
        &[0x00; 6][..],
        &[0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xc3],
        &[0xc3, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc],
    ] {
        let part = "expected 6 bytes of padding before it, found";
        refused(x64(), |r| poke_file(r, "score", -6, bad), CONFLICT, part);
    }
    // Five bytes are written, and still all six must be free.
    let mut enough = x64();
    poke_file(
        &mut enough,
        "score",
        -7,
        &[0xc3, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc],
    );
    enough.apply(0).unwrap();
    // A function that says it reaches into the pad owns it, whatever its bytes are.
    let owner = |r: &mut Running| {
        let entry = r.base.image.exports["score"].get();
        r.base.image.extents.push(entry - 40..entry - 3);
        r.base.image.extents.sort_by_key(|extent| extent.start);
    };
    refused(
        x64(),
        owner,
        CONFLICT,
        "padding before it, found the function at 0x",
    );
}

#[test]
fn an_entry_that_is_in_use_is_refused() {
    // push rbx; push rdi
    let short = |r: &mut Running| {
        poke_file(r, "score", 0, &[0x53, 0x57]);
        set_original(r, "score", 0x5753);
    };
    let part = "expected a first instruction of 2 bytes or more that nothing jumps to, found one";
    refused(x64(), short, CONFLICT, part);
    // jne to the entry, and past its first two bytes.
    let entry = x64().base.image.exports["score"].get();
    let back = |r: &mut Running| poke_file(r, "score", 4, &[0x75, 0xfa]);
    let part = format!("found a jump back to it from rva {:#x}", entry + 4);
    refused(x64(), back, CONFLICT, &part);
    let mut past = x64();
    poke_file(&mut past, "score", 4, &[0x75, 0xfc]);
    past.apply(0).unwrap();
    // A call of itself is a call like any other.
    let mut recursive = x64();
    poke_file(&mut recursive, "score", 4, &[0xe8, 0xf7, 0xff, 0xff, 0xff]);
    recursive.apply(0).unwrap();
}

#[test]
fn landing_pads_and_odd_places_are_refused() {
    let change = |r: &mut Running| {
        poke_file(r, "score", 0, &[0xf3, 0x0f, 0x1e, 0xfa]);
        set_original(r, "score", 0xfa1e_0ff3);
    };
    refused(
        x64(),
        change,
        CONFLICT,
        "a landing pad for indirect branches (f3 0f 1e fa)",
    );
    for bti in [0xd503_245f_u32, 0xd503_24df] {
        let change = |r: &mut Running| {
            poke_file(r, "score", 0, &bti.to_le_bytes());
            set_original(r, "score", bti);
        };
        refused(
            arm64(),
            change,
            CONFLICT,
            "a landing pad for indirect branches",
        );
    }
    let misplaced = |r: &mut Running| {
        let at = r.base.image.exports["score"];
        for chunk in &mut r.patches[0].table.bases[0].chunks {
            if let Chunk::ForwardFunction(records) = chunk {
                records.retain(|record| record.base == at);
                records[0].base = Rva::new(at.get() + 2);
                let from = at.get() as usize + 2;
                let bytes = r.base.image.memory[from..from + 4].try_into().unwrap();
                records[0].original = u32::from_le_bytes(bytes);
            }
        }
    };
    refused(arm64(), misplaced, CONFLICT, "expected a multiple of 4");
    let data = |r: &mut Running| {
        let counter = r.base.image.exports["counter"];
        for chunk in &mut r.patches[0].table.bases[0].chunks {
            if let Chunk::ForwardFunction(records) = chunk {
                records[0].base = counter;
            }
        }
    };
    refused(
        x64(),
        data,
        CONFLICT,
        "expected executable code, found section .data",
    );
}

#[test]
fn records_outside_their_images_are_refused() {
    let base = |r: &mut Running, rva: u32| {
        for chunk in &mut r.patches[0].table.bases[0].chunks {
            if let Chunk::ForwardFunction(records) = chunk {
                records[0].base = Rva::new(rva);
            }
        }
    };
    for rva in [0, 5, u32::MAX, u32::MAX - 7, x64().base.image.size] {
        refused(
            x64(),
            |r| base(r, rva),
            FORMAT,
            "forward FUNCTION entry: expected an rva from 0x6",
        );
    }
    let slot = |rva: u32| {
        move |r: &mut Running| {
            for chunk in &mut r.patches[0].table.bases[0].chunks {
                if let Chunk::ReverseAbsolute(records) = chunk {
                    records[0].patch = Rva::new(rva);
                }
            }
        }
    };
    let size = x64().patches[0].loaded.image.size;
    refused(
        x64(),
        slot(size - 7),
        FORMAT,
        "reverse slot: expected an rva from",
    );
    refused(
        x64(),
        slot(0x1020),
        FORMAT,
        "expected a section of data, found a section of code",
    );
    refused(
        x64(),
        slot(0x10),
        FORMAT,
        "expected a section of data, found the headers",
    );
}

#[test]
fn kinds_that_the_engine_does_not_apply_are_refused() {
    let attach = PointerAttach {
        patch: Rva::new(0x2000),
        base: Rva::new(0x3000),
    };
    let change = |r: &mut Running| {
        r.patches[0].table.bases[0]
            .chunks
            .push(Chunk::ReverseRel32(vec![attach]));
    };
    refused(x64(), change, FORMAT, "reverse REL32 chunk: expected");
    let two = |r: &mut Running| {
        let base = r.patches[0].table.bases[0].clone();
        r.patches[0].table.bases.push(base);
    };
    refused(
        x64(),
        two,
        FORMAT,
        "BaseImageCount: expected exactly 1, found 2",
    );
}

#[test]
fn a_function_named_twice_is_refused() {
    let change = |r: &mut Running| {
        for chunk in &mut r.patches[0].table.bases[0].chunks {
            if let Chunk::ForwardFunction(records) = chunk {
                records.push(records[0]);
            }
        }
    };
    for make in [x64, arm64] {
        refused(
            make(),
            change,
            CONFLICT,
            "expected this engine's redirect (",
        );
    }
}

#[test]
fn a_redirect_that_was_tampered_with_is_not_reverted() {
    for (make, offset) in [(x64 as fn() -> Running, -3), (arm64, 1)] {
        let mut running = make();
        running.apply(0).unwrap();
        poke(&mut running, "score", offset, &[0x55]);
        let before = running.space.snapshot(running.base.mapping);
        let refusal = running.revert().unwrap_err();
        assert_eq!(refusal.status.code(), CONFLICT);
        assert!(
            refusal
                .to_string()
                .contains("expected this engine's redirect ("),
            "{refusal}"
        );
        assert!(before == running.space.snapshot(running.base.mapping));
        assert!(running.apply(0).is_err());
    }
}
