//! Opening, looking ids up, and serving a REQ by ids.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use constellation_event::VerifiedEvent;
use constellation_eventstore::{Known, Lapse, Progress, Query, Readership, Snapshot};
use nostr::event::EventId;
use nostr::filter::Filter;

use crate::events::Numbers;
use crate::meter::{milliseconds, timed};
use crate::writing::Fresh;
use crate::{Asked, NOW};

const LOOKED_UP: usize = 16_384;
const IDS_PER_REQ: usize = 500;
const REQS: usize = 200;
/// Of the same look-ups; the shortest counts.
const RUNS: usize = 3;

pub(crate) fn run(asked: &Asked, events: &[VerifiedEvent], opening: bool, ids: bool) {
    // What is left out is unknown.
    let (unknown, stored): (Vec<_>, Vec<_>) =
        (0..).zip(events).partition(|(index, _)| index % 10 == 0);
    let ids_of = |events: &[(usize, &VerifiedEvent)]| -> Vec<[u8; 32]> {
        events.iter().map(|(_, event)| event.id()).collect()
    };
    let (unknown, stored_ids) = (ids_of(&unknown), ids_of(&stored));
    let stored: Vec<&VerifiedEvent> = stored.into_iter().map(|(_, event)| event).collect();
    let mut fresh = Fresh::new(asked);
    fresh.admit_all(&stored, 50_000);
    if opening {
        let begun = Instant::now();
        fresh = fresh.reopen();
        println!(
            "\nopening with {} events: {:.1} ms",
            stored.len(),
            milliseconds(begun.elapsed())
        );
    }
    if ids {
        let snapshot = fresh.store.snapshot().expect("readable");
        let mut numbers = Numbers::new(11);
        look_up(&snapshot, &mut numbers, &unknown, "unknown");
        look_up(&snapshot, &mut numbers, &stored_ids, "stored");
        drop(snapshot);
        serve(&fresh, &mut numbers, &stored_ids);
    }
}

fn some(numbers: &mut Numbers, ids: &[[u8; 32]], count: usize) -> Vec<[u8; 32]> {
    let mut ids = ids.to_vec();
    numbers.shuffle(&mut ids);
    ids.truncate(count);
    ids
}

fn look_up(snapshot: &Snapshot<'_>, numbers: &mut Numbers, ids: &[[u8; 32]], what: &str) {
    let ids = some(numbers, ids, LOOKED_UP);
    let lapse = Lapse {
        now: NOW,
        covers: &|_, _| true,
    };
    let (mut one_by_one, mut together) = (Duration::MAX, Duration::MAX);
    for _ in 0..RUNS {
        let (answers, time) =
            timed(|| -> Vec<Known> { ids.iter().map(|id| one(snapshot, id, &lapse)).collect() });
        one_by_one = one_by_one.min(time);
        let (known, time) = timed(|| snapshot.known(&ids, &lapse).expect("readable"));
        together = together.min(time);
        assert_eq!(answers, known);
    }
    let per_id = |time: Duration| time.as_secs_f64() * 1e9 / ids.len() as f64;
    println!(
        "{} {what} ids: one by one {:.0} ns each, together {:.0} ns",
        ids.len(),
        per_id(one_by_one),
        per_id(together)
    );
}

fn one(snapshot: &Snapshot<'_>, id: &[u8; 32], lapse: &Lapse<'_>) -> Known {
    if snapshot.by_id(id).expect("readable").is_some() {
        return Known::Stored;
    }
    let refusal = snapshot.standing_refusal(id, lapse).expect("readable");
    refusal.map_or(Known::Unknown, Known::Refused)
}

fn serve(fresh: &Fresh, numbers: &mut Numbers, ids: &[[u8; 32]]) {
    let requests: Vec<Filter> = (0..REQS)
        .map(|_| {
            let ids = some(numbers, &ids[..ids.len().min(20_000)], IDS_PER_REQ);
            Filter::new().ids(ids.into_iter().map(EventId::from_byte_array))
        })
        .collect();
    let (mut bytes, mut time) = (0, Duration::MAX);
    for _ in 0..RUNS {
        let (served, taken) = timed(|| requests.iter().map(|filter| answer(fresh, filter)).sum());
        bytes = served;
        time = time.min(taken);
    }
    println!(
        "{REQS} REQs of {IDS_PER_REQ} ids ({} MB): {:.0} ns an event",
        bytes / 1_000_000,
        time.as_secs_f64() * 1e9 / (REQS * IDS_PER_REQ) as f64
    );
}

/// Bytes of JSON that a REQ is answered with.
fn answer(fresh: &Fresh, filter: &Filter) -> usize {
    let mut bytes = 0;
    let snapshot = fresh.store.snapshot().expect("readable");
    let mut query = Query::new(filter.clone(), Readership::public(), &snapshot, NOW);
    loop {
        let progress = query.advance(&snapshot, &mut |record| {
            bytes += record.json().len();
            ControlFlow::Continue(())
        });
        if progress.expect("readable") == Progress::Done {
            return bytes;
        }
    }
}
