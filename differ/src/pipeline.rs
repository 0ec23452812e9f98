//! The stages in order.

use std::time::{Duration, Instant};

use hpbuild_metadata::{Base, Fixed};

use crate::compare::{Comparison, compare};
use crate::error::Error;
use crate::image::Image;
use crate::judge::{Policy, Refusal, judge, unsupported};
use crate::meaning::{Comparer, Prepared};
use crate::pair::{Pairing, pair};
use crate::read::{Input, Read, SymbolPaths, assemble_pair, read};

/// What to compare, and how.
#[derive(Clone, Debug)]
pub struct Differ {
    /// What is running everywhere.
    pub base: Input,
    /// The same with the fix.
    pub fixed: Input,
    /// Where else to look for PDBs.
    pub symbols: SymbolPaths,
    /// Findings that are allowed.
    pub policy: Policy,
}

/// Everything that is known of two images.
#[derive(Debug)]
pub struct Diff {
    /// The base image.
    pub base: Image<Base>,
    /// The fixed image.
    pub fixed: Image<Fixed>,
    /// Which is which.
    pub pairing: Pairing,
    /// What changed.
    pub comparison: Comparison,
    /// What the rules say of it.
    pub refusals: Vec<Refusal>,
    prepared: Prepared,
}

impl Diff {
    /// A comparer of the two images, for later stages that ask what further addresses mean.
    pub fn comparer(&self) -> Comparer<'_> {
        Comparer::resume(
            &self.base,
            &self.fixed,
            &self.pairing,
            self.prepared.clone(),
        )
    }
}

/// How long a stage took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The stage.
    pub name: &'static str,
    /// How long it took, by the wall clock.
    pub time: Duration,
}

/// Reads, pairs, compares and judges. Where a side is of a kind that cannot be hotpatched there is
/// nothing to compare, and the refusals that say so are the whole result.
///
/// # Errors
/// Where an input is unusable: see [`Error`].
pub fn diff(
    differ: &Differ,
    stages: &mut Vec<Stage>,
) -> Result<Result<Box<Diff>, Vec<Refusal>>, Error> {
    let mut timed = Timer {
        stages,
        since: Instant::now(),
    };
    let (base, fixed) = rayon::join(
        || read::<Base>(&differ.base, &differ.symbols),
        || read::<Fixed>(&differ.fixed, &differ.symbols),
    );
    let (base, fixed) = match (base?, fixed?) {
        (Read::Image(base), Read::Image(fixed)) => (*base, *fixed),
        (base, fixed) => {
            let mut refusals = Vec::new();
            if let Read::Unsupported(kind) = &base {
                refusals.push(unsupported("base", kind));
            }
            if let Read::Unsupported(kind) = &fixed {
                refusals.push(unsupported("fixed image", kind));
            }
            return Ok(Err(refusals));
        }
    };
    let ((base_machine, base_symbols), (machine, symbols)) = (base.kind(), fixed.kind());
    if base_machine != machine {
        let expected = format!("{base_machine}, as the base has");
        let place = "coff header machine";
        return Err(Error::format(&differ.fixed.pe, place, expected, machine));
    }
    // Names and types of the two kinds do not compare.
    if base_symbols != symbols {
        let expected = format!("{base_symbols}, as the base has");
        return Err(Error::format(
            &differ.fixed.pe,
            "symbols",
            expected,
            symbols,
        ));
    }
    let (base, fixed) = assemble_pair(base, fixed);
    timed.done("read");
    // Most of pairing runs on one thread: what takes time and waits for nothing goes beside it.
    let (pairing, _) = rayon::join(
        || pair(&base, &fixed),
        || {
            rayon::join(
                || crate::decode::prepare_text(machine),
                || rayon::join(|| _ = base.pe.sha256(), || _ = fixed.pe.sha256()),
            )
        },
    );
    timed.done("pair");
    let comparer = Comparer::new(&base, &fixed, &pairing);
    let comparison = compare(&comparer);
    timed.done("compare");
    let refusals = judge(&comparer, &comparison, &differ.policy);
    timed.done("judge");
    let prepared = comparer.prepared();
    Ok(Ok(Box::new(Diff {
        base,
        fixed,
        pairing,
        comparison,
        refusals,
        prepared,
    })))
}

struct Timer<'a> {
    stages: &'a mut Vec<Stage>,
    since: Instant,
}

impl Timer<'_> {
    fn done(&mut self, name: &'static str) {
        self.stages.push(Stage {
            name,
            time: self.since.elapsed(),
        });
        self.since = Instant::now();
    }
}
