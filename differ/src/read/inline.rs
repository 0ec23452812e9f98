//! The inline sites of all compilands, brought into the order of the functions they stand in.

use hpbuild_metadata::Side;

use super::symbols::ModuleSymbols;
use crate::inline::{InlineSite, InlineSites};
use crate::pe::Pe;

pub(super) fn inline_sites<S: Side>(pe: &Pe<S>, modules: &[ModuleSymbols]) -> InlineSites<S> {
    let mut all = InlineSites::default();
    for module in modules {
        for site in &module.inline_sites {
            let procedure = module.procedures.get(site.procedure as usize);
            let function = procedure.and_then(|procedure| pe.rva_of_place(procedure.place));
            let range = site.annotations.start as usize..site.annotations.end as usize;
            let bytes = module.inline_annotations.get(range);
            let (Some(function), Some(bytes)) = (function, bytes) else {
                continue;
            };
            let start = all.annotations.len();
            // A PDB has no more than 4 GB, so neither have they.
            let (Ok(start), Ok(end)) = (start.try_into(), (start + bytes.len()).try_into()) else {
                break;
            };
            all.annotations.extend_from_slice(bytes);
            all.sites.push(InlineSite {
                function,
                depth: site.depth,
                inlinee: site.inlinee,
                annotations: start..end,
            });
        }
    }
    all.sites.sort_by_key(|site| site.function);
    all
}
