//! Events made and signed here, for the demonstration and for measuring: looking like real ones, meaning nothing.
//!
//! Takes randomness and time; gives events in JSON. Nothing here touches a store or a network.

mod lifelike;
mod social;
mod uniform;

pub use lifelike::lifelike;
pub use social::{SocialSample, social};
pub use uniform::uniform;

use nostr::event::{Event, EventBuilder, FinalizeEvent, Kind, Tag};
use nostr::key::{Keys, SecretKey};
use nostr::types::Timestamp;
use rand::{Rng, RngExt};

/// Makes `count` events on all cores: each worker is told its number and how many to make.
fn in_parallel(count: usize, make: impl Fn(usize, usize) -> Vec<Event> + Sync) -> Vec<Event> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let per_worker = count.div_ceil(workers);
    let mut events = Vec::with_capacity(count);
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..workers)
            .map(|worker| {
                let share = per_worker.min(count - (per_worker * worker).min(count));
                let make = &make;
                scope.spawn(move || make(worker, share))
            })
            .collect();
        for worker in started {
            match worker.join() {
                Ok(made) => events.extend(made),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    events
}

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
