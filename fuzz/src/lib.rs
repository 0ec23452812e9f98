//! What the targets share: the prebuilt pairs, damage to files, and files to read it from.
#![forbid(unsafe_code)]

use std::fs;
use std::io::Write;
use std::panic;
use std::sync::{Once, OnceLock};

use hpbuild_fixtures::{Build, Machine, Pair, pairs};
use tempfile::NamedTempFile;

/// Changes that are made of an input; what is behind them is not looked at.
const MOST: usize = 16;

/// Bytes of the largest file that is damaged: a run should take milliseconds.
const LARGEST: u64 = 1 << 18;

/// An image and its PDB as they are in the repository; empty where there is no PDB.
#[derive(Clone)]
pub struct Files {
    /// The PE image.
    pub dll: Vec<u8>,
    /// Its PDB.
    pub pdb: Vec<u8>,
}

/// A prebuilt pair.
pub struct Sides {
    /// Group and variant.
    pub name: String,
    /// What both are built for.
    pub machine: Machine,
    /// The base.
    pub base: Files,
    /// The fixed build.
    pub fixed: Files,
}

/// Every prebuilt pair of small files, in the order of the recipes.
pub fn all() -> &'static [Sides] {
    static ALL: OnceLock<Vec<Sides>> = OnceLock::new();
    ALL.get_or_init(|| {
        let pairs = pairs().expect("the repository is complete");
        pairs.iter().filter_map(sides).collect()
    })
}

fn sides(pair: &Pair) -> Option<Sides> {
    Some(Sides {
        name: pair.name.clone(),
        machine: pair.machine,
        base: files(&pair.base)?,
        fixed: files(&pair.fixed)?,
    })
}

fn files(build: &Build) -> Option<Files> {
    let read = |path| {
        let size = fs::metadata(path).map_or(0, |file| file.len());
        (size <= LARGEST).then(|| fs::read(path).unwrap_or_default())
    };
    let (dll, pdb) = (read(&build.dll)?, read(&build.pdb)?);
    (!dll.is_empty()).then_some(Files { dll, pdb })
}

/// The pair that the first two bytes of an input choose, and the rest of the input.
pub fn chosen<'a>(pairs: &[&'static Sides], input: &'a [u8]) -> Option<(&'static Sides, &'a [u8])> {
    let (first, rest) = input.split_first_chunk::<2>()?;
    let index = usize::from(u16::from_le_bytes(*first)) % pairs.len().max(1);
    Some((pairs.get(index)?, rest))
}

/// Damages files as an input says, eight bytes a change: which file and how, a place, a word.
/// Files keep their lengths, but for one kind of change, which cuts one off.
pub fn damage(files: &mut [&mut Vec<u8>], input: &[u8]) {
    for change in input.chunks_exact(8).take(MOST) {
        let count = files.len();
        let file = &mut *files[usize::from(change[0] >> 4) % count];
        let place = u32::from_le_bytes([change[1], change[2], change[3], 0]) as usize;
        let word = [change[4], change[5], change[6], change[7]];
        damage_at(file, change[0] & 15, place, word);
    }
}

/// One change. `how`: 0 to 3 put one, two, four bytes, and four where words are aligned; 4 and 5
/// add to a word; 6 takes what stands elsewhere; 7 cuts off; 8 and 9 repeat a byte; others put
/// eight bytes of no sign.
fn damage_at(file: &mut Vec<u8>, how: u8, place: usize, word: [u8; 4]) {
    let Some(last) = file.len().checked_sub(8) else {
        return;
    };
    let at = place % (last + 1);
    let aligned = at & !3;
    let value = u32::from_le_bytes(word);
    match how {
        0 => file[at] = word[0],
        1 => file[at..at + 2].copy_from_slice(&word[..2]),
        2 => file[at..at + 4].copy_from_slice(&word),
        3 => file[aligned..aligned + 4].copy_from_slice(&word),
        4 | 5 => {
            let at = if how == 4 { at } else { aligned };
            let old = [file[at], file[at + 1], file[at + 2], file[at + 3]];
            let sum = u32::from_le_bytes(old).wrapping_add(value);
            file[at..at + 4].copy_from_slice(&sum.to_le_bytes());
        }
        6 => {
            let from = value as usize % (last + 1);
            file.copy_within(from..from + 8, at);
        }
        7 => file.truncate(at),
        8 | 9 => {
            let end = file.len().min(at + usize::from(word[1]));
            file[at..end].fill(word[0]);
        }
        _ => {
            let wide = i64::from(value.cast_signed());
            file[at..at + 8].copy_from_slice(&wide.to_le_bytes());
        }
    }
}

/// Lets panics pass that become errors: those of the PDB parser, which the differ contains. The
/// fuzzer would end the process at once. Others still do.
pub fn allow_contained_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let abort = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !hpbuild_differ::panic_is_contained() {
                abort(info);
            }
        }));
    });
}

/// A file with these bytes for as long as the value lives.
pub fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("room for it");
    file
}
