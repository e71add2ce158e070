//! Events for tests, signed by a few fixed keys, and a store in a temporary folder.

#![allow(dead_code)] // each test binary uses its part

use std::sync::Arc;
use std::time::Duration;

use constellation_event::{UnverifiedEvent, VerifiedEvent};
use constellation_eventstore::{Admission, Options, Store, Writer};
use nostr::event::{EventBuilder, FinalizeEvent, Kind, Tag};
use nostr::key::{Keys, SecretKey};
use nostr::types::Timestamp;

pub(crate) const NOW: u64 = 1_700_000_000;

pub(crate) fn keys(number: u8) -> Keys {
    let mut secret = [number; 32];
    secret[31] = 1;
    Keys::new(SecretKey::from_slice(&secret).expect("a small number is a secret key"))
}

pub(crate) fn event(
    author: u8,
    kind: u16,
    created_at: u64,
    tags: &[&[&str]],
    content: &str,
) -> VerifiedEvent {
    let event = EventBuilder::new(Kind::from_u16(kind), content)
        .tags(
            tags.iter()
                .map(|tag| Tag::parse(tag.iter().copied()).expect("not empty")),
        )
        .custom_created_at(Timestamp::from_secs(created_at))
        .finalize(&keys(author))
        .expect("fixed keys sign");
    UnverifiedEvent::from_event(&event)
        .verify()
        .expect("just signed")
}

pub(crate) struct TestStore {
    pub(crate) store: Store,
    pub(crate) writer: Writer,
    pub(crate) folder: tempfile::TempDir,
}

/// Time stands still: slices end by nothing but the receiver.
pub(crate) fn options() -> Options {
    Options::new(Arc::new(|| Duration::ZERO))
}

pub(crate) fn open_with(options: Options) -> TestStore {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (store, writer) =
        constellation_eventstore::open(folder.path(), options).expect("a new store opens");
    TestStore {
        store,
        writer,
        folder,
    }
}

pub(crate) fn open() -> TestStore {
    open_with(options())
}

impl TestStore {
    pub(crate) fn admit(&mut self, events: &[VerifiedEvent]) -> Vec<Admission> {
        self.admit_at(events, NOW)
    }

    pub(crate) fn admit_at(&mut self, events: &[VerifiedEvent], now: u64) -> Vec<Admission> {
        self.writer
            .transact(|transaction| {
                let admissions = events
                    .iter()
                    .map(|event| transaction.admit(event, now))
                    .collect::<Result<Vec<_>, _>>()?;
                while transaction.sweep(now, 3)?.unfinished {}
                Ok(admissions)
            })
            .expect("a transaction on a healthy disk succeeds")
            .value
    }

    pub(crate) fn reopen(self) -> Self {
        self.reopen_with(options())
    }

    pub(crate) fn reopen_with(self, options: Options) -> Self {
        let Self {
            store,
            writer,
            folder,
        } = self;
        drop((store, writer));
        let (store, writer) =
            constellation_eventstore::open(folder.path(), options).expect("it opens again");
        Self {
            store,
            writer,
            folder,
        }
    }

    pub(crate) fn ids(&self) -> Vec<[u8; 32]> {
        self.query("{}")
    }

    pub(crate) fn query(&self, filter: &str) -> Vec<[u8; 32]> {
        let filter = nostr::filter::Filter::from_json(filter).expect("a filter");
        query(
            &self.store,
            filter,
            constellation_eventstore::Readership::Full,
            usize::MAX,
        )
    }

    pub(crate) fn assert_consistent(&self) {
        let report = constellation_eventstore::check(&self.store, true).expect("readable");
        assert!(report.is_consistent(), "{:#?}", report.problems);
    }
}

/// All results, in pieces of `per_slice`.
pub(crate) fn query(
    store: &Store,
    filter: nostr::filter::Filter,
    readership: constellation_eventstore::Readership,
    per_slice: usize,
) -> Vec<[u8; 32]> {
    use constellation_eventstore::{Progress, Query};
    let mut query = Query::new(
        filter,
        readership,
        &store.snapshot().expect("readable"),
        NOW,
    );
    let mut ids = Vec::new();
    loop {
        let mut room = per_slice;
        let progress = query
            .advance(&store.snapshot().expect("readable"), &mut |record| {
                ids.push(*record.id());
                room -= 1;
                if room == 0 {
                    std::ops::ControlFlow::Break(())
                } else {
                    std::ops::ControlFlow::Continue(())
                }
            })
            .expect("readable");
        if progress == Progress::Done {
            return ids;
        }
    }
}
