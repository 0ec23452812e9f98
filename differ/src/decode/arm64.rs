//! Arm64 instructions.

use hpbuild_metadata::Side;

use super::{Body, Code};

pub(super) fn decode<S: Side>(_code: Code<'_, S>, _body: &mut Body<S>) {}
