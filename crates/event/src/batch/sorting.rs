//! Which events are proven together, and what follows when that fails.
//!
//! Takes portions; gives their outcomes. Invariant: every event gets exactly one result, from a proof or from
//! libsecp256k1, and nothing of a suspect source shares a batch. Deliberately no bisecting: 64 false signatures among
//! 16,384 would make it cost several times what verifying them one by one does. Worst case for a signature of a
//! source that is not guilty: a share in two batches; for a guilty one: a verification besides.

use std::collections::{BTreeMap, HashSet};

use super::points::AuthorPoints;
use super::{BATCH_SIGNATURES_BEST, BreakEven, Portion, PortionOutcome};
use crate::proof::{Claimed, IdProven, together};
use crate::{Rejection, UnverifiedEvent, VerifiedEvent};

type EventResult = Result<VerifiedEvent, (UnverifiedEvent, Rejection)>;

/// Where an event came from, and where its result belongs.
#[derive(Debug, Clone, Copy)]
struct Place {
    source: u64,
    portion: usize,
    index: usize,
}

/// One call of the verifier.
pub(super) struct Sorting<'a> {
    break_even: BreakEven,
    authors: &'a AuthorPoints,
    entropy: &'a [u8; 32],
    suspects: HashSet<u64>,
    results: Vec<Vec<Option<EventResult>>>,
}

impl<'a> Sorting<'a> {
    pub(super) fn new(
        break_even: BreakEven,
        authors: &'a AuthorPoints,
        entropy: &'a [u8; 32],
    ) -> Self {
        Self {
            break_even,
            authors,
            entropy,
            suspects: HashSet::new(),
            results: Vec::new(),
        }
    }

    pub(super) fn run(mut self, portions: Vec<Portion>) -> Vec<PortionOutcome> {
        let sources: Vec<u64> = portions.iter().map(|portion| portion.source).collect();
        let suspects = portions.iter().filter(|portion| portion.suspect);
        self.suspects = suspects.map(|portion| portion.source).collect();
        let batch = self.check_ids(portions);
        // Pieces of equal size: a small rest would cost more for each signature.
        let pieces = batch.len().div_ceil(BATCH_SIGNATURES_BEST);
        let size = batch.len().div_ceil(pieces.max(1));
        let mut batch = batch.into_iter();
        for _ in 0..pieces {
            let piece = batch.by_ref().take(size).collect();
            self.verify_piece(piece);
        }
        let Self {
            suspects, results, ..
        } = self;
        results
            .into_iter()
            .zip(sources)
            .map(|(results, source)| PortionOutcome {
                results: results
                    .into_iter()
                    .collect::<Option<_>>()
                    .expect("every event is in exactly one group, and every group gives results"),
                guilty: suspects.contains(&source),
            })
            .collect()
    }

    /// Refuses false ids, verifies suspects one by one; gives what may be proven together.
    fn check_ids(&mut self, portions: Vec<Portion>) -> Vec<(Place, IdProven)> {
        let total = portions.iter().map(|portion| portion.events.len()).sum();
        let mut batch = Vec::with_capacity(total);
        for (portion, Portion { events, source, .. }) in portions.into_iter().enumerate() {
            self.results.push(events.iter().map(|_| None).collect());
            for (index, event) in events.into_iter().enumerate() {
                let place = Place {
                    source,
                    portion,
                    index,
                };
                match IdProven::of(event) {
                    Ok(event) if self.suspects.contains(&source) => {
                        self.verify_alone(place, event);
                    }
                    Ok(event) => batch.push((place, event)),
                    Err(rejected) => self.put(place, Err(rejected)),
                }
            }
        }
        batch
    }

    fn verify_piece(&mut self, mut piece: Vec<(Place, IdProven)>) {
        if !self.suspects.is_empty() {
            // Found guilty in a piece before this one.
            let guilty = piece.extract_if(.., |(place, _)| self.suspects.contains(&place.source));
            for (place, event) in guilty.collect::<Vec<_>>() {
                self.verify_alone(place, event);
            }
        }
        if !self.break_even.favours_batch_of(piece.len()) {
            for (place, event) in piece {
                self.verify_alone(place, event);
            }
            return;
        }
        let authors = self
            .authors
            .of(piece.iter().map(|(_, event)| event.author()));
        let mut places = Vec::with_capacity(piece.len());
        let mut claims = Vec::with_capacity(piece.len());
        for (place, event) in piece {
            match event.claim(&authors) {
                Ok(claim) => {
                    places.push(place);
                    claims.push(claim);
                }
                Err(event) => self.reject(place, event),
            }
        }
        let Err((places, claims)) = self.verify_together(places, claims) else {
            return;
        };
        let mut by_source: BTreeMap<u64, (Vec<Place>, Vec<Claimed>)> = BTreeMap::new();
        for (place, claim) in places.into_iter().zip(claims) {
            let (places, claims) = by_source.entry(place.source).or_default();
            places.push(place);
            claims.push(claim);
        }
        let only_one = by_source.len() == 1;
        for (places, claims) in by_source.into_values() {
            self.verify_source(places, claims, only_one);
        }
    }

    /// The part of one source in a batch that failed. `failed` says that there was nothing else in the batch.
    fn verify_source(&mut self, places: Vec<Place>, claims: Vec<Claimed>, failed: bool) {
        let (places, claims) = if failed || !self.break_even.favours_batch_of(claims.len()) {
            (places, claims)
        } else {
            match self.verify_together(places, claims) {
                Ok(()) => return,
                Err(again) => again,
            }
        };
        for (place, claim) in places.into_iter().zip(claims) {
            self.verify_alone(place, claim.into_event());
        }
    }

    #[allow(clippy::type_complexity)] // what was given comes back, to be split
    fn verify_together(
        &mut self,
        places: Vec<Place>,
        claims: Vec<Claimed>,
    ) -> Result<(), (Vec<Place>, Vec<Claimed>)> {
        match together(claims, self.entropy) {
            Ok(proven) => {
                for (place, proven) in places.into_iter().zip(proven) {
                    self.put(place, Ok(VerifiedEvent::seal(proven)));
                }
                Ok(())
            }
            Err(claims) => Err((places, claims)),
        }
    }

    /// Verifies one signature by libsecp256k1. If it is false, its source is guilty, unless the form alone tells.
    fn verify_alone(&mut self, place: Place, event: IdProven) {
        match event.alone() {
            Ok(proven) => self.put(place, Ok(VerifiedEvent::seal(proven))),
            Err(event) if self.suspects.contains(&place.source) => self.reject(place, event),
            Err(event) => {
                let author = self.authors.of(std::iter::once(event.author()));
                let event = match event.claim(&author) {
                    Ok(claim) => {
                        self.suspects.insert(place.source);
                        claim.into_event()
                    }
                    Err(event) => event,
                };
                self.reject(place, event);
            }
        }
    }

    fn reject(&mut self, place: Place, event: IdProven) {
        let rejected = (event.into_unverified(), Rejection::BadSignature);
        self.put(place, Err(rejected));
    }

    fn put(&mut self, place: Place, result: EventResult) {
        self.results[place.portion][place.index] = Some(result);
    }
}
