//! Data whose names count lambdas or closures, by the functions it leads to.
//!
//! One lambda more in front gives all others of its function other numbers, in the names of what is made
//! of them, too: the vtable of `closure_env$0` becomes that of `closure_env$1`, and the number that it had
//! is another's. Bodies are told apart by what they mean, and tables by the bodies that they lead to.

use hpbuild_metadata::{Base, Fixed, FunctionId, Side};
use rustc_hash::FxHashMap;

use super::{Bodies, Paired, tier};
use crate::image::{DataSymbol, Image};
use crate::meaning::pointer_at;
use crate::names::{is_position, without_generated_parts};

/// Bytes of such data that are looked at, at most.
const MAX_SIZE: u32 = 1 << 12;

/// Pairs what leads to the partners of the same functions in the same order, once on each side.
pub(super) fn pair_counted(
    paired: &mut Paired,
    base: &Image<Base>,
    fixed: &Image<Fixed>,
    bodies: &[Bodies],
) {
    if !base.data.iter().any(|it| is_position(name_of(it))) {
        return;
    }
    let partners: FxHashMap<_, _> = bodies
        .iter()
        .map(|(base, fixed, _)| (*fixed, *base))
        .collect();
    let known: FxHashMap<_, _> = bodies.iter().map(|(base, ..)| (*base, *base)).collect();
    tier(
        paired,
        |index| led_to(base, index, |id| known.get(&id).copied()),
        |index| led_to(fixed, index, |id| partners.get(&id).copied()),
    );
}

/// The name, or the linkage name of what has no other.
fn name_of<S: Side>(symbol: &DataSymbol<S>) -> &str {
    match &symbol.decorated {
        Some(decorated) if symbol.name.is_empty() => decorated,
        _ => &symbol.name,
    }
}

/// The name without numbers, and the functions of the base that its pointers lead to; `None` where it has
/// no numbers, or leads to no function or to one without a partner.
fn led_to<S: Side>(
    image: &Image<S>,
    index: u32,
    partner: impl Fn(FunctionId<S>) -> Option<FunctionId<Base>>,
) -> Option<(String, Vec<FunctionId<Base>>)> {
    let symbol = image.data.get(index as usize)?;
    let name = name_of(symbol);
    if !is_position(name) {
        return None;
    }
    let stable = without_generated_parts(name)?;
    let places = image.pointers_in(symbol.rva, symbol.size.min(MAX_SIZE));
    let targets = places
        .into_iter()
        .filter_map(|(place, absolute)| pointer_at(image, place, absolute));
    let entries = targets.filter_map(|target| {
        let id = image.function_at(target)?;
        (image.function(id).rva == target).then_some(id)
    });
    let led_to: Option<Vec<_>> = entries.map(partner).collect();
    led_to.filter(|it| !it.is_empty()).map(|it| (stable, it))
}
