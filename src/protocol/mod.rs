//! Nostr messages on the wire, for both sides, and the WebSocket framing that carries them.
//!
//! ```text
//! bytes ─► websocket ─► client_message (our relay reads, our client writes)
//!                   └─► relay_message  (our client reads, our relay writes) ─► prefix
//! HTTP  ─► information (NIP-11)        hex: ids and negentropy payloads
//! ```
//!
//! Invariant: nothing here trusts a peer. Every message has a bounded size before it is parsed, parsing never
//! panics, and events stay raw JSON: checking them is the business of `constellation_event`.
//! It does not dial, keeps no conversation, and decides nothing.

pub mod client_message;
mod elements;
pub mod information;
pub mod prefix;
pub mod relay_message;
pub mod websocket;

pub use constellation_event::hex;

pub use client_message::{ClientMessage, ClientMessageError, ClientMessageErrorKind};
pub use information::RelayInformation;
pub use prefix::ReasonPrefix;
pub use relay_message::{RelayMessage, RelayMessageError};
pub use websocket::{
    HandshakeError, Message, SocketError, SocketLimits, SocketReceiver, SocketSender, TextSocket,
};
