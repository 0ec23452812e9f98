//! Where images are mapped: plain bytes, or this very process.
//!
//! A space maps images, hands out copies of their memory, and performs planned writes all or
//! nothing. It knows nothing of tables or patches.

use hpbuild_metadata::Side;

use crate::engine::hpat::Hpat;
use crate::engine::{Refusal, Status, Write, hex};
use crate::error::Error;
use crate::image::Image;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
use crate::native;

/// Which mapping of a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MappingId(pub(crate) usize);

/// One of the backends.
#[derive(Debug)]
pub(crate) enum Space {
    /// Bytes that are never executed; works for both machines on every host.
    Model(Model),
    /// Memory of this process, executable.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    Native(native::Native),
}

impl Space {
    /// Maps `image` with an address table of `blocks` blocks behind it.
    pub(crate) fn map<S: Side>(
        &mut self,
        image: &Image<S>,
        blocks: u32,
    ) -> Result<MappingId, Error> {
        match self {
            Space::Model(model) => Ok(model.map(image, blocks)),
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            Space::Native(native) => native.map(image, blocks),
        }
    }

    /// Where the mapping starts.
    pub(crate) fn address(&self, id: MappingId) -> u64 {
        match self {
            Space::Model(model) => model.mappings[id.0].address,
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            Space::Native(native) => native.address(id),
        }
    }

    /// A copy of the mapping as it is now.
    pub(crate) fn snapshot(&self, id: MappingId) -> Vec<u8> {
        match self {
            Space::Model(model) => model.mappings[id.0].memory.clone(),
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            Space::Native(native) => native.snapshot(id),
        }
    }

    /// Performs `writes` in order. Where memory is no longer as planned, the ones already done
    /// are taken back.
    ///
    /// # Errors
    /// The write whose place has changed since the plan was made, or a thread that cannot be
    /// stopped at a safe place.
    pub(crate) fn perform<S: Side>(
        &mut self,
        id: MappingId,
        writes: &[Write<S>],
    ) -> Result<(), Refusal> {
        match self {
            Space::Model(model) => model.perform(id, writes),
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            Space::Native(native) => native.perform(id, writes),
        }
    }
}

/// Images as plain bytes at made-up addresses.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) mappings: Vec<ModelMapping>,
}

/// One image in a [`Model`].
#[derive(Debug)]
pub(crate) struct ModelMapping {
    pub(crate) address: u64,
    pub(crate) memory: Vec<u8>,
}

/// Far enough from every usual preferred address that relocation really happens.
const MODEL_START: u64 = 0x7ff6_0000_0000;
/// Farther apart than any image is large, as randomised images are.
const MODEL_STEP: u64 = 0x1_2345_0000;

impl Model {
    fn map<S: Side>(&mut self, image: &Image<S>, blocks: u32) -> MappingId {
        let address = MODEL_START + MODEL_STEP * self.mappings.len() as u64;
        let mut memory = image.relocated(address);
        memory.resize(
            (image.size + Hpat::behind(image, blocks).size()) as usize,
            0,
        );
        self.mappings.push(ModelMapping { address, memory });
        MappingId(self.mappings.len() - 1)
    }

    fn perform<S: Side>(&mut self, id: MappingId, writes: &[Write<S>]) -> Result<(), Refusal> {
        let memory = &mut self.mappings[id.0].memory;
        for (index, write) in writes.iter().enumerate() {
            let at = write.at.get() as usize;
            let before = write.before.as_slice();
            let place = memory.get_mut(at..at + before.len());
            if let Some(place) = place.filter(|place| *place == before) {
                place.copy_from_slice(write.after.as_slice());
                continue;
            }
            for done in writes[..index].iter().rev() {
                let at = done.at.get() as usize;
                let before = done.before.as_slice();
                memory[at..at + before.len()].copy_from_slice(before);
            }
            return Err(changed_since(write));
        }
        Ok(())
    }
}

/// The refusal for memory that is not as it was when the plan was made.
pub(crate) fn changed_since<S: Side>(write: &Write<S>) -> Refusal {
    Refusal::new::<S>(
        Status::ConflictingAddresses,
        format!("rva {}", write.at),
        format!("the bytes {} of a moment ago", hex(write.before.as_slice())),
        "others",
    )
}
