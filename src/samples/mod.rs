//! Events made and signed here, for the demonstration and for measuring: looking like real ones, meaning nothing.
//!
//! Takes randomness and time; gives events in JSON. Nothing here touches a store or a network.

mod social;
mod uniform;

pub use social::{SocialSample, social};
pub use uniform::uniform;

use nostr::event::{Event, EventBuilder, FinalizeEvent, Kind, Tag};
use nostr::key::{Keys, SecretKey};
use nostr::types::Timestamp;
use rand::{Rng, RngExt};

/// A key made of the given randomness.
fn keys(random: &mut impl Rng) -> Keys {
    loop {
        // All but about one in 2^128 numbers are keys.
        if let Ok(secret) = SecretKey::from_slice(&random.random::<[u8; 32]>()) {
            return Keys::new(secret);
        }
    }
}

fn sign(keys: &Keys, kind: u16, created_at: u64, tags: Vec<Vec<String>>, content: String) -> Event {
    let tags = tags.into_iter().filter_map(|tag| Tag::parse(tag).ok());
    EventBuilder::new(Kind::from_u16(kind), content)
        .tags(tags)
        .custom_created_at(Timestamp::from_secs(created_at))
        .finalize(keys)
        .expect("a key at hand signs anything")
}

fn tag(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| (*part).to_owned()).collect()
}
