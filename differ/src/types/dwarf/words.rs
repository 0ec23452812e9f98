//! What a type is made of, in words.

use super::{DwarfType, DwarfTypes, MAX_DEPTH};
use crate::types::words::{Part, of_function};

impl DwarfTypes {
    /// The members and base classes of a structure or union, or the result and parameters of a
    /// function; empty for anything else.
    pub(crate) fn parts(&self, index: u32) -> Vec<Part> {
        let layout = |index: Option<u32>| index.map_or(0, |index| self.layout_hash(index));
        match self.record(index) {
            Some(DwarfType::Function {
                result,
                parameters,
                variadic,
            }) => {
                let words = |index: Option<u32>| (self.words(index, 0), layout(index));
                let mut parts = of_function(*result, parameters.iter().copied(), words);
                parts.extend(variadic.then(|| Part {
                    name: "further arguments".to_owned(),
                    words: "any".to_owned(),
                    layout: 0,
                }));
                parts
            }
            Some(DwarfType::Definition(definition)) => {
                let part = |member: &super::Member<u32>| {
                    let ty = self.words(member.ty, 0);
                    let name = match &member.name {
                        Some(name) => name.to_string(),
                        None => format!("base class {ty}"),
                    };
                    let bits = member.bits.map(|bits| format!(" of {bits} bits"));
                    let from = match member.offset % 8 {
                        0 => String::new(),
                        bit => format!(" from bit {bit}"),
                    };
                    let (bits, byte) = (bits.unwrap_or_default(), member.offset / 8);
                    Part {
                        name,
                        words: format!("{ty}{bits}{from} at +{byte:#x}"),
                        layout: layout(member.ty),
                    }
                };
                definition.members.iter().map(part).collect()
            }
            _ => Vec::new(),
        }
    }

    /// A type as a person writes it, or nearly so.
    pub(crate) fn words(&self, index: Option<u32>, depth: u32) -> String {
        let Some(index) = index else {
            return "void".to_owned();
        };
        match self.record(index) {
            _ if depth > MAX_DEPTH => "...".to_owned(),
            Some(DwarfType::Base { name, .. }) => name.to_string(),
            Some(DwarfType::Pointer { target, .. }) => {
                format!("{}*", self.words(*target, depth + 1))
            }
            // A name alone does not change a layout, and what it stands for may.
            Some(DwarfType::Alias { target, .. }) => self.words(*target, depth + 1),
            Some(DwarfType::Array {
                element, counts, ..
            }) => {
                let count = |count: &Option<u64>| count.map_or(String::new(), |it| it.to_string());
                let counts: Vec<String> = counts.iter().map(count).collect();
                let element = self.words(*element, depth + 1);
                format!("{element}[{}]", counts.join("]["))
            }
            Some(DwarfType::Definition(definition)) => match &definition.name {
                Some(name) => name.to_string(),
                None => "an unnamed type".to_owned(),
            },
            Some(DwarfType::Function { .. }) => "function".to_owned(),
            Some(DwarfType::Other { .. }) | None => "another type".to_owned(),
        }
    }
}
