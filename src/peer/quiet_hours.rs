//! Hours of the day in which scheduled runs leave a peer alone.
//!
//! Takes `"22:00-06:30"`, local time; says whether a moment lies in it. Pure: the moment is an argument, and the time
//! zone the system's. The end is not part of it; a span that ends before it begins goes over midnight.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// A span of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QuietHours {
    from: Time,
    to: Time,
}

impl QuietHours {
    /// Whether this moment, in Unix seconds, lies in it on this machine.
    pub fn include(&self, unix_seconds: u64) -> bool {
        let moment = i64::try_from(unix_seconds)
            .ok()
            .and_then(|seconds| Timestamp::from_second(seconds).ok());
        moment.is_some_and(|moment| self.contain(moment.to_zoned(TimeZone::system()).time()))
    }

    fn contain(&self, time: Time) -> bool {
        if self.from <= self.to {
            self.from <= time && time < self.to
        } else {
            self.from <= time || time < self.to
        }
    }
}

impl FromStr for QuietHours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no span of the day: expected for instance \"22:00-06:30\"");
        let (from, to) = text.split_once('-').ok_or_else(wrong)?;
        let time = |text: &str| Time::strptime("%H:%M", text.trim()).map_err(|_| wrong());
        let (from, to) = (time(from)?, time(to)?);
        if from == to {
            return Err(wrong());
        }
        Ok(Self { from, to })
    }
}

impl TryFrom<String> for QuietHours {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<QuietHours> for String {
    fn from(hours: QuietHours) -> Self {
        hours.to_string()
    }
}

impl fmt::Display for QuietHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = |time: Time| time.strftime("%H:%M").to_string();
        write!(f, "{}-{}", written(self.from), written(self.to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_the_day_are_read_and_may_go_over_midnight() {
        let at = |text: &str| Time::strptime("%H:%M", text).expect("a time");
        let night: QuietHours = "22:00-06:30".parse().expect("a span");
        assert!(night.contain(at("23:59")) && night.contain(at("00:00")));
        assert!(night.contain(at("22:00")) && !night.contain(at("06:30")));
        assert!(!night.contain(at("12:00")));
        let noon: QuietHours = " 12:00 - 13:00 ".parse().expect("a span");
        assert!(noon.contain(at("12:30")) && !noon.contain(at("13:00")));
        assert_eq!(noon.to_string(), "12:00-13:00");
        for wrong in ["", "22", "22:00", "25:00-1:00", "12:00-12:00", "a-b"] {
            assert!(wrong.parse::<QuietHours>().is_err(), "{wrong}");
        }
    }
}
