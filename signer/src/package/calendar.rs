//! The calendar of baselines: which months bring a new one, and which a hotpatch over it.

use std::fmt;

use hpbuild_metadata::manifest::{Manifest, Month};
use serde::Deserialize;

use crate::error::Error;

/// A calendar file (TOML).
///
/// ```toml
/// schema = 1
///
/// [[baseline]]
/// month = "2026-10"
/// build = "26100.1742"
/// hotpatches = ["2026-11", "2026-12"]
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calendar {
    schema: u32,
    baseline: Vec<Baseline>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Baseline {
    month: Month,
    build: String,
    hotpatches: Vec<Month>,
}

/// Why a release does not fit the calendar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CalendarRefusal {
    /// The calendar has no baseline of that month.
    UnknownBaseline {
        /// The month the manifest names.
        baseline: Month,
    },
    /// A newer baseline is out, and devices on the old one are to move first.
    OutdatedBaseline {
        /// The month the manifest names.
        baseline: Month,
        /// The newest baseline at the time of the release.
        newest: Month,
    },
    /// The month is not one of the baseline's hotpatch months.
    NotAHotpatchMonth {
        /// The month of the release.
        release: Month,
        /// The months there are.
        hotpatches: Vec<Month>,
    },
    /// The manifest requires another build than the baseline's.
    OtherBuild {
        /// The build the manifest requires.
        required: String,
        /// The build of the baseline.
        build: String,
    },
}

impl fmt::Display for CalendarRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CalendarRefusal::UnknownBaseline { baseline } => {
                write!(f, "the calendar has no baseline {baseline}")
            }
            CalendarRefusal::OutdatedBaseline { baseline, newest } => {
                write!(f, "the baseline {baseline} is outdated: {newest} is out")
            }
            CalendarRefusal::NotAHotpatchMonth {
                release,
                hotpatches,
            } => {
                let months: Vec<String> = hotpatches.iter().map(Month::to_string).collect();
                write!(
                    f,
                    "{release} is no hotpatch month of the baseline: expected one of {}",
                    months.join(", ")
                )
            }
            CalendarRefusal::OtherBuild { required, build } => {
                write!(
                    f,
                    "the manifest requires build {required}, the baseline is {build}"
                )
            }
        }
    }
}

impl Calendar {
    /// Reads a calendar file.
    ///
    /// # Errors
    /// When the text is not TOML of this form, or when its months are not in order: each baseline
    /// after the one before, each hotpatch after its baseline and before the next.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let calendar: Calendar = toml::from_str(text).map_err(|error| {
            Error::format("calendar", "baselines with months", error.to_string())
        })?;
        if calendar.schema != 1 {
            let found = calendar.schema.to_string();
            return Err(Error::format("calendar: schema", "1", found));
        }
        let months: Vec<Month> = calendar
            .baseline
            .iter()
            .flat_map(|b| std::iter::once(b.month).chain(b.hotpatches.iter().copied()))
            .collect();
        if let Some(pair) = months.windows(2).find(|pair| pair[0] >= pair[1]) {
            let found = format!("{} before {}", pair[0], pair[1]);
            return Err(Error::format(
                "calendar",
                "months in ascending order",
                found,
            ));
        }
        Ok(calendar)
    }

    /// Holds a release against the calendar.
    ///
    /// # Errors
    /// The refusal, where it does not fit.
    pub fn check(&self, manifest: &Manifest) -> Result<(), CalendarRefusal> {
        let of_month = self.baseline.iter().find(|b| b.month == manifest.baseline);
        let baseline = of_month.ok_or(CalendarRefusal::UnknownBaseline {
            baseline: manifest.baseline,
        })?;
        let newest = self
            .baseline
            .iter()
            .rev()
            .find(|b| b.month <= manifest.release);
        if let Some(newest) = newest.filter(|newest| newest.month != baseline.month) {
            return Err(CalendarRefusal::OutdatedBaseline {
                baseline: baseline.month,
                newest: newest.month,
            });
        }
        if !baseline.hotpatches.contains(&manifest.release) {
            return Err(CalendarRefusal::NotAHotpatchMonth {
                release: manifest.release,
                hotpatches: baseline.hotpatches.clone(),
            });
        }
        if baseline.build != manifest.requirements.baseline_build {
            return Err(CalendarRefusal::OtherBuild {
                required: manifest.requirements.baseline_build.clone(),
                build: baseline.build.clone(),
            });
        }
        Ok(())
    }
}
