//! What some addresses were found to mean before.

use hpbuild_metadata::{Base, Fixed, Rva};

use crate::decode::ReferenceKind;
use crate::meaning::{Comparer, Meaning};

/// How many pairs of addresses are remembered. What much code refers to is among the last few of
/// any stretch of code, and so many fit into the nearest caches.
const REMEMBERED: usize = 1 << 10;

/// Two addresses that were compared, and how the operands use them.
type Places = (Rva<Base>, Rva<Fixed>, ReferenceKind);

/// The last comparisons of one thread, each in the one place that its addresses choose.
pub(super) struct Seen(Box<[Option<(Places, Meaning)>]>);

impl Default for Seen {
    fn default() -> Self {
        Self(vec![None; REMEMBERED].into())
    }
}

impl Seen {
    /// As [`Comparer::compare`].
    pub(super) fn compare(
        &mut self,
        comparer: &Comparer<'_>,
        (from, to): (Rva<Base>, Rva<Fixed>),
        kind: ReferenceKind,
    ) -> Meaning {
        let places = (from, to, kind);
        // Functions start at multiples of 16: the lower bits alone would choose few places.
        let chosen = (from.get() ^ from.get() >> 10) as usize % REMEMBERED;
        match self.0[chosen] {
            Some((known, meaning)) if known == places => meaning,
            _ => {
                let meaning = comparer.compare(from, to, kind);
                self.0[chosen] = Some((places, meaning));
                meaning
            }
        }
    }
}
