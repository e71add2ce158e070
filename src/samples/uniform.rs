//! Events of one size, for measuring: notes of about 640 bytes by a few hundred authors, at random times.

use nostr::event::Event;
use nostr::key::Keys;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{in_parallel, keys, sign, tag};

const AUTHORS: usize = 500;
/// Content that brings an event with its two tags to about 640 bytes.
const CONTENT_BYTES: usize = 170;
const SPAN_SECONDS: u64 = 90 * 24 * 3600;

/// Makes `count` events before `now` (Unix seconds), always the same for the same seed, on all cores.
pub fn uniform(seed: u64, now: u64, count: usize) -> Vec<Event> {
    let mut random = StdRng::seed_from_u64(seed);
    let authors: Vec<Keys> = (0..AUTHORS).map(|_| keys(&mut random)).collect();
    in_parallel(count, |worker, share| {
        let mut random = StdRng::seed_from_u64(seed ^ (worker as u64 + 1));
        (0..share)
            .map(|_| event(&mut random, &authors, now))
            .collect()
    })
}

fn event(random: &mut StdRng, authors: &[Keys], now: u64) -> Event {
    let author = &authors[random.random_range(0..authors.len())];
    let other = &authors[random.random_range(0..authors.len())];
    let root: [u8; 32] = random.random();
    let content: String = (0..CONTENT_BYTES)
        .map(|_| char::from(random.random_range(b'a'..=b'z')))
        .collect();
    let tags = vec![
        tag(&["e", &crate::protocol::hex::encode(&root)]),
        tag(&["p", &other.public_key().to_hex()]),
    ];
    sign(
        author,
        1,
        now - random.random_range(0..SPAN_SECONDS),
        tags,
        content,
    )
}
