//! An older patch over the same base. The system reverts what an older patch redirected and a
//! newer one does not mention, so a newer one must carry it all (format reference, section 3.2).

use hpbuild_differ::image::Image;
use hpbuild_metadata::table::{Chunk, HotPatchTable};
use hpbuild_metadata::{Base, BaseIdentity, Rva, Sequence};

use crate::piece::{Brought, Redirect};
use crate::refusal::{Code, Refusal};
use crate::verify::{self, Fault};

/// What an older patch did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Previous {
    /// Its base.
    pub identity: BaseIdentity,
    /// Its place in the order.
    pub sequence: Sequence,
    /// The base functions it redirected.
    pub redirected: Vec<Rva<Base>>,
    /// What it and those before it brought that the base does not have.
    pub brought: Vec<Brought>,
}

impl Previous {
    /// Reads the hotpatch table of an older patch image.
    ///
    /// # Errors
    /// Where the file is no patch image.
    pub fn read(file: &[u8]) -> Result<Self, Fault> {
        let table: HotPatchTable = verify::table(file)?;
        let base = table.bases.first().ok_or_else(|| Fault {
            place: "hotpatch table".into(),
            expected: "a base".into(),
            found: "none".into(),
        })?;
        let mut redirected = Vec::new();
        for chunk in &base.chunks {
            if let Chunk::ForwardFunction(records) = chunk {
                redirected.extend(records.iter().map(|record| record.base));
            }
        }
        redirected.sort_unstable();
        Ok(Self {
            identity: base.identity,
            sequence: table.sequence,
            redirected,
            brought: verify::brought(file)?,
        })
    }

    /// What of it the new patch does not carry.
    pub(super) fn check(
        &self,
        base: &Image<Base>,
        sequence: Sequence,
        redirects: &[Redirect],
    ) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        let refusal = |rule, name: String, message: String| Refusal {
            rule,
            name: name.into(),
            offset: None,
            message,
        };
        if self.identity != base.pe.identity {
            let message = format!("it is for {}, not for {}", self.identity, base.pe.identity);
            refusals.push(refusal(Code::Previous, "the older patch".into(), message));
            return refusals;
        }
        if self.sequence >= sequence {
            let message = format!("{sequence} is not above {}", self.sequence);
            refusals.push(refusal(
                Code::SequenceNumber,
                "the older patch".into(),
                message,
            ));
        }
        for rva in &self.redirected {
            if redirects.iter().all(|redirect| redirect.base != *rva) {
                let name = base
                    .function_at(*rva)
                    .map_or_else(|| format!("base rva {rva}"), |id| base.display_name(id));
                let message = "the older patch redirects it and this one does not".into();
                refusals.push(refusal(Code::Previous, name, message));
            }
        }
        refusals
    }
}
