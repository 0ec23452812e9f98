//! `hpbuild test`: apply a patch to its base in-process and watch what changes.

use std::collections::BTreeMap;
use std::path::Path;

use hpbuild_differ::{Input, SymbolPaths, functions_by_name};
use hpbuild_harness::{ChildProgram, Request, Scenario, Verdict};
use hpbuild_metadata::{Rva, Side};

use crate::cli::{Format, TestArguments};
use crate::failure::{Failure, Outcome};
use crate::input::{self, read};
use crate::{output, render};

pub(crate) fn run(arguments: &TestArguments) -> Result<Outcome, Failure> {
    let base = read(&arguments.base)?;
    let patch = read(&arguments.patch)?;
    let fixed = arguments.against.as_deref().map(read).transpose()?;
    let older = arguments.over.as_deref().map(read).transpose()?;
    let scenario = arguments
        .scenario
        .as_deref()
        .map(read_scenario)
        .transpose()?;
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(format!("the path of this program: {error}")))?;
    let child = ChildProgram {
        program,
        arguments: vec!["run-images".into()],
    };
    let mut request = Request::new(&base, &patch, child);
    request.older = older.as_deref();
    request.fixed = fixed.as_deref();
    request.scenario = scenario.as_ref();
    // Names that are not exported come from PDBs, where there are any.
    if scenario.is_some() {
        request.base_symbols = names(arguments, &arguments.base, arguments.base_pdb.as_deref())?;
        if let Some(path) = &arguments.against {
            request.fixed_symbols = names(arguments, path, arguments.fixed_pdb.as_deref())?;
        }
    }
    let report = hpbuild_harness::test(&request, &mut |_| {}).map_err(Failure::new)?;
    output::print(&match arguments.format {
        Format::Text => render::test::text(&report, arguments.verbose),
        Format::Json => render::json(&report),
    })?;
    Ok(match report.verdict {
        Verdict::Passed => Outcome::Done,
        // Applied and reverted as far as a model of memory shows: that much was done. Calls that
        // were asked for and not made are no pass.
        Verdict::Incomplete if scenario.is_some() || fixed.is_some() => Outcome::Refused,
        Verdict::Incomplete => Outcome::Done,
        Verdict::Failed => Outcome::Refused,
    })
}

fn read_scenario(path: &Path) -> Result<Scenario, Failure> {
    let fail = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", path.display()));
    let text = input::read_text(path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    Scenario::parse(&text, folder).map_err(|error| fail(&error))
}

/// The functions that the PDB of an image names; none where no PDB is found, because a scenario
/// may well do with exports. A PDB that the user names has to be right.
fn names<S: Side>(
    arguments: &TestArguments,
    image: &Path,
    pdb: Option<&Path>,
) -> Result<BTreeMap<String, Rva<S>>, Failure> {
    let input = Input {
        pe: image.to_owned(),
        pdb: pdb.map(Path::to_owned),
    };
    let symbol_path = std::env::var("_NT_SYMBOL_PATH").ok();
    let paths = SymbolPaths::new(arguments.symbols.clone(), symbol_path.as_deref());
    match functions_by_name(&input, &paths) {
        Ok(names) => Ok(names),
        Err(_) if pdb.is_none() => Ok(BTreeMap::new()),
        Err(error) => Err(error.into()),
    }
}
