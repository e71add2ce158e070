//! Which of some events the peer has: asked for by id, for relays without NIP-77.
//!
//! Takes ids; gives those that came back. What came is not taken over: it is only looked at. An answer that brought
//! something may have been cut off, so what it lacks is asked for until an answer brings nothing. Bounded by the ids:
//! each answer that goes on has brought at least one.

use std::collections::HashSet;

use constellation_event::UnverifiedEvent;

use crate::protocol::ReasonPrefix;
use crate::relay_client::RequestEnd;
use crate::transfer::{Line, Transfer, TransferError};

const EVENTS_PER_BATCH: usize = 512;

/// Those of `ids` that the peer has.
///
/// Cancel safe.
///
/// # Errors
/// [`TransferError`].
pub async fn probe(
    transfer: &Transfer,
    ids: &[[u8; 32]],
) -> Result<HashSet<[u8; 32]>, TransferError> {
    probe_over(transfer.line(), ids).await
}

/// The same over any line.
///
/// Cancel safe.
///
/// # Errors
/// [`TransferError`].
pub async fn probe_over(
    line: Line<'_>,
    ids: &[[u8; 32]],
) -> Result<HashSet<[u8; 32]>, TransferError> {
    let mut there = HashSet::new();
    let together = line.limits.ids_per_request.max(1);
    for ids in ids.chunks(together) {
        let mut missing: Vec<[u8; 32]> = ids.to_vec();
        let mut authenticated = false;
        loop {
            let before = there.len();
            let end = ask(line, &missing, &mut there).await?;
            missing.retain(|id| !there.contains(id));
            if let RequestEnd::Closed { prefix, text } = end {
                let again = prefix == ReasonPrefix::AuthRequired && !authenticated;
                if again && line.authenticate().await? {
                    authenticated = true;
                    continue;
                }
                return Err(TransferError::Refused(text));
            }
            if missing.is_empty() || there.len() == before {
                break;
            }
        }
    }
    Ok(there)
}

async fn ask(
    line: Line<'_>,
    ids: &[[u8; 32]],
    there: &mut HashSet<[u8; 32]>,
) -> Result<RequestEnd, TransferError> {
    let asked: HashSet<&[u8; 32]> = ids.iter().collect();
    let request = line.conversation.fetch(ids);
    let mut request = line.in_time(request).await?;
    loop {
        let mut batch = Vec::new();
        let next = request.next_batch(&mut batch, EVENTS_PER_BATCH);
        let end = line.answered(next).await?;
        for json in batch {
            if let Some(claimed) = UnverifiedEvent::claimed_identity(&json)
                && asked.contains(&claimed.id)
            {
                there.insert(claimed.id);
            }
        }
        if let Some(end) = end {
            return Ok(end);
        }
    }
}
