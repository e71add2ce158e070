//! How entries of peers' overlays, and peers, are kept on disk.
//!
//! Takes and gives bytes; what cannot be read is `None` or damage. What entries mean is `overlay.rs`'s. Pure.

use constellation_event::CanonicalKey;

use crate::StoreError;
use crate::overlay::OverlayReason;
use crate::refusal::{VERDICT_LEN, Verdict};

/// On disk: direction, whether the kind is known, whether it was not delivered 1 ‖ the peer's code, or how often 1 ‖ verdict ‖ expires_at 8 (0: never) ‖ place in the order of eviction 8.
pub(crate) struct Entry {
    pub(crate) reason: OverlayReason,
    pub(crate) verdict: Verdict,
    pub(crate) kind_known: bool,
    pub(crate) expires_at: u64,
    pub(crate) place: [u8; 8],
}

const REFUSED_BY: u8 = 1;
const KIND_UNKNOWN: u8 = 2;
const UNDELIVERED: u8 = 4;
const ENTRY_LEN: usize = 2 + VERDICT_LEN + 8 + 8;

impl Entry {
    pub(crate) fn encode(&self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        match self.reason {
            OverlayReason::RefusedBy(code) => (bytes[0], bytes[1]) = (REFUSED_BY, code),
            OverlayReason::Undelivered(times) => (bytes[0], bytes[1]) = (UNDELIVERED, times),
            OverlayReason::Refused(_) => {}
        }
        if !self.kind_known {
            bytes[0] |= KIND_UNKNOWN;
        }
        bytes[2..2 + VERDICT_LEN].copy_from_slice(&self.verdict.encode());
        bytes[2 + VERDICT_LEN..10 + VERDICT_LEN].copy_from_slice(&self.expires_at.to_be_bytes());
        bytes[10 + VERDICT_LEN..].copy_from_slice(&self.place);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ENTRY_LEN] = bytes.try_into().ok()?;
        let verdict = Verdict::decode(&bytes[2..])?;
        let reason = if bytes[0] & REFUSED_BY != 0 {
            OverlayReason::RefusedBy(bytes[1])
        } else if bytes[0] & UNDELIVERED != 0 {
            OverlayReason::Undelivered(bytes[1])
        } else {
            OverlayReason::Refused(verdict.reason)
        };
        let kind_known = bytes[0] & KIND_UNKNOWN == 0;
        let mut expires_at = [0; 8];
        expires_at.copy_from_slice(&bytes[2 + VERDICT_LEN..10 + VERDICT_LEN]);
        let mut place = [0; 8];
        place.copy_from_slice(&bytes[10 + VERDICT_LEN..]);
        Some(Self {
            reason,
            verdict,
            kind_known,
            expires_at: u64::from_be_bytes(expires_at),
            place,
        })
    }
}

/// Peer 4 ‖ created_at 8 ‖ id 32. Whole time: what a hostile peer lists need not fit into five bytes.
pub(crate) fn overlay_key(peer: u32, key: &CanonicalKey) -> [u8; 44] {
    let mut bytes = [0; 44];
    bytes[..4].copy_from_slice(&peer.to_be_bytes());
    bytes[4..12].copy_from_slice(&key.created_at.to_be_bytes());
    bytes[12..].copy_from_slice(&key.id);
    bytes
}

pub(crate) fn parse_overlay_key(bytes: &[u8]) -> Option<CanonicalKey> {
    let bytes: &[u8; 44] = bytes.try_into().ok()?;
    let mut created_at = [0; 8];
    created_at.copy_from_slice(&bytes[4..12]);
    let mut id = [0; 32];
    id.copy_from_slice(&bytes[12..]);
    Some(CanonicalKey {
        created_at: u64::from_be_bytes(created_at),
        id,
    })
}

pub(crate) fn order_key(peer: u32, place: [u8; 8]) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&peer.to_be_bytes());
    bytes[4..].copy_from_slice(&place);
    bytes
}

/// A peer's number and how many entries it has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerRow {
    pub(crate) number: u32,
    pub(crate) entries: u64,
}

impl PeerRow {
    pub(crate) fn encode(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&self.number.to_be_bytes());
        bytes[4..].copy_from_slice(&self.entries.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let damaged = || StoreError::damaged("peers: an entry cannot be read");
        let number = bytes
            .get(..4)
            .and_then(|part| part.try_into().ok())
            .ok_or_else(damaged)?;
        let entries = bytes
            .get(4..)
            .and_then(|part| part.try_into().ok())
            .ok_or_else(damaged)?;
        Ok(Self {
            number: u32::from_be_bytes(number),
            entries: u64::from_be_bytes(entries),
        })
    }
}

/// Peers are named by PeerID or URL; what does not fit a key is cut by a hash.
pub(crate) fn peer_name_key(name: &str) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    if (1..=400).contains(&name.len()) {
        name.as_bytes().to_vec()
    } else {
        // No name begins with this byte, so no name is another one's hash. LMDB knows no empty key.
        [&[0xff], &Sha256::digest(name)[..]].concat()
    }
}
