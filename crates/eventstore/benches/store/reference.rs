//! The same differences by the `negentropy` crate over its sorted vectors: what a relay does that keeps no sums.
//!
//! It reads and sorts all ids of a set first, for each session anew; that stands in a column of its own. Both sides run
//! on one thread. It is asked to make the same frames.

use std::time::Duration;

use constellation_event::VerifiedEvent;
use negentropy::{Id, Negentropy, NegentropyStorageVector};

use crate::meter::{milliseconds, timed};

/// What `["NEG-MSG","sub",""]` adds to the hex.
const ENVELOPE: usize = 20;

fn filled(events: &[&VerifiedEvent]) -> NegentropyStorageVector {
    let mut storage = NegentropyStorageVector::with_capacity(events.len());
    for event in events {
        let id = Id::from_byte_array(event.id());
        storage
            .insert(event.created_at(), id)
            .expect("not sealed yet");
    }
    storage.seal().expect("not sealed yet");
    storage
}

/// One row: vectors of both sides made from `common` and what each has besides, then reconciled.
pub(crate) fn row(
    what: &str,
    common: &[&VerifiedEvent],
    only_ours: &[&VerifiedEvent],
    frame_bytes: usize,
) {
    let ours = [common, only_ours].concat();
    let ((ours, theirs), making) = timed(|| (filled(&ours), filled(common)));
    let limit = u64::try_from(frame_bytes).expect("a small number");
    let mut initiator = Negentropy::owned(ours, limit).expect("a limit that it takes");
    let mut responder = Negentropy::owned(theirs, limit).expect("a limit that it takes");
    let (mut have, mut need) = (Vec::new(), Vec::new());
    let (mut rounds, mut bytes) = (0, 0);
    let mut time = [Duration::ZERO; 2];
    let (first, opening) = timed(|| initiator.initiate().expect("its first message"));
    time[0] += opening;
    let mut message = Some(first);
    while let Some(sent) = message {
        rounds += 1;
        bytes += 2 * sent.len() + ENVELOPE;
        let (answer, answering) = timed(|| responder.reconcile(&sent).expect("its own message"));
        time[1] += answering;
        bytes += 2 * answer.len() + ENVELOPE;
        let (next, taking) = timed(|| {
            initiator
                .reconcile_with_ids(&answer, &mut have, &mut need)
                .expect("its own answer")
        });
        time[0] += taking;
        message = next;
    }
    println!(
        "| {what} | {:.0} | {:.2} | {:.2} | {rounds} | {bytes} | {} | {} |",
        milliseconds(making),
        milliseconds(time[0]),
        milliseconds(time[1]),
        need.len(),
        have.len(),
    );
}

/// The columns of [`row`].
pub(crate) fn heading() {
    println!("\nthe negentropy crate's vectors\n");
    println!(
        "| difference | ms, reading and sorting | initiator | responder | rounds | NEG bytes | need | have |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
}
