//! The values of a manifest that JSON has no type for. Each has one spelling.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A SHA-256 digest; 64 lower-case hexadecimal digits as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

/// A GUID as the debug directory stores it; `8-4-4-4-12` upper-case hexadecimal digits as text,
/// the first three groups being little-endian numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub [u8; 16]);

/// A month of the calendar; `YYYY-MM` as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    /// 1970 to 9999.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
}

/// A text is not the one spelling of a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found:?}")]
pub struct Misspelt {
    expected: &'static str,
    found: String,
}

fn misspelt(expected: &'static str, found: &str) -> Misspelt {
    Misspelt {
        expected,
        found: found.chars().take(80).collect(),
    }
}

fn digits(text: &str, out: &mut [u8]) -> bool {
    let text = text.as_bytes();
    text.len() == 2 * out.len()
        && out.iter_mut().zip(text.chunks(2)).all(|(byte, pair)| {
            let digit = |c: u8| char::from(c).to_digit(16);
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
                return false;
            };
            *byte = (high << 4 | low) as u8;
            true
        })
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Sha256 {
    type Err = Misspelt;

    fn from_str(text: &str) -> Result<Self, Misspelt> {
        let mut bytes = [0; 32];
        if digits(text, &mut bytes) && Sha256(bytes).to_string() == text {
            Ok(Sha256(bytes))
        } else {
            Err(misspelt("64 lower-case hexadecimal digits", text))
        }
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = self.0;
        let first = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let second = u16::from_le_bytes([b[4], b[5]]);
        let third = u16::from_le_bytes([b[6], b[7]]);
        write!(
            f,
            "{first:08X}-{second:04X}-{third:04X}-{:02X}{:02X}-",
            b[8], b[9]
        )?;
        b[10..].iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl FromStr for Guid {
    type Err = Misspelt;

    fn from_str(text: &str) -> Result<Self, Misspelt> {
        let mut bytes = [0; 16];
        let plain: String = text.chars().filter(|c| *c != '-').collect();
        let read = digits(&plain, &mut bytes);
        bytes[..4].reverse();
        bytes[4..6].reverse();
        bytes[6..8].reverse();
        if read && Guid(bytes).to_string() == text {
            Ok(Guid(bytes))
        } else {
            Err(misspelt("a GUID in upper case", text))
        }
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl FromStr for Month {
    type Err = Misspelt;

    fn from_str(text: &str) -> Result<Self, Misspelt> {
        let numbers = text.split_once('-').and_then(|(year, month)| {
            Some(Month {
                year: year.parse().ok()?,
                month: month.parse().ok()?,
            })
        });
        numbers
            .filter(|m| (1970..=9999).contains(&m.year) && (1..=12).contains(&m.month))
            .filter(|m| m.to_string() == text)
            .ok_or_else(|| misspelt("a month as YYYY-MM", text))
    }
}

macro_rules! as_text {
    ($($value:ident),*) => {$(
        impl Serialize for $value {
            fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $value {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}

as_text!(Sha256, Guid, Month);
