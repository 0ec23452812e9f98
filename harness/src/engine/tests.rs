//! The engine's rules on a model of memory, for both machines, against the images of
//! `tests/images`, whose tables no code of this project wrote.

mod rules;

use hpbuild_metadata::table::{Chunk, ForwardAttach, HotPatchTable};
use hpbuild_metadata::{Base, Patch, Rva};

use super::plan::{self, Active};
use super::redirect::{Redirects, follow};
use super::{Mapped, Refusal};
use crate::image::Image;
use crate::running::{PatchFile, Running, load};
use crate::space::{Model, Space};

const X64_BASE: &[u8] = include_bytes!("../../tests/images/base-x64.dll");
const X64_PATCH: &[u8] = include_bytes!("../../tests/images/patch-x64.dll");
const X64_OLDER: &[u8] = include_bytes!("../../tests/images/older-x64.dll");
const ARM64_BASE: &[u8] = include_bytes!("../../tests/images/base-arm64.dll");
const ARM64_PATCH: &[u8] = include_bytes!("../../tests/images/patch-arm64.dll");
const ARM64_OLDER: &[u8] = include_bytes!("../../tests/images/older-arm64.dll");

/// Base, older and newer patch of both machines.
const PAIRS: [[&[u8]; 3]; 2] = [
    [X64_BASE, X64_OLDER, X64_PATCH],
    [ARM64_BASE, ARM64_OLDER, ARM64_PATCH],
];

fn running(base: &[u8], patches: &[&[u8]]) -> Running {
    let patches = patches.iter().map(|file| PatchFile::parse(file).unwrap());
    let space = Space::Model(Model::default());
    load(space, Image::parse(base).unwrap(), patches.collect(), 1).unwrap()
}

/// Where a call of an exported function of the base ends up: `None` for the base itself.
fn leads_to(running: &Running, function: &str) -> Option<u64> {
    let memory = running.space.snapshot(running.base.mapping);
    let mapped = Mapped {
        image: &running.base.image,
        address: running.space.address(running.base.mapping),
        memory: &memory,
    };
    follow(&mapped, running.base.image.exports[function])
}

#[test]
fn a_newer_patch_replaces_an_older_one() {
    for [base, older, newer] in PAIRS {
        let mut running = running(base, &[older, newer]);
        let before = running.space.snapshot(running.base.mapping);
        running.apply(0).unwrap();
        let in_older = leads_to(&running, "duplicate").unwrap();
        let slot = |running: &Running| {
            let entry = running.base.image.exports["duplicate"];
            running.active.redirects.by_entry[&entry].slot
        };
        let first_slot = slot(&running);
        assert!(leads_to(&running, "get_counter").is_some());
        assert_eq!(leads_to(&running, "score"), None);
        running.apply(1).unwrap();
        // Redirected by both: the same entry of the table, another pointer.
        assert_ne!(leads_to(&running, "duplicate").unwrap(), in_older);
        assert_eq!(slot(&running), first_slot);
        // By the older one alone: the base's again. By the newer one alone: redirected now.
        assert_eq!(leads_to(&running, "get_counter"), None);
        assert!(leads_to(&running, "score").is_some());
        // And back: the last one applied is the active one.
        running.apply(0).unwrap();
        assert_eq!(leads_to(&running, "duplicate"), Some(in_older));
        assert_eq!(leads_to(&running, "score"), None);
        running.revert().unwrap();
        assert_eq!(running.differs(&before, 1), []);
        assert_eq!(leads_to(&running, "duplicate"), None);
    }
}

#[test]
fn reverse_records_reach_the_base() {
    for [base, _, newer] in PAIRS {
        let mut running = running(base, &[newer]);
        let iat_of = |running: &Running, name: &str| {
            let imports = &running.base.image.imports;
            imports
                .iter()
                .find(|import| import.name == name)
                .unwrap()
                .slot
        };
        // Give the import a value as a loader would.
        let malloc = iat_of(&running, "malloc");
        let Space::Model(model) = &mut running.space else {
            unreachable!("these tests run on the model");
        };
        let at = malloc.get() as usize;
        model.mappings[0].memory[at..at + 8].copy_from_slice(&0x1122_3344_5566_u64.to_le_bytes());
        running.apply(0).unwrap();
        let patch = &running.patches[0];
        let memory = running.space.snapshot(patch.loaded.mapping);
        let word = |rva: Rva<Patch>| {
            let at = rva.get() as usize;
            u64::from_le_bytes(memory[at..at + 8].try_into().unwrap())
        };
        let base_start = running.space.address(running.base.mapping);
        let exports = &running.base.image.exports;
        let mut checked = 0;
        for chunk in &patch.table.bases[0].chunks {
            match chunk {
                Chunk::ReverseAbsolute(records) => {
                    let counter = base_start + u64::from(exports["counter"].get());
                    assert_eq!(word(records[0].patch), counter);
                    checked += 1;
                }
                Chunk::ReverseIndirect(records) => {
                    let record = records.iter().find(|record| record.base == malloc).unwrap();
                    assert_eq!(word(record.patch), 0x1122_3344_5566);
                    checked += 1;
                }
                Chunk::ReverseFunction(records) => {
                    let mapped = Mapped {
                        image: &patch.loaded.image,
                        address: running.space.address(patch.loaded.mapping),
                        memory: &memory,
                    };
                    let weigh = base_start + u64::from(exports["weigh"].get());
                    assert_eq!(follow(&mapped, records[0].patch), Some(weigh));
                    checked += 1;
                }
                _ => {}
            }
        }
        assert_eq!(checked, 3);
    }
}

/// The redirect that stands in memory, decoded by a disassembler instead of by this crate.
#[test]
fn a_disassembler_reads_the_same_redirect() {
    use iced_x86::{Code, Decoder, DecoderOptions};
    let mut running = running(X64_BASE, &[X64_PATCH]);
    running.apply(0).unwrap();
    let memory = running.space.snapshot(running.base.mapping);
    let start = running.space.address(running.base.mapping);
    let decode = |address: u64| {
        let at = (address - start) as usize;
        Decoder::with_ip(64, &memory[at..], address, DecoderOptions::NONE).decode()
    };
    let reached = running.reached(0);
    assert_eq!(reached.len(), 4);
    for function in reached {
        let short = decode(start + u64::from(function.entry.get()));
        assert_eq!(short.code(), Code::Jmp_rel8_64);
        let near = decode(short.near_branch_target());
        assert_eq!(near.code(), Code::Jmp_rel32_64);
        let indirect = decode(near.near_branch_target());
        assert_eq!(indirect.code(), Code::Jmp_rm64);
        let pointer = (indirect.ip_rel_memory_address() - start) as usize;
        let target = u64::from_le_bytes(memory[pointer..pointer + 8].try_into().unwrap());
        assert_eq!(target, function.wanted);
    }
}

/// The branch of an Arm64 redirect against the architecture's own encoding, and the table's code
/// against the two instructions the format reference gives.
#[test]
fn an_arm64_redirect_is_one_branch_to_the_table() {
    let mut running = running(ARM64_BASE, &[ARM64_PATCH]);
    running.apply(0).unwrap();
    let memory = running.space.snapshot(running.base.mapping);
    let word =
        |at: u32| u32::from_le_bytes(memory[at as usize..at as usize + 4].try_into().unwrap());
    let table = running.base.image.size;
    for (index, entry) in running.active.redirects.by_entry.keys().enumerate() {
        // The records stand in another order than the addresses, so look the slot up.
        let slot = running.active.redirects.by_entry[entry].slot.0;
        let code = table + 8 * slot;
        assert_eq!(
            word(entry.get()),
            0x1400_0000 + (code - entry.get()) / 4,
            "{index}"
        );
        assert_eq!((word(code), word(code + 4)), (0x5800_8010, 0xd61f_0200));
    }
    // No byte before any entry was touched.
    let pristine = running
        .base
        .image
        .relocated(running.space.address(running.base.mapping));
    for entry in running.active.redirects.by_entry.keys() {
        let before = entry.get() as usize - 16..entry.get() as usize;
        assert_eq!(memory[before.clone()], pristine[before]);
    }
}

/// A thread that stands anywhere in a redirect must not stay there while it is written.
#[test]
fn a_pointer_in_a_redirect_is_in_the_way() {
    let mut running = running(X64_BASE, &[X64_PATCH]);
    running.apply(0).unwrap();
    let memory = running.space.snapshot(running.base.mapping);
    let base = Mapped {
        image: &running.base.image,
        address: running.space.address(running.base.mapping),
        memory: &memory,
    };
    let writes = plan::revert(&base, &running.active).unwrap();
    let entry = running.base.image.exports["score"];
    let in_way = |offset: i64| {
        let at = entry.checked_offset(offset).unwrap();
        plan::is_in_way(base.image.machine, &writes, at)
    };
    let found: Vec<i64> = (-12..12).filter(|&offset| in_way(offset)).collect();
    assert_eq!(found, [-6, -5, -4, -3, -2, -1, 0, 1]);
}

/// A base of many tiny functions, for the limits of the table.
fn many_functions(count: u32) -> (Image<Base>, HotPatchTable) {
    let mut image = Image::<Base>::parse(X64_BASE).unwrap();
    let table = PatchFile::parse(X64_PATCH).unwrap().table;
    let start = image.size;
    let size = (count * 16).next_multiple_of(0x1000);
    image.sections.push(crate::image::Section {
        name: "many".to_owned(),
        start: Rva::new(start),
        size,
        readable: true,
        writable: false,
        executable: true,
    });
    image.size += size;
    image.memory.resize(image.size as usize, 0xcc);
    let mut records = Vec::new();
    for index in 0..count {
        let entry = start + 16 * index + 8;
        image.memory[entry as usize..entry as usize + 3].copy_from_slice(&[0x31, 0xc0, 0xc3]);
        records.push(ForwardAttach {
            base: Rva::new(entry),
            patch: Rva::new(0x1020),
            original: 0x31 | 0xc0 << 8,
        });
    }
    let mut table = table;
    table.bases[0].chunks = records
        .chunks(4095)
        .map(|records| Chunk::ForwardFunction(records.to_vec()))
        .collect();
    (image, table)
}

fn plan_with(
    image: &Image<Base>,
    table: &HotPatchTable,
    blocks: u32,
) -> Result<plan::Plan, Refusal> {
    let patch = PatchFile::parse(X64_PATCH).unwrap().image;
    let mut memory = image.memory.clone();
    memory.resize((image.size + blocks * 0x2000) as usize, 0);
    let base = Mapped {
        image,
        address: image.preferred,
        memory: &memory,
    };
    let patch_memory = patch.memory.clone();
    let patch = Mapped {
        image: &patch,
        address: patch.preferred,
        memory: &patch_memory,
    };
    plan::apply(
        &base,
        &patch,
        table,
        &Active::default(),
        &Redirects::default(),
    )
}

#[test]
fn the_table_holds_512_functions_a_block_and_chunks_add_up() {
    let (image, table) = many_functions(512);
    assert_eq!(
        plan_with(&image, &table, 1)
            .unwrap()
            .active
            .redirects
            .by_entry
            .len(),
        512
    );
    let (image, table) = many_functions(513);
    let refusal = plan_with(&image, &table, 1).unwrap_err();
    assert_eq!(refusal.status.code(), 0xc000_04ac);
    assert_eq!(
        refusal.to_string(),
        "base: hot patch address table: expected room for one more than 512 functions, \
         found a full table (status 0xc00004ac)"
    );
    // More than one chunk can hold.
    let (image, table) = many_functions(4096);
    assert_eq!(table.bases[0].chunks.len(), 2);
    let plan = plan_with(&image, &table, 8).unwrap();
    let last = plan.active.redirects.by_entry.values().last().unwrap();
    assert_eq!((last.slot.0, plan.forward.len()), (4095, 4 * 4096));
}

#[test]
fn neighbours_that_are_patched_do_not_count_as_changed() {
    // Functions without unwind entries, each close behind the one before it.
    let (image, table) = many_functions(3);
    let patch = PatchFile {
        table,
        ..PatchFile::parse(X64_PATCH).unwrap()
    };
    let space = Space::Model(Model::default());
    let mut running = load(space, image, vec![patch], 1).unwrap();
    running.apply(0).unwrap();
    running.apply(0).unwrap();
    // What others write between them still counts.
    let Space::Model(model) = &mut running.space else {
        unreachable!("these tests run on the model");
    };
    let first = *running.active.redirects.by_entry.keys().next().unwrap();
    model.mappings[0].memory[first.get() as usize + 10] = 0x90;
    let refusal = running.apply(0).unwrap_err().to_string();
    let expected = format!(
        "base: function at rva {first}, byte at rva {:#x}",
        first.get() + 10
    );
    assert!(refusal.starts_with(&expected), "{refusal}");
}
