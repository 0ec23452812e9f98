//! Inputs that no compiler here writes, made of the prebuilt ones.

use std::collections::BTreeSet;
use std::path::PathBuf;

use hpbuild_differ::SymbolPaths;
use hpbuild_differ::decode::{Field, ReferenceKind};
use hpbuild_differ::judge::Policy;
use hpbuild_fixtures::{Machine, demo, lone, pairs};
use hpbuild_metadata::{BaseIdentity, Fixed, Rva, Sequence};
use hpbuild_packager::extract::{Options, Previous};
use hpbuild_packager::piece::{
    BaseFacts, How, Parts, Piece, PieceId, Place, Redirect, Reference, Room, Target,
};
use object::LittleEndian as LE;
use object::read::pe::{ImageNtHeaders, PeFile64};

use crate::Case;
use crate::findings::{Compared, Findings, compared, findings, findings_of};
use crate::pdb;

const DEMO: demo::Demo = demo::X64;

/// `GuardFlags` of the load config directory, and the bit that promises type hashes.
const GUARD_FLAGS: u32 = 0x90;
const XFG_ENABLED: u8 = 0x80;

/// Further fields of the same directory.
const TIME_STAMP: u32 = 0x04;
const DEPENDENT_LOAD_FLAGS: u32 = 0x4e;
const ENCLAVE: u32 = 0xf8;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = kinds();
    cases.extend(symbols());
    cases.extend(headers());
    cases.extend(loader());
    cases.extend(older_patches());
    cases.extend(later_fixes());
    cases.extend(waivers());
    cases.push(reach("far", 2 << 20, &["HP069 far"], &[]));
    cases.push(reach("close", 16, &[], &["HP069 close"]));
    cases
}

fn case(name: &str, expected: &[&str], near: &[&str], found: Findings) -> Case {
    let owned = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    Case {
        name: name.to_owned(),
        expected: owned(expected).into_iter().collect(),
        near: owned(near),
        warned: BTreeSet::new(),
        hotpatchable: None,
        found,
    }
}

/// Images of kinds that are refused, and one that is not, each compared with itself.
fn kinds() -> Vec<Case> {
    let mut cases = Vec::new();
    for group in ["refused", "refused-x86"] {
        for (variant, machine, build) in lone(group).expect("fixtures") {
            let (expected, near): (&[&str], &[&str]) = match (&*variant, machine) {
                ("hybrid", _) => (&["HP002"], &["HP001", "HP003"]),
                ("plain", Machine::X86) => (&["HP001"], &["HP002"]),
                ("managed", _) => (&["HP003"], &["HP002"]),
                ("no-debug", _) => (&["HP004"], &["HP005"]),
                _ => (&[], &["HP001", "HP002", "HP003", "HP004"]),
            };
            let found = findings(&build.dll, &build.dll, SymbolPaths::default());
            let name = format!("{group}/{variant} {}", machine.name());
            cases.push(case(&name, expected, near, found));
        }
    }
    cases
}

/// A copy of the demo pair.
struct Copy {
    folder: tempfile::TempDir,
}

impl Copy {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let copy = Self { folder };
        for (side, image) in [("base", DEMO.base), ("fixed", DEMO.fixed)] {
            std::fs::create_dir(copy.folder.path().join(side)).expect("a folder");
            for file in [image.dll, image.pdb] {
                copy.write(&format!("{side}/{}", file.name), file.bytes);
            }
        }
        copy
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, bytes).expect("a file");
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).expect("a file to remove");
    }

    fn findings(&self, symbols: SymbolPaths) -> Findings {
        let (base, fixed) = (
            self.path("base/hp_demo.dll"),
            self.path("fixed/hp_demo.dll"),
        );
        findings(&base, &fixed, symbols)
    }
}

/// PDBs that are missing, of another build, rewritten, or by another compiler.
fn symbols() -> Vec<Case> {
    let plain = SymbolPaths::default;
    let mut cases = Vec::new();

    let missing = Copy::new();
    missing.remove("base/hp_demo.pdb");
    cases.push(case("no PDB", &["HP004"], &[], missing.findings(plain())));
    missing.write("store/hp_demo.pdb", DEMO.base.pdb.bytes);
    let store = SymbolPaths {
        folders: vec![missing.path("store")],
        ..plain()
    };
    let found = missing.findings(store.clone());
    cases.push(case("a PDB elsewhere", &[], &["HP004"], found));

    missing.write("base/hp_demo.pdb", DEMO.fixed.pdb.bytes);
    let found = missing.findings(plain());
    cases.push(case("another PDB", &["HP005"], &[], found));
    let found = missing.findings(store);
    let near = ["HP005"];
    cases.push(case("the right PDB behind another", &[], &near, found));

    let edited = Copy::new();
    let base = DEMO.base.pdb.bytes;
    for (index, expected, near) in [
        (pdb::OMAP_TO_SRC, &["HP006"][..], &[][..]),
        (pdb::EXCEPTION, &[], &["HP006"]),
    ] {
        edited.write("base/hp_demo.pdb", &pdb::with_optional_stream(base, index));
        let found = edited.findings(plain());
        let name = format!("optional stream {index}");
        cases.push(case(&name, expected, near, found));
    }

    edited.write("base/hp_demo.pdb", base);
    // The first record is that of the entry point, which does not change.
    for (records, expected, near) in [(usize::MAX, &["HP040"][..], &[][..]), (1, &[], &["HP040"])] {
        let other = pdb::with_other_compiler(DEMO.fixed.pdb.bytes, records);
        edited.write("fixed/hp_demo.pdb", &other);
        let found = edited.findings(plain());
        cases.push(case("another compiler", expected, near, found));
    }
    cases
}

/// Bits that the loader looks at, as offsets from the signature of the PE image, and some beside them
/// that mean nothing to the running base.
fn loader() -> Vec<Case> {
    const OPTIONAL: usize = 24;
    const FIRST_SECTION: usize = OPTIONAL + 240;
    let copy = Copy::new();
    let found_with = |edit: &dyn Fn(&mut [u8])| {
        let mut bytes = DEMO.base.dll.bytes.to_vec();
        let at = word(&bytes, 0x3c) as usize;
        edit(&mut bytes[at..]);
        copy.write("base/hp_demo.dll", &bytes);
        copy.findings(SymbolPaths::default())
    };
    let mut cases = Vec::new();
    for (at, bit, expected) in [
        (22, 0x20, "HP039 Characteristics"),
        (OPTIONAL + 68, 1, "HP039 Subsystem"),
        (OPTIONAL + 71, 0x20, "HP039 DllCharacteristics"),
        (OPTIONAL + 73, 1, "HP039 SizeOfStackReserve"),
        (OPTIONAL + 97, 1, "HP039 SizeOfHeapCommit"),
        (FIRST_SECTION + 39, 0x80, "HP039 .text"),
    ] {
        let found = found_with(&|image| image[at] ^= bit);
        cases.push(case("edited for the loader", &[expected], &[], found));
    }
    let found = found_with(&|image| image[OPTIONAL + 16..][..4].fill(0));
    let expected = ["HP039 entry point"];
    cases.push(case("without an entry point", &expected, &[], found));
    for (what, at) in [("time stamp", 8), ("linker version", OPTIONAL + 2)] {
        let found = found_with(&|image| image[at] ^= 1);
        cases.push(case(what, &[], &["HP039"], found));
    }
    cases
}

/// Headers of the base, and unwind info of the fixed image.
fn headers() -> Vec<Case> {
    let copy = Copy::new();
    let mut cases = Vec::new();
    let mut base = |edit: &dyn Fn(&mut [u8]), expected: &[&str], near: &[&str]| {
        let mut bytes = DEMO.base.dll.bytes.to_vec();
        edit(&mut bytes);
        copy.write("base/hp_demo.dll", &bytes);
        let found = copy.findings(SymbolPaths::default());
        cases.push(case("edited headers", expected, near, found));
    };
    let checksum = |bytes: &[u8]| word(bytes, 0x3c) as usize + 24 + 64;
    base(
        &|bytes| {
            let at = checksum(bytes);
            bytes[at..at + 4].fill(0);
        },
        &["HP008"],
        &[],
    );
    base(
        &|bytes| {
            let at = checksum(bytes);
            bytes[at..at + 4].copy_from_slice(&[1, 0, 0, 0]);
        },
        &[],
        &["HP008"],
    );
    // IMAGE_FILE_HEADER.Characteristics
    let characteristics = |bytes: &[u8]| {
        let word = bytes[0x3c..0x40].try_into().expect("a PE image");
        u32::from_le_bytes(word) as usize + 22
    };
    base(
        &|bytes| {
            let at = characteristics(bytes);
            bytes[at] |= object::pe::IMAGE_FILE_RELOCS_STRIPPED.0.to_le_bytes()[0];
        },
        &["HP009"],
        &[],
    );
    base(
        &|bytes| {
            let at = characteristics(bytes);
            bytes[at] |= object::pe::IMAGE_FILE_LINE_NUMS_STRIPPED.0.to_le_bytes()[0];
        },
        &[],
        &["HP009"],
    );
    let load_config = |bytes: &[u8], field: u32| {
        let file = PeFile64::parse(bytes).expect("a PE image");
        let directory = file
            .data_directories()
            .get(object::pe::IMAGE_DIRECTORY_ENTRY_LOAD_CONFIG);
        let rva = directory.expect("a load config").virtual_address.get(LE);
        file_offset(bytes, rva + field)
    };
    let guard_flags = |bytes: &[u8]| load_config(bytes, GUARD_FLAGS);
    for (field, expected, near) in [
        (
            DEPENDENT_LOAD_FLAGS,
            &["HP039 DependentLoadFlags"][..],
            &[][..],
        ),
        (ENCLAVE, &["HP039 EnclaveConfigurationPointer"], &[]),
        (TIME_STAMP, &[], &["HP039"]),
    ] {
        let set = |bytes: &mut [u8]| {
            let at = load_config(bytes, field);
            bytes[at + 1] |= 8;
        };
        base(&set, expected, near);
    }
    base(
        &|bytes| {
            let at = guard_flags(bytes);
            bytes[at + 2] |= XFG_ENABLED;
        },
        &["HP015 hp_right", "HP015 read_name", "HP039 GuardFlags"],
        &[],
    );
    base(
        &|bytes| {
            let at = guard_flags(bytes);
            assert_eq!(bytes[at + 1] & 1, 1, "CF is on");
        },
        &[],
        &["HP015 hp_right", "HP015 read_name", "HP039"],
    );
    copy.write("base/hp_demo.dll", DEMO.base.dll.bytes);
    let (base, fixed) = (
        copy.path("base/hp_demo.dll"),
        copy.path("fixed/hp_demo.dll"),
    );
    let symbols = SymbolPaths::default();
    let Compared::Diff(diff) = compared(&base, &fixed, symbols, Policy::default()) else {
        panic!("the demo pair cannot be compared");
    };
    let mut ids = diff.fixed.function_ids();
    let id = ids.find(|id| diff.fixed.display_name(*id) == "read_name");
    let read_name = diff.fixed.function(id.expect("a function of the demo")).rva;
    for (version, expected, near) in [
        (7, &["HP067 read_name"][..], &[][..]),
        (1, &[], &["HP067 read_name"]),
    ] {
        let mut bytes = DEMO.fixed.dll.bytes.to_vec();
        for at in unwind_infos(&bytes, read_name) {
            bytes[at] = bytes[at] & !7 | version;
        }
        copy.write("fixed/hp_demo.dll", &bytes);
        let found = copy.findings(SymbolPaths::default());
        let name = format!("unwind info of version {version}");
        cases.push(case(&name, expected, near, found));
    }
    cases
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("a whole image"))
}

fn file_offset(bytes: &[u8], rva: u32) -> usize {
    let file = PeFile64::parse(bytes).expect("a PE image");
    let (at, _) = file
        .section_table()
        .pe_file_range_at(rva)
        .expect("a place in the file");
    at as usize
}

/// Where the unwind info of a function of an x64 image stands in the file.
fn unwind_infos(bytes: &[u8], function: Rva<Fixed>) -> BTreeSet<usize> {
    let file = PeFile64::parse(bytes).expect("a PE image");
    assert!(file.nt_headers().is_type_64());
    let directory = file
        .data_directories()
        .get(object::pe::IMAGE_DIRECTORY_ENTRY_EXCEPTION)
        .expect("an exception directory");
    let start = file_offset(bytes, directory.virtual_address.get(LE));
    let size = directory.size.get(LE) as usize;
    let entries = (start..start + size).step_by(12);
    entries
        .filter(|at| word(bytes, *at) == function.get())
        .map(|at| file_offset(bytes, word(bytes, at + 8)))
        .collect()
}

/// Patches over older ones: carried and not, numbered higher and not.
fn older_patches() -> Vec<Case> {
    let pairs = pairs().expect("fixtures");
    let diff = |name: &str| {
        let is_it =
            |pair: &&hpbuild_fixtures::Pair| pair.name == name && pair.machine == Machine::X64;
        let pair = pairs.iter().find(is_it).expect("a pair of the edits");
        let policy = Policy::default();
        let symbols = SymbolPaths::default();
        match compared(&pair.base.dll, &pair.fixed.dll, symbols, policy) {
            Compared::Diff(diff) => diff,
            Compared::Nothing(rules) => panic!("{rules:?}"),
        }
    };
    let same = diff("edits/call-target");
    let older = hpbuild_packager::build(&same, &Options::first()).expect("a patch");
    let previous = Previous::read(&older.file).expect("a patch image");
    let over = |sequence| Options {
        sequence: Sequence::new(sequence).expect("not zero"),
        previous: Some(previous.clone()),
        ..Options::first()
    };
    let other = diff("edits/immediate");
    vec![
        case(
            "an older patch that is carried",
            &[],
            &["HP076 call_scaled", "HP077"],
            findings_of(&same, &over(2)),
        ),
        case(
            "an older patch that is not carried",
            &["HP076 call_scaled"],
            &[],
            findings_of(&other, &over(2)),
        ),
        case(
            "an older patch of the same number",
            &["HP077 the older patch"],
            &[],
            findings_of(&same, &over(1)),
        ),
    ]
}

/// The older variant and the newer one, whether that is refused, what is found, and what comes close.
type Later = (
    &'static str,
    &'static str,
    bool,
    &'static [&'static str],
    &'static [&'static str],
);

/// Second fixes over a first one that brought functions and tables.
const LATER: [Later; 13] = [
    (
        "first",
        "first",
        false,
        &[],
        &["HP043 checked", "HP043 checked_ways"],
    ),
    (
        "first",
        "changed",
        true,
        &["HP043 checked"],
        &["HP043 on_late", "HP043 strict", "HP043 checked_ways"],
    ),
    (
        "first",
        "handed",
        false,
        &["HP043 on_late"],
        &["HP043 checked", "HP043 strict"],
    ),
    (
        "first",
        "table",
        true,
        &["HP043 checked_ways"],
        &["HP043 equal_ways", "HP043 strict"],
    ),
    (
        "first",
        "gone",
        false,
        &["HP043 on_late"],
        &["HP043 strict"],
    ),
    (
        "first",
        "compared",
        false,
        &["HP043 strict"],
        &["HP043 checked"],
    ),
    (
        "state",
        "state",
        false,
        &["HP032 dropped", "HP043 counted"],
        &["HP043 checked", "HP043 dropped"],
    ),
    (
        "state",
        "first",
        false,
        &["HP043 counted"],
        &["HP043 checked"],
    ),
    (
        "first",
        "layout",
        true,
        &["HP043 extra"],
        &["HP043 checked"],
    ),
    (
        "first",
        "value",
        true,
        &["HP043 mode::MODE_LATE"],
        &["HP043 checked"],
    ),
    (
        "first",
        "further",
        false,
        &[],
        &["HP043 extra", "HP043 mode::MODE_LATE", "HP043 checked"],
    ),
    ("first", "renamed", false, &[], &["HP043 mode::MODE_LATE"]),
    (
        "first",
        "unvalued",
        false,
        &["HP043 mode::MODE_LATE"],
        &["HP043 extra"],
    ),
];

fn later_fixes() -> Vec<Case> {
    let pairs = pairs().expect("fixtures");
    let diff = |name: &str, machine| {
        let name = format!("later/{name}");
        let is_it = |pair: &&hpbuild_fixtures::Pair| pair.name == name && pair.machine == machine;
        let pair = pairs.iter().find(is_it).expect("a pair of the group");
        let symbols = SymbolPaths::default();
        match compared(&pair.base.dll, &pair.fixed.dll, symbols, Policy::default()) {
            Compared::Diff(diff) => diff,
            Compared::Nothing(rules) => panic!("{rules:?}"),
        }
    };
    let mut cases = Vec::new();
    for machine in [Machine::X64, Machine::Arm64] {
        for (older, newer, refused, expected, near) in LATER {
            let first = diff(older, machine);
            let patch = hpbuild_packager::build(&first, &Options::first()).expect("a patch");
            let previous = Previous::read(&patch.file).expect("a patch image");
            let options = Options {
                sequence: Sequence::new(2).expect("not zero"),
                previous: Some(previous),
                ..Options::first()
            };
            let mut found = findings_of(&diff(newer, machine), &options);
            // What the older one had can be what a finding is about, too.
            let before = findings_of(&first, &Options::first());
            found.names.extend(before.names);
            let name = format!("later/{newer} over {older} {}", machine.name());
            let mut case = case(&name, expected, near, found);
            case.hotpatchable = Some(!refused);
            cases.push(case);
        }
    }
    cases
}

/// A waiver that allows a finding, and one that waits for another name.
fn waivers() -> Vec<Case> {
    let pairs = pairs().expect("fixtures");
    let is_it = |pair: &&hpbuild_fixtures::Pair| {
        pair.name == "edits/unpadded" && pair.machine == Machine::X64
    };
    let pair = pairs.iter().find(is_it).expect("a pair without padding");
    let with = |name: &str, expected: &[&str], near: &[&str]| {
        let text = format!("[[allow]]\ncode = 'HP010'\nname = '{name}'\nreason = 'tried out'\n");
        let policy = Policy::parse(&text).expect("a policy");
        let symbols = SymbolPaths::default();
        match compared(&pair.base.dll, &pair.fixed.dll, symbols, policy) {
            Compared::Diff(diff) => {
                let found = findings_of(&diff, &Options::first());
                case("a waiver", expected, near, found)
            }
            Compared::Nothing(rules) => panic!("{rules:?}"),
        }
    };
    vec![
        with("immediate", &["HP010 immediate"], &["HP036 immediate"]),
        with("level", &["HP010 immediate", "HP036 level"], &[]),
    ]
}

/// An Arm64 function that takes the address of data in the patch by one instruction, which reaches
/// a megabyte, with so many bytes between.
fn reach(name: &str, between: u32, expected: &[&str], near: &[&str]) -> Case {
    let adr = Reference {
        offset: 0,
        how: How::Instruction {
            length: 4,
            kind: ReferenceKind::Address,
            field: Field::Word { mask: 0x60ff_ffe0 },
        },
        target: Target::Piece(Place::start(PieceId(2))),
    };
    let piece = |name: &str, room, bytes: &[u8], zeros, references| Piece {
        name: name.into(),
        origin: None,
        room,
        align: 16,
        bytes: bytes.to_vec(),
        zeros,
        references,
        page_links: Vec::new(),
    };
    // adr x0, data; ret
    let code = [0x1000_0000_u32, 0xd65f_03c0]
        .map(u32::to_le_bytes)
        .concat();
    let parts = Parts {
        machine: hpbuild_metadata::Machine::Arm64,
        sequence: Sequence::FIRST,
        base: BaseFacts {
            stem: "base".into(),
            identity: BaseIdentity {
                time_date_stamp: 1,
                checksum: 1,
            },
            image_size: 0x9000,
            guard_cf: false,
            guard_eh: false,
            ex_characteristics: 0,
        },
        pieces: vec![
            piece(name, Room::Code, &code, 0, vec![adr]),
            piece("between", Room::Writable, &[], between, Vec::new()),
            piece("data", Room::Writable, &[], 16, Vec::new()),
        ],
        code: vec![PieceId(0)],
        runtime: Vec::new(),
        continuations: Vec::new(),
        redirects: vec![Redirect {
            name: name.into(),
            base: Rva::new(0x1000),
            original: [0; 4],
            piece: PieceId(0),
        }],
        imports: Vec::new(),
        brought: Vec::new(),
    };
    let rules = match hpbuild_packager::link::link(&parts) {
        Ok(_) => BTreeSet::new(),
        Err(refusals) => refusals
            .iter()
            .map(|it| format!("{} {}", it.rule.name(), it.name))
            .collect(),
    };
    let found = Findings {
        refused: !rules.is_empty(),
        rules,
        warned: BTreeSet::new(),
        names: [name.to_owned()].into(),
    };
    case(name, expected, near, found)
}
