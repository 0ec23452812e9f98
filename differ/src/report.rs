//! The report: what was found, as plain data. Its JSON form is a contract, versioned by
//! [`SCHEMA`]; fields are only ever added under one version.

use hpbuild_metadata::{Base, Fixed, FunctionId, Machine, Rva, Side};
use serde::Serialize;

use crate::compare::{Changed, Kind};
use crate::explain::{Contents, DiffLine, Differences, Tag, of_symbol};
use crate::image::{Image, SymbolSource};
use crate::inline::Inlined;
use crate::judge::Refusal;
use crate::pair::Tier;
use crate::pipeline::Diff;
use crate::source::{Source, source_of};

/// Version of the JSON form.
pub const SCHEMA: &str = "hpbuild-diff-1";

/// What comparing and judging found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The result in a word.
    pub verdict: Verdict,
    /// The base; absent where it is of a kind that is not read.
    pub base: Option<ImageReport>,
    /// The fixed image; absent where it is of a kind that is not read.
    pub fixed: Option<ImageReport>,
    /// Functions.
    pub functions: Functions,
    /// Named data whose contents changed.
    pub data: Vec<DataReport>,
    /// What the rules say.
    pub refusals: Vec<Refusal>,
    /// References that could not be explained.
    pub unknown: Vec<UnknownReport>,
}

/// The result in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing changed, or nothing but numbers of source lines.
    Same,
    /// Something changed, and it can be hotpatched.
    Hotpatchable,
    /// It cannot be hotpatched.
    Refused,
}

/// One image.
#[derive(Clone, Debug, Serialize)]
pub struct ImageReport {
    /// The file as the user named it.
    pub path: String,
    /// Where its symbols come from: `pdb` or `dwarf`.
    pub symbols: &'static str,
    /// The PDB that was used, if one was.
    pub pdb: Option<String>,
    /// `x64` or `arm64`.
    pub machine: Machine,
    /// TimeDateStamp of the COFF header.
    pub time_stamp: u32,
    /// CheckSum of the optional header.
    pub checksum: u32,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// GUID of the PDB.
    pub pdb_guid: Option<String>,
    /// Age of the PDB.
    pub pdb_age: Option<u32>,
}

/// All functions of the pair.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Functions {
    /// How many mean the same.
    pub same: u32,
    /// How many of these stand at another address.
    pub moved: u32,
    /// In order of their base addresses.
    pub changed: Vec<FunctionReport>,
    /// In order of their fixed addresses.
    pub added: Vec<FunctionReport>,
    /// In order of their base addresses.
    pub removed: Vec<FunctionReport>,
    /// Functions with namesakes that could not be told apart; base first.
    pub unmatched: Vec<FunctionReport>,
}

/// One function.
#[derive(Clone, Debug, Serialize)]
pub struct FunctionReport {
    /// The procedure record's name.
    pub name: String,
    /// The linkage name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decorated: Option<String>,
    /// The name as a person reads it.
    pub display: String,
    /// Further names of the same body.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// The object file it came from.
    pub compiland: Option<String>,
    /// Address in the base.
    pub base_rva: Option<Rva<Base>>,
    /// Address in the fixed image.
    pub fixed_rva: Option<Rva<Fixed>>,
    /// Bytes in the base.
    pub base_size: Option<u32>,
    /// Bytes in the fixed image.
    pub fixed_size: Option<u32>,
    /// Why it counts as changed.
    pub kinds: Vec<Kind>,
    /// How sure the pair is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// Parts of it that changed, cold ones and funclets, as the base names them; each is in the
    /// list, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<String>,
    /// Inlined functions that changed instructions came from, those with most first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inlined: Vec<Inlined>,
    /// Where the change begins in the fixed source; in the base's for what is only there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Whether the patch carries it.
    pub in_patch: bool,
    /// What changed, instruction by instruction.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub diff: Vec<DiffLine>,
    /// What differs in data that it reaches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contents: Vec<Contents>,
    /// How many more of its references lead to data that differs.
    #[serde(skip_serializing_if = "is_none")]
    pub more_contents: u32,
}

// The signature is serde's.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_none(count: &u32) -> bool {
    *count == 0
}

/// One piece of named data.
#[derive(Clone, Debug, Serialize)]
pub struct DataReport {
    /// The record's name.
    pub name: String,
    /// The linkage name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decorated: Option<String>,
    /// The name as a person reads it.
    pub display: String,
    /// Address in the base.
    pub base_rva: Rva<Base>,
    /// Address in the fixed image.
    pub fixed_rva: Rva<Fixed>,
    /// Bytes in the base.
    pub base_size: u32,
    /// Bytes in the fixed image.
    pub fixed_size: u32,
    /// Which of its entries differ.
    #[serde(flatten)]
    pub differences: Differences,
}

impl Verdict {
    /// The verdict on a finished comparison. `with_lines` as for [`Report::new`].
    pub fn of(diff: &Diff, with_lines: bool) -> Self {
        let in_patch = |change: &Changed| with_lines || !change.is_line_number_only();
        if diff.refusals.iter().any(Refusal::refuses) {
            Verdict::Refused
        } else if diff.comparison.changed.iter().any(in_patch) {
            Verdict::Hotpatchable
        } else {
            Verdict::Same
        }
    }
}

/// A reference that could not be explained.
#[derive(Clone, Debug, Serialize)]
pub struct UnknownReport {
    /// The function it stands in.
    pub name: String,
    /// Bytes from the function's start in the base.
    pub offset: u32,
}

impl Report {
    /// The report of a finished comparison. `with_lines` counts functions in which only numbers
    /// of source lines changed among those to be patched.
    pub fn new(diff: &Diff, with_lines: bool) -> Self {
        let (base, fixed) = (&diff.base, &diff.fixed);
        let comparison = &diff.comparison;
        let in_patch = |change: &Changed| with_lines || !change.is_line_number_only();
        let patched = comparison.changed.iter().any(in_patch);
        let mut functions = Functions {
            same: comparison.same,
            moved: comparison.moved,
            changed: comparison
                .changed
                .iter()
                .map(|change| FunctionReport {
                    kinds: change.kinds.clone(),
                    tier: Some(change.tier),
                    in_patch: in_patch(change),
                    parts: change
                        .parts
                        .iter()
                        .map(|id| base.display_name(*id))
                        .collect(),
                    inlined: change.explanation.inlined.clone(),
                    source: source_of(fixed, change.fixed, first_changed(change)),
                    diff: change.explanation.lines.clone(),
                    contents: change.explanation.contents.clone(),
                    more_contents: change.explanation.more_contents,
                    fixed_rva: Some(fixed.function(change.fixed).rva),
                    fixed_size: Some(fixed.function(change.fixed).size),
                    ..of_pair(diff, change)
                })
                .collect(),
            added: comparison
                .added
                .iter()
                .map(|id| FunctionReport {
                    source: source_of(fixed, *id, 0),
                    ..of_fixed(fixed, *id, patched)
                })
                .collect(),
            removed: comparison
                .removed
                .iter()
                .map(|id| FunctionReport {
                    source: source_of(base, *id, 0),
                    ..of_base(base, *id)
                })
                .collect(),
            unmatched: Vec::new(),
        };
        functions.unmatched.extend(
            comparison
                .unmatched_base
                .iter()
                .map(|id| of_base(base, *id)),
        );
        let unmatched_fixed = comparison.unmatched_fixed.iter();
        functions
            .unmatched
            .extend(unmatched_fixed.map(|id| of_fixed(fixed, *id, false)));
        let comparer = diff.comparer();
        let data = comparison.data.iter().map(|change| {
            let (b, f) = (
                base.data_symbol(change.base),
                fixed.data_symbol(change.fixed),
            );
            DataReport {
                name: b.name.to_string(),
                decorated: b.decorated.as_deref().map(str::to_owned),
                display: b.display(),
                base_rva: b.rva,
                fixed_rva: f.rva,
                base_size: b.size,
                fixed_size: f.size,
                differences: of_symbol(&comparer, change),
            }
        });
        let unknown = comparison.unknown.iter().map(|unknown| UnknownReport {
            name: base.display_name(unknown.base),
            offset: unknown.offset,
        });
        Self {
            schema: SCHEMA,
            verdict: Verdict::of(diff, with_lines),
            base: Some(image(base)),
            fixed: Some(image(fixed)),
            functions,
            data: data.collect(),
            refusals: diff.refusals.clone(),
            unknown: unknown.collect(),
        }
    }

    /// The report where an image is of a kind that is not read.
    pub fn refused(refusals: Vec<Refusal>) -> Self {
        Self {
            schema: SCHEMA,
            verdict: Verdict::Refused,
            base: None,
            fixed: None,
            functions: Functions::default(),
            data: Vec::new(),
            refusals,
            unknown: Vec::new(),
        }
    }
}

/// Bytes from the start of the fixed function to where the change begins.
fn first_changed(change: &Changed) -> u32 {
    let mut reached = 0;
    for line in &change.explanation.lines {
        reached = line.fixed_offset.unwrap_or(reached);
        if matches!(line.tag, Tag::Added | Tag::Removed) {
            return reached;
        }
    }
    0
}

fn image<S: Side>(image: &Image<S>) -> ImageReport {
    let pe = &image.pe;
    let pdb = match &image.symbols {
        SymbolSource::Pdb { path, guid, age } => Some((path, guid, *age)),
        SymbolSource::Dwarf => None,
    };
    ImageReport {
        path: image.path.display().to_string(),
        symbols: image.symbols.name(),
        pdb: pdb.map(|(path, ..)| path.display().to_string()),
        machine: pe.machine,
        time_stamp: pe.identity.time_date_stamp,
        checksum: pe.identity.checksum,
        sha256: pe
            .sha256()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        pdb_guid: pdb.map(|(_, guid, _)| guid.clone()),
        pdb_age: pdb.map(|(.., age)| age),
    }
}

/// A changed function by the names that changed. Others of a body that the linker folded may not have.
fn of_pair(diff: &Diff, change: &Changed) -> FunctionReport {
    let (base, id) = (&diff.base, change.base);
    let whole = of_base(base, id);
    let sides = ((base, id), (&diff.fixed, change.fixed));
    let mut names = diff.pairing.names_of(sides.0, sides.1);
    let Some(first) = names.next() else {
        return whole;
    };
    let procedure = |index: u32| &base.procedures[index as usize];
    FunctionReport {
        name: procedure(first).name.to_string(),
        decorated: procedure(first).decorated.as_deref().map(str::to_owned),
        display: procedure(first).display(),
        aliases: names.map(|it| procedure(it).name.to_string()).collect(),
        ..whole
    }
}

fn of_base(image: &Image<Base>, id: FunctionId<Base>) -> FunctionReport {
    let function = image.function(id);
    FunctionReport {
        base_rva: Some(function.rva),
        base_size: Some(function.size),
        ..named(image, id)
    }
}

fn of_fixed(image: &Image<Fixed>, id: FunctionId<Fixed>, in_patch: bool) -> FunctionReport {
    let function = image.function(id);
    FunctionReport {
        fixed_rva: Some(function.rva),
        fixed_size: Some(function.size),
        in_patch,
        ..named(image, id)
    }
}

fn named<S: Side>(image: &Image<S>, id: FunctionId<S>) -> FunctionReport {
    let names = image.procedures_of(id);
    let first = names.first();
    let compiland = image.function(id).compiland;
    FunctionReport {
        name: first.map_or_else(|| image.display_name(id), |name| name.name.to_string()),
        decorated: first
            .and_then(|name| name.decorated.as_deref())
            .map(str::to_owned),
        display: image.display_name(id),
        aliases: names
            .iter()
            .skip(1)
            .map(|name| name.name.to_string())
            .collect(),
        compiland: compiland
            .and_then(|id| image.compilands.get(id.index()))
            .map(|compiland| compiland.short_name.to_string()),
        base_rva: None,
        fixed_rva: None,
        base_size: None,
        fixed_size: None,
        kinds: Vec::new(),
        tier: None,
        parts: Vec::new(),
        inlined: Vec::new(),
        source: None,
        in_patch: false,
        diff: Vec::new(),
        contents: Vec::new(),
        more_contents: 0,
    }
}
