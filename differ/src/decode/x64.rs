//! x64 instructions, decoded by `iced-x86`.

use hpbuild_metadata::Side;

use super::{Body, Code};

pub(super) fn decode<S: Side>(_code: Code<'_, S>, _body: &mut Body<S>) {}
