//! Offering events: many in flight, every OK read, counted by its prefix, and remembered.
//!
//! An event counts as uploaded only when the peer says `OK true`, or that it is a duplicate. What the peer refuses
//! enters its overlay for a while, unless the refusal is a matter of the moment (too fast, not logged in).
//! Bounded: events in flight. Worst case: a peer that never answers costs one step deadline.

use constellation_event::CanonicalKey;
use constellation_eventstore::{NewOverlayEntry, OverlayReason};
use constellation_reconcile::Item;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::{Tally, Transfer, TransferError, off_runtime};
use crate::limits::{ERROR_REMEMBERED, EVENT_ENVELOPE_BYTES, POLICY_REMEMBERED, UPLOADS_IN_FLIGHT};
use crate::protocol::ReasonPrefix;
use crate::relay_client::{ConversationError, Publication, PublishError};

/// Events read from the store at a time.
const READ_AT_ONCE: usize = 256;
const READ_BYTES_AT_ONCE: usize = 4 << 20;

/// Offers our events and adds to `tally` what the peer answered.
///
/// Cancel safety: what the peer took it has; the tally may then miss the last answers.
///
/// # Errors
/// [`TransferError`]; what was counted before stays counted.
pub async fn upload(
    transfer: &Transfer,
    items: &[Item],
    tally: &mut Tally,
) -> Result<(), TransferError> {
    let mut rest = items;
    while !rest.is_empty() {
        let (events, taken) = read(transfer, rest).await?;
        rest = &rest[taken..];
        // A relay hangs up on a message over its limit: such an event would cost all that come after it, in every run.
        let (events, too_large): (Vec<Event>, Vec<Event>) =
            events.into_iter().partition(|event| fits(transfer, event));
        for event in too_large {
            tally.hold_back(event.key.id, "larger than the messages that the peer takes");
        }
        let mut waiting = events.iter();
        let mut answers = FuturesUnordered::new();
        let mut enter = Vec::new();
        let mut failed = None;
        loop {
            while answers.len() < UPLOADS_IN_FLIGHT {
                match waiting.next() {
                    Some(event) => answers.push(offer(transfer, event)),
                    None => break,
                }
            }
            let Some(answer) = answers.next().await else {
                break;
            };
            transfer
                .progress
                .send_modify(|progress| progress.uploaded += 1);
            match answer {
                Ok((event, publication)) => {
                    enter.extend(count(
                        tally,
                        event,
                        &publication,
                        transfer.clock.unix_seconds(),
                    ));
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        transfer
            .ingest
            .change_overlay(&transfer.peer, enter, Vec::new())
            .await?;
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(())
}

fn fits(transfer: &Transfer, event: &Event) -> bool {
    transfer
        .message_bytes_max
        .is_none_or(|bytes| event.json.len() + EVENT_ENVELOPE_BYTES <= bytes)
}

struct Event {
    key: CanonicalKey,
    kind: u16,
    json: String,
}

/// Reads the next events, up to a bound of bytes. Those that are gone meanwhile need no upload.
async fn read(transfer: &Transfer, items: &[Item]) -> Result<(Vec<Event>, usize), TransferError> {
    let store = transfer.ingest.store().clone();
    let items: Vec<Item> = items.iter().take(READ_AT_ONCE).copied().collect();
    off_runtime(move || {
        let snapshot = store.snapshot()?;
        let mut events = Vec::with_capacity(items.len());
        let mut bytes = 0;
        let mut taken = 0;
        for item in items {
            taken += 1;
            let Some(record) = snapshot.by_id(&item.id)? else {
                continue;
            };
            bytes += record.json().len();
            events.push(Event {
                key: CanonicalKey {
                    created_at: item.timestamp,
                    id: item.id,
                },
                kind: record.kind(),
                json: record.json().to_owned(),
            });
            if bytes >= READ_BYTES_AT_ONCE {
                break;
            }
        }
        Ok((events, taken))
    })
    .await
}

async fn offer<'e>(
    transfer: &Transfer,
    event: &'e Event,
) -> Result<(&'e Event, Publication), TransferError> {
    let answered = async {
        match transfer
            .conversation
            .publish(event.key.id, &event.json)
            .await
        {
            Ok(pending) => pending.await,
            Err(PublishError::Conversation(error)) => Err(error),
            // One exchange uploads over one conversation, each event once, below the conversation's bound.
            Err(PublishError::AlreadyInFlight | PublishError::TooManyInFlight) => {
                Err(ConversationError::Finished)
            }
        }
    };
    Ok((event, transfer.step(answered).await?))
}

fn count(
    tally: &mut Tally,
    event: &Event,
    publication: &Publication,
    now: u64,
) -> Option<NewOverlayEntry> {
    if publication.accepted || publication.prefix == ReasonPrefix::Duplicate {
        tally.uploaded += 1;
        return None;
    }
    *tally.refused_by_peer.entry(publication.prefix).or_default() += 1;
    if is_momentary(publication.prefix) {
        tally.hold_back(
            event.key.id,
            &format!("refused by the peer: {}", publication.prefix),
        );
        return None;
    }
    let remembered = match publication.prefix {
        // Some relays answer so to what they will never take, others when their disk is full.
        ReasonPrefix::Error => ERROR_REMEMBERED,
        _ => POLICY_REMEMBERED,
    };
    Some(NewOverlayEntry {
        key: event.key,
        reason: OverlayReason::RefusedBy(publication.prefix.code()),
        kind: Some(event.kind),
        expires_at: Some(now + remembered.as_secs()),
    })
}

/// Refusals that say nothing about the event: it is offered again in the next run.
fn is_momentary(prefix: ReasonPrefix) -> bool {
    matches!(
        prefix,
        ReasonPrefix::RateLimited | ReasonPrefix::AuthRequired
    )
}
