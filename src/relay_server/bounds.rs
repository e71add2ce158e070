//! What one connection may hold and cost, beyond the configurable bounds of `limits.rs`.
//!
//! Worst case of memory for one connection: a message being read (2.2 MB), filters of open requests (2.2 MB,
//! twice while being answered; a message while it is parsed up to 30 MB), events in flight (4 MB), negentropy messages (4 × 0.55 MB),
//! bytes to be sent (`HIGH_WATER` and what one slice and all verdicts bring: 8 MB). Nothing piles up for a slow
//! reader: live events are scanned for when it has room. A client whose messages are compressed holds 50 KB more while
//! one arrives in pieces; what is compressed together is one message, whatever its length on the wire. Ad-hoc sets are counted over all connections.

use std::time::Duration;

use crate::limits::MESSAGE_BYTES_MAX;

/// EVENTs whose verdict has not come: at least as many as our own uploader keeps in flight, so that what a commit
/// takes is not what a distant uploader has to wait for.
pub(super) const EVENTS_IN_FLIGHT: usize = 4_096;
/// Their JSON in bytes. Above it, the connection is not read from.
pub(super) const EVENT_BYTES_IN_FLIGHT: usize = 4 << 20;
/// Bytes that one slice of a query gives before others have their turn.
pub(super) const SLICE_BYTES: usize = 256 << 10;
/// Bytes waiting to be sent above which neither the store nor the client is read.
pub(super) const HIGH_WATER: usize = 1 << 20;
/// Filters of all open requests, counts and sessions of a connection: two of the largest messages, or as much in memory.
pub(super) const FILTER_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;
/// … of all connections from one address.
pub(super) const FILTER_BYTES_ADDRESS: usize = 4 * FILTER_BYTES_MAX;
/// … of all strangers.
pub(super) const FILTER_BYTES_STRANGERS: usize = 40 * FILTER_BYTES_MAX;
/// Messages that are none, and failed AUTHs, after which the connection is closed.
pub(super) const MALFORMED_MAX: u32 = 100;
/// Keys that one connection may prove to hold.
pub(super) const AUTHENTICATED_KEYS_MAX: usize = 64;
/// How far the time of an AUTH event may be from ours (NIP-42 suggests ten minutes).
pub(super) const AUTH_SECONDS_MAX: u64 = 600;
/// The largest AUTH event.
pub(super) const AUTH_BYTES_MAX: usize = 16 << 10;
/// How long one who has too many connections may take to be told so.
pub(super) const REFUSAL_DEADLINE: Duration = Duration::from_secs(1);
/// Bytes of a request's head.
pub(super) const HEAD_BYTES_MAX: usize = 16 << 10;
/// How long a connection may take to end in good order: answers that are due, then the close frame.
pub(super) const CLOSING_DEADLINE: Duration = Duration::from_secs(5);
/// Reads of the store at a time, over all connections: keeps LMDB's 512 reader slots and the blocking pool free.
pub(super) const READS_AT_ONCE_MAX: usize = 32;
/// Of the port's places, one in this many is kept for programs on this machine.
pub(super) const PLACES_FOR_THIS_MACHINE: usize = 16;
/// How long to wait before accepting again when the system has no room for a connection.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
