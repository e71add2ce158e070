//! Who submits: one counterpart for as long as its connection, exchange or import lasts.
//!
//! A source has a lane, and a standing: what it sends first is verified in a batch of its own; once that was genuine,
//! together with others' events; once something was not, one by one, on a thread of their own (D4). So whoever sends
//! bad signatures from the start slows nobody else, and whoever begins to later does so once.
//! Cheap to clone; clones are the same source.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::limits::STRANGERS_DELETIONS_BYTES_MAX;

/// How soon what a source submits is to be on disk (D2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Somebody waits for the acknowledgement: committed at once, together with what has queued.
    Prompt,
    /// Much is coming: committed in large batches, which cost less time and fewer bytes written.
    Bulk,
}

/// What is known of a source. It only ever grows worse than `Trusted`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Standing {
    /// Nothing that it sent has been verified yet.
    New = 0,
    /// All that it sent was genuine so far.
    Trusted = 1,
    /// It has sent bad signatures.
    Suspect = 2,
}

/// One counterpart. Made by [`Ingest::source`](super::Ingest::source).
#[derive(Debug, Clone)]
pub struct Source(Arc<State>);

#[derive(Debug)]
struct State {
    number: u64,
    lane: Lane,
    standing: AtomicU8,
    /// Bytes of deletions by authors outside the scope that it may still bring.
    strangers_deletions: AtomicU64,
}

impl Source {
    pub(super) fn new(number: u64, lane: Lane) -> Self {
        Self(Arc::new(State {
            number,
            lane,
            standing: AtomicU8::new(Standing::New as u8),
            strangers_deletions: AtomicU64::new(STRANGERS_DELETIONS_BYTES_MAX),
        }))
    }

    /// Tells sources apart.
    pub(super) fn number(&self) -> u64 {
        self.0.number
    }

    pub(super) fn lane(&self) -> Lane {
        self.0.lane
    }

    /// Takes so many bytes from what strangers' deletions may have of it; says whether they were left.
    pub(super) fn takes_stranger_s_deletion(&self, bytes: usize) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let left = &self.0.strangers_deletions;
        left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(bytes)
        })
        .is_ok()
    }

    /// Whether it has sent bad signatures.
    pub fn is_suspect(&self) -> bool {
        self.standing() == Standing::Suspect
    }

    pub(super) fn standing(&self) -> Standing {
        match self.0.standing.load(Ordering::Relaxed) {
            0 => Standing::New,
            1 => Standing::Trusted,
            _ => Standing::Suspect,
        }
    }

    /// What it sent was found genuine, or not. Who is suspect once stays so.
    pub(super) fn found(&self, standing: Standing) {
        self.0.standing.fetch_max(standing as u8, Ordering::Relaxed);
    }
}
