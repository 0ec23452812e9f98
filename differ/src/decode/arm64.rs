//! Arm64 instructions.

use hpbuild_metadata::{Rva, Side};

use super::{Body, Code, ReferenceKind};

pub(super) fn decode<S: Side>(_code: Code<'_, S>, _body: &mut Body<S>) {}

pub fn text<S: Side>(
    _code: Code<'_, S>,
    _body: &Body<S>,
    _name: &dyn Fn(Rva<S>, ReferenceKind) -> Option<String>,
) -> Vec<String> {
    Vec::new()
}

pub(super) fn constants_differing(_base: &[u8], _fixed: &[u8]) -> Option<(u64, u64)> {
    None
}
