//! Hex as Nostr writes it: lower case out, lower case in.
//!
//! Takes bytes or text; gives the other. Strict on reading: an odd length, an upper-case digit or anything else
//! is `None`, for an id that is written in two ways is two ids to whoever compares text. Linear, one allocation.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Appends `bytes` in lower-case hex.
pub fn encode_into(bytes: &[u8], text: &mut String) {
    text.reserve(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 0x0f)]));
    }
}

/// `bytes` in lower-case hex.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    encode_into(bytes, &mut text);
    text
}

/// The bytes of lower-case hex of any even length.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(byte_of).collect()
}

/// Exactly `N` bytes of lower-case hex.
pub fn decode_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() || pairs.len() != N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        *byte = byte_of(pair)?;
    }
    Some(bytes)
}

/// What each byte is worth as a digit. Looking it up takes a third of the time of comparing: every event has 256 digits.
const WORTH: [u8; 256] = {
    let mut worth = [NO_DIGIT; 256];
    let mut value = 0u8;
    while value < 16 {
        worth[DIGITS[value as usize] as usize] = value;
        value += 1;
    }
    worth
};

/// Has bits that no digit has.
const NO_DIGIT: u8 = 0xff;

fn byte_of(pair: &[u8; 2]) -> Option<u8> {
    let (high, low) = (WORTH[usize::from(pair[0])], WORTH[usize::from(pair[1])]);
    ((high | low) & 0xf0 == 0).then_some(high << 4 | low)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_lower_case_hex_is_refused() {
        assert_eq!(decode("00ff10"), Some(vec![0, 255, 16]));
        assert_eq!(decode(""), Some(Vec::new()));
        for text in ["0", "0F", "g0", "0x00", " 00", "00 ", "é"] {
            assert_eq!(decode(text), None, "{text:?}");
        }
        assert_eq!(decode_array::<2>("00ff"), Some([0, 255]));
        assert_eq!(decode_array::<2>("00"), None);
        assert_eq!(decode_array::<2>("00ff00"), None);
    }

    proptest! {
        #[test]
        fn bytes_survive_the_round_trip(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }

        #[test]
        fn no_text_makes_it_panic(text: String) {
            if let Some(bytes) = decode(&text) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
