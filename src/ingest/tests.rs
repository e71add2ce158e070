//! The pipeline as a whole, on threads and inline: lanes, gathering, suspects, bounds, shutdown.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use constellation_event::{BreakEven, Rejection, UnverifiedEvent};
use constellation_eventstore::{Options, open};
use nostr::event::Event;
use tokio::time::timeout;

use super::{Ingest, Lane, Mode, Origin, Parts, Scope, Source, Verdict, Writers};
use crate::limits::COMMIT_GATHERS_FOR;
use crate::random::Random;
use crate::samples::uniform;
use crate::time::Clock;

const NOW: u64 = 1_700_000_000;
const PATIENCE: Duration = Duration::from_secs(60);

struct Pipeline {
    ingest: Ingest,
    _folder: tempfile::TempDir,
}

impl Pipeline {
    fn new(mode: Mode) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, writer) =
            open(folder.path(), Options::new(Arc::new(|| Duration::ZERO))).unwrap();
        let parts = Parts {
            store,
            writer,
            break_even: Box::new(BreakEven::default),
            clock: Clock::system(),
            random: Random::seeded(3),
        };
        Self {
            ingest: Ingest::start(parts, mode).unwrap(),
            _folder: folder,
        }
    }

    async fn submit(&self, source: &Source, events: Vec<UnverifiedEvent>) -> Vec<Verdict> {
        let origin = match source.lane() {
            Lane::Bulk => Origin::Peer {
                scope: Arc::new(Scope::everything()),
            },
            Lane::Prompt => Origin::Client {
                writers: Writers::Anyone,
                authenticated: Arc::new(BTreeSet::new()),
            },
        };
        timeout(PATIENCE, self.ingest.submit(source, origin, events))
            .await
            .expect("in time")
            .expect("the store takes it")
    }

    fn stored(&self) -> u64 {
        self.ingest.store().snapshot().unwrap().last_sequence().0
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.ingest.close();
    }
}

fn unverified(events: &[Event]) -> Vec<UnverifiedEvent> {
    events.iter().map(UnverifiedEvent::from_event).collect()
}

/// The same events, each with the next one's signature.
fn forged(events: &[Event]) -> Vec<UnverifiedEvent> {
    let mut forged = events.to_vec();
    for (number, event) in forged.iter_mut().enumerate() {
        event.sig = events[(number + 1) % events.len()].sig;
    }
    unverified(&forged)
}

#[tokio::test]
async fn threads_and_inline_give_the_same_verdicts() {
    let events = uniform(1, NOW, 2_500);
    let mut offered = unverified(&events[..2_400]);
    offered.extend(unverified(&events[..50])); // twice
    offered.extend(forged(&events[2_400..]));
    let mut all = Vec::new();
    for mode in [Mode::Inline, Mode::Threads(2)] {
        let pipeline = Pipeline::new(mode);
        let source = pipeline.ingest.source(Lane::Bulk);
        let verdicts = pipeline.submit(&source, offered.clone()).await;
        let count = |wanted| verdicts.iter().filter(|found| **found == wanted).count();
        assert_eq!(count(Verdict::Stored), 2_400);
        assert_eq!(count(Verdict::Duplicate), 50);
        assert_eq!(
            count(Verdict::Rejected(Rejection::BadSignature)),
            100,
            "{mode:?}"
        );
        all.push(verdicts);
    }
    // Which of two equal events is the duplicate depends on which is first: pieces are examined side by side.
    assert_eq!(all[0][50..2_400], all[1][50..2_400]);
    assert_eq!(all[0][2_450..], all[1][2_450..]);
}

#[tokio::test]
async fn a_bulk_submission_is_committed_at_once_when_nothing_more_is_coming() {
    let pipeline = Pipeline::new(Mode::Threads(1));
    let source = pipeline.ingest.source(Lane::Bulk);
    let events = unverified(&uniform(2, NOW, 10));
    let started = Clock::system();
    let before = started.monotonic();
    pipeline.submit(&source, events).await;
    assert!(started.monotonic() - before < COMMIT_GATHERS_FOR);
}

#[tokio::test]
async fn bulk_gathers_while_more_is_coming_and_prompt_overtakes_it() {
    let pipeline = Pipeline::new(Mode::Threads(2));
    let bulk = pipeline.ingest.source(Lane::Bulk);
    let prompt = pipeline.ingest.source(Lane::Prompt);
    let events = unverified(&uniform(3, NOW, 101));
    let (one, hundred) = events.split_first().unwrap();
    let more = pipeline.ingest.bulk_stream();
    let mut gathering = std::pin::pin!(pipeline.submit(&bulk, hundred.to_vec()));
    assert!(
        timeout(Duration::from_millis(1), &mut gathering)
            .await
            .is_err()
    );
    let verdicts = pipeline.submit(&prompt, vec![one.clone()]).await;
    assert_eq!(verdicts, [Verdict::Stored]);
    assert_eq!(pipeline.stored(), 1, "the bulk still gathers");
    drop(more);
    assert_eq!(gathering.await, vec![Verdict::Stored; 100]);
}

#[tokio::test]
async fn a_stream_that_never_ends_is_committed_when_it_has_gathered_long_enough() {
    let pipeline = Pipeline::new(Mode::Threads(1));
    let bulk = pipeline.ingest.source(Lane::Bulk);
    let _more = pipeline.ingest.bulk_stream();
    let verdicts = pipeline
        .submit(&bulk, unverified(&uniform(4, NOW, 3)))
        .await;
    assert_eq!(verdicts, [Verdict::Stored; 3]);
}

#[tokio::test]
async fn who_waits_for_room_does_not_wait_for_the_bulk_to_grow() {
    let pipeline = Pipeline::new(Mode::Threads(2));
    let bulk = pipeline.ingest.source(Lane::Bulk);
    let _more = pipeline.ingest.bulk_stream();
    // More bytes than there is room for, in fewer events than a commit gathers.
    let keys = nostr::key::Keys::generate();
    let large: Vec<UnverifiedEvent> = (0..400)
        .map(|number| {
            use nostr::event::{EventBuilder, FinalizeEvent, Kind};
            let content = format!("{number}{}", "x".repeat(200_000));
            let event = EventBuilder::new(Kind::TextNote, content)
                .finalize(&keys)
                .unwrap();
            UnverifiedEvent::from_event(&event)
        })
        .collect();
    let bytes: usize = large.iter().map(UnverifiedEvent::bytes).sum();
    assert!(bytes > crate::limits::INGEST_BULK_BYTES);
    let submissions = large
        .chunks(50)
        .map(|piece| pipeline.submit(&bulk, piece.to_vec()));
    let verdicts = futures_util::future::join_all(submissions).await.concat();
    assert_eq!(verdicts, vec![Verdict::Stored; 400]);
}

#[tokio::test]
async fn a_source_of_bad_signatures_is_suspect_and_its_good_events_are_stored_all_the_same() {
    let pipeline = Pipeline::new(Mode::Threads(2));
    let (bad, good) = (
        pipeline.ingest.source(Lane::Bulk),
        pipeline.ingest.source(Lane::Bulk),
    );
    let events = uniform(5, NOW, 1_200);
    let mut mixed = unverified(&events[..500]);
    mixed.extend(forged(&events[500..600]));
    let (of_bad, of_good) = tokio::join!(
        pipeline.submit(&bad, mixed),
        pipeline.submit(&good, unverified(&events[600..]))
    );
    assert!(bad.is_suspect() && !good.is_suspect());
    assert_eq!(of_bad[..500], vec![Verdict::Stored; 500]);
    assert_eq!(
        of_bad[500..],
        vec![Verdict::Rejected(Rejection::BadSignature); 100]
    );
    assert_eq!(of_good, vec![Verdict::Stored; 600]);
    // From now on alone, and still heard.
    let again = pipeline.submit(&bad, unverified(&events[500..600])).await;
    assert_eq!(again, vec![Verdict::Stored; 100]);
}

#[tokio::test]
async fn closing_stores_what_was_taken_and_takes_no_more() {
    let pipeline = Pipeline::new(Mode::Threads(2));
    let bulk = pipeline.ingest.source(Lane::Bulk);
    let events = unverified(&uniform(6, NOW, 100));
    let _more = pipeline.ingest.bulk_stream();
    let mut gathering = std::pin::pin!(pipeline.submit(&bulk, events.clone()));
    assert!(
        timeout(Duration::from_millis(1), &mut gathering)
            .await
            .is_err()
    );
    let ingest = pipeline.ingest.clone();
    tokio::task::spawn_blocking(move || ingest.close())
        .await
        .unwrap();
    assert_eq!(gathering.await, vec![Verdict::Stored; 100]);
    let refused = pipeline.ingest.submit(&bulk, Origin::Import, events).await;
    assert_eq!(refused, Err(super::IngestError::Closed));
}

/// Three submissions of ten events each, examined.
fn examined(
    store: &constellation_eventstore::Store,
    ingest: &Ingest,
    events: &[Event],
) -> Vec<super::stages::Examined> {
    let verifier = super::verifier::SharedVerifier::new(Box::new(BreakEven::default));
    let batch = events.chunks(10).map(|events| super::stages::Submitted {
        events: unverified(events),
        origin: Origin::Import,
        source: ingest.source(Lane::Bulk),
    });
    let mut entropy = || [9; 32];
    super::stages::examine(store, &verifier, batch.collect(), &mut entropy, NOW).unwrap()
}

#[test]
fn a_commit_that_is_cut_short_decides_what_it_took_and_nothing_else() {
    use super::stages::{Cut, decided, write};
    let folder = tempfile::tempdir().unwrap();
    let (store, mut writer) =
        open(folder.path(), Options::new(Arc::new(|| Duration::ZERO))).unwrap();
    // For its sources alone.
    let other = Pipeline::new(Mode::Inline);
    let mut batch = examined(&store, &other.ingest, &uniform(7, NOW, 30));
    let cut = Cut {
        events_min: 15,
        wanted: &|| true,
    };
    let written = write(&mut writer, &mut batch, NOW, &cut).unwrap();
    assert_eq!(written.submissions, 2, "not before fifteen events");
    assert_eq!(written.last_sequence.0, 20);
    let rest = batch.split_off(written.submissions);
    for taken in batch {
        assert_eq!(decided(taken.verdicts), [Verdict::Stored; 10]);
    }
    let mut rest = rest;
    assert!(rest[0].verdicts.iter().all(Option::is_none));
    let written = write(&mut writer, &mut rest, NOW, &Cut::NEVER).unwrap();
    assert_eq!((written.submissions, written.last_sequence.0), (1, 30));
    assert_eq!(decided(rest.remove(0).verdicts), [Verdict::Stored; 10]);
}
