//! Values to text.

pub(crate) mod diff;
pub(crate) mod package;
pub(crate) mod test;

/// A value as JSON, for programs and for people who look at it.
pub(crate) fn json(value: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("reports hold plain data");
    text.push('\n');
    text
}
