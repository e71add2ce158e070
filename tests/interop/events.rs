//! Events for two sides that differ, and what is to be left of them in the end.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rand::SeedableRng;
use serde_json::Value;

use super::support::say;

/// Events for two sides, some of them on both.
pub(crate) struct Events {
    lines: Vec<String>,
}

impl Events {
    const COUNT: usize = 838;

    /// The real ones, or made ones where these are not at hand.
    pub(crate) fn load() -> Self {
        let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/real-events.jsonl");
        let events = match std::fs::read_to_string(&real) {
            Ok(text) => {
                let events = Self {
                    lines: text.lines().map(str::to_owned).collect(),
                };
                assert_eq!(events.expected().len(), 835, "three are superseded");
                events
            }
            Err(error) => {
                say(&format!(
                    "made events instead of real ones: {}: {error}",
                    real.display()
                ));
                Self::made()
            }
        };
        assert_eq!(events.lines.len(), Self::COUNT);
        events
    }

    /// Older versions are on one side only, their newer ones on the other.
    fn made() -> Self {
        let mut random = rand::rngs::StdRng::seed_from_u64(838);
        let made = constellation::samples::social(&mut random, 1_760_000_000, 500);
        let (older, newer): (Vec<_>, Vec<_>) = made.replaced.into_iter().unzip();
        let room = Self::COUNT - older.len() - made.common.len() - newer.len();
        let between = made
            .common
            .into_iter()
            .chain(made.spread.into_iter().take(room));
        let events = older.into_iter().chain(between).chain(newer);
        Self {
            lines: events.map(|event| event.as_json()).collect(),
        }
    }

    pub(crate) fn all(&self) -> &[String] {
        &self.lines
    }

    /// Lines 1 to 600.
    pub(crate) fn first(&self) -> &[String] {
        &self.lines[..600]
    }

    /// Lines 300 to 838.
    pub(crate) fn last(&self) -> &[String] {
        &self.lines[299..]
    }

    /// The ids that stay when all events come together, by NIP-01: of one coordinate the newest, in a tie that with
    /// the lowest id.
    pub(crate) fn expected(&self) -> BTreeSet<String> {
        let mut newest: BTreeMap<String, (Reverse<u64>, String)> = BTreeMap::new();
        for line in &self.lines {
            let event: Value = serde_json::from_str(line).expect("an event");
            let id = id_of(line);
            let kind = event["kind"].as_u64().expect("a kind");
            let coordinate = match kind {
                0 | 3 | 10_000..20_000 => format!("{} {kind}", event["pubkey"]),
                30_000..40_000 => {
                    let tags = event["tags"].as_array().expect("tags");
                    let name = tags.iter().find(|tag| tag[0] == "d").map(|tag| &tag[1]);
                    format!(
                        "{} {kind} {}",
                        event["pubkey"],
                        name.unwrap_or(&Value::Null)
                    )
                }
                _ => id.clone(),
            };
            let created_at = event["created_at"].as_u64().expect("a time");
            let rank = (Reverse(created_at), id);
            match newest.get(&coordinate) {
                Some(other) if *other <= rank => {}
                _ => _ = newest.insert(coordinate, rank),
            }
        }
        newest.into_values().map(|(_, id)| id).collect()
    }
}

fn id_of(line: &str) -> String {
    let event: Value = serde_json::from_str(line).expect("an event");
    event["id"].as_str().expect("an id").to_owned()
}

/// The ids of events given as lines.
pub(crate) fn ids_of(lines: &[String]) -> BTreeSet<String> {
    lines.iter().map(|line| id_of(line)).collect()
}
