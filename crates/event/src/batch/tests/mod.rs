//! The equation against libsecp256k1: the vectors of BIP-340, and batches whose errors are made to cancel.
//!
//! Tests of what the verifier makes of it are in `tests/batches.rs`.

mod cancelling;
mod vectors;

use halo2curves::ff::PrimeField;
use halo2curves::secp256k1::Fq;
use proptest::prelude::*;
use secp256k1::{Keypair, SECP256K1, XOnlyPublicKey, schnorr};

use super::claim::Claim;
use super::coefficients::Coefficients;
use super::equation::holds;
use super::points::AuthorPoints;

/// What is signed, as bytes.
#[derive(Debug, Clone)]
struct Signed {
    author: [u8; 32],
    message: [u8; 32],
    signature: [u8; 64],
}

impl Signed {
    fn by(secret: u64, message: u64) -> Self {
        let keys = keys(secret);
        let message = filled(message);
        let signature = SECP256K1.sign_schnorr_no_aux_rand(&message, &keys);
        Self {
            author: keys.x_only_public_key().0.serialize(),
            message,
            signature: signature.to_byte_array(),
        }
    }

    fn claim(&self) -> Option<Claim> {
        let authors = AuthorPoints::default().of(std::iter::once(&self.author));
        Claim::read(&self.author, &authors, &self.message, &self.signature)
    }

    fn libsecp256k1_accepts(&self) -> bool {
        XOnlyPublicKey::from_slice(&self.author).is_ok_and(|author| {
            let signature = schnorr::Signature::from_byte_array(self.signature);
            let verdict = SECP256K1.verify_schnorr(&signature, &self.message, &author);
            verdict.is_ok()
        })
    }

    fn answer(&self) -> Fq {
        scalar(self.signature[32..].try_into().expect("32 of 64 bytes"))
    }

    fn add_to_answer(&mut self, difference: Fq) {
        self.set_answer(self.answer() + difference);
    }

    fn set_answer(&mut self, answer: Fq) {
        self.signature[32..].copy_from_slice(&big_endian(answer));
    }
}

fn keys(secret: u64) -> Keypair {
    Keypair::from_seckey_slice(SECP256K1, &filled(secret)).expect("below the group's order")
}

fn filled(number: u64) -> [u8; 32] {
    let mut bytes = [0x11; 32];
    bytes[24..].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn scalar(big_endian: [u8; 32]) -> Fq {
    let mut bytes = big_endian;
    bytes.reverse();
    Fq::from_repr(bytes.into()).expect("below the group's order")
}

fn big_endian(scalar: Fq) -> [u8; 32] {
    let mut bytes: [u8; 32] = scalar.to_repr().into();
    bytes.reverse();
    bytes
}

/// Whether the form of all is valid, and the equation holds with coefficients as they should be.
fn proven_together(batch: &[Signed]) -> bool {
    let claims: Option<Vec<Claim>> = batch.iter().map(Signed::claim).collect();
    claims.is_some_and(|claims| {
        let claims: Vec<&Claim> = claims.iter().collect();
        holds(&claims, &Coefficients::draw(&[42; 32], &claims))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_batch_is_proven_exactly_if_libsecp256k1_accepts_each_signature(
        signers in proptest::collection::vec((1u64..6, 0u64..4), 1..12),
        damage in proptest::option::of((any::<prop::sample::Index>(), 0usize..128, 0u8..8)),
    ) {
        let mut batch: Vec<_> = signers.iter().map(|(by, what)| Signed::by(*by, *what)).collect();
        if let Some((which, byte, bit)) = damage {
            let hit = which.index(batch.len());
            let hit = &mut batch[hit];
            match byte {
                0..32 => hit.author[byte] ^= 1 << bit,
                32..64 => hit.message[byte - 32] ^= 1 << bit,
                _ => hit.signature[byte - 64] ^= 1 << bit,
            }
        }
        let each = batch.iter().all(Signed::libsecp256k1_accepts);
        prop_assert_eq!(each, damage.is_none());
        prop_assert_eq!(proven_together(&batch), each);
    }

    #[test]
    fn arbitrary_bytes_are_taken_as_libsecp256k1_takes_them(
        author: [u8; 32],
        message: [u8; 32],
        mut signature: Vec<u8>,
    ) {
        signature.resize(64, 0xff);
        let signature = signature.try_into().expect("64 bytes");
        let signed = Signed { author, message, signature };
        prop_assert_eq!(proven_together(std::slice::from_ref(&signed)), signed.libsecp256k1_accepts());
    }
}

#[test]
fn points_that_coincide_across_their_roles_are_added_up() {
    // The author's key is G itself, and the nonce is the key: P = R = G.
    let one = {
        let mut bytes = [0; 32];
        bytes[31] = 1;
        bytes
    };
    let keys = Keypair::from_seckey_slice(SECP256K1, &one).expect("a key");
    let author = keys.x_only_public_key().0.serialize();
    let mut signed = Signed {
        author,
        message: filled(5),
        signature: [0; 64],
    };
    signed.signature[..32].copy_from_slice(&author);
    let challenge = signed.claim().expect("s = 0 has a valid form").challenge;
    signed.set_answer(Fq::from(1) + challenge); // s = k + e·d with k = d = 1
    assert!(signed.libsecp256k1_accepts());
    assert!(proven_together(&[signed.clone(), signed.clone()]));

    signed.set_answer(Fq::from(2) + challenge);
    assert!(!signed.libsecp256k1_accepts());
    assert!(!proven_together(&[signed.clone(), signed]));
}
