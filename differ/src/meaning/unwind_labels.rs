//! Labels that assembly for Arm64 leaves in unwind data.
//!
//! The macros of the Windows headers for assembly (`kxarm64.h`) write the unwind record of a
//! function `f` by hand, and name its start `f_xdata`, the start of its codes `f_xdata_prolog`, and
//! its end `f_xdata_end`. In a PDB they look like constants; the last is the name of whatever comes
//! next.

use hpbuild_metadata::{DataId, Rva, Side};
use rustc_hash::FxHashSet;

use crate::image::Image;
use crate::pe::Unwind;

const START: &str = "_xdata";
const OTHERS: [&str; 2] = ["_xdata_prolog", "_xdata_end"];

/// Labels at one place and between the start of a record and its end are few: those of functions
/// that share codes.
const MAX_LABELS: usize = 64;

/// The unwind records of an image.
pub(super) struct UnwindRecords<S: Side>(FxHashSet<Rva<S>>);

impl<S: Side> UnwindRecords<S> {
    /// Collects them, where the image has such labels at all.
    pub(super) fn new(image: &Image<S>) -> Self {
        let is_label = |name: &str| function_of(name).is_some();
        if !image.data.iter().any(|symbol| is_label(&symbol.name)) {
            return Self(FxHashSet::default());
        }
        let entries = image.pe.runtime_functions.iter();
        let records = entries.filter_map(|entry| match entry.unwind {
            Unwind::Info(rva) => Some(rva),
            Unwind::Packed(_) | Unwind::Shared(_) => None,
        });
        Self(records.collect())
    }

    /// Whether the symbol is the label of a record that the exception directory leads to.
    pub(super) fn has_label(&self, image: &Image<S>, id: DataId<S>) -> bool {
        let symbol = image.data_symbol(id);
        if self.0.is_empty() || symbol.sized_by_type {
            return false;
        }
        let Some((function, is_start)) = function_of(&symbol.name) else {
            return false;
        };
        if is_start {
            return self.0.contains(&symbol.rva);
        }
        let last = image.data.partition_point(|other| other.rva <= symbol.rva);
        let before = image.data[..last].iter().rev().take(MAX_LABELS);
        before
            .filter(|other| other.name.strip_suffix(START) == Some(function))
            .any(|start| self.0.contains(&start.rva))
    }
}

/// The function in a label, and whether it is the label of the start.
fn function_of(name: &str) -> Option<(&str, bool)> {
    let start = name.strip_suffix(START).map(|function| (function, true));
    let other = || OTHERS.iter().find_map(|suffix| name.strip_suffix(suffix));
    start.or_else(|| other().map(|function| (function, false)))
}
