//! Signed events to measure with: made once, kept in a file, the same for the same count.
//!
//! Takes a folder and a count; gives verified events in the order of their times. About 650 bytes each, three indexed
//! tags, 500 authors, three kinds, spread over a year. Signing and verifying are not part of any figure: both take
//! longer than all that is measured. Does not delete the file; worst case 700 MB for a million events.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use constellation_event::{EventLimits, UnverifiedEvent, VerifiedEvent};
use nostr::event::{EventBuilder, FinalizeEvent, Kind, Tag};
use nostr::key::{Keys, SecretKey};
use nostr::types::Timestamp;

const AUTHORS: u64 = 500;
const KINDS: [u16; 5] = [1, 1, 1, 6, 7];
const CONTENT_BYTES: usize = 150;
const NEWEST: u64 = 1_700_000_000;
const SPAN_SECONDS: u64 = 365 * 24 * 3600;
/// Events parsed and verified at a time.
const PIECE: usize = 8_192;

/// A small generator of numbers that look random (SplitMix64); the same on every machine.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1);
            items.swap(last, usize::try_from(other).expect("below a length"));
        }
    }
}

fn author(number: u64) -> Keys {
    let mut secret = [1; 32];
    secret[..8].copy_from_slice(&number.to_be_bytes());
    Keys::new(SecretKey::from_slice(&secret).expect("a number below the order is a secret key"))
}

fn hex64(numbers: &mut Numbers) -> String {
    (0..4).map(|_| format!("{:016x}", numbers.next())).collect()
}

fn sign(number: u64, created_at: u64, authors: &[Keys]) -> String {
    let mut numbers = Numbers::new(number);
    let mut pick = || {
        let index = numbers.below(authors.len() as u64);
        &authors[usize::try_from(index).expect("below a length")]
    };
    let (from, to) = (pick(), pick());
    let topic = format!("topic{}", numbers.below(1_000));
    let tags = [
        ["e".to_owned(), hex64(&mut numbers)],
        ["p".to_owned(), to.public_key().to_hex()],
        ["t".to_owned(), topic],
    ];
    let content: String = (0..CONTENT_BYTES)
        .map(|_| char::from(b'a' + u8::try_from(numbers.below(26)).expect("below 26")))
        .collect();
    let kind = KINDS[usize::try_from(number % KINDS.len() as u64).expect("below a length")];
    EventBuilder::new(Kind::from_u16(kind), content)
        .tags(tags.map(|tag| Tag::parse(tag).expect("not empty")))
        .custom_created_at(Timestamp::from_secs(created_at))
        .finalize(from)
        .expect("fixed keys sign")
        .as_json()
}

/// The file of `count` events as JSON lines, oldest first; made if it is not there.
pub(crate) fn file(folder: &Path, count: usize) -> PathBuf {
    let path = folder.join(format!("events-{count}.jsonl"));
    if path.exists() {
        return path;
    }
    eprintln!("signing {count} events into {}", path.display());
    let mut numbers = Numbers::new(7);
    let mut times: Vec<u64> = (0..count)
        .map(|_| NEWEST - numbers.below(SPAN_SECONDS))
        .collect();
    times.sort_unstable();
    let authors: Vec<Keys> = (0..AUTHORS).map(author).collect();
    let unfinished = path.with_extension("unfinished");
    let mut out = BufWriter::new(File::create(&unfinished).expect("a folder to write to"));
    for (first, piece) in (0..).step_by(4 * PIECE).zip(times.chunks(4 * PIECE)) {
        let numbered: Vec<(u64, u64)> = (first..).zip(piece.iter().copied()).collect();
        let lines = on_all_cores(&numbered, |(number, time)| sign(*number, *time, &authors));
        for line in lines {
            writeln!(out, "{line}").expect("room for the events");
        }
    }
    out.flush().expect("room for the events");
    std::fs::rename(unfinished, &path).expect("the same folder");
    path
}

/// The events of a file in pieces, verified; only one piece is held here at a time.
pub(crate) fn pieces(path: &Path) -> impl Iterator<Item = Vec<VerifiedEvent>> {
    let mut lines = BufReader::new(File::open(path).expect("just made")).lines();
    std::iter::from_fn(move || {
        let piece: Vec<String> = lines
            .by_ref()
            .take(PIECE)
            .map(|line| line.expect("text"))
            .collect();
        let verified = on_all_cores(&piece, |line| {
            UnverifiedEvent::parse(line.as_bytes(), &EventLimits::default())
                .expect("made by this program")
                .verify()
                .expect("made by this program")
        });
        (!verified.is_empty()).then_some(verified)
    })
}

/// All events of a file.
pub(crate) fn load(path: &Path) -> Vec<VerifiedEvent> {
    eprintln!("verifying {}", path.display());
    pieces(path).flatten().collect()
}

fn on_all_cores<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = items.len().div_ceil(cores).max(1);
    std::thread::scope(|scope| {
        let started: Vec<_> = items
            .chunks(share)
            .map(|part| scope.spawn(|| part.iter().map(&work).collect::<Vec<R>>()))
            .collect();
        started
            .into_iter()
            .flat_map(|worker| worker.join().expect("workers do not panic"))
            .collect()
    })
}
