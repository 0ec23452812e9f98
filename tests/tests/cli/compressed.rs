//! Compressed PDBs (the MSFZ container, files that some tools call `.pdz`): the same report as
//! from the plain PDB, and one clear error where such a file is damaged.

use std::ffi::OsStr;
use std::io::{Cursor, Write};
use std::path::Path;

use hpbuild_fixtures::{demo, pairs};
use ms_pdb::msfz::{Compression, MsfzFinishOptions, MsfzWriter};
use ms_pdb::{Pdb, Stream};

use crate::program::{Workspace, hpbuild, noise};

/// How the container is written.
#[derive(Clone, Copy, Debug)]
struct Shape {
    compression: Compression,
    /// Bytes of a chunk before it is compressed, at most.
    chunk: u32,
    compressed_directory: bool,
    /// Whether every other stream is stored as it is.
    half_plain: bool,
}

const SHAPES: [Shape; 3] = [
    Shape {
        compression: Compression::Zstd,
        chunk: 4 << 20,
        compressed_directory: true,
        half_plain: false,
    },
    // Streams that are spread over many chunks.
    Shape {
        compression: Compression::Deflate,
        chunk: 0x1000,
        compressed_directory: false,
        half_plain: false,
    },
    Shape {
        compression: Compression::Zstd,
        chunk: 0x4000,
        compressed_directory: false,
        half_plain: true,
    },
];

/// The streams of the PDB at `path` in a compressed container.
fn compress(path: &Path, shape: Shape) -> Vec<u8> {
    let pdb = Pdb::open(path).expect("a fixture's PDB");
    let mut writer = MsfzWriter::new(Cursor::new(Vec::new())).expect("memory can be written");
    writer.set_chunk_compression_mode(shape.compression);
    writer.set_uncompressed_chunk_size_threshold(shape.chunk);
    writer.reserve_num_streams(pdb.num_streams() as usize);
    // Stream 0 is the old directory, which a compressed container does not have.
    for stream in u32::from(Stream::PDB)..pdb.num_streams() {
        if !pdb.is_stream_valid(stream) {
            continue;
        }
        let bytes = pdb.read_stream_to_vec(stream).expect("a whole fixture");
        let mut to = writer.stream_writer(stream).expect("an own stream");
        to.set_compression_enabled(!shape.half_plain || stream % 2 == 0);
        to.write_all(&bytes).expect("memory can be written");
    }
    let options = MsfzFinishOptions {
        stream_dir_compression: shape.compressed_directory.then_some(shape.compression),
        ..MsfzFinishOptions::default()
    };
    let (_, file) = writer.finish_with_options(options).expect("a container");
    file.into_inner()
}

/// Every pair, with both PDBs compressed in place: not a byte of the report differs.
#[test]
fn report_is_that_of_the_plain_pdb() {
    let files = Workspace::new();
    let place = |name: &str, from: &Path| {
        let to = files.path(name);
        std::fs::copy(from, &to).expect("a fixture can be copied");
        to
    };
    let mut compared = 0;
    let pairs = pairs().expect("fixtures");
    let with_pdb = pairs.iter().filter(|pair| pair.base.pdb.is_file());
    for (pair, shape) in with_pdb.zip(SHAPES.iter().cycle()) {
        let (base, fixed) = (&pair.base, &pair.fixed);
        let dlls = [place("base.dll", &base.dll), place("fixed.dll", &fixed.dll)];
        let pdbs = [place("base.pdb", &base.pdb), place("fixed.pdb", &fixed.pdb)];
        let diff = || {
            let arguments = [
                OsStr::new("diff"),
                dlls[0].as_ref(),
                dlls[1].as_ref(),
                "--base-pdb".as_ref(),
                pdbs[0].as_ref(),
                "--fixed-pdb".as_ref(),
                pdbs[1].as_ref(),
                "--format".as_ref(),
                "json".as_ref(),
            ];
            hpbuild(arguments)
        };
        let plain = diff();
        for pdb in &pdbs {
            let bytes = compress(pdb, *shape);
            let before = std::fs::metadata(pdb).expect("the copy").len();
            assert!((bytes.len() as u64) < before, "{} {shape:?}", pair.name);
            std::fs::write(pdb, bytes).expect("a file can be written");
        }
        let compressed = diff();
        assert!(plain.stdout.contains("\"verdict\""), "{plain:#?}");
        assert_eq!(plain.code, compressed.code, "{} {shape:?}", pair.name);
        assert_eq!(plain.stdout, compressed.stdout, "{} {shape:?}", pair.name);
        assert_eq!(compressed.stderr, "", "{} {shape:?}", pair.name);
        compared += 1;
    }
    assert!(compared > 2 * SHAPES.len());
}

/// Where the plain PDB would be looked for, its compressed form is found, too, unless that of another
/// build lies there.
#[test]
fn found_beside_the_image() {
    let files = Workspace::new();
    let diff = || {
        let images = ["base/hp_demo.dll", "fixed/hp_demo.dll"].map(|it| files.path(it));
        hpbuild([OsStr::new("diff"), images[0].as_ref(), images[1].as_ref()])
    };
    let plain = diff();
    plain.ends_with(0);
    let compressed = ["base", "fixed"].map(|side| {
        let pdb = files.path(&format!("{side}/hp_demo.pdb"));
        let bytes = compress(&pdb, SHAPES[0]);
        std::fs::remove_file(&pdb).expect("a file to remove");
        files.write(&format!("{side}/hp_demo.pdz"), &bytes);
        bytes
    });
    let found = diff();
    assert_eq!((found.code, &found.stdout), (Some(0), &plain.stdout));
    // One of another build hides nothing, and is taken for none.
    files.write("base/hp_demo.pdb", &compressed[1]);
    assert_eq!(diff().stdout, plain.stdout);
    files.write("base/hp_demo.pdz", &compressed[1]);
    diff().is_error(&["base/hp_demo.pdb"]);
}

/// The patch image does not depend on how the PDBs are stored either.
#[test]
fn patch_is_that_of_the_plain_pdb() {
    let files = Workspace::new();
    let (run, patch) = files.build();
    run.ends_with(0);
    let plain = std::fs::read(&patch).expect("a patch");
    for pdb in ["base/hp_demo.pdb", "fixed/hp_demo.pdb"] {
        files.write(pdb, compress(&files.path(pdb), SHAPES[0]));
    }
    let (run, patch) = files.build();
    run.ends_with(0);
    assert_eq!(std::fs::read(&patch).expect("a patch"), plain);
}

#[test]
fn cut_short() {
    let files = Workspace::new();
    for shape in &SHAPES[..2] {
        let whole = compress_demo(*shape);
        for length in [0x4f, 0x51, whole.len() / 2, whole.len() - 1] {
            files.write("base/hp_demo.pdb", &whole[..length]);
            files.fails(&["base/hp_demo.pdb: pdb ", "expected", "found"]);
        }
    }
}

#[test]
fn damaged() {
    let files = Workspace::new();
    for (seed, shape) in (1..).zip(SHAPES) {
        let whole = compress_demo(shape);
        let mut bytes = whole.clone();
        let middle = bytes.len() / 4..bytes.len() * 3 / 4;
        bytes[middle.clone()].copy_from_slice(&noise(middle.len(), seed));
        files.write("base/hp_demo.pdb", &bytes);
        files.fails(&["base/hp_demo.pdb: pdb ", "expected", "found"]);
        // An unknown compression of the directory, and one of each chunk.
        let table = u64::from_le_bytes(*whole[48..].first_chunk().unwrap());
        let table = usize::try_from(table).unwrap();
        for at in [60, table + 8] {
            let mut bytes = whole.clone();
            bytes[at] = 0x77;
            files.write("base/hp_demo.pdb", &bytes);
            files.fails(&["base/hp_demo.pdb: pdb ", "expected", "found"]);
        }
    }
}

/// A directory that lists one chunk again and again promises gigabytes that are not allocated.
#[test]
fn stream_that_repeats_a_chunk() {
    let files = Workspace::new();
    let chunk = [0_u8; 0x1000];
    let mut bytes = b"Microsoft MSFZ Container\r\n\x1aALD\0\0".to_vec();
    bytes.resize(80, 0);
    let chunk_at = bytes.len();
    bytes.extend(chunk);
    // Stream 0 has nothing. Stream 1, which is read whole on opening, has a million fragments.
    let directory_at = bytes.len();
    bytes.extend([0; 4]);
    for _ in 0..1 << 20 {
        for word in [0x1000, 0, 1 << 31] {
            bytes.extend(u32::to_le_bytes(word));
        }
    }
    bytes.extend([0; 4]);
    let directory_size = bytes.len() - directory_at;
    let table_at = bytes.len();
    bytes.extend((chunk_at as u64).to_le_bytes());
    for word in [0_u32, 0x1000, 0x1000] {
        bytes.extend(word.to_le_bytes());
    }
    let mut put = |at: usize, value: usize| {
        let value = u32::try_from(value).unwrap();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    };
    put(40, directory_at);
    put(48, table_at);
    put(56, 2);
    put(64, directory_size);
    put(68, directory_size);
    put(72, 1);
    put(76, 20);
    files.write("base/hp_demo.pdb", &bytes);
    files.fails(&["base/hp_demo.pdb: pdb stream directory: expected streams of at most"]);
}

fn compress_demo(shape: Shape) -> Vec<u8> {
    let files = Workspace::new();
    assert_eq!(
        std::fs::read(files.base_pdb()).unwrap(),
        demo::X64.base.pdb.bytes
    );
    compress(&files.base_pdb(), shape)
}
