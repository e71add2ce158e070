//! Who is admitted: our captain's word, tokens, and what stations say of each other in signed cards (D16, D17).
//!
//! ```text
//! configuration ─► constellation: which one, and whether that has changed
//! captain, tokens ─► ledger ──────────────────┐
//! bytes ─► card ─► signed: VerifiedCard ─► cards ─► standing (judgement) ─► guests ─► the carrier's GuestList
//! ```
//!
//! Pure: time, randomness and bytes are passed in; only `files` touches the disk. Invariant: nothing that anybody says
//! counts unless a chain of vouches leads to it from our own captain. Deliberately absent: discovery, streams, commands.

mod card;
mod cards;
mod constellation;
mod files;
mod guests;
mod judgement;
mod ledger;
mod signed;
mod standing;
mod token;

#[cfg(test)]
mod drafts;
#[cfg(test)]
mod worlds;

pub use card::{
    CARD_ADDRESSES_MAX, CARD_BYTES_MAX, CARD_SERVICES_MAX, CARD_TEXT_BYTES_MAX, Card, Revocation,
    Statement, Vouch, fits_in_a_card, name_in_a_card, next_sequence,
};
pub use cards::{CardBook, CardBookCopy, Cursor, HANDOVER_CARDS_MAX, Handover, Insertion};
pub use constellation::{
    ConstellationId, ConstellationIdError, Membership, Origin, Resolution, resolve,
};
pub use files::StateError;
pub use guests::{Doors, guest_list};
pub use ledger::{Allowance, InvitationTerms, Ledger, LedgerFull, Newcomer, TokenRefusal};
pub use signed::{
    Binding, CardError, ENVELOPE_BYTES_MAX, Evidence, SignedCard, UnverifiedCard, VerifiedCard,
    VouchedKeys,
};
pub use standing::{Ground, RevokedBy, Standing, Why, evaluate};
pub use token::{Invitation, Secret, TokenError};
