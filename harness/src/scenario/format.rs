//! The scenario as it is written: keys and their types, nothing checked.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::generate;
use super::{FaultKind, Load, ResultType};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScenarioText {
    #[serde(default)]
    pub(super) load: Load,
    #[serde(default, rename = "session")]
    pub(super) sessions: Vec<SessionText>,
    #[serde(default, rename = "generate")]
    pub(super) generated: Vec<generate::Text>,
    pub(super) background: Option<BackgroundText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct SessionText {
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) patch_after: usize,
    #[serde(default)]
    pub(super) buffers: BTreeMap<String, BufferText>,
    #[serde(rename = "call")]
    pub(super) calls: Vec<CallText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BackgroundText {
    #[serde(default = "default_threads")]
    pub(super) threads: usize,
    #[serde(default = "default_rounds")]
    pub(super) rounds: usize,
    #[serde(default)]
    pub(super) buffers: BTreeMap<String, BufferText>,
    #[serde(rename = "call")]
    pub(super) calls: Vec<CallText>,
}

fn default_threads() -> usize {
    4
}

fn default_rounds() -> usize {
    50
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BufferText {
    pub(super) hex: Option<String>,
    pub(super) text: Option<String>,
    pub(super) zero: Option<usize>,
    pub(super) file: Option<String>,
    pub(super) fill: Option<FillText>,
    pub(super) size: Option<usize>,
    #[serde(default)]
    pub(super) guard: bool,
    #[serde(default)]
    pub(super) set: Vec<FieldText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FillText {
    pub(super) byte: u8,
    pub(super) count: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FieldText {
    pub(super) buffer: Option<String>,
    pub(super) at: usize,
    pub(super) u8: Option<u8>,
    pub(super) u16: Option<u16>,
    pub(super) u32: Option<u32>,
    pub(super) i32: Option<i32>,
    pub(super) i64: Option<i64>,
    pub(super) f64: Option<f64>,
    pub(super) pointer: Option<ArgumentText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CallText {
    pub(super) function: Option<String>,
    pub(super) rva: Option<u32>,
    #[serde(rename = "fixed-rva")]
    pub(super) fixed_rva: Option<u32>,
    #[serde(default)]
    pub(super) args: Vec<ArgumentText>,
    #[serde(default)]
    pub(super) result: ResultType,
    pub(super) bind: Option<String>,
    #[serde(default)]
    pub(super) set: Vec<FieldText>,
    pub(super) expect: Option<ExpectationText>,
    pub(super) before: Option<ExpectationText>,
    pub(super) after: Option<ExpectationText>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum ArgumentText {
    Integer(i64),
    Float(f64),
    /// `&buffer`, `&buffer+4`, `$bound` or `#buffer`.
    Reference(String),
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectationText {
    pub(super) returns: Option<ReturnsText>,
    pub(super) fault: Option<FaultKind>,
    #[serde(default)]
    pub(super) buffers: BTreeMap<String, HeldText>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum ReturnsText {
    Integer(i64),
    Float(f64),
    Word(String),
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeldText {
    #[serde(default)]
    pub(super) at: usize,
    pub(super) hex: Option<String>,
    pub(super) text: Option<String>,
}
