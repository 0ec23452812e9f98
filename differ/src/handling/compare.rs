//! Exception data of two functions, fact by fact.

use hpbuild_metadata::{Base, Fixed, FunctionId, Rva};

use super::{Fact, Value, What, facts};
use crate::decode::ReferenceKind;
use crate::meaning::{Comparer, Meaning};

/// A fact that differs: what it is about, and the base's and the fixed image's value.
pub(crate) type Difference = (What, Option<Value<Base>>, Option<Value<Fixed>>);

/// How the exception data of two functions compares.
pub(crate) struct Differences {
    /// The first difference of every sort, in the order of the facts.
    pub(crate) found: Vec<Difference>,
    /// Whether everything was understood.
    pub(crate) understood: bool,
}

/// Compares the exception data of two functions whose code is the same.
pub(crate) fn differences(
    comparer: &Comparer<'_>,
    base: FunctionId<Base>,
    fixed: FunctionId<Fixed>,
) -> Differences {
    let (b, b_understood) = facts(comparer.base, base);
    let (f, f_understood) = facts(comparer.fixed, fixed);
    let mut result = Differences {
        found: Vec::new(),
        understood: b_understood.is_ok() && f_understood.is_ok(),
    };
    for index in 0..b.len().max(f.len()) {
        let (before, after) = (b.get(index), f.get(index));
        let differs = match (before, after) {
            (Some(before), Some(after)) if before.what == after.what => {
                match meaning(comparer, before, after) {
                    Meaning::Same => false,
                    Meaning::Different(_) => true,
                    Meaning::Unknown => {
                        result.understood = false;
                        false
                    }
                }
            }
            _ => true,
        };
        if !differs {
            continue;
        }
        let what = before.map(|fact| fact.what).or(after.map(|fact| fact.what));
        let what = what.unwrap_or(What::Unwind);
        if !result.found.iter().any(|found| found.0 == what) {
            let values = (before.map(|fact| fact.value), after.map(|fact| fact.value));
            result.found.push((what, values.0, values.1));
        }
        // Where the shape differs, what follows would compare unlike things.
        let aligned = before.map(|fact| fact.what) == after.map(|fact| fact.what);
        if !aligned {
            break;
        }
    }
    result
}

fn meaning(comparer: &Comparer<'_>, base: &Fact<Base>, fixed: &Fact<Fixed>) -> Meaning {
    match (base.value, fixed.value) {
        (Value::Number(before), Value::Number(after)) if before == after => Meaning::Same,
        (Value::Place(before), Value::Place(after)) => {
            comparer.compare(before, after, ReferenceKind::Address)
        }
        (Value::Opaque(before), Value::Opaque(after)) => {
            let is_place = comparer.base.pe.section_at(Rva::new(before)).is_some()
                || comparer.fixed.pe.section_at(Rva::new(after)).is_some();
            let places = || {
                let (before, after) = (Rva::new(before), Rva::new(after));
                comparer.compare(before, after, ReferenceKind::Address)
            };
            // Whatever it is, it is the same; or nobody can say.
            match (before == after, is_place) {
                (true, false) => Meaning::Same,
                (_, true) if places() == Meaning::Same => Meaning::Same,
                _ => Meaning::Unknown,
            }
        }
        _ => Meaning::Different(crate::meaning::Difference::Data),
    }
}
