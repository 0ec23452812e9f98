//! Data that may be written on one side only.

use super::{Case, Refusal, Severity};
use crate::meaning::is_read_only;

/// Constants that became variables, which patched code would write to where nothing can be written,
/// and variables that became constants.
pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (case.comparer.base, case.comparer.fixed);
    if case.redirected.is_empty() {
        return;
    }
    let mut last = None;
    for (symbol, partner) in case.data_of_both() {
        let was_constant = is_read_only(base, symbol.rva);
        if was_constant == is_read_only(fixed, partner.rva) {
            continue;
        }
        let linkage = symbol.decorated.as_deref().unwrap_or(&symbol.name);
        let is_made = crate::names::is_linker_made(linkage, symbol.type_index != 0);
        let is_import = base.pe.import_at(symbol.rva).is_some();
        if last == Some(symbol.rva) || is_made || is_import || symbol.thread_local {
            continue;
        }
        last = Some(symbol.rva);
        let is_reached = case.reached_after().contains(&partner.rva);
        let shown = symbol.display();
        let message = match (was_constant, is_reached) {
            (true, true) => format!("the constant {shown} became writable"),
            (true, false) => {
                format!(
                    "the constant {shown} became writable; no changed function is known to reach it"
                )
            }
            (false, _) => format!("{shown} became constant, and the process may have set it"),
        };
        let section = |name: Option<&str>| name.unwrap_or("none").to_owned();
        let before = section(base.pe.section_at(symbol.rva).map(|it| &*it.name));
        let after = section(fixed.pe.section_at(partner.rva).map(|it| &*it.name));
        let evidence = format!("section {before} before, {after} after");
        let mut refusal = Refusal::new("HP041", &*symbol.name, message, evidence);
        if !was_constant || !is_reached {
            refusal.severity = Severity::Warn;
        }
        refusals.push(refusal);
    }
}
