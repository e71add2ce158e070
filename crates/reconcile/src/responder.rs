//! The responder's role: one message in, one message out, nothing kept.
//!
//! Invariant: the answer depends on the set, the message, and the limit alone.
//!
//! Worst case for a message of B bytes, a limit of L bytes, a set of N items: at most B/19
//! fingerprint ranges (one summary each) and min(B, L)/4 id lists (one scan begun each). Ranges do
//! not overlap and the answer ends at L, so all scans together visit at most min(N, L/32 + 32)
//! items and at most min(N/32, L/300 + 1) ranges are split (16 summaries and one select each).
//! Memory: the answer, twice at most. Without a limit the answer is bounded by 32 bytes an item
//! plus some 50 for each byte of the message. Ids in a peer's lists are not looked at.

use std::ops::ControlFlow;

use crate::codec::{PROTOCOL_VERSION, Payload, Reader, Writer};
use crate::engine::Reply;
use crate::error::ReconcileError;
use crate::frame::FrameLimit;
use crate::set::SortedSet;

/// Answers a message of an initiator (negentropy protocol v1; in NIP-77: NEG-OPEN and NEG-MSG).
///
/// To a message of another version (0x60 to 0x6f) the answer is our version byte alone, as the
/// protocol demands. A message that fills the frame is answered as far as the frame goes; what
/// follows in it is then not even parsed.
///
/// # Errors
///
/// The message is malformed, or the set fails or contradicts itself.
pub fn respond<S: SortedSet + ?Sized>(
    set: &S,
    message: &[u8],
    limit: FrameLimit,
) -> Result<Vec<u8>, ReconcileError<S::Error>> {
    let (version, mut ranges) = Reader::open(message)?;
    if version != PROTOCOL_VERSION {
        return Ok(Writer::new().into_bytes());
    }
    let mut reply = Reply::new(set, limit);
    while let Some(range) = ranges.next_range()? {
        let flow = match range.payload {
            Payload::Skip => {
                reply.settle();
                ControlFlow::Continue(())
            }
            Payload::Fingerprint(theirs) => reply.compare(&range.lower, &range.upper, &theirs)?,
            Payload::IdList(_) => reply.list(&range.lower, &range.upper)?,
        };
        if flow.is_break() {
            break;
        }
    }
    Ok(reply.into_message().into_bytes())
}
