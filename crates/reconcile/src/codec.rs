//! The bytes of negentropy protocol v1: varints, bounds, and ranges, read and written.
//!
//! Invariant: the ranges a [`Reader`] yields are ascending, adjacent, and end at or below
//! infinity; what a [`Writer`] writes within these limits a `Reader` gives back. Ranges may be
//! empty (two equal bounds): the reference writes such after a list that fills its frame.
//!
//! Refuses what the reference lets pass without need: cut off or overlong numbers, bounds that go
//! backwards or beyond infinity. Leading zero groups in numbers are accepted, as there.
//! Reading borrows from the message and allocates nothing; cost is linear in the bytes read.

use crate::bound::{Bound, IdPrefix};
use crate::error::Malformed;
use crate::item::Id;
use crate::summary::Fingerprint;

/// The version byte of negentropy protocol v1.
pub const PROTOCOL_VERSION: u8 = 0x61;

const MODE_SKIP: u64 = 0;
const MODE_FINGERPRINT: u64 = 1;
const MODE_ID_LIST: u64 = 2;

/// What a peer says of one range.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Payload<'m> {
    Skip,
    Fingerprint(Fingerprint),
    IdList(&'m [Id]),
}

/// `[lower, upper)` and what is said of it; `lower <= upper <= Bound::INFINITY`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Range<'m> {
    pub(crate) lower: Bound,
    pub(crate) upper: Bound,
    pub(crate) payload: Payload<'m>,
}

/// Reads the ranges of one message in order.
#[derive(Debug)]
pub(crate) struct Reader<'m> {
    rest: &'m [u8],
    lower: Bound,
}

impl<'m> Reader<'m> {
    /// Takes the version byte off a message; its ranges are v1 only if that is
    /// [`PROTOCOL_VERSION`].
    pub(crate) fn open(message: &'m [u8]) -> Result<(u8, Self), Malformed> {
        let (&version, rest) = message.split_first().ok_or(Malformed::Truncated)?;
        if version & 0xf0 != 0x60 {
            return Err(Malformed::InvalidVersion { found: version });
        }
        Ok((
            version,
            Self {
                rest,
                lower: Bound::MIN,
            },
        ))
    }

    /// The next range, or `None` at the end of the message.
    pub(crate) fn next_range(&mut self) -> Result<Option<Range<'m>>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let lower = self.lower;
        let upper = self.bound()?;
        if upper < lower {
            return Err(Malformed::DescendingBounds);
        }
        if upper > Bound::INFINITY {
            return Err(Malformed::BeyondInfinity);
        }
        let payload = match self.varint()? {
            MODE_SKIP => Payload::Skip,
            MODE_FINGERPRINT => Payload::Fingerprint(self.fingerprint()?),
            MODE_ID_LIST => Payload::IdList(self.id_list()?),
            mode => return Err(Malformed::UnknownMode { mode }),
        };
        self.lower = upper;
        Ok(Some(Range {
            lower,
            upper,
            payload,
        }))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        loop {
            let (&byte, rest) = self.rest.split_first().ok_or(Malformed::Truncated)?;
            self.rest = rest;
            if value > u64::MAX >> 7 {
                return Err(Malformed::VarintOverflow);
            }
            value = value << 7 | u64::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
    }

    fn bytes(&mut self, length: usize) -> Result<&'m [u8], Malformed> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn bound(&mut self) -> Result<Bound, Malformed> {
        // 0 is infinity, n + 1 a distance of n from the bound before. Saturating ends at infinity.
        let timestamp = match self.varint()? {
            0 => u64::MAX,
            distance => self.lower.timestamp().saturating_add(distance - 1),
        };
        let length = self.varint()?;
        let too_long = Malformed::PrefixTooLong { length };
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= size_of::<Id>());
        let bytes = self.bytes(length.ok_or(too_long)?)?;
        Ok(Bound::new(timestamp, IdPrefix::new(bytes).ok_or(too_long)?))
    }

    fn fingerprint(&mut self) -> Result<Fingerprint, Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn id_list(&mut self) -> Result<&'m [Id], Malformed> {
        let claimed = self.varint()?;
        let (available, _) = self.rest.as_chunks();
        let ids = usize::try_from(claimed)
            .ok()
            .and_then(|count| available.get(..count));
        let ids = ids.ok_or(Malformed::IdListTooLong {
            claimed,
            available: available.len() as u64,
        })?;
        self.bytes(ids.as_flattened().len())?;
        Ok(ids)
    }
}

/// Writes one message; bounds must be given in ascending order, up to infinity.
#[derive(Debug)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    last_timestamp: u64,
}

/// A state of a [`Writer`] to go back to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    length: usize,
    last_timestamp: u64,
}

impl Writer {
    /// A message of no ranges.
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![PROTOCOL_VERSION],
            last_timestamp: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the message says nothing at all: how an initiator sees that it is done.
    pub(crate) fn has_no_ranges(&self) -> bool {
        self.bytes.len() == 1
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark {
            length: self.bytes.len(),
            last_timestamp: self.last_timestamp,
        }
    }

    /// Takes back everything written since the mark.
    pub(crate) fn rewind(&mut self, mark: Mark) {
        self.bytes.truncate(mark.length);
        self.last_timestamp = mark.last_timestamp;
    }

    pub(crate) fn skip(&mut self, upper: &Bound) {
        self.bound(upper);
        write_varint(&mut self.bytes, MODE_SKIP);
    }

    pub(crate) fn fingerprint(&mut self, upper: &Bound, fingerprint: &Fingerprint) {
        self.bound(upper);
        write_varint(&mut self.bytes, MODE_FINGERPRINT);
        self.bytes.extend_from_slice(fingerprint);
    }

    pub(crate) fn id_list(&mut self, upper: &Bound, ids: &[Id]) {
        self.bound(upper);
        write_varint(&mut self.bytes, MODE_ID_LIST);
        write_varint(&mut self.bytes, ids.len() as u64);
        self.bytes.extend_from_slice(ids.as_flattened());
    }

    fn bound(&mut self, bound: &Bound) {
        let timestamp = bound.timestamp();
        let distance = match timestamp {
            u64::MAX => 0,
            // Less than u64::MAX, so there is room for the one.
            _ => timestamp.saturating_sub(self.last_timestamp) + 1,
        };
        self.last_timestamp = timestamp;
        let prefix = bound.prefix().as_bytes();
        write_varint(&mut self.bytes, distance);
        write_varint(&mut self.bytes, prefix.len() as u64);
        self.bytes.extend_from_slice(prefix);
    }
}

/// Appends a number in groups of seven bits, the most significant first, all but the last with
/// the high bit set, without leading zero groups.
pub(crate) fn write_varint(out: &mut Vec<u8>, value: u64) {
    let last_group = value.checked_ilog2().unwrap_or(0) / 7;
    for group in (0..=last_group).rev() {
        let bits = (value >> (7 * group) & 0x7f) as u8;
        out.push(if group == 0 { bits } else { bits | 0x80 });
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{any, proptest};

    use super::{Payload, Reader, Writer, write_varint};
    use crate::bound::{Bound, IdPrefix};
    use crate::error::Malformed;

    fn error_of(message: &[u8]) -> Malformed {
        let mut reader = Reader::open(message).expect("the version is right").1;
        loop {
            match reader.next_range() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{message:02x?} is valid"),
                Err(reason) => return reason,
            }
        }
    }

    #[test]
    fn each_malformation_is_named() {
        assert_eq!(Reader::open(&[]).expect_err("empty"), Malformed::Truncated);
        let found = 0x70;
        assert_eq!(
            Reader::open(&[found]).expect_err("no version"),
            Malformed::InvalidVersion { found }
        );
        for cut in [
            &[0x61, 0x80][..],
            &[0x61, 1],
            &[0x61, 1, 2, 0],
            &[0x61, 1, 0],
        ] {
            assert_eq!(error_of(cut), Malformed::Truncated);
        }
        assert_eq!(error_of(&[0x61, 0, 0, 1, 9, 9]), Malformed::Truncated);
        let overlong = [
            0x61, 0x82, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00,
        ];
        assert_eq!(error_of(&overlong), Malformed::VarintOverflow);
        assert_eq!(
            error_of(&[0x61, 0, 0, 3]),
            Malformed::UnknownMode { mode: 3 }
        );
        assert_eq!(
            error_of(&[0x61, 1, 33]),
            Malformed::PrefixTooLong { length: 33 }
        );
        let backwards = [0x61, 9, 1, 5, 0, 1, 1, 4, 0];
        assert_eq!(error_of(&backwards), Malformed::DescendingBounds);
        assert_eq!(error_of(&[0x61, 0, 1, 1, 0]), Malformed::BeyondInfinity);
        let list = [0x61, 0, 0, 2, 1, 7];
        assert_eq!(
            error_of(&list),
            Malformed::IdListTooLong {
                claimed: 1,
                available: 0
            }
        );
    }

    #[test]
    fn empty_ranges_and_padded_numbers_are_read() {
        let mut reader = Reader::open(&[0x61, 0, 0, 0, 0x80, 0, 1, 0, 0])
            .expect("valid")
            .1;
        for _ in 0..2 {
            let range = reader.next_range().expect("valid").expect("two ranges");
            assert_eq!(
                (range.upper, range.payload),
                (Bound::INFINITY, Payload::Skip)
            );
        }
        assert_eq!(reader.next_range(), Ok(None));
    }

    #[test]
    fn a_distance_past_infinity_ends_there() {
        let mut message = vec![0x61, 9, 0, 0];
        write_varint(&mut message, u64::MAX);
        message.extend_from_slice(&[0, 0]);
        let mut reader = Reader::open(&message).expect("valid").1;
        for upper in [Bound::from_timestamp(8), Bound::INFINITY] {
            assert_eq!(
                reader
                    .next_range()
                    .expect("valid")
                    .expect("two ranges")
                    .upper,
                upper
            );
        }
    }

    #[test]
    fn rewinding_restores_the_timestamp_distance() {
        let mut writer = Writer::new();
        writer.skip(&Bound::from_timestamp(10));
        let mark = writer.mark();
        writer.skip(&Bound::from_timestamp(500));
        writer.rewind(mark);
        writer.skip(&Bound::from_timestamp(11));
        assert_eq!(writer.into_bytes(), [0x61, 11, 0, 0, 2, 0, 0]);
    }

    proptest! {
        #[test]
        fn varints_come_back(value: u64, shift in 0u32..64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            write_varint(&mut bytes, value);
            let mut reader = Reader { rest: &bytes, lower: Bound::MIN };
            assert_eq!(reader.varint(), Ok(value));
            assert!(reader.rest.is_empty());
        }

        #[test]
        fn ranges_come_back(
            mut bounds in vec((any::<u64>(), vec(any::<u8>(), 0..=32)), 0..8), ids: [[u8; 32]; 3],
        ) {
            bounds.sort();
            let mut bounds: Vec<Bound> = bounds
                .iter()
                .map(|(at, prefix)| Bound::new(*at, IdPrefix::new(prefix).expect("short")))
                .filter(|bound| *bound <= Bound::INFINITY)
                .collect();
            bounds.sort();
            let mut writer = Writer::new();
            for bound in &bounds {
                writer.skip(bound);
                writer.fingerprint(bound, &[7; 16]);
                writer.id_list(bound, &ids);
            }
            let message = writer.into_bytes();
            let mut reader = Reader::open(&message).expect("valid").1;
            for bound in bounds {
                for payload in
                    [Payload::Skip, Payload::Fingerprint([7; 16]), Payload::IdList(&ids)]
                {
                    let range = reader.next_range().expect("valid").expect("one more");
                    assert_eq!(range.upper.prefix().as_bytes(), bound.prefix().as_bytes());
                    assert_eq!((range.upper, range.payload), (bound, payload));
                }
            }
            assert_eq!(reader.next_range(), Ok(None));
        }
    }
}
