//! What can go wrong with one message, as types: the peer's fault, the set's, or neither.
//!
//! Invariant: every refusal of a peer's bytes names its reason. None is recoverable within the
//! exchange; the caller answers NEG-ERR or drops the peer. Holds no peer bytes beyond one number.

use thiserror::Error;

/// Why a message could not be answered. `E` is the set's own error.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReconcileError<E> {
    /// The responder answered with another protocol version than the initiator's 0x61 (v1).
    #[error("the peer speaks negentropy version byte {offered:#04x}, not 0x61")]
    UnsupportedVersion {
        /// The version byte the peer offered, 0x60 to 0x6f.
        offered: u8,
    },
    /// The message is not negentropy protocol v1.
    #[error("malformed negentropy message")]
    Malformed(#[from] Malformed),
    /// The set counted items in a range and could then not show them: it changed during a message
    /// or breaks the contract of [`SortedSet`](crate::SortedSet).
    #[error("the set contradicts its own count")]
    InconsistentSet,
    /// The set could not be read.
    #[error("reading the set failed")]
    Set(#[source] E),
}

/// Why bytes are not a negentropy v1 message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The message ends within a version, number, bound, or fingerprint.
    #[error("the message ends too early")]
    Truncated,
    /// The first byte is no version of the protocol (0x60 to 0x6f).
    #[error("{found:#04x} is no version byte")]
    InvalidVersion {
        /// The first byte.
        found: u8,
    },
    /// A number does not fit 64 bits.
    #[error("a number exceeds 64 bits")]
    VarintOverflow,
    /// A range's mode is none of skip (0), fingerprint (1), id list (2).
    #[error("unknown range mode {mode}")]
    UnknownMode {
        /// The mode as sent.
        mode: u64,
    },
    /// A bound claims more id bytes than an id has.
    #[error("an id prefix of {length} bytes")]
    PrefixTooLong {
        /// Bytes claimed.
        length: u64,
    },
    /// A range ends before it starts, so ranges would overlap.
    #[error("bounds go backwards")]
    DescendingBounds,
    /// A bound lies above infinity: nothing can be below it that was not below infinity.
    #[error("a bound above infinity")]
    BeyondInfinity,
    /// An id list claims more ids than the message has bytes for.
    #[error("an id list claims {claimed} ids where {available} follow")]
    IdListTooLong {
        /// Ids claimed.
        claimed: u64,
        /// Whole ids the rest of the message has room for.
        available: u64,
    },
}
