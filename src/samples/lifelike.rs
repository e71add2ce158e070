//! Events whose kinds, lengths and tags are spread as among real ones, for measuring.
//!
//! The figures are quantiles of 838 events of the public network: almost half of them profiles, each of another author;
//! notes with 2 to 13 tags; reactions of a character; a few follow lists of hundreds of tags. 940 bytes on average.

use nostr::event::Event;
use nostr::key::Keys;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{in_parallel, keys, sign, tag};

const SPAN_SECONDS: u64 = 90 * 24 * 3600;

/// Smallest, 10 %, 25 %, 50 %, 75 %, 90 %, 95 %, 99 %, largest.
type Quantiles = [usize; 9];
const AT: [f64; 9] = [0.0, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99, 1.0];

struct Sort {
    kind: u16,
    /// Of a thousand events.
    share: u32,
    content: Quantiles,
    tags: Quantiles,
}

const SORTS: [Sort; 6] = [
    Sort {
        kind: 0,
        share: 460,
        content: [12, 151, 271, 366, 473, 564, 630, 772, 2_634],
        tags: [0, 0, 0, 0, 0, 0, 0, 1, 3],
    },
    Sort {
        kind: 1,
        share: 300,
        content: [4, 27, 47, 98, 185, 296, 423, 1_337, 1_630],
        tags: [0, 2, 2, 4, 6, 8, 9, 13, 72],
    },
    Sort {
        kind: 7,
        share: 190,
        content: [1, 1, 1, 4, 4, 4, 4, 6, 8],
        tags: [2, 2, 2, 2, 2, 3, 4, 7, 7],
    },
    Sort {
        kind: 1_063,
        share: 30,
        content: [0; 9],
        tags: [4, 4, 4, 4, 4, 6, 6, 6, 6],
    },
    Sort {
        kind: 6,
        share: 17,
        content: [462, 462, 462, 465, 820, 820, 820, 820, 820],
        tags: [2; 9],
    },
    Sort {
        kind: 3,
        share: 3,
        content: [0; 9],
        tags: [20, 40, 60, 120, 300, 500, 600, 700, 792],
    },
];

/// Makes `count` events before `now` (Unix seconds), always the same for the same seed, on all cores.
pub fn lifelike(seed: u64, now: u64, count: usize) -> Vec<Event> {
    in_parallel(count, |worker, share| {
        let mut random = StdRng::seed_from_u64(seed ^ (worker as u64 + 1));
        let mut authors = Vec::new();
        (0..share)
            .map(|_| event(&mut random, &mut authors, now))
            .collect()
    })
}

fn event(random: &mut StdRng, authors: &mut Vec<Keys>, now: u64) -> Event {
    let sort = sort(random);
    // One profile and one follow list for each author; what else they write, few of them write most of.
    if authors.is_empty() || matches!(sort.kind, 0 | 3) {
        authors.push(keys(random));
    }
    let author = match sort.kind {
        0 | 3 => authors.last().expect("just added").clone(),
        _ => frequent(random, authors).clone(),
    };
    let length = quantile(random, &sort.content);
    let content = text(random, length);
    let tags = (0..quantile(random, &sort.tags))
        .map(|number| match number % 4 {
            0 | 2 => tag(&["e", &hex_of(random), "", "reply"]),
            1 => tag(&["p", &frequent(random, authors).public_key().to_hex()]),
            _ => tag(&["t", &text(random, 8)]),
        })
        .collect();
    let at = now - random.random_range(0..SPAN_SECONDS);
    sign(&author, sort.kind, at, tags, content)
}

fn sort(random: &mut StdRng) -> &'static Sort {
    let mut place = random.random_range(0..1_000);
    for sort in &SORTS {
        if place < sort.share {
            return sort;
        }
        place -= sort.share;
    }
    &SORTS[0]
}

fn frequent<'a>(random: &mut StdRng, authors: &'a [Keys]) -> &'a Keys {
    let place: f64 = random.random::<f64>().powi(4);
    &authors[scaled(place, authors.len()).min(authors.len() - 1)]
}

fn quantile(random: &mut StdRng, quantiles: &Quantiles) -> usize {
    let place: f64 = random.random();
    let above = AT.iter().position(|at| *at > place).unwrap_or(AT.len() - 1);
    let share = (place - AT[above - 1]) / (AT[above] - AT[above - 1]);
    quantiles[above - 1] + scaled(share, quantiles[above] - quantiles[above - 1])
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss
)]
fn scaled(share: f64, of: usize) -> usize {
    (share * of as f64) as usize // both are small and not negative
}

fn hex_of(random: &mut StdRng) -> String {
    crate::protocol::hex::encode(&random.random::<[u8; 32]>())
}

/// About `bytes` of text: words, now and then a new line or a character of another script.
fn text(random: &mut StdRng, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 4);
    while text.len() < bytes {
        text.push(match random.random_range(0..100) {
            0 => '\n',
            1 => '"',
            2 => 'é',
            3 => '🤙',
            4..=15 => ' ',
            _ => char::from(random.random_range(b'a'..=b'z')),
        });
    }
    text
}
