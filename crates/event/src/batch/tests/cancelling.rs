//! Batches of false signatures whose errors cancel: with equal coefficients, or with those that somebody foresaw.
//!
//! Each test shows first that the errors do cancel, so that it is the coefficients that make the difference.

use halo2curves::CurveAffine;
use halo2curves::ff::{Field, PrimeField};
use halo2curves::group::Curve;
use halo2curves::secp256k1::Secp256k1Affine;
use proptest::prelude::*;

use super::*;

fn claims(batch: &[Signed]) -> Vec<Claim> {
    batch
        .iter()
        .map(|signed| signed.claim().expect("of valid form"))
        .collect()
}

/// Asserts that `batch` would pass with equal coefficients, does not with drawn ones, and that none of `false_ones`
/// is valid.
fn cancels_but_is_refused(batch: &[Signed], false_ones: &[usize]) {
    for (place, signed) in batch.iter().enumerate() {
        assert_eq!(signed.libsecp256k1_accepts(), !false_ones.contains(&place));
    }
    let claims = claims(batch);
    let claims: Vec<&Claim> = claims.iter().collect();
    assert!(
        holds(&claims, &Coefficients::equal(claims.len())),
        "the errors cancel"
    );
    for entropy in [[0; 32], [1; 32], [0xff; 32]] {
        assert!(!holds(&claims, &Coefficients::draw(&entropy, &claims)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn what_one_answer_gains_another_loses(
        difference in 1u64..,
        (one, other) in (0usize..10, 0usize..10).prop_filter("two", |(a, b)| a != b),
        authors in 1u64..4,
    ) {
        let mut batch: Vec<_> = (0..10).map(|n| Signed::by(1 + n % authors, n)).collect();
        let difference = Fq::from(difference);
        batch[one].add_to_answer(difference);
        batch[other].add_to_answer(-difference);
        cancels_but_is_refused(&batch, &[one, other]);
    }

    #[test]
    fn errors_of_three_that_add_up_to_nothing(first in 1u64.., second in 1u64..) {
        let mut batch: Vec<_> = (0..5).map(|n| Signed::by(1, n)).collect();
        let (first, second) = (Fq::from(first), Fq::from(second));
        for (place, error) in [first, second, -(first + second)].into_iter().enumerate() {
            batch[place].add_to_answer(error);
        }
        cancels_but_is_refused(&batch, &[0, 1, 2]);
    }
}

/// Signs with a nonce that is known, so that −R can be committed to in place of R.
fn signed_with_nonce(message: u64, nonce: u64, negated: bool) -> (Signed, Fq) {
    let keys = keys(9);
    let (author, parity) = keys.x_only_public_key();
    let mut secret = scalar(keys.secret_bytes());
    if parity == secp256k1::Parity::Odd {
        secret = -secret;
    }
    let mut nonce = Fq::from(nonce);
    let point = (Secp256k1Affine::generator() * nonce).to_affine();
    let coordinates = point.coordinates().expect("not the identity");
    if bool::from(coordinates.y().is_odd()) {
        nonce = -nonce;
    }
    let mut x: [u8; 32] = coordinates.x().to_repr().into();
    x.reverse();
    let mut signed = Signed {
        author: author.serialize(),
        message: filled(message),
        signature: [0; 64],
    };
    signed.signature[..32].copy_from_slice(&x);
    let challenge = signed.claim().expect("of valid form").challenge;
    let committed = if negated { -nonce } else { nonce };
    signed.set_answer(committed + challenge * secret);
    (signed, nonce)
}

#[test]
fn a_commitment_of_odd_y_is_not_made_good_by_another_signature() {
    let (honest, _) = signed_with_nonce(1, 77, false);
    let (odd, nonce) = signed_with_nonce(2, 77, true);
    let mut second = Signed::by(3, 3);
    assert!(honest.libsecp256k1_accepts());
    // s·G − e·P is −R where R is asked for: the error is −2R. The second one makes up for it.
    second.add_to_answer(nonce.double());
    cancels_but_is_refused(&[honest, odd, second], &[1, 2]);
}

#[test]
fn opposite_errors_on_the_same_commitment_are_refused() {
    // Two signatures with the same R and author: their terms are merged, their errors are opposite.
    let (mut one, _) = signed_with_nonce(1, 77, false);
    let (mut other, _) = signed_with_nonce(2, 77, false);
    assert_eq!(one.signature[..32], other.signature[..32]);
    assert!(proven_together(&[one.clone(), other.clone(), one.clone()]));
    one.add_to_answer(Fq::ONE);
    other.add_to_answer(-Fq::ONE);
    cancels_but_is_refused(&[one, other], &[0, 1]);
}

#[test]
fn what_cancels_is_refused_too_where_large_batches_take_another_path() {
    // One point for each signature, and more than 8,103 of them.
    let mut batch: Vec<_> = (0..8_110).map(|n| Signed::by(1, n)).collect();
    batch[17].add_to_answer(Fq::ONE);
    batch[8_100].add_to_answer(-Fq::ONE);
    cancels_but_is_refused(&batch, &[17, 8_100]);
}

#[test]
fn a_false_signature_repeated_is_refused_as_often_as_it_comes() {
    let mut signed = Signed::by(1, 1);
    signed.add_to_answer(Fq::ONE);
    for copies in [1, 2, 3, 100] {
        assert!(!proven_together(&vec![signed.clone(); copies]));
    }
}

#[test]
fn coefficients_foreseen_from_the_batch_are_no_longer_those_of_the_batch_that_uses_them() {
    let entropy = [3; 32]; // known to the adversary, which is more than we grant
    let mut batch: Vec<_> = (0..4).map(|n| Signed::by(n + 1, n)).collect();
    let before = claims(&batch);
    let before: Vec<&Claim> = before.iter().collect();
    let foreseen = Coefficients::draw(&entropy, &before);
    let weights: Vec<Fq> = foreseen.iter().copied().collect();

    let ratio = weights[0] * weights[1].invert().expect("not zero");
    batch[0].add_to_answer(Fq::ONE);
    batch[1].add_to_answer(-ratio);
    let after = claims(&batch);
    let after: Vec<&Claim> = after.iter().collect();
    assert!(holds(&after, &foreseen), "the errors cancel");
    assert!(!holds(&after, &Coefficients::draw(&entropy, &after)));
}

#[test]
fn coefficients_depend_on_every_part_of_the_batch_and_are_128_bits_that_differ() {
    let batch: Vec<_> = (0..3).map(|n| Signed::by(n + 1, n)).collect();
    let draw = |entropy: [u8; 32], batch: &[Signed]| -> Vec<[u8; 32]> {
        let claims = claims(batch);
        let claims: Vec<&Claim> = claims.iter().collect();
        Coefficients::draw(&entropy, &claims)
            .iter()
            .map(|one| big_endian(*one))
            .collect()
    };
    let drawn = draw([0; 32], &batch);
    assert_eq!(drawn, draw([0; 32], &batch), "nothing else decides");

    let mut changed = vec![draw([1; 32], &batch), draw([0; 32], &batch[..2])];
    for part in 0..4 {
        let mut batch = batch.clone();
        let other = Signed::by(8, 8);
        match part {
            0 => batch[2].author = other.author,
            1 => batch[2].message = other.message,
            2 => batch[2].signature[..32].copy_from_slice(&other.signature[..32]),
            _ => batch[2].signature[32..].copy_from_slice(&other.signature[32..]),
        }
        changed.push(draw([0; 32], &batch));
    }
    let mut reordered = batch;
    reordered.swap(0, 1);
    changed.push(draw([0; 32], &reordered));

    let mut all: Vec<_> = changed.into_iter().flatten().chain(drawn).collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count, "no coefficient comes twice");
    for coefficient in all {
        assert_eq!(coefficient[..16], [0; 16], "128 bits");
        assert_ne!(coefficient[16..24], [0; 8]);
    }
}
