//! Streams to services of other stations, and from them: our own stream behaviour.
//!
//! ```text
//! open(peer, service) ─► behaviour ─► handler of the best connection ─► Tunnelled
//! a peer's stream ─► handler ─► Door: admitted? room? ─► bounded queue of InboundStream, or a counted refusal
//! ```
//!
//! Takes requests by connection; gives streams that are counted while they live. Invariant: a stream that was
//! negotiated is handed on or counted as refused, never lost. Deliberately absent: which connection, dialling. Worst
//! case: a peer that opens as fast as it can has 1,100 streams here, and the rest is reset.

mod behaviour;
mod door;
mod handler;
mod upgrade;
mod wrapper;

pub(super) use behaviour::{Behaviour, ended};
pub(super) use door::{Door, Weary};
pub(super) use handler::{OpenFailure, OpenRequest};
pub(super) use wrapper::Tunnelled;
