//! What is known of stretches of constants that many references lead into.

use std::sync::Mutex;

use hpbuild_metadata::{Base, Fixed, Rva};
use rustc_hash::FxHashMap;

use super::Extent;

/// Where a stretch ends in both images: references with other distances between them meet other bytes.
type Ends = (u64, u64);

/// Stretches by their ends. Two that start together and are the same are so from any later start on;
/// two that differ somewhere do so from any start before that.
#[derive(Debug, Default)]
pub(super) struct Stretches(Mutex<FxHashMap<Ends, Known>>);

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    same_from: Option<Rva<Base>>,
    differ_at: Option<Rva<Base>>,
}

impl Stretches {
    /// Whether the stretches are the same, where earlier ones tell.
    pub(super) fn known(&self, base: Extent<Base>, fixed: Extent<Fixed>) -> Option<bool> {
        let known = *self.0.lock().ok()?.get(&ends(base, fixed))?;
        if known.same_from.is_some_and(|from| from <= base.rva) {
            return Some(true);
        }
        known.differ_at.filter(|at| *at >= base.rva).map(|_| false)
    }

    /// Notes that they are the same from `place` on, or that they differ there.
    pub(super) fn remember(
        &self,
        base: Extent<Base>,
        fixed: Extent<Fixed>,
        same: bool,
        place: Rva<Base>,
    ) {
        let Ok(mut all) = self.0.lock() else {
            return;
        };
        let known = all.entry(ends(base, fixed)).or_default();
        match same {
            true => {
                let from = known.same_from.map_or(place, |from| from.min(place));
                known.same_from = Some(from);
            }
            false => known.differ_at = known.differ_at.max(Some(place)),
        }
    }
}

fn ends(base: Extent<Base>, fixed: Extent<Fixed>) -> Ends {
    (
        u64::from(base.rva.get()) + u64::from(base.size),
        u64::from(fixed.rva.get()) + u64::from(fixed.size),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch<S: hpbuild_metadata::Side>(start: u32, end: u32) -> Extent<S> {
        Extent {
            rva: Rva::new(start),
            size: end - start,
            exact: false,
        }
    }

    #[test]
    fn one_tells_of_others() {
        let all = Stretches::default();
        let known = |b: u32, f: u32| all.known(stretch(b, 0x100), stretch(f, 0x200));
        assert_eq!(known(0x40, 0x140), None);
        all.remember(
            stretch(0x40, 0x100),
            stretch(0x140, 0x200),
            true,
            Rva::new(0x40),
        );
        all.remember(
            stretch(0x10, 0x100),
            stretch(0x110, 0x200),
            false,
            Rva::new(0x20),
        );
        // Later starts are the same, earlier ones differ, and between the two nobody knows.
        assert_eq!(known(0x40, 0x140), Some(true));
        assert_eq!(known(0x60, 0x160), Some(true));
        assert_eq!(known(0x10, 0x110), Some(false));
        assert_eq!(known(0x20, 0x120), Some(false));
        assert_eq!(known(0x30, 0x130), None);
        // Stretches with other ends are others.
        assert_eq!(all.known(stretch(0x40, 0x100), stretch(0x140, 0x210)), None);
    }
}
