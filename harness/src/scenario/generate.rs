//! Calls made up from a description of the function: the same seed gives the same calls.
//!
//! Values lean towards the edges of their range, where mistakes are; sizes of buffers too.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::format::ArgumentText;
use super::read::{ingredient, read_function};
use super::{Argument, Buffer, Call, Generated, ResultType, Session};
use crate::error::Error;

const MAX_CASES: usize = 10_000;
const MAX_SIZE: usize = 1 << 16;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Text {
    function: Option<String>,
    rva: Option<u32>,
    #[serde(rename = "fixed-rva")]
    fixed_rva: Option<u32>,
    #[serde(default = "default_cases")]
    cases: usize,
    #[serde(default = "default_seed")]
    seed: u64,
    #[serde(default)]
    result: ResultType,
    args: Vec<IngredientText>,
    #[serde(default)]
    buffers: BTreeMap<String, BufferText>,
}

fn default_cases() -> usize {
    100
}

fn default_seed() -> u64 {
    1
}

#[derive(Deserialize)]
#[serde(untagged)]
enum IngredientText {
    Range(RangeText),
    OneOf(OneOfText),
    Plain(ArgumentText),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RangeText {
    min: i64,
    max: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneOfText {
    #[serde(rename = "one-of")]
    one_of: Vec<i64>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct BufferText {
    #[serde(default)]
    min_size: usize,
    max_size: usize,
    #[serde(default)]
    zero: bool,
    #[serde(default)]
    guard: bool,
}

/// How one argument is made.
pub(super) enum Ingredient {
    Fixed(i64),
    Range(i64, i64),
    OneOf(Vec<i64>),
    Buffer(String),
    SizeOf(String),
}

pub(super) fn expand(text: Text) -> Result<Generated, Error> {
    let place = "generate";
    let function = read_function(text.function, text.rva, text.fixed_rva, place)?;
    let place = format!("generate {function}");
    if text.cases == 0 || text.cases > MAX_CASES {
        return Err(Error::scenario(
            place,
            format!("cases must be from 1 to {MAX_CASES}"),
        ));
    }
    for (name, buffer) in &text.buffers {
        if buffer.min_size > buffer.max_size || buffer.max_size > MAX_SIZE {
            let message = format!("buffer {name}: sizes must rise, to at most {MAX_SIZE}");
            return Err(Error::scenario(place, message));
        }
    }
    let mut ingredients = Vec::new();
    for argument in &text.args {
        ingredients.push(read_ingredient(argument, &text.buffers, &place)?);
    }
    let mut random = Random(text.seed);
    let sessions = (0..text.cases)
        .map(|case| {
            let buffers: Vec<Buffer> = text
                .buffers
                .iter()
                .map(|(name, text)| make_buffer(name, text, &mut random))
                .collect();
            let call = Call {
                function: function.clone(),
                arguments: ingredients
                    .iter()
                    .map(|ingredient| make_argument(ingredient, &buffers, &mut random))
                    .collect(),
                result: text.result,
                bind: None,
                fields: Vec::new(),
                before: None,
                after: None,
            };
            Session {
                name: format!("{function} case {case}"),
                patch_after: 0,
                buffers,
                calls: vec![call],
            }
        })
        .collect();
    Ok(Generated {
        function,
        seed: text.seed,
        sessions,
    })
}

fn read_ingredient(
    text: &IngredientText,
    buffers: &BTreeMap<String, BufferText>,
    place: &str,
) -> Result<Ingredient, Error> {
    let ingredient = match text {
        IngredientText::Range(range) if range.min <= range.max => {
            Ingredient::Range(range.min, range.max)
        }
        IngredientText::Range(_) => return Err(Error::scenario(place, "min lies above max")),
        IngredientText::OneOf(text) if !text.one_of.is_empty() => {
            Ingredient::OneOf(text.one_of.clone())
        }
        IngredientText::OneOf(_) => return Err(Error::scenario(place, "one-of is empty")),
        IngredientText::Plain(text) => ingredient(text, place)?,
    };
    if let Ingredient::Buffer(name) | Ingredient::SizeOf(name) = &ingredient
        && !buffers.contains_key(name)
    {
        return Err(Error::scenario(place, format!("no buffer `{name}`")));
    }
    Ok(ingredient)
}

fn make_buffer(name: &str, text: &BufferText, random: &mut Random) -> Buffer {
    let size = random.between(text.min_size as i64, text.max_size as i64) as usize;
    // Some buffers are all noise, some have long runs, as real data does.
    let coarse = random.next().is_multiple_of(2);
    let mut byte = 0;
    let bytes = (0..size)
        .map(|_| {
            if !coarse || random.next().is_multiple_of(8) {
                byte = random.next() as u8;
            }
            if text.zero { 0 } else { byte }
        })
        .collect();
    Buffer {
        name: name.to_owned(),
        bytes,
        guard: text.guard,
        fields: Vec::new(),
    }
}

fn make_argument(ingredient: &Ingredient, buffers: &[Buffer], random: &mut Random) -> Argument {
    let size_of = |name: &str| {
        let buffer = buffers.iter().find(|buffer| buffer.name == name);
        buffer.map_or(0, |buffer| buffer.bytes.len() as i64)
    };
    match ingredient {
        Ingredient::Fixed(value) => Argument::Integer(*value),
        Ingredient::Range(min, max) => Argument::Integer(random.between(*min, *max)),
        Ingredient::OneOf(values) => {
            let index = random.next() as usize % values.len();
            Argument::Integer(values[index])
        }
        Ingredient::Buffer(name) => Argument::Buffer {
            name: name.clone(),
            offset: 0,
        },
        Ingredient::SizeOf(name) => Argument::Integer(size_of(name)),
    }
}

/// SplitMix64: small, well distributed, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `min` to `max`; every fourth lies at an edge, at zero or beside it.
    fn between(&mut self, min: i64, max: i64) -> i64 {
        if self.next().is_multiple_of(4) {
            let edges = [
                min,
                max,
                min.saturating_add(1),
                max.saturating_sub(1),
                0,
                1,
                -1,
            ];
            let edge = edges[self.next() as usize % edges.len()];
            return edge.clamp(min, max);
        }
        let span = (i128::from(max) - i128::from(min) + 1) as u128;
        let offset = u128::from(self.next()) % span;
        (i128::from(min) + offset as i128) as i64
    }
}
