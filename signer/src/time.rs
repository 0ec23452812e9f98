//! Times: seconds since 1970 in values, the calendar in files and messages.

use crate::asn1::{Element, GENERALIZED_TIME, UTC_TIME};
use crate::error::Error;

/// A UTCTime or GeneralizedTime in seconds since 1970. Fractions of a second, which time stamps
/// may have, are dropped.
pub(crate) fn parse(element: Element<'_>) -> Result<u64, Error> {
    let fail = || {
        let found = String::from_utf8_lossy(element.value).into_owned();
        Error::format("time", "YYMMDDhhmmssZ or YYYYMMDDhhmmss[.f]Z", found)
    };
    let text = std::str::from_utf8(element.value).map_err(|_| fail())?;
    let text = text.strip_suffix('Z').ok_or_else(fail)?;
    let (text, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let text = match element.tag {
        UTC_TIME if text.len() == 12 => {
            let century = if text < "50" { "20" } else { "19" };
            format!("{century}{text}")
        }
        GENERALIZED_TIME if text.len() == 14 => text.to_owned(),
        _ => return Err(fail()),
    };
    if !digits(&text) || !digits(fraction) {
        return Err(fail());
    }
    let field = |range: std::ops::Range<usize>| text[range].parse::<u64>().map_err(|_| fail());
    let (year, month, day) = (field(0..4)?, field(4..6)?, field(6..8)?);
    let (hour, minute, second) = (field(8..10)?, field(10..12)?, field(12..14)?);
    let valid = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !valid {
        return Err(fail());
    }
    Ok(days_before(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// `seconds` since 1970 as `YYYY-MM-DDThh:mm:ssZ`.
pub(crate) fn format(seconds: u64) -> String {
    let (year, month, day) = date(seconds / 86_400);
    let rest = seconds % 86_400;
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_before(year: u64, month: u64, day: u64) -> u64 {
    let before = year - 1;
    let leaps = before / 4 - before / 100 + before / 400 - (1969 / 4 - 1969 / 100 + 1969 / 400);
    let months: u64 = (1..month).map(|m| days_in_month(year, m)).sum();
    (year - 1970) * 365 + leaps + months + day - 1
}

/// Year, month and day of the day `days` after 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    // 400 years have 146,097 days; counting them off keeps the loops below short for any input.
    let mut year = 1970 + days / 146_097 * 400;
    let mut rest = days % 146_097;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if rest < length {
            break;
        }
        rest -= length;
        year += 1;
    }
    let mut month = 1;
    while rest >= days_in_month(year, month) {
        rest -= days_in_month(year, month);
        month += 1;
    }
    (year, month, rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use der::asn1::{GeneralizedTime, UtcTime};
    use der::{Decode, Encode};

    /// The crate `der` is the oracle: it shares no code with this module.
    #[test]
    fn times_agree_with_another_implementation() {
        for seconds in (0..253_402_300_799u64).step_by(86_400 * 97 + 12_345) {
            let time = std::time::Duration::from_secs(seconds);
            let encoded = GeneralizedTime::from_unix_duration(time)
                .unwrap()
                .to_der()
                .unwrap();
            let mut elements = crate::asn1::Elements::new(&encoded, "time");
            let element = elements.any("time").unwrap();
            assert_eq!(parse(element), Ok(seconds));
            let text = der::DateTime::from_unix_duration(time).unwrap();
            assert_eq!(format(seconds), text.to_string());
            if let Ok(utc) = UtcTime::from_unix_duration(time) {
                let encoded = utc.to_der().unwrap();
                assert!(UtcTime::from_der(&encoded).is_ok());
                let mut elements = crate::asn1::Elements::new(&encoded, "time");
                assert_eq!(parse(elements.any("time").unwrap()), Ok(seconds));
            }
        }
    }

    #[test]
    fn times_that_do_not_exist_are_refused() {
        for text in [
            "20230229000000Z",
            "20231301000000Z",
            "20230101240000Z",
            "20230101000000",
            "2023010100000Z",
            "20230101000000.Z",
            "2023010100000éZ",
        ] {
            let encoded = crate::asn1::element(GENERALIZED_TIME, &[text.as_bytes()]);
            let mut elements = crate::asn1::Elements::new(&encoded, "time");
            assert!(parse(elements.any("time").unwrap()).is_err(), "{text}");
        }
    }
}
