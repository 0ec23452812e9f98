//! What a function or a datum means: its bytes without addresses, and what the addresses are of.

use std::collections::HashMap;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::names::Names;
use super::object_file::{Machine, Purpose, Relocation};
use super::program::{Datum, FunctionName, Program, SectionId, Target};
use super::{arm64, x64};

/// How deep tables may point at tables.
const DEEPEST: usize = 64;

/// A stretch of a section with every address taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    /// The bytes, with zeros where addresses go.
    pub(super) bytes: Vec<u8>,
    /// Per address: offset in bytes, and in words what it is the address of.
    pub(super) references: Vec<(u32, String)>,
}

/// Reads meanings of one side, each read-only datum once.
pub(super) struct Reader<'p> {
    program: &'p Program,
    names: Names<'p>,
    known: HashMap<Datum, String>,
    /// Data being read, for tables that point at themselves.
    open: Vec<Datum>,
    /// How far down in `open` something pointed back to: what lies above is not known for itself.
    circle: usize,
}

impl<'p> Reader<'p> {
    pub(super) fn new(program: &'p Program, names: Names<'p>) -> Reader<'p> {
        Reader {
            program,
            names,
            known: HashMap::new(),
            open: Vec::new(),
            circle: usize::MAX,
        }
    }

    /// A function: the whole of its section, and of those with its exception data.
    pub(super) fn function(&mut self, id: SectionId) -> Meaning {
        let program = self.program;
        let mut meaning = self.stretch(id, 0, program.section(id).size);
        for &data in program.handling(id) {
            let start = meaning.bytes.len() as u32;
            let more = self.stretch(data, 0, program.section(data).size);
            meaning.bytes.extend(more.bytes);
            let moved = more.references.into_iter();
            let moved = moved.map(|(offset, words)| (start + offset, words));
            meaning.references.extend(moved);
        }
        meaning
    }

    /// A datum; padding behind it does not count where other data follows.
    pub(super) fn datum(&mut self, datum: Datum) -> Meaning {
        let mut meaning = self.stretch(datum.section, datum.start, datum.end);
        if datum.shared {
            let used = meaning
                .bytes
                .iter()
                .rposition(|&byte| byte != 0)
                .map_or(0, |it| it + 1);
            let behind_last = meaning
                .references
                .last()
                .map_or(0, |(offset, _)| offset + 1);
            meaning.bytes.truncate(used.max(behind_last as usize));
        }
        meaning
    }

    fn stretch(&mut self, id: SectionId, start: u32, end: u32) -> Meaning {
        let program = self.program;
        let section = program.section(id);
        let range = start as usize..end as usize;
        // Data without an initial value has a size and no bytes.
        let mut bytes = section
            .bytes
            .get(range)
            .map_or_else(Vec::new, <[u8]>::to_vec);
        bytes.resize(end.saturating_sub(start) as usize, 0);
        let mut references = Vec::new();
        for relocation in &section.relocations {
            if relocation.offset < start || relocation.offset >= end {
                continue;
            }
            let at = relocation.offset - start;
            let machine = program.objects[id.object].machine;
            let access = match machine {
                _ if section.purpose != Purpose::Code => None,
                Machine::X64 => x64::access(relocation.kind, &section.bytes, relocation.offset),
                Machine::Arm64 => arm64::access(section, relocation),
            };
            let field = &mut bytes[at as usize..];
            let taken = match machine {
                Machine::X64 => x64::take(relocation.kind, field),
                Machine::Arm64 => arm64::take(relocation.kind, field),
            };
            let addend = taken.unwrap_or(0);
            let (target, addend) = program.target(id.object, relocation.symbol, addend);
            let target = match (&target, access) {
                (Target::Data(datum, offset), Some(bytes)) => {
                    let part = self.part(*datum, i64::from(*offset) + addend, bytes);
                    part.unwrap_or_else(|| self.words(&target, id))
                }
                _ => self.words(&target, id),
            };
            references.push((
                at,
                format!("kind {:#x} {target}{addend:+#x}", relocation.kind),
            ));
        }
        Meaning { bytes, references }
    }

    /// What the target is, in words that are the same on both sides where the meaning is.
    fn words(&mut self, target: &Target, from: SectionId) -> String {
        match target {
            Target::Undefined(name) => format!("elsewhere {name}"),
            Target::Aside => "nothing that is loaded".to_owned(),
            Target::Code(id, offset) if *id == from => format!("itself {offset:#x}"),
            Target::Code(id, offset) => match self.program.names.get(id) {
                Some(name) => {
                    let name = self.names.function(name);
                    let object = name.object.as_deref().unwrap_or_default();
                    let FunctionName { name, instance, .. } = &name;
                    format!("function {object}:{name}#{instance} {offset:#x}")
                }
                None => format!("code {} {offset:#x}", self.program.section(*id).name),
            },
            Target::Data(datum, offset) => {
                let what = self.data(*datum);
                format!("{what} {offset:#x}")
            }
        }
    }

    /// What an instruction gets that reads this many bytes of a constant: those alone, where
    /// nobody gave the constant a name and no address stands in them.
    fn part(&self, datum: Datum, at: i64, bytes: u32) -> Option<String> {
        let section = self.program.section(datum.section);
        if section.purpose != Purpose::ReadOnly || !self.program.data_names(datum).is_empty() {
            return None;
        }
        let start = u32::try_from(i64::from(datum.start) + at).ok()?;
        let end = start.checked_add(bytes)?;
        if start < datum.start || end > datum.end {
            return None;
        }
        let holds_address = |it: &Relocation| it.offset + 8 > start && it.offset < end;
        if section.relocations.iter().any(holds_address) {
            return None;
        }
        let read = section.bytes.get(start as usize..end as usize)?;
        Some(format!("constant {read:02x?}"))
    }

    fn data(&mut self, datum: Datum) -> String {
        let object = &self.program.objects[datum.section.object];
        if self.program.section(datum.section).purpose == Purpose::Writable {
            return self.writable(datum);
        }
        if let Some(level) = self.open.iter().position(|open| *open == datum) {
            self.circle = self.circle.min(level);
            return format!("the table {} above", self.open.len() - level);
        }
        assert!(
            self.open.len() < DEEPEST,
            "{}: tables point at tables more than {DEEPEST} deep",
            object.name
        );
        if let Some(words) = self.known.get(&datum) {
            return words.clone();
        }
        let level = self.open.len();
        self.open.push(datum);
        let meaning = self.datum(datum);
        self.open.pop();
        let names = self.program.data_names(datum).join(",");
        let words = format!("constant {names} {}", digest(&meaning));
        if self.circle > level {
            self.known.insert(datum, words.clone());
        }
        if self.circle >= level {
            self.circle = usize::MAX;
        }
        words
    }

    fn writable(&self, datum: Datum) -> String {
        let object = &self.program.objects[datum.section.object];
        let place = Some((datum.section.section, datum.start));
        let named = object
            .symbols
            .iter()
            .find(|it| it.place == place && !it.is_section);
        match named {
            Some(symbol) => {
                let name = self.names.variable(&FunctionName {
                    name: symbol.name.clone(),
                    object: (!symbol.global).then(|| object.name.clone()),
                    instance: 0,
                });
                format!("variable {}:{}", name.object.unwrap_or_default(), name.name)
            }
            None => format!("variable in {}", self.program.section(datum.section).name),
        }
    }
}

/// A short stand-in for a meaning inside another one.
pub(super) fn digest(meaning: &Meaning) -> String {
    let mut hash = Sha256::new();
    hash.update((meaning.bytes.len() as u64).to_le_bytes());
    hash.update(&meaning.bytes);
    for (offset, words) in &meaning.references {
        hash.update(offset.to_le_bytes());
        hash.update(words.as_bytes());
        hash.update([0]);
    }
    let mut text = String::new();
    for byte in &hash.finalize()[..16] {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
