//! What a signature claims, as numbers: s·G = R + e·P (BIP-340).
//!
//! Takes author, message and signature as bytes; gives a [`Claim`], or `None` for every form that BIP-340 refuses
//! before it computes anything: s not below n, r or the author's x not below p or not on the curve. Invariant: both
//! points have the even y that BIP-340 asks for, so that a claim is true exactly if the signature is valid.
//! Deliberately not here: whether it is true. Worst case: one square root.

use std::sync::LazyLock;

use halo2curves::ff::{FromUniformBytes, PrimeField};
use halo2curves::secp256k1::{Fq, Secp256k1Affine};
use sha2::{Digest, Sha256};

use super::points::{LiftedAuthors, lift};

/// The numbers of one signature.
#[derive(Debug)]
pub(crate) struct Claim {
    /// R: what the signer committed to.
    pub(super) commitment: Secp256k1Affine,
    /// The x of R, as it was sent.
    pub(super) commitment_x: [u8; 32],
    /// P: the author's key.
    pub(super) author: Secp256k1Affine,
    /// The x of P, as it was sent.
    pub(super) author_x: [u8; 32],
    /// s: the answer to the challenge.
    pub(super) answer: Fq,
    /// e: the hash of R, P and the message.
    pub(super) challenge: Fq,
    /// What was sent but is kept otherwise only as numbers: s and the message. For the coefficients.
    pub(super) answer_and_message: [u8; 64],
}

impl Claim {
    /// Reads a signature of an author who is among `authors`.
    pub(crate) fn read(
        author_x: &[u8; 32],
        authors: &LiftedAuthors,
        message: &[u8; 32],
        signature: &[u8; 64],
    ) -> Option<Self> {
        let (commitment_x, answer) = signature.split_first_chunk::<32>()?;
        let mut little_endian: [u8; 32] = answer.try_into().ok()?;
        little_endian.reverse();
        let answer_number: Option<Fq> = Fq::from_repr(little_endian.into()).into();
        let mut answer_and_message = [0; 64];
        answer_and_message[..32].copy_from_slice(answer);
        answer_and_message[32..].copy_from_slice(message);
        Some(Self {
            answer: answer_number?,
            commitment: lift(commitment_x)?,
            commitment_x: *commitment_x,
            author: authors.get(author_x)?,
            author_x: *author_x,
            challenge: challenge(commitment_x, author_x, message),
            answer_and_message,
        })
    }
}

/// e of BIP-340: the tagged hash of R, P and the message, modulo n.
fn challenge(commitment_x: &[u8; 32], author_x: &[u8; 32], message: &[u8; 32]) -> Fq {
    // The hash of the tag fills one block: it is hashed once, not with every signature.
    static TAGGED: LazyLock<Sha256> = LazyLock::new(|| {
        let tag = Sha256::digest(b"BIP0340/challenge");
        Sha256::new().chain_update(tag).chain_update(tag)
    });
    let hash = TAGGED
        .clone()
        .chain_update(commitment_x)
        .chain_update(author_x)
        .chain_update(message)
        .finalize();
    let mut wide = [0; 64];
    wide[..32].copy_from_slice(&hash);
    wide[..32].reverse();
    Fq::from_uniform_bytes(&wide)
}
