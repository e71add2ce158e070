//! Writing: batches of several sizes, in random order and in the order of time, and from a file as it is read.

use std::path::Path;

use constellation_event::VerifiedEvent;
use constellation_eventstore::{Admission, Store, Writer, open};

use crate::events::{Numbers, pieces};
use crate::meter::{Meter, Reading, megabytes};
use crate::{Asked, NOW, options};

/// A store in a folder of its own, which goes with it.
pub(crate) struct Fresh {
    pub(crate) store: Store,
    pub(crate) writer: Writer,
    folder: tempfile::TempDir,
}

impl Fresh {
    pub(crate) fn new(asked: &Asked) -> Self {
        let folder = tempfile::tempdir_in(&asked.folder).expect("a folder to work in");
        let (store, writer) = open(folder.path(), options()).expect("a new store opens");
        Self {
            store,
            writer,
            folder,
        }
    }

    pub(crate) fn reopen(self) -> Self {
        let Self {
            store,
            writer,
            folder,
        } = self;
        drop((store, writer));
        let (store, writer) = open(folder.path(), options()).expect("it opens again");
        Self {
            store,
            writer,
            folder,
        }
    }

    pub(crate) fn admit<'e>(&mut self, events: impl Iterator<Item = &'e VerifiedEvent> + Clone) {
        self.writer
            .transact(|transaction| {
                for event in events.clone() {
                    let admission = transaction.admit(event, NOW)?;
                    assert!(matches!(admission, Admission::Stored(_)), "{admission:?}");
                }
                Ok(())
            })
            .expect("room for the events");
    }

    pub(crate) fn admit_all(&mut self, events: &[&VerifiedEvent], batch: usize) {
        for batch in events.chunks(batch) {
            self.admit(batch.iter().copied());
        }
    }
}

fn row(order: &str, batch: usize, count: usize, reading: &Reading, slowest_quarter: f64) {
    let per_event = |bytes: u64| bytes as f64 / count as f64 / 1e3;
    println!(
        "| {order} | {batch} | {:.0} | {slowest_quarter:.0} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} |",
        count as f64 / reading.time.as_secs_f64(),
        reading.cpu.as_secs_f64() * 1e6 / count as f64,
        per_event(reading.wchar),
        per_event(reading.write_bytes),
        megabytes(reading.anonymous_peak),
        megabytes(reading.anonymous_left),
    );
}

const HEADING: &str = "| order | batch | events/s | in the last quarter | CPU µs/event | written kB/event | write_bytes kB/event | RssAnon peak MB | left MB |\n\
     | --- | --- | --- | --- | --- | --- | --- | --- | --- |";

/// Every batch size, both orders, each into a store of its own.
pub(crate) fn matrix(asked: &Asked, events: &[VerifiedEvent]) {
    println!("\nwriting {} events\n\n{HEADING}", events.len());
    let in_time: Vec<&VerifiedEvent> = events.iter().collect();
    let mut shuffled = in_time.clone();
    Numbers::new(3).shuffle(&mut shuffled);
    for (order, events) in [("random", &shuffled), ("time", &in_time)] {
        for &batch in &asked.batches {
            let mut fresh = Fresh::new(asked);
            let last_quarter = events.len() * 3 / 4 / batch * batch;
            let meter = Meter::start();
            fresh.admit_all(&events[..last_quarter], batch);
            let begun = std::time::Instant::now();
            fresh.admit_all(&events[last_quarter..], batch);
            let late = (events.len() - last_quarter) as f64 / begun.elapsed().as_secs_f64();
            row(order, batch, events.len(), &meter.stop(), late);
        }
    }
}

/// Events as they come from the file, verified beside it, dropped after their commit: the whole memory of a process
/// that fetches. Verifying is in the times here.
pub(crate) fn stream(asked: &Asked, file: &Path) {
    println!(
        "\nfrom the file as it is read, in the order of time, verifying included\n\n{HEADING}"
    );
    for &batch in &asked.batches {
        let mut fresh = Fresh::new(asked);
        let meter = Meter::start();
        let mut waiting: Vec<VerifiedEvent> = Vec::new();
        for piece in pieces(file) {
            waiting.extend(piece);
            while waiting.len() >= batch {
                let rest = waiting.split_off(batch);
                fresh.admit(waiting.iter());
                waiting = rest;
            }
        }
        fresh.admit(waiting.iter());
        drop(waiting);
        row("time", batch, asked.events, &meter.stop(), 0.0);
    }
}
