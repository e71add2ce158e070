//! Sets to reconcile, and the reference implementation as an oracle.
//!
//! Sets are drawn from a seed rather than item by item: proptest then shrinks sizes and shapes,
//! which is what failures depend on, and large sets stay cheap.

use constellation_reconcile::{FrameLimit, Id, Item, VecSet};
use negentropy::{Negentropy, NegentropyStorageVector};
use proptest::prelude::{Just, Strategy, any, prop_oneof};

/// splitmix64: small, seedable, and good enough to scatter ids.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn bytes(&mut self) -> Id {
        let mut bytes = [0; 32];
        for chunk in bytes.as_chunks_mut::<8>().0 {
            *chunk = self.next().to_le_bytes();
        }
        bytes
    }
}

/// How timestamps are spread.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Times {
    Equal,
    Clustered,
    Wide,
    Sequential,
    NearInfinity,
}

/// How ids are spread.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ids {
    Random,
    /// 28 bytes in common.
    LongPrefix,
    /// Zeros at the end, so that prefixes of different lengths name the same bound.
    ZeroTail,
}

/// Two sets by what they share and what each has alone.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) seed: u64,
    pub(crate) times: Times,
    pub(crate) ids: Ids,
    pub(crate) shared: usize,
    pub(crate) first: usize,
    pub(crate) second: usize,
}

impl Pair {
    /// Sets whose three parts have up to `most` items each.
    pub(crate) fn up_to(most: usize) -> impl Strategy<Value = Self> {
        let times = prop_oneof![
            Just(Times::Equal),
            Just(Times::Clustered),
            Just(Times::Wide),
            Just(Times::Sequential),
            Just(Times::NearInfinity),
        ];
        let ids = prop_oneof![
            Just(Ids::Random),
            Just(Ids::LongPrefix),
            Just(Ids::ZeroTail)
        ];
        let size = move || prop_oneof![1 => Just(0), 1 => 0..=most.min(40), 3 => 0..=most];
        (any::<u64>(), times, ids, size(), size(), size()).prop_map(
            |(seed, times, ids, shared, first, second)| Self {
                seed,
                times,
                ids,
                shared,
                first,
                second,
            },
        )
    }

    /// The items shared, only in the first set, only in the second; no id occurs twice.
    pub(crate) fn parts(&self) -> [Vec<Item>; 3] {
        let mut random = Random(self.seed);
        let mut number = 0u32;
        let mut item = || {
            number += 1;
            let timestamp = match self.times {
                Times::Equal => 1_700_000_000,
                Times::Clustered => random.next() % 4,
                Times::Wide => random.next() >> 33,
                Times::Sequential => u64::from(number) * 7,
                Times::NearInfinity => u64::MAX - 1 - random.next() % 40,
            };
            // An odd multiplier permutes the numbers, so that parts mingle.
            let scattered = number.wrapping_mul(0x9e37_79b1).to_be_bytes();
            let mut id = [0; 32];
            match self.ids {
                Ids::Random => id = random.bytes(),
                Ids::LongPrefix => {
                    id = [0xab; 32];
                    id[28..].copy_from_slice(&scattered);
                }
                Ids::ZeroTail => id[..4].copy_from_slice(&scattered),
            }
            Item { timestamp, id }
        };
        [self.shared, self.first, self.second].map(|size| (0..size).map(|_| item()).collect())
    }

    pub(crate) fn sets(&self) -> (VecSet, VecSet) {
        let [shared, first, second] = self.parts();
        let with = |own: Vec<Item>| VecSet::from_unsorted([shared.clone(), own].concat());
        (with(first), with(second))
    }
}

/// A frame limit as the oracle takes it: 0 is none.
pub(crate) fn limits() -> impl Strategy<Value = usize> {
    prop_oneof![
        Just(0),
        Just(4096),
        Just(5000),
        4096usize..6000,
        Just(60_000)
    ]
}

pub(crate) fn ours_limit(bytes: usize) -> FrameLimit {
    if bytes == 0 {
        FrameLimit::NONE
    } else {
        FrameLimit::new(bytes).expect("4096 at least")
    }
}

pub(crate) type Oracle<'a> = Negentropy<'a, NegentropyStorageVector>;

/// The reference implementation over the same items.
pub(crate) fn oracle(items: &[Item], limit: usize) -> Oracle<'static> {
    let mut storage = NegentropyStorageVector::with_capacity(items.len());
    for item in items {
        let id = negentropy::Id::from_byte_array(item.id);
        storage.insert(item.timestamp, id).expect("not sealed");
    }
    storage.seal().expect("not sealed");
    Negentropy::owned(storage, limit as u64).expect("4096 at least")
}

/// The ids of items, sorted.
pub(crate) fn ids_of(items: &[Item]) -> Vec<Id> {
    let mut ids: Vec<Id> = items.iter().map(|item| item.id).collect();
    ids.sort_unstable();
    ids
}
