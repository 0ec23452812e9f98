//! What one call did, and whether two calls did the same.
//!
//! Addresses differ from process to process, and a pointer into the base is another number than
//! one into the fixed image. So every aligned word that points into something the harness knows
//! carries a token, and tokens are compared instead: `&out+4`, `heap+0x20`, `image`, `stack`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::scenario::{Expectation, FaultKind, ResultType, Returns};

/// The effects of a call that returned, as the child saw them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Effects {
    /// `rax` and the low half of `xmm0`.
    pub(crate) integer: u64,
    pub(crate) float: u64,
    /// What `rax` points to, where it points to something known.
    pub(crate) token: Option<String>,
    pub(crate) buffers: Vec<BufferState>,
}

/// One buffer after a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BufferState {
    pub(crate) name: String,
    #[serde(with = "crate::scenario::hex")]
    pub(crate) bytes: Vec<u8>,
    /// Offsets of aligned words that point to something known, and what to.
    pub(crate) pointers: BTreeMap<usize, String>,
    /// Whether bytes behind the buffer, up to the end of its page, were written.
    pub(crate) overrun: bool,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ended {
    Returned(Effects),
    Fault(Fault),
    /// An earlier call of the session did not return.
    NotRun,
}

/// How and where a call went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The kind of fault.
    pub kind: FaultKind,
    /// Where: `base+0x1234`, `patch+0x1010`, or what else is known of the place.
    pub place: String,
    /// What was accessed, raised or called, where that is known.
    pub detail: String,
}

/// A returned value, read as its type says.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// The function returns nothing.
    Void,
    /// A signed integer.
    Signed(i64),
    /// An unsigned integer.
    Unsigned(u64),
    /// A floating point number.
    Float(f64),
    /// What a pointer points to, or its value where that is not known.
    Pointer(String),
}

impl Effects {
    /// The returned value as `kind` reads it.
    pub(crate) fn value(&self, kind: ResultType) -> Value {
        let bits = self.integer;
        match kind {
            ResultType::Void => Value::Void,
            ResultType::I8 => Value::Signed((bits as i8).into()),
            ResultType::U8 => Value::Unsigned((bits as u8).into()),
            ResultType::I16 => Value::Signed((bits as i16).into()),
            ResultType::U16 => Value::Unsigned((bits as u16).into()),
            ResultType::I32 => Value::Signed((bits as i32).into()),
            ResultType::U32 => Value::Unsigned((bits as u32).into()),
            ResultType::I64 => Value::Signed(bits as i64),
            ResultType::U64 => Value::Unsigned(bits),
            ResultType::F32 => Value::Float(f32::from_bits(self.float as u32).into()),
            ResultType::F64 => Value::Float(f64::from_bits(self.float)),
            ResultType::Ptr => Value::Pointer(match &self.token {
                Some(token) => token.clone(),
                None if bits == 0 => "null".to_owned(),
                None => format!("{bits:#x}"),
            }),
        }
    }
}

/// Whether two calls did the same, as far as a caller can tell; `Err` names the first difference.
pub(crate) fn compare(a: &Ended, b: &Ended, kind: ResultType) -> Result<(), String> {
    match (a, b) {
        (Ended::Returned(a), Ended::Returned(b)) => compare_effects(a, b, kind),
        (Ended::Fault(a), Ended::Fault(b)) if a.kind == b.kind => Ok(()),
        (Ended::NotRun, Ended::NotRun) => Ok(()),
        _ => Err(format!(
            "{} against {}",
            describe(a, kind),
            describe(b, kind)
        )),
    }
}

/// [`compare`] for two calls that returned.
pub(crate) fn compare_effects(a: &Effects, b: &Effects, kind: ResultType) -> Result<(), String> {
    let (left, right) = (a.value(kind), b.value(kind));
    // Two equal results that are not numbers are the same result.
    let same_float = matches!((&left, &right), (Value::Float(x), Value::Float(y))
        if x.to_bits() == y.to_bits());
    if left != right && !same_float {
        return Err(format!("returned {} against {}", show(&left), show(&right)));
    }
    if a.buffers.len() != b.buffers.len() {
        return Err("different buffers".to_owned());
    }
    for (a, b) in a.buffers.iter().zip(&b.buffers) {
        if let Some(at) = first_difference(a, b) {
            return Err(format!("buffer {} differs at offset {at}", a.name));
        }
        if a.overrun != b.overrun {
            return Err(format!("only one writes behind buffer {}", a.name));
        }
    }
    Ok(())
}

fn first_difference(a: &BufferState, b: &BufferState) -> Option<usize> {
    if a.bytes.len() != b.bytes.len() {
        return Some(a.bytes.len().min(b.bytes.len()));
    }
    let mut at = 0;
    while at < a.bytes.len() {
        match (a.pointers.get(&at), b.pointers.get(&at)) {
            (Some(x), Some(y)) if x == y => at += 8,
            (None, None) if a.bytes[at] == b.bytes[at] => at += 1,
            _ => return Some(at),
        }
    }
    None
}

/// Whether a call did what was expected; `Err` says what not.
pub(crate) fn meets(
    ended: &Ended,
    expectation: &Expectation,
    kind: ResultType,
) -> Result<(), String> {
    let effects = match (ended, expectation.fault) {
        (Ended::Fault(fault), Some(kind)) if fault.kind == kind => return Ok(()),
        (Ended::Returned(effects), None) => effects,
        (_, Some(wanted)) => {
            let found = describe(ended, kind);
            return Err(format!(
                "expected the fault {}, found {found}",
                name_of(wanted)
            ));
        }
        (_, None) => {
            return Err(format!(
                "expected a return, found {}",
                describe(ended, kind)
            ));
        }
    };
    if let Some(wanted) = expectation.returns {
        let value = effects.value(kind);
        let met = match (wanted, &value) {
            (Returns::Integer(wanted), Value::Signed(value)) => wanted == *value,
            // An unsigned result may be written as the signed number of the same bits.
            (Returns::Integer(wanted), Value::Unsigned(value)) => wanted as u64 == *value,
            (Returns::Integer(wanted), Value::Float(value)) => wanted as f64 == *value,
            (Returns::Float(wanted), Value::Float(value)) => wanted == *value,
            (Returns::Null, _) => effects.integer == 0,
            (Returns::NotNull, _) => effects.integer != 0,
            _ => false,
        };
        if !met {
            let wanted = match wanted {
                Returns::Integer(value) => value.to_string(),
                Returns::Float(value) => value.to_string(),
                Returns::Null => "null".to_owned(),
                Returns::NotNull => "not null".to_owned(),
            };
            return Err(format!("expected {wanted}, found {}", show(&value)));
        }
    }
    for (name, held) in &expectation.buffers {
        let state = effects.buffers.iter().find(|state| state.name == *name);
        let found = state.and_then(|s| s.bytes.get(held.at..held.at + held.bytes.len()));
        if found != Some(&held.bytes) {
            let found = found.map_or("nothing".to_owned(), crate::engine::hex);
            let wanted = crate::engine::hex(&held.bytes);
            return Err(format!(
                "buffer {name}+{}: expected {wanted}, found {found}",
                held.at
            ));
        }
    }
    Ok(())
}

/// The name of a fault as scenarios write it.
pub(crate) fn name_of(kind: FaultKind) -> String {
    let text = serde_json::to_value(kind).ok();
    text.and_then(|text| text.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn show(value: &Value) -> String {
    value.to_string()
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Void => f.write_str("nothing"),
            Value::Signed(value) => value.fmt(f),
            Value::Unsigned(value) => value.fmt(f),
            Value::Float(value) => value.fmt(f),
            Value::Pointer(value) => value.fmt(f),
        }
    }
}

/// `guard-page at base+0x1234 (write of 0x...)`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", name_of(self.kind), self.place)?;
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        Ok(())
    }
}

fn describe(ended: &Ended, kind: ResultType) -> String {
    match ended {
        Ended::Returned(effects) => format!("a return of {}", show(&effects.value(kind))),
        Ended::Fault(fault) => format!("the fault {} at {}", name_of(fault.kind), fault.place),
        Ended::NotRun => "a call that was not made".to_owned(),
    }
}
