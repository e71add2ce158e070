//! Events for the tests: genuine ones, and the parts of others.

use constellation_event::UnverifiedEvent;
use nostr::event::{Event, EventId, Kind, Signature, Tags};
use nostr::key::PublicKey;
use nostr::types::Timestamp;
use secp256k1::{Keypair, SECP256K1};

/// So many signed events that differ, by so many authors in turn.
pub(crate) fn events(count: usize, authors: usize) -> Vec<UnverifiedEvent> {
    let keys: Vec<Keypair> = (0..authors as u64)
        .map(|number| {
            let mut secret = [7; 32];
            secret[..8].copy_from_slice(&number.to_le_bytes());
            Keypair::from_seckey_slice(SECP256K1, &secret).expect("below the group's order")
        })
        .collect();
    (0..count)
        .map(|number| {
            let keys = &keys[number % authors];
            let author = keys.x_only_public_key().0.into();
            let unsigned = written_by(author, number as u64);
            let signature = SECP256K1.sign_schnorr_no_aux_rand(unsigned.id.as_bytes(), keys);
            with_signature(unsigned, signature.to_byte_array())
        })
        .collect()
}

/// A note without a signature.
pub(crate) fn written_by(author: PublicKey, number: u64) -> Event {
    let (created_at, tags) = (Timestamp::from_secs(number), Tags::new());
    let id = EventId::compute(&author, &created_at, &Kind::TextNote, &tags, "note");
    let nothing = Signature::from_byte_array([0; 64]);
    Event::new(
        id,
        author,
        created_at,
        Kind::TextNote,
        tags,
        "note",
        nothing,
    )
}

/// The event with this signature in place of its own.
pub(crate) fn with_signature(mut event: Event, signature: [u8; 64]) -> UnverifiedEvent {
    event.sig = Signature::from_byte_array(signature);
    UnverifiedEvent::from_event(&event)
}
