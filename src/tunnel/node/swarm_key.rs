//! The key of a private swarm, as kubo keeps it in `swarm.key`.
//!
//! Takes the file's text; gives the key, or the line that is wrong and what was expected there. Never shown: `Debug`
//! prints the fingerprint. Deliberately absent: `/base64/` and `/bin/`, which libp2p for Rust does not take either.

use std::fmt;

use libp2p::pnet::PreSharedKey;
use sha2::{Digest, Sha256};

const FIRST_LINE: &str = "/key/swarm/psk/1.0.0/";
const SECOND_LINE: &str = "/base16/";
const KEY_BYTES: usize = 32;

/// A text is no swarm key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SwarmKeyError {
    /// A line has something else.
    #[error("line {line}: expected {expected}")]
    Unexpected {
        /// Counted from one.
        line: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// Something follows the key.
    #[error("line {line}: expected the end of the file")]
    Trailing {
        /// Counted from one.
        line: usize,
    },
}

/// The key of a private swarm.
#[derive(Clone, PartialEq, Eq)]
pub struct SwarmKey([u8; KEY_BYTES]);

impl SwarmKey {
    /// Reads the text of a `swarm.key` file.
    ///
    /// # Errors
    /// [`SwarmKeyError`]: the first line that is wrong.
    pub fn from_text(text: &str) -> Result<Self, SwarmKeyError> {
        let unexpected = |line, expected| SwarmKeyError::Unexpected { line, expected };
        let mut lines = text.lines().map(str::trim_end);
        if lines.next() != Some(FIRST_LINE) {
            return Err(unexpected(1, FIRST_LINE));
        }
        if lines.next() != Some(SECOND_LINE) {
            return Err(unexpected(2, SECOND_LINE));
        }
        let digits = lines.next().unwrap_or_default();
        let key = bytes_of_hex(digits).ok_or(unexpected(3, "64 hexadecimal digits"))?;
        match lines.position(|line| !line.is_empty()) {
            Some(after) => Err(SwarmKeyError::Trailing { line: 4 + after }),
            None => Ok(Self(key)),
        }
    }

    /// Whether all its bits are zero: everybody knows that one, so it keeps nobody out.
    pub fn is_public(&self) -> bool {
        self.0 == [0; KEY_BYTES]
    }

    /// SHA-256 of the key: tells constellations apart without telling the key.
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }

    pub(super) fn pre_shared(&self) -> PreSharedKey {
        PreSharedKey::new(self.0)
    }
}

impl fmt::Debug for SwarmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SwarmKey(")?;
        for byte in &self.fingerprint()[..8] {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("…)")
    }
}

fn bytes_of_hex(digits: &str) -> Option<[u8; KEY_BYTES]> {
    if digits.len() != 2 * KEY_BYTES || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = [0; KEY_BYTES];
    for (index, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(third: &str) -> String {
        format!("{FIRST_LINE}\n{SECOND_LINE}\n{third}\n")
    }

    #[test]
    fn a_key_is_what_libp2p_makes_of_the_same_file() {
        for digits in ["0f".repeat(32), "Ab".repeat(32), "00".repeat(32)] {
            let key = SwarmKey::from_text(&text(&digits)).expect("a key");
            let theirs: PreSharedKey = text(&digits).parse().expect("a key");
            assert_eq!(key.pre_shared(), theirs);
            assert_eq!(key.is_public(), digits.starts_with("00"));
            let shown = format!("{key:?}");
            assert!(
                !shown.to_lowercase().contains(&digits.to_lowercase()[..8]),
                "{shown}"
            );
            let windows = text(&digits).replace('\n', "\r\n");
            assert_eq!(SwarmKey::from_text(&windows).expect("a key"), key);
        }
    }

    #[test]
    fn different_keys_have_different_fingerprints() {
        let of = |digits: &str| {
            SwarmKey::from_text(&text(&digits.repeat(32)))
                .expect("a key")
                .fingerprint()
        };
        assert_ne!(of("01"), of("02"));
        let zero: [u8; 32] = Sha256::digest([0; 32]).into();
        assert_eq!(of("00"), zero);
    }

    #[test]
    fn what_is_no_key_is_refused_with_the_line() {
        let line = |text: &str| match SwarmKey::from_text(text).expect_err("refused") {
            SwarmKeyError::Unexpected { line, .. } | SwarmKeyError::Trailing { line } => line,
        };
        assert_eq!(line(""), 1);
        assert_eq!(line("/key/swarm/psk/2.0.0/\n/base16/\n"), 1);
        assert_eq!(line(&format!("{FIRST_LINE}\n/base64/\nAAAA")), 2);
        assert_eq!(line(FIRST_LINE), 2);
        assert_eq!(line(&text("")), 3);
        assert_eq!(line(&text(&"0".repeat(63))), 3);
        assert_eq!(line(&text(&"é".repeat(32))), 3);
        assert_eq!(line(&text(&"0g".repeat(32))), 3);
        assert_eq!(line(&(text(&"00".repeat(32)) + "\nmore")), 5);
    }
}
