//! What `__ImageBase` means in a function: the start of the base, as a module handle and for
//! tables of the base; or the start of the patch, where jump tables that the patch carries are
//! added to it.

use hpbuild_differ::decode::{Body, Field};
use hpbuild_differ::meaning::{Target as Meaning, is_read_only, resolve};
use hpbuild_metadata::{Fixed, Rva};

use super::Extraction;
use super::function::FunctionWalk;
use crate::piece::Target;

impl Extraction<'_> {
    /// The image base as this function needs it. Where it needs both, the linker refuses.
    pub(super) fn image_base_target(
        &self,
        walk: &FunctionWalk<'_>,
        body: &Body<Fixed>,
        _bytes: &[u8],
    ) -> Target {
        let needs_patch = body.instructions.iter().any(|instruction| {
            instruction.reference.is_some_and(|reference| {
                matches!(reference.field, Field::ImageRelative { .. })
                    && self.must_be_carried(walk, reference.target)
            })
        });
        if needs_patch {
            Target::PatchImageBase
        } else {
            Target::Base(Rva::new(0))
        }
    }

    /// Whether only a copy in the patch will do.
    fn must_be_carried(&self, walk: &FunctionWalk<'_>, rva: Rva<Fixed>) -> bool {
        match resolve(&self.diff.fixed, rva) {
            Meaning::JumpTable(_) | Meaning::Anonymous(_) => true,
            Meaning::Function { id, .. } => id == walk.id,
            Meaning::Data { id, .. } => match self.diff.pairing.base_data(id) {
                Some(base) => is_read_only(&self.diff.fixed, rva) && !self.comparer.data_same(base),
                None => true,
            },
            Meaning::Import(_) | Meaning::ImageBase | Meaning::Outside => false,
        }
    }
}
