//! What a peer lists and does not deliver: it stays a difference, and is neither fetched nor told apart in every run.
//!
//! Takes ids that a whole answer left out; enters them into the peer's overlay, each where it is listed, as far as that is
//! known (negentropy lists tell ids, and no times). Until a pause is over, which doubles each time, the peer is not asked
//! for it again; until then, and after, the report names it. Invariant: no exchange in which such an id is listed
//! converges. Where the guess of its place proves wrong, the next comparison brings it closer (see `reconcile`). Bounded
//! as all that is remembered of a peer.

use std::collections::HashSet;
use std::time::Duration;

use constellation_eventstore::{NewOverlayEntry, OverlayReason};

use super::sorting::place_in;
use super::{Findings, Transfer, TransferError};
use crate::limits::{UNDELIVERED_PAUSE, UNDELIVERED_PAUSE_MAX};

/// Why such an id is left over, as reports have it.
pub const UNDELIVERED: &str = "undelivered";

/// Remembers that the peer was asked for these, and did not deliver them.
///
/// # Errors
/// Our own store's.
pub(super) async fn remember_undelivered(
    transfer: &Transfer,
    findings: &Findings,
    ids: &HashSet<[u8; 32]>,
) -> Result<(), TransferError> {
    if ids.is_empty() {
        return Ok(());
    }
    let now = transfer.clock.unix_seconds();
    let (mut enter, mut leave) = (Vec::with_capacity(ids.len()), Vec::new());
    for (item, before) in findings.asked_in_vain(ids) {
        let times = before.map_or(0, |before| before.times).saturating_add(1);
        leave.extend(before.map(|before| before.key));
        enter.push(NewOverlayEntry {
            key: place_in(&transfer.slice, &item),
            reason: OverlayReason::Undelivered(times),
            kind: None,
            expires_at: Some(now + pause_after(times).as_secs()),
            author: transfer.slice.listed_under(&[0; 32]),
        });
    }
    let (ingest, peer) = (&transfer.ingest, &transfer.peer);
    Ok(ingest.change_overlay(peer, enter, leave).await?)
}

/// How long a peer is left alone that was asked in vain so many times.
fn pause_after(times: u8) -> Duration {
    let doubled = u32::from(times).saturating_sub(1).min(16);
    UNDELIVERED_PAUSE
        .saturating_mul(1 << doubled)
        .min(UNDELIVERED_PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_day() {
        let hours = [1, 2, 3, 5, 6, 255].map(|times| pause_after(times).as_secs() / 3600);
        assert_eq!(hours, [1, 2, 4, 16, 24, 24]);
    }
}
