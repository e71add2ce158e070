//! `[schedule]`: how often, or by a cron expression, and by how much each station is late on purpose.
//!
//! Takes what the captain wrote, gives what can be reckoned with. Invariant: of `every` and `cron` one is in force.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

const EVERY_DEFAULT: Duration = Duration::from_secs(3_600);
const JITTER_DEFAULT: Duration = Duration::from_secs(300);

/// `[schedule]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, try_from = "Written")]
pub struct ScheduleOptions {
    /// How often to exchange with all peers, such as "1h" or "30m"; also at start. "0s" never does it by itself.
    pub every: Duration,
    /// When to exchange with all peers instead, such as "0 3 * * *" (minute, hour, day of the month, month, day of the
    /// week; by this machine's time zone, or one named after it).
    pub cron: Option<CronExpression>,
    /// Each run begins up to so much later, at random, so that not all stations begin at once. At most a tenth of
    /// the time between two runs.
    pub jitter: Duration,
}

/// `[schedule]` as it is written.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Written {
    every: Option<FriendlyDuration>,
    cron: Option<CronExpression>,
    jitter: Option<FriendlyDuration>,
}

impl TryFrom<Written> for ScheduleOptions {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let every = written.every.map(|every| every.0);
        if every.is_some() && written.cron.is_some() {
            return Err("either `every` or `cron` says when runs are due, not both");
        }
        let too_often = |every: Duration| !every.is_zero() && every < Duration::from_secs(1);
        if every.is_some_and(too_often) {
            return Err("`every` is less than a second: peers would have no rest");
        }
        let jitter = written.jitter.map_or(JITTER_DEFAULT, |jitter| jitter.0);
        Ok(Self {
            every: every.unwrap_or(EVERY_DEFAULT),
            cron: written.cron,
            jitter,
        })
    }
}

impl Default for ScheduleOptions {
    fn default() -> Self {
        Self {
            every: EVERY_DEFAULT,
            cron: None,
            jitter: JITTER_DEFAULT,
        }
    }
}

impl ScheduleOptions {
    /// Whether runs are due by themselves at all.
    pub fn is_on(&self) -> bool {
        self.cron.is_some() || !self.every.is_zero()
    }
}

/// Five fields of cron, and optionally a time zone.
#[derive(Debug, Clone)]
pub struct CronExpression {
    text: String,
    crontab: cronexpr::Crontab,
}

impl CronExpression {
    /// The first moment after this one (Unix seconds) that it names; `None`: none within the next years.
    pub fn next_after(&self, unix_seconds: u64) -> Option<u64> {
        let seconds = i64::try_from(unix_seconds).ok()?;
        let after = cronexpr::MakeTimestamp::from_second(seconds).ok()?;
        let next = self.crontab.find_next(after).ok()?;
        u64::try_from(next.timestamp().as_second()).ok()
    }
}

impl std::fmt::Display for CronExpression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for CronExpression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for CronExpression {}

impl std::str::FromStr for CronExpression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut options = cronexpr::ParseOptions::default();
        options.fallback_timezone_option = cronexpr::FallbackTimezoneOption::System;
        let crontab = cronexpr::parse_crontab_with(text, options)
            .map_err(|error| format!("{text:?} is no cron expression: {error}"))?;
        let expression = Self {
            text: text.to_owned(),
            crontab,
        };
        // What names no day, such as the 30th of February, would never be noticed otherwise.
        match expression.next_after(0) {
            Some(_) => Ok(expression),
            None => Err(format!("{text:?} names no day that ever comes")),
        }
    }
}

impl<'de> Deserialize<'de> for CronExpression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A length of time as people write it.
struct FriendlyDuration(Duration);

impl<'de> Deserialize<'de> for FriendlyDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || {
            serde::de::Error::custom(format!(
                "{text:?} is no duration: expected for instance \"1h\", \"30m\" or \"90s\""
            ))
        };
        let duration: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
        Duration::try_from(duration).map(Self).map_err(|_| wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ScheduleOptions, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        let every = |text: &str| {
            let options = read(&format!("every = {text:?}"));
            options.map(|options| options.every.as_secs())
        };
        assert_eq!(every("1h"), Ok(3_600));
        assert_eq!(every("1h 30m"), Ok(5_400));
        assert_eq!(every("0s"), Ok(0));
        for wrong in ["", "soon", "-1h", "1ms", "60"] {
            assert!(every(wrong).is_err(), "{wrong}");
        }
        assert_eq!(read(""), Ok(ScheduleOptions::default()));
    }

    #[test]
    fn a_cron_expression_goes_by_its_time_zone_and_is_refused_where_it_says_nothing() {
        let options = read("cron = \"30 3 * * * Europe/Paris\"").expect("valid");
        let cron = options.cron.expect("set");
        // 2026-01-31T12:00:00Z: the next half past three in Paris is 02:30 in UTC.
        assert_eq!(cron.next_after(1_769_860_800), Some(1_769_913_000));
        for (wrong, said) in [
            ("cron = \"often\"", "no cron expression"),
            ("cron = \"61 * * * *\"", "no cron expression"),
            ("cron = \"0 0 30 2 *\"", "names no day"),
            ("cron = \"0 * * * *\"\nevery = \"1h\"", "not both"),
            ("cron = \"0 * * * *\"\njitter = \"x\"", "no duration"),
        ] {
            let error = read(wrong).expect_err(wrong);
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }
}
