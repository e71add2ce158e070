//! A Nostr conversation with a relay, over any byte stream.
//!
//! ```text
//! Url ─► connect ─► TextSocket ─► Conversation ─► request      (REQ … EOSE)
//!          └► information (NIP-11)            ├─► publication  (EVENT, OK)
//!                                             ├─► negotiation  (NEG-OPEN, NEG-MSG)
//!                                             └─► subscription (REQ that EOSE does not end)
//! ```
//!
//! Invariant: a peer costs a bounded amount, whatever it sends or does not send, and every waiter gets an answer
//! or a typed error when the conversation ends. Silence is the caller's to time out.
//! It does not verify events, does not choose what to ask, does not decide when to answer AUTH and does not reconnect.

pub mod connect;
pub mod conversation;
mod dial;
mod driver;
pub mod information;
mod negotiation;
mod nostr_key;
mod publication;
mod registry;
mod request;
mod subscription;

pub use connect::{ConnectError, ConnectOptions, connect, connect_over, dial};
pub use conversation::{Conversation, ConversationCounters, ConversationError, ConversationLimits};
pub use dial::{Dial, Dialer, Dialling};
pub(crate) use driver::complains;
pub use negotiation::{NegReply, Negotiation, NegotiationBusy};
pub use nostr_key::{NostrKey, NostrKeyError};
pub use publication::{PendingPublication, Publication, PublishError};
pub use request::{Request, RequestEnd, RequestItem};
pub use subscription::{Subscription, SubscriptionNews};

#[cfg(test)]
mod tests;
