//! From x coordinates to points: [`lift`], and a bounded store of the points of known authors, [`AuthorPoints`].
//!
//! Takes 32 bytes; gives the point of that x with even y, which BIP-340 calls lift_x, or `None` exactly where
//! libsecp256k1 refuses to. Invariant: every point here was lifted from the x under which it is found, so it is on the
//! curve and not the identity. Deliberately not kept: points of signatures,
//! which do not come again, and coordinates that were refused, which anyone can make up without end. Worst case: a
//! square root (about 5 µs) for each author not seen before; [`AUTHORS_MAX`] entries of memory (about 7 MB).

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, PoisonError};

use halo2curves::CurveAffine;
use halo2curves::ff::PrimeField;
use halo2curves::secp256k1::{Fp, Secp256k1Affine};
use secp256k1::PublicKey;

/// Points kept at most: more authors than the friends of friends of most stations.
pub(crate) const AUTHORS_MAX: usize = 65_536;

/// First byte of a compressed point whose y is even (SEC 1, 2.3.3).
const EVEN_Y: u8 = 2;

/// The point with this x and even y: lift_x of BIP-340. `None` if x is not below p, or no point has it.
///
/// libsecp256k1 takes the square root, three times as fast as `halo2curves`; parsing the compressed form takes just
/// one, while the conversion of an x-only key to a point would take a second.
pub(crate) fn lift(x: &[u8; 32]) -> Option<Secp256k1Affine> {
    let mut compressed = [EVEN_Y; 33];
    compressed[1..].copy_from_slice(x);
    let point = PublicKey::from_byte_array_compressed(&compressed).ok()?;
    let uncompressed = point.serialize_uncompressed();
    let (_, coordinates) = uncompressed.split_first()?;
    let (x, y) = coordinates.split_first_chunk()?;
    let y = y.try_into().ok()?;
    // Asks again whether the point is on the curve, for 60 ns: arithmetic on others would be without meaning.
    Secp256k1Affine::from_xy(coordinate(x)?, coordinate(y)?).into()
}

fn coordinate(big_endian: &[u8; 32]) -> Option<Fp> {
    let mut bytes = *big_endian;
    bytes.reverse();
    Fp::from_repr(bytes.into()).into()
}

/// Points of authors, shared by threads.
///
/// Two generations: when the younger is full, the older is dropped and the younger takes its place. So who is seen
/// again and again stays, and a crowd of strangers costs no more than the room it is given.
#[derive(Debug, Default)]
pub(crate) struct AuthorPoints {
    generations: Mutex<Generations>,
}

/// Points of the authors of a batch, each under its x.
#[derive(Debug, PartialEq)]
pub(crate) struct LiftedAuthors(HashMap<[u8; 32], Secp256k1Affine>);

impl LiftedAuthors {
    /// The author's point, if it was asked for and there is one.
    pub(super) fn get(&self, author: &[u8; 32]) -> Option<Secp256k1Affine> {
        self.0.get(author).copied()
    }
}

#[derive(Debug, Default)]
struct Generations {
    younger: HashMap<[u8; 32], Secp256k1Affine>,
    older: HashMap<[u8; 32], Secp256k1Affine>,
}

impl AuthorPoints {
    /// The points of all these authors; those that have none are absent. Locks once, and once more if there are new
    /// ones; square roots are taken outside the lock.
    pub(crate) fn of<'a>(&self, authors: impl Iterator<Item = &'a [u8; 32]>) -> LiftedAuthors {
        let mut wanted: Vec<[u8; 32]> = authors.copied().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut points = HashMap::with_capacity(wanted.len());
        self.with(|known| {
            wanted.retain(|author| match known.get(author) {
                Some(point) => {
                    points.insert(*author, point);
                    false
                }
                None => true,
            });
        });
        let lifted: Vec<_> = wanted
            .into_iter()
            .filter_map(|author| Some((author, lift(&author)?)))
            .collect();
        if !lifted.is_empty() {
            self.with(|known| {
                for (author, point) in &lifted {
                    known.insert(*author, *point);
                }
            });
            points.extend(lifted);
        }
        LiftedAuthors(points)
    }

    fn with(&self, work: impl FnOnce(&mut Generations)) {
        // Each step leaves the maps whole: what a thread that panicked left behind can be used.
        work(
            &mut self
                .generations
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}

impl Generations {
    fn get(&mut self, author: &[u8; 32]) -> Option<Secp256k1Affine> {
        if let Some(point) = self.younger.get(author) {
            return Some(*point);
        }
        let point = *self.older.get(author)?;
        self.insert(*author, point);
        Some(point)
    }

    fn insert(&mut self, author: [u8; 32], point: Secp256k1Affine) {
        if self.younger.len() >= AUTHORS_MAX / 2 {
            self.older = mem::take(&mut self.younger);
        }
        self.younger.insert(author, point);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secp256k1::XOnlyPublicKey;

    use super::*;

    proptest! {
        #[test]
        fn a_point_is_lifted_exactly_where_libsecp256k1_does_with_even_y(x: [u8; 32]) {
            let point = lift(&x);
            prop_assert_eq!(point.is_some(), XOnlyPublicKey::from_slice(&x).is_ok());
            if let Some(point) = point {
                prop_assert_eq!(Some(point.x), coordinate(&x));
                prop_assert!(bool::from(point.y.is_even()));
            }
        }
    }

    #[test]
    fn what_is_no_coordinate_has_no_point() {
        let p = "fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f";
        let p = crate::hex::decode_array(p).expect("hex");
        let mut above = p;
        above[31] += 1; // p + 1 is congruent to 1, and 1 is the x of a point
        let mut one = [0; 32];
        one[31] = 1;
        assert!(lift(&one).is_some());
        for x in [[0; 32], p, above, [0xff; 32]] {
            assert_eq!(lift(&x), None);
        }
    }

    #[test]
    fn authors_seen_again_stay_and_the_rest_makes_room() {
        let authors = AuthorPoints::default();
        let mut one = [0; 32];
        one[31] = 1;
        let point = lift(&one).expect("1 is the x of a point");
        let mut known = Generations::default();
        known.insert(one, point);
        for stranger in 0..AUTHORS_MAX {
            let mut x = [0xee; 32];
            x[..8].copy_from_slice(&stranger.to_le_bytes());
            known.insert(x, point);
            assert!(known.younger.len() + known.older.len() <= AUTHORS_MAX);
            assert!(known.get(&one).is_some(), "asked for all the time");
        }
        let mut first = [0xee; 32];
        first[..8].copy_from_slice(&0usize.to_le_bytes());
        assert!(known.get(&first).is_none(), "not asked for since");

        let unliftable = [0; 32];
        let points = authors.of([one, unliftable, one].iter());
        assert_eq!(points.get(&one), Some(point));
        assert_eq!(points.get(&unliftable), None);
        assert_eq!(authors.of([one].iter()), points);
    }
}
