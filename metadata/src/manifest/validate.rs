//! The rules that the form of a manifest alone cannot express.

use super::{Manifest, ManifestError, Patch, SCHEMA};

/// Longest name of a release, file or symbol's rule.
const MAX_NAME: usize = 200;
/// Longest text for people, and longest symbol name; MSVC cuts names at 4 KiB.
const MAX_TEXT: usize = 4096;
/// Most patch images in a package.
const MAX_PATCHES: usize = 200;
/// Most functions in one patch: what the hotpatch table of one image could reasonably hold.
const MAX_FUNCTIONS: usize = 100_000;
/// Most entries of any other list.
const MAX_LIST: usize = 1000;

fn expect(
    holds: bool,
    place: impl Into<String>,
    expected: impl Into<String>,
    found: impl Into<String>,
) -> Result<(), ManifestError> {
    if holds {
        return Ok(());
    }
    let found: String = found.into();
    Err(ManifestError {
        place: place.into(),
        expected: expected.into(),
        found: found.chars().take(200).collect(),
    })
}

/// A name that can stand in a file name, a URL or a command.
fn name(text: &str, place: &str) -> Result<(), ManifestError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_+".contains(&b);
    let holds = !text.is_empty()
        && text.len() <= MAX_NAME
        && !text.starts_with('.')
        && text.bytes().all(plain);
    expect(
        holds,
        place,
        "1 to 200 letters, digits and .-_+, no dot first",
        format!("{text:?}"),
    )
}

/// What [`is_line`] holds, in words.
pub const LINE: &str = "one line of 1 to 4096 bytes";

/// Whether a manifest can hold a text for people or a name: one line that is not blank, of at most
/// 4096 bytes and without control characters. Whoever takes such a text from a user asks this before
/// the work is done that the manifest is to tell of.
pub fn is_line(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= MAX_TEXT && !text.chars().any(char::is_control)
}

/// One line of text for people.
fn line(text: &str, place: &str) -> Result<(), ManifestError> {
    expect(is_line(text), place, LINE, format!("{text:?}"))
}

/// A list of at most `most` entries in ascending order, none twice.
fn ascending<T: Ord>(values: &[T], most: usize, place: &str) -> Result<(), ManifestError> {
    let ordered = values.windows(2).all(|pair| pair[0] < pair[1]);
    let expected = format!("at most {most} entries in ascending order, none twice");
    expect(
        ordered && values.len() <= most,
        place,
        expected,
        format!("{} entries", values.len()),
    )
}

fn cve(text: &str, place: &str) -> Result<(), ManifestError> {
    let digits = |t: &str, most: usize| {
        (4..=most).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_digit())
    };
    let parts: Vec<&str> = text.split('-').collect();
    let holds = matches!(parts.as_slice(),
        ["CVE", year, number] if digits(year, 4) && digits(number, 19));
    expect(holds, place, "CVE-YYYY-NNNN", format!("{text:?}"))
}

impl Manifest {
    /// Checks every rule; the first that is broken is the error.
    pub(super) fn validate(&self) -> Result<(), ManifestError> {
        expect(
            self.schema == SCHEMA,
            "schema",
            SCHEMA.to_string(),
            self.schema.to_string(),
        )?;
        name(&self.id, "id")?;
        line(&self.title, "title")?;
        for (index, text) in self.cves.iter().enumerate() {
            cve(text, &format!("cves[{index}]"))?;
        }
        ascending(&self.cves, MAX_LIST, "cves")?;
        expect(self.sequence != 0, "sequence", "a number other than 0", "0")?;
        for (index, id) in self.supersedes.iter().enumerate() {
            let place = format!("supersedes[{index}]");
            name(id, &place)?;
            expect(*id != self.id, place, "another release", id.as_str())?;
        }
        ascending(&self.supersedes, MAX_LIST, "supersedes")?;
        expect(
            self.baseline <= self.release,
            "release",
            format!("{} or later", self.baseline),
            self.release.to_string(),
        )?;
        line(
            &self.requirements.baseline_build,
            "requirements.baseline_build",
        )?;
        line(&self.fallback, "fallback")?;
        expect(!self.patches.is_empty(), "patches", "at least one", "none")?;
        let files: Vec<String> = self.patches.iter().map(|p| p.file.to_lowercase()).collect();
        ascending(&files, MAX_PATCHES, "patches: file")?;
        for (index, patch) in self.patches.iter().enumerate() {
            patch.validate(&format!("patches[{index}]"))?;
        }
        Ok(())
    }
}

impl Patch {
    fn validate(&self, place: &str) -> Result<(), ManifestError> {
        let at = |field: &str| format!("{place}.{field}");
        name(&self.file, &at("file"))?;
        expect(self.size > 0, at("size"), "a size other than 0", "0")?;
        expect(
            self.sequence != 0,
            at("sequence"),
            "a number other than 0",
            "0",
        )?;
        name(&self.base.name, &at("base.name"))?;
        let same = self.base.machine == self.machine;
        expect(
            same,
            at("base.machine"),
            self.machine.name(),
            self.base.machine.name(),
        )?;
        expect(
            !self.functions.is_empty(),
            at("functions"),
            "at least one",
            "none",
        )?;
        let order: Vec<_> = self
            .functions
            .iter()
            .map(|function| (function.base_rva, &function.decorated))
            .collect();
        ascending(&order, MAX_FUNCTIONS, &at("functions"))?;
        for (index, function) in self.functions.iter().enumerate() {
            let place = at(&format!("functions[{index}]"));
            line(&function.decorated, &format!("{place}.decorated"))?;
            line(&function.readable, &format!("{place}.readable"))?;
            let reasons = &function.reasons;
            let count = (1..=MAX_LIST).contains(&reasons.len());
            let found = reasons.len().to_string();
            expect(
                count,
                format!("{place}.reasons"),
                "1 to 1000 reasons",
                found,
            )?;
            for reason in reasons {
                line(reason, &format!("{place}.reasons"))?;
            }
        }
        let most = self.waivers.len() <= MAX_LIST;
        expect(
            most,
            at("waivers"),
            "at most 1000",
            self.waivers.len().to_string(),
        )?;
        for (index, waiver) in self.waivers.iter().enumerate() {
            let place = at(&format!("waivers[{index}]"));
            name(&waiver.rule, &format!("{place}.rule"))?;
            line(&waiver.symbol, &format!("{place}.symbol"))?;
            line(&waiver.reason, &format!("{place}.reason"))?;
        }
        Ok(())
    }
}
