//! The whole test, from files to a report: `load -> apply -> observe -> revert`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use hpbuild_metadata::table::Chunk;
use hpbuild_metadata::{Base, Fixed, Machine, Rva};

use crate::error::Error;
use crate::image::Image;
use crate::job::{Job, Record, Task};
use crate::lifecycle;
use crate::observe;
use crate::parent::{Parent, Told};
use crate::report::{
    BaseFacts, GeneratedReport, PatchFacts, Report, SessionReport, Status, Step, Verdict,
};
use crate::running::{PatchFile, load};
use crate::scenario::{Background, Function, Load, Scenario};
use crate::space::{Model, Space};

/// The program that is started to run images: it must pass its last argument to
/// [`crate::child_main`] and end with the code that returns.
#[derive(Clone, Debug)]
pub struct ChildProgram {
    /// The program; the command line names itself.
    pub program: PathBuf,
    /// Arguments before the job's path.
    pub arguments: Vec<OsString>,
}

/// What to test.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The base, as a file.
    pub base: &'a [u8],
    /// The patch image, as a file.
    pub patch: &'a [u8],
    /// An older patch over the same base, to be replaced by this one.
    pub older: Option<&'a [u8]>,
    /// The fixed image, to hold the patched base against.
    pub fixed: Option<&'a [u8]>,
    /// Calls to make; without it the patch is applied, followed, applied again and reverted.
    pub scenario: Option<&'a Scenario>,
    /// Functions of the base that scenarios may name beside its exports.
    pub base_symbols: BTreeMap<String, Rva<Base>>,
    /// The same for the fixed image.
    pub fixed_symbols: BTreeMap<String, Rva<Fixed>>,
    /// How images are run.
    pub child: ChildProgram,
    /// Size of each image's hot patch address table, in blocks of 512 functions.
    pub hpat_blocks: u32,
}

impl<'a> Request<'a> {
    /// A test of `patch` over `base` and of nothing else.
    pub fn new(base: &'a [u8], patch: &'a [u8], child: ChildProgram) -> Self {
        Self {
            base,
            patch,
            older: None,
            fixed: None,
            scenario: None,
            base_symbols: BTreeMap::new(),
            fixed_symbols: BTreeMap::new(),
            child,
            hpat_blocks: 8,
        }
    }
}

/// Something that is done, while more is still to come.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'p> {
    /// A step ended.
    Step(&'p Step),
    /// A session was run in every way.
    Session(&'p SessionReport),
    /// The generated calls of one function were run in every way.
    Generated(&'p GeneratedReport),
}

/// Most blocks of the address table: 32,768 functions.
const MAX_BLOCKS: u32 = 64;

/// Everything that was read, and where children find it.
pub(crate) struct Inputs<'r> {
    pub(crate) request: &'r Request<'r>,
    pub(crate) base: Image<Base>,
    pub(crate) fixed: Option<Image<Fixed>>,
    patch: PatchFile,
    older: Option<PatchFile>,
    pub(crate) parent: Parent<'r>,
    pub(crate) base_path: PathBuf,
    pub(crate) fixed_path: Option<PathBuf>,
    pub(crate) patch_path: PathBuf,
    pub(crate) older_path: Option<PathBuf>,
    pub(crate) load: Load,
}

/// Runs the test in `request`, telling `progress` what is done.
///
/// # Errors
/// Where an input cannot be read, the scenario names what is not there, or no child can be
/// started. A patch that is refused, and a call that does what it must not, are results.
pub fn test(
    request: &Request<'_>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Report, Error> {
    let inputs = read(request)?;
    let scenario = request.scenario.cloned().unwrap_or_default();
    // A patch for another machine is refused by the engine before anything would run.
    let machines = [Some(&inputs.patch), inputs.older.as_ref()];
    let one_machine = machines
        .iter()
        .flatten()
        .all(|patch| patch.image.machine == inputs.base.machine);
    let runs = one_machine && runs_here(inputs.base.machine);
    let steps = lifecycle_steps(&inputs, runs)?;
    steps.iter().for_each(|step| progress(Progress::Step(step)));
    let mut report = Report {
        verdict: Verdict::Passed,
        base: BaseFacts::new(inputs.base.machine, inputs.base.identity, inputs.base.size),
        patch: patch_facts(&inputs.patch),
        backend: if runs { "native" } else { "model" },
        steps,
        sessions: Vec::new(),
        generated: Vec::new(),
    };
    if report
        .steps
        .iter()
        .any(|step| step.status == Status::Failed)
    {
        report.verdict = Verdict::Failed;
        return Ok(report);
    }
    if !runs {
        // Without the processor nothing was called, scenario or not.
        report.verdict = Verdict::Incomplete;
        return Ok(report);
    }
    for session in &scenario.sessions {
        let session = observe::session(&inputs, session)?;
        progress(Progress::Session(&session));
        report.sessions.push(session);
    }
    for generated in &scenario.generated {
        let generated = observe::generated(&inputs, generated)?;
        progress(Progress::Generated(&generated));
        report.generated.push(generated);
    }
    if let Some(background) = &scenario.background {
        let step = background_step(&inputs, background)?;
        progress(Progress::Step(&step));
        report.steps.push(step);
    }
    let steps = report.steps.iter().map(|step| step.status);
    let sessions = report.sessions.iter().map(|session| session.status);
    let generated = report.generated.iter().map(|generated| generated.status);
    if steps
        .chain(sessions)
        .chain(generated)
        .any(|status| status == Status::Failed)
    {
        report.verdict = Verdict::Failed;
    }
    Ok(report)
}

fn read<'r>(request: &'r Request<'r>) -> Result<Inputs<'r>, Error> {
    if request.hpat_blocks == 0 || request.hpat_blocks > MAX_BLOCKS {
        let expected = format!("1 to {MAX_BLOCKS} blocks");
        let found = request.hpat_blocks.to_string();
        return Err(Error::image::<Base>(
            "hot patch address table",
            expected,
            found,
        ));
    }
    let base = Image::<Base>::parse(request.base)?;
    let patch = PatchFile::parse(request.patch)?;
    let older = request.older.map(PatchFile::parse).transpose()?;
    let fixed = request.fixed.map(Image::<Fixed>::parse).transpose()?;
    if let Some(fixed) = fixed.as_ref().filter(|fixed| fixed.machine != base.machine) {
        let expected = base.machine.name();
        return Err(Error::image::<Fixed>(
            "machine",
            expected,
            fixed.machine.name(),
        ));
    }
    let parent = Parent::new(&request.child)?;
    let store =
        |name: &str, bytes: Option<&[u8]>| bytes.map(|bytes| parent.store(name, bytes)).transpose();
    let (fixed_path, older_path) = (
        store("fixed", request.fixed)?,
        store("older", request.older)?,
    );
    let (base_path, patch_path) = (
        parent.store("base", request.base)?,
        parent.store("patch", request.patch)?,
    );
    let load = request
        .scenario
        .map(|scenario| scenario.load.clone())
        .unwrap_or_default();
    Ok(Inputs {
        request,
        base,
        fixed,
        patch,
        older,
        base_path,
        fixed_path,
        patch_path,
        older_path,
        parent,
        load,
    })
}

/// Whether this host can execute images for `machine`; where it cannot, applying and reverting are
/// checked on a model of memory, and nothing is called.
pub fn runs_here(machine: Machine) -> bool {
    cfg!(all(target_os = "linux", target_arch = "x86_64")) && machine == Machine::X64
}

fn patch_facts(patch: &PatchFile) -> PatchFacts {
    let chunks = || patch.table.bases.iter().flat_map(|base| &base.chunks);
    let forward = |chunk: &&Chunk| matches!(chunk, Chunk::ForwardFunction(_));
    PatchFacts {
        sequence: patch.table.sequence.get(),
        functions: chunks().filter(forward).map(Chunk::len).sum(),
        reverse_records: chunks()
            .filter(|chunk| !forward(chunk))
            .map(Chunk::len)
            .sum(),
    }
}

impl Inputs<'_> {
    /// A job on the base with the patch, and the older one before it where `over_older`.
    pub(crate) fn job(&self, over_older: bool, task: Task) -> Job {
        let older = self.older_path.iter().filter(|_| over_older);
        Job {
            target: self.base_path.clone(),
            target_name: "base".to_owned(),
            patches: older.chain([&self.patch_path]).cloned().collect(),
            hpat_blocks: self.request.hpat_blocks,
            load: self.load.clone(),
            task,
        }
    }

    pub(crate) fn run(&self, job: &Job) -> Result<Told, Error> {
        self.parent
            .run(job, Duration::from_millis(self.load.timeout_ms))
    }

    /// The RVA of a function in the base.
    pub(crate) fn place_in_base(&self, function: &Function) -> Result<u32, Error> {
        let found = match function {
            Function::Rva(rva, _) => Some(*rva),
            Function::Name(name) => {
                let symbol = self.request.base_symbols.get(name);
                symbol
                    .or_else(|| self.base.exports.get(name))
                    .map(|rva| rva.get())
            }
        };
        let executable = |rva: &u32| {
            self.base
                .section_at(Rva::new(*rva))
                .is_some_and(|section| section.executable)
        };
        found
            .filter(executable)
            .ok_or_else(|| Error::scenario(function.to_string(), "no such function in the base"))
    }

    /// The RVA of a function in the fixed image; `None` for one named by its place in the base.
    pub(crate) fn place_in_fixed(&self, function: &Function) -> Result<Option<u32>, Error> {
        let Some(fixed) = &self.fixed else {
            return Ok(None);
        };
        let found = match function {
            Function::Rva(_, None) => return Ok(None),
            Function::Rva(_, Some(rva)) => Some(*rva),
            Function::Name(name) => {
                let symbol = self.request.fixed_symbols.get(name);
                symbol
                    .or_else(|| fixed.exports.get(name))
                    .map(|rva| rva.get())
            }
        };
        let executable = |rva: &u32| {
            fixed
                .section_at(Rva::new(*rva))
                .is_some_and(|section| section.executable)
        };
        found.filter(executable).map(Some).ok_or_else(|| {
            Error::scenario(function.to_string(), "no such function in the fixed image")
        })
    }
}

/// The lifecycle in a child, or on a model where the host cannot run the image.
fn lifecycle_steps(inputs: &Inputs<'_>, runs: bool) -> Result<Vec<Step>, Error> {
    if runs {
        let told = inputs.run(&inputs.job(true, Task::Lifecycle))?;
        return Ok(told_steps(&told, "lifecycle"));
    }
    let mut patches: Vec<PatchFile> = inputs.older.clone().into_iter().collect();
    patches.push(inputs.patch.clone());
    let space = Space::Model(Model::default());
    let mut running = load(
        space,
        inputs.base.clone(),
        patches,
        inputs.request.hpat_blocks,
    )?;
    let mut steps = Vec::new();
    lifecycle::run(&mut running, &mut |step| {
        steps.extend(step_of(step.record()))
    });
    Ok(steps)
}

fn step_of(record: Record) -> Option<Step> {
    let Record::Step {
        name,
        failures,
        details,
        microseconds,
    } = record
    else {
        return None;
    };
    let status = if failures.is_empty() {
        Status::Passed
    } else {
        Status::Failed
    };
    Some(Step {
        name,
        status,
        failures,
        details,
        microseconds,
    })
}

/// The steps a child told of; where it ended early, one more that says how.
fn told_steps(told: &Told, name: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = told.records.iter().cloned().filter_map(step_of).collect();
    let fault = told.fault.as_ref().map(|fault| {
        let kind = crate::outcome::name_of(fault.kind);
        format!("{kind} at {}: {}", fault.place, fault.detail)
    });
    if let Some(failure) = fault.or_else(|| told.refused().map(str::to_owned)) {
        steps.push(Step {
            name: name.to_owned(),
            status: Status::Failed,
            failures: vec![failure],
            details: Vec::new(),
            microseconds: 0,
        });
    }
    steps
}

fn background_step(inputs: &Inputs<'_>, background: &Background) -> Result<Step, Error> {
    let calls = &background.session.calls;
    let places = calls
        .iter()
        .map(|call| inputs.place_in_base(&call.function));
    let task = Task::Background {
        background: background.clone(),
        places: places.collect::<Result<_, _>>()?,
    };
    let told = inputs.run(&inputs.job(false, task))?;
    let steps = told_steps(&told, "background");
    steps
        .into_iter()
        .next()
        .ok_or_else(|| Error::child("background calls", "no answer"))
}
