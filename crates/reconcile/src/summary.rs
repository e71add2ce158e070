//! What is known of a range without its items: how many there are and the sum of their ids.
//!
//! Invariant: summaries form a group (counts modulo 2^64, sums modulo 2^256), so the summary of a
//! union of disjoint sets is the merge of theirs, in any order, and removing undoes merging.
//!
//! Not a proof of equality against a peer that chooses ids: the additive sum is negentropy's own
//! trade, and sets made to collide can be found. Constant time throughout, one SHA-256 block.

use sha2::{Digest, Sha256};

use crate::codec::write_varint;
use crate::item::Id;

/// Bytes of a fingerprint in negentropy protocol v1.
pub const FINGERPRINT_SIZE: usize = 16;

/// What a peer sends instead of the items of a range.
pub type Fingerprint = [u8; FINGERPRINT_SIZE];

/// A sum of ids as 256-bit little-endian numbers, modulo 2^256; the least significant word first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct IdSum([u64; 4]);

impl IdSum {
    /// The sum of no ids.
    pub const ZERO: Self = Self([0; 4]);

    /// Reads 32 little-endian bytes; those of an id give the sum of that id alone.
    pub fn from_le_bytes(bytes: &[u8; 32]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        Self(std::array::from_fn(|at| u64::from_le_bytes(words[at])))
    }

    /// The 32 little-endian bytes, as they are hashed and as a store may keep them.
    pub fn to_le_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let (chunks, _) = bytes.as_chunks_mut::<8>();
        for (chunk, word) in chunks.iter_mut().zip(self.0) {
            *chunk = word.to_le_bytes();
        }
        bytes
    }

    /// The sum of both, modulo 2^256.
    #[must_use]
    pub fn wrapping_add(self, other: Self) -> Self {
        let mut carry = false;
        Self(std::array::from_fn(|at| {
            let (word, next) = self.0[at].carrying_add(other.0[at], carry);
            carry = next;
            word
        }))
    }

    /// This sum without the other, modulo 2^256.
    #[must_use]
    pub fn wrapping_sub(self, other: Self) -> Self {
        let mut borrow = false;
        Self(std::array::from_fn(|at| {
            let (word, next) = self.0[at].borrowing_sub(other.0[at], borrow);
            borrow = next;
            word
        }))
    }
}

/// Count and id sum of a set of items; the default is that of the empty set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Summary {
    /// Items in the set, modulo 2^64.
    pub count: u64,
    /// Sum of their ids.
    pub sum: IdSum,
}

impl Summary {
    /// Of the set without items.
    pub const EMPTY: Self = Self {
        count: 0,
        sum: IdSum::ZERO,
    };

    /// Takes in one more id.
    pub fn add(&mut self, id: &Id) {
        self.merge(&Self {
            count: 1,
            sum: IdSum::from_le_bytes(id),
        });
    }

    /// Takes in a set that shares no item with this one.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.wrapping_add(other.count);
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// Takes out a set that lies within this one. Meaningless, but harmless, if it does not.
    pub fn remove(&mut self, other: &Self) {
        self.count = self.count.wrapping_sub(other.count);
        self.sum = self.sum.wrapping_sub(other.sum);
    }

    /// The first 16 bytes of SHA-256 over the sum (32 bytes, little endian) and the count as a
    /// varint (negentropy protocol v1).
    pub fn fingerprint(&self) -> Fingerprint {
        let mut input = Vec::with_capacity(32 + 10);
        input.extend_from_slice(&self.sum.to_le_bytes());
        write_varint(&mut input, self.count);
        let digest: [u8; 32] = Sha256::digest(&input).into();
        std::array::from_fn(|at| digest[at])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::{IdSum, Summary};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    // The expected values are python3's, independent of this crate and of the oracle:
    //   def fp(ids, n=None):
    //       s = sum(int.from_bytes(i, 'little') for i in ids) % 2**256
    //       n = len(ids) if n is None else n
    //       v = bytes([n & 127]); n >>= 7
    //       while n: v = bytes([n & 127 | 128]) + v; n >>= 7
    //       return hashlib.sha256(s.to_bytes(32, 'little') + v).hexdigest()[:32]
    // with i(k) = hashlib.sha256(k.to_bytes(8, 'little')).digest().
    fn derived(numbers: std::ops::Range<u64>) -> Summary {
        use sha2::{Digest, Sha256};
        let mut summary = Summary::EMPTY;
        for number in numbers {
            summary.add(&Sha256::digest(number.to_le_bytes()).into());
        }
        summary
    }

    #[test]
    fn fingerprints_match_vectors_computed_elsewhere() {
        let mut wraps = Summary::EMPTY;
        wraps.add(&[0xff; 32]);
        wraps.add(&[0x01; 32]);
        let cases = [
            (Summary::EMPTY, "7f9c9e31ac8256ca2f258583df262dbc"),
            (derived(0..1), "c8bf03b392823142d36e795cbd8ffdc8"),
            (derived(0..127), "4435119ef7297f1c4c371349563a0580"),
            (derived(0..128), "e3dfbaaae34628acaf314b8b5d4a68b2"),
            (derived(0..20_000), "20f2908f4975a8efabef9cbae4696c68"),
            (wraps, "a45b81d5bd8f90ade27ed6ec281d7f3e"),
            (
                Summary {
                    count: u64::MAX,
                    sum: IdSum::from_le_bytes(&[0xab; 32]),
                },
                "8c0391c8ff5f63cbc263ee46b2454a3b",
            ),
        ];
        for (summary, expected) in cases {
            assert_eq!(hex(&summary.fingerprint()), expected);
        }
    }

    #[test]
    fn carries_and_borrows_cross_every_word() {
        let mut one = [0; 32];
        one[0] = 1;
        let one = IdSum::from_le_bytes(&one);
        let all = IdSum::from_le_bytes(&[0xff; 32]);
        assert_eq!(all.wrapping_add(one), IdSum::ZERO);
        assert_eq!(IdSum::ZERO.wrapping_sub(one), all);
    }

    proptest! {
        #[test]
        fn removing_undoes_merging(
            a: [u8; 32], b: [u8; 32], counts in any::<(u64, u64)>()
        ) {
            let first = Summary { count: counts.0, sum: IdSum::from_le_bytes(&a) };
            let second = Summary { count: counts.1, sum: IdSum::from_le_bytes(&b) };
            let mut forward = first;
            forward.merge(&second);
            let mut backward = second;
            backward.merge(&first);
            assert_eq!(forward, backward);
            forward.remove(&second);
            assert_eq!(forward, first);
            assert_eq!(first.sum.to_le_bytes(), a);
        }
    }
}
