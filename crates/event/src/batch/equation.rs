//! The equation of a batch: Σ aᵢ·Rᵢ + Σ (aᵢ·eᵢ)·Pᵢ − (Σ aᵢ·sᵢ)·G = 0.
//!
//! Takes claims and their coefficients; says whether the equation holds. If every claim is true it does. If one is
//! false, Rᵢ + eᵢ·Pᵢ − sᵢ·G is a point other than 0; the group has prime order n > 2^128, so whatever the other
//! coefficients are, at most one value of aᵢ lets the sum vanish, and that is drawn once in 2^128. Terms of the same
//! point are added up before the multiplication, which only groups the sum anew.
//!
//! Invariant: the points that are multiplied are on the curve, differ in x, and none is the identity (on which
//! `msm_best` would panic above 8,103 points): they are lifted, or the generator. Deliberately not here: which claim
//! is false. Worst case: two points for each claim, one with a scalar of 128 bits and one of 256; as scalars cannot be
//! foreseen, nobody can steer the work into the slow paths of the multiplication. One thread.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use halo2curves::ff::Field;
use halo2curves::group::Group;
use halo2curves::group::prime::PrimeCurveAffine;
use halo2curves::msm::msm_best;
use halo2curves::secp256k1::{Fq, Secp256k1Affine};

use super::claim::Claim;
use super::coefficients::Coefficients;

/// The x of the generator G (SEC 2, 2.4.1).
const GENERATOR_X: [u8; 32] = [
    0x79, 0xbe, 0x66, 0x7e, 0xf9, 0xdc, 0xbb, 0xac, 0x55, 0xa0, 0x62, 0x95, 0xce, 0x87, 0x0b, 0x07,
    0x02, 0x9b, 0xfc, 0xdb, 0x2d, 0xce, 0x28, 0xd9, 0x59, 0xf2, 0x81, 0x5b, 0x16, 0xf8, 0x17, 0x98,
];

/// Whether the weighted sum of all claims is zero.
pub(crate) fn holds(claims: &[&Claim], coefficients: &Coefficients) -> bool {
    let mut sum = Sum::with_capacity(claims.len());
    let mut generator = Fq::ZERO;
    for (claim, coefficient) in claims.iter().zip(coefficients.iter()) {
        sum.add(claim.commitment_x, claim.commitment, *coefficient);
        sum.add(claim.author_x, claim.author, coefficient * claim.challenge);
        generator += coefficient * claim.answer;
    }
    sum.add(GENERATOR_X, Secp256k1Affine::generator(), -generator);
    sum.is_zero()
}

/// A sum of multiples of points, each point once.
struct Sum {
    places: HashMap<[u8; 32], usize>,
    points: Vec<Secp256k1Affine>,
    scalars: Vec<Fq>,
}

impl Sum {
    fn with_capacity(claims: usize) -> Self {
        // Authors come back, R does not: half as much again is room for most batches.
        let points = claims + claims / 2 + 1;
        Self {
            places: HashMap::with_capacity(points),
            points: Vec::with_capacity(points),
            scalars: Vec::with_capacity(points),
        }
    }

    /// Adds `scalar`·`point`. All points here have even y, so that `x` says which one it is.
    fn add(&mut self, x: [u8; 32], point: Secp256k1Affine, scalar: Fq) {
        debug_assert!(
            !bool::from(point.is_identity()),
            "lifted points are on the curve"
        );
        match self.places.entry(x) {
            Entry::Occupied(place) => self.scalars[*place.get()] += scalar,
            Entry::Vacant(place) => {
                place.insert(self.points.len());
                self.points.push(point);
                self.scalars.push(scalar);
            }
        }
    }

    fn is_zero(&self) -> bool {
        msm_best(&self.scalars, &self.points).is_identity().into()
    }
}
