//! `[live]`: whether links stay open, and how many.

use serde::{Deserialize, Deserializer};

use crate::limits::LIVE_LINKS_MAX;

/// `[live]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LiveOptions {
    /// Whether to keep links open over which new events go at once, and to take those that other stations open.
    pub enabled: bool,
    /// Links with other stations, dialled and accepted together: 2 to 8. Below 2 the stations could not make a ring.
    #[serde(deserialize_with = "links_max")]
    pub links_max: usize,
}

impl Default for LiveOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            links_max: LIVE_LINKS_MAX,
        }
    }
}

fn links_max<'de, D: Deserializer<'de>>(source: D) -> Result<usize, D::Error> {
    let most = usize::deserialize(source)?;
    if (2..=LIVE_LINKS_MAX).contains(&most) {
        return Ok(most);
    }
    Err(serde::de::Error::custom(format!(
        "{most} links: expected 2 to {LIVE_LINKS_MAX}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_links_than_a_ring_needs_and_more_than_there_may_be_are_refused() {
        let read = |most: i32| toml::from_str::<LiveOptions>(&format!("links_max = {most}"));
        assert_eq!(read(2).map(|options| options.links_max), Ok(2));
        assert_eq!(toml::from_str(""), Ok(LiveOptions::default()));
        for wrong in [-1, 0, 1, 9] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
