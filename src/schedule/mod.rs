//! When the next run is due.
//!
//! So far: at start, then every so often. Pure but for the option's parsing.

use std::time::Duration;

use serde::Deserialize;

/// `[schedule]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleOptions {
    /// How often to exchange with all peers, such as "1h" or "30m"; also at start. "0s" never does it by itself.
    #[serde(deserialize_with = "friendly_duration")]
    pub every: Duration,
}

impl Default for ScheduleOptions {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(3_600),
        }
    }
}

impl ScheduleOptions {
    /// How long after a run the next one is due; `None` if none is.
    pub fn interval(&self) -> Option<Duration> {
        (!self.every.is_zero()).then_some(self.every)
    }
}

fn friendly_duration<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong = || {
        serde::de::Error::custom(format!(
            "{text:?} is no duration: expected for instance \"1h\", \"30m\" or \"90s\""
        ))
    };
    let duration: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    let duration = Duration::try_from(duration).map_err(|_| wrong())?;
    if !duration.is_zero() && duration < Duration::from_secs(1) {
        return Err(serde::de::Error::custom(
            "less than a second: peers would have no rest",
        ));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let every = |text: &str| {
            toml::from_str::<ScheduleOptions>(&format!("every = {text:?}"))
                .map(|options| options.every.as_secs())
        };
        assert_eq!(every("1h"), Ok(3_600));
        assert_eq!(every("1h 30m"), Ok(5_400));
        assert_eq!(every("0s"), Ok(0));
        for wrong in ["", "soon", "-1h", "1ms", "60"] {
            assert!(every(wrong).is_err(), "{wrong}");
        }
    }
}
