//! What an adversary makes of an event: the id is right, the signature is not.

use constellation_event::{UnverifiedEvent, hex};
use nostr::key::PublicKey;

use crate::common::{with_signature, written_by};

/// The event with a signature of valid form that is false: the last bit of s is another.
pub(crate) fn forged(event: &UnverifiedEvent) -> UnverifiedEvent {
    let mut signature = event.to_event().sig.to_bytes();
    signature[63] ^= 1;
    with_signature(event.to_event(), signature)
}

/// The event with every form of signature and author that BIP-340 refuses before it computes anything.
pub(crate) fn forms_refused(event: &UnverifiedEvent) -> Vec<(&'static str, UnverifiedEvent)> {
    let p = "fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f";
    let n = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    let [p, n]: [[u8; 32]; 2] = [p, n].map(|text| hex::decode_array(text).expect("hex"));
    let mut above_p = p; // p + 1 is congruent to 1, which is the x of a point
    above_p[31] += 1;
    let mut five = [0; 32]; // 5 is the x of no point
    five[31] = 5;

    let claimed = event.to_event();
    let signed = |place: usize, bytes: [u8; 32]| {
        let mut signature = claimed.sig.to_bytes();
        signature[place..place + 32].copy_from_slice(&bytes);
        with_signature(claimed.clone(), signature)
    };
    let authored = |x: [u8; 32]| {
        with_signature(
            written_by(PublicKey::from_byte_array(x), 0),
            claimed.sig.to_bytes(),
        )
    };
    vec![
        ("s = n", signed(32, n)),
        ("s = 2^256 - 1", signed(32, [0xff; 32])),
        ("r = p", signed(0, p)),
        ("r = p + 1", signed(0, above_p)),
        ("r = 0", signed(0, [0; 32])),
        ("r is not on the curve", signed(0, five)),
        ("author = p + 1", authored(above_p)),
        ("author = 0", authored([0; 32])),
        ("author is not on the curve", authored(five)),
        ("all zero", with_signature(claimed.clone(), [0; 64])),
    ]
}
