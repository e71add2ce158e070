//! Tokens: what a captain hands to a newcomer, so that it may come in once, and soon.
//!
//! Takes an [`Invitation`]; gives a line of text, and back. A mistyped one is told from a foreign one by its checksum.
//! The secret is in the text alone: the issuer keeps its hash (`ledger.rs`). Deliberately absent: redeeming. Worst
//! case: a text of [`TOKEN_CHARS_MAX`], decoded in quadratic time (about 10 ms).

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::ConstellationId;
use crate::tunnel::{Multiaddr, PeerId};

/// What every token begins with. The digit is the version.
const PREFIX: &str = "constellation1";
/// Addresses in a token: it should fit into a message.
pub(super) const TOKEN_ADDRESSES_MAX: usize = 8;
/// Characters of a token: eight addresses of 255 bytes in base58.
const TOKEN_CHARS_MAX: usize = 4_096;
/// Bytes of the checksum: a mistyped token passes once in four thousand million times.
const CHECKSUM_BYTES: usize = 4;
/// The flag: a swarm key is needed besides.
const PRIVATE: u8 = 1;

/// Why a text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It begins otherwise.
    #[error("not a token: expected {PREFIX}… as `constellation invite` prints it")]
    NotAToken,
    /// The checksum does not fit.
    #[error("the token is mistyped or incomplete: copy the whole of it again")]
    Mistyped,
    /// Genuine, but of a form that we do not know.
    #[error("the token was made by another version of constellation: update this station")]
    OtherVersion,
    /// More addresses, or longer ones, than a token has room for.
    #[error("a token has room for {TOKEN_ADDRESSES_MAX} addresses of 255 bytes")]
    TooManyAddresses,
}

/// What proves that somebody was invited: 16 random bytes. Not shown in logs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret([u8; 16]);

impl Secret {
    /// As it came over the wire, or out of [`crate::random::Random`].
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// For the wire.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// What the issuer keeps.
    pub(super) fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// Who invites.
    pub peer: PeerId,
    /// Where it may be reached; at most eight addresses of 255 bytes.
    pub addresses: Vec<Multiaddr>,
    /// Into which constellation.
    pub constellation: ConstellationId,
    /// What it is recognised by.
    pub secret: Secret,
    /// Unix seconds after which it is worth nothing.
    pub expires: u64,
    /// Whether a swarm key is needed besides, which a token does not carry.
    pub private: bool,
}

impl Invitation {
    /// The token: one word, in base58.
    ///
    /// # Errors
    /// [`TokenError::TooManyAddresses`].
    pub fn to_token(&self) -> Result<String, TokenError> {
        if self.addresses.len() > TOKEN_ADDRESSES_MAX {
            return Err(TokenError::TooManyAddresses);
        }
        let mut bytes = vec![if self.private { PRIVATE } else { 0 }];
        bytes.extend(self.constellation.as_bytes());
        bytes.extend(self.secret.0);
        bytes.extend(self.expires.to_be_bytes());
        let addresses = self.addresses.iter().map(Multiaddr::to_vec);
        for field in std::iter::once(self.peer.to_bytes()).chain(addresses) {
            let length = u8::try_from(field.len()).map_err(|_| TokenError::TooManyAddresses)?;
            bytes.push(length);
            bytes.extend(field);
        }
        bytes.extend(checksum(&bytes));
        Ok(format!("{PREFIX}{}", bs58::encode(bytes).into_string()))
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash: [u8; 32] = Sha256::new()
        .chain_update(PREFIX)
        .chain_update(bytes)
        .finalize()
        .into();
    let mut checksum = [0; CHECKSUM_BYTES];
    checksum.copy_from_slice(&hash[..CHECKSUM_BYTES]);
    checksum
}

impl FromStr for Invitation {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        if text.len() > TOKEN_CHARS_MAX {
            return Err(TokenError::NotAToken);
        }
        // Messages break long words into lines.
        let word: String = text.split_whitespace().collect();
        let code = word.strip_prefix(PREFIX).ok_or(TokenError::NotAToken)?;
        let bytes = bs58::decode(code)
            .into_vec()
            .map_err(|_| TokenError::Mistyped)?;
        let (content, sum) = bytes
            .split_last_chunk::<CHECKSUM_BYTES>()
            .ok_or(TokenError::Mistyped)?;
        if checksum(content) != *sum {
            return Err(TokenError::Mistyped);
        }
        read(content).ok_or(TokenError::OtherVersion)
    }
}

/// The fields, in the order in which [`Invitation::to_token`] writes them; `None` if it has others.
fn read(content: &[u8]) -> Option<Invitation> {
    let (&[flags], rest) = content.split_first_chunk::<1>()?;
    let (constellation, rest) = rest.split_first_chunk::<32>()?;
    let (secret, rest) = rest.split_first_chunk::<16>()?;
    let (expires, rest) = rest.split_first_chunk::<8>()?;
    let (peer, mut rest) = split_field(rest)?;
    let mut addresses = Vec::new();
    while !rest.is_empty() {
        let (address, after) = split_field(rest)?;
        addresses.push(Multiaddr::try_from(address.to_vec()).ok()?);
        rest = after;
    }
    if flags & !PRIVATE != 0 || addresses.len() > TOKEN_ADDRESSES_MAX {
        return None;
    }
    Some(Invitation {
        peer: PeerId::from_bytes(peer).ok()?,
        addresses,
        constellation: ConstellationId::from_bytes(*constellation),
        secret: Secret(*secret),
        expires: u64::from_be_bytes(*expires),
        private: flags & PRIVATE != 0,
    })
}

fn split_field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tunnel::Identity;

    fn invitations() -> impl Strategy<Value = Invitation> {
        (
            any::<([u8; 32], [u8; 32], [u8; 16], u64, bool)>(),
            prop::collection::vec(any::<([u8; 4], u16)>(), 0..=TOKEN_ADDRESSES_MAX),
        )
            .prop_map(
                |((seed, constellation, secret, expires, private), addresses)| {
                    let address = |(ip, port): ([u8; 4], u16)| {
                        let ip = std::net::Ipv4Addr::from(ip);
                        format!("/ip4/{ip}/tcp/{port}").parse().expect("an address")
                    };
                    Invitation {
                        peer: Identity::from_seed(seed).public_key().peer_id(),
                        addresses: addresses.into_iter().map(address).collect(),
                        constellation: ConstellationId::from_bytes(constellation),
                        secret: Secret(secret),
                        expires,
                        private,
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn a_token_says_what_was_put_into_it(invitation in invitations(), every in 5..80usize) {
            let token = invitation.to_token().expect("it fits");
            prop_assert!(token[PREFIX.len()..].chars().all(|c| c.is_ascii_alphanumeric()));
            prop_assert_eq!(token.parse::<Invitation>(), Ok(invitation.clone()));
            // As a message breaks it.
            let lines: Vec<_> = token.as_bytes().chunks(every).map(String::from_utf8_lossy).collect();
            prop_assert_eq!(lines.join("\n  ").parse::<Invitation>(), Ok(invitation));
        }

        #[test]
        fn a_slip_of_the_hand_is_noticed(
            invitation in invitations(), place in any::<prop::sample::Index>(), letter in "[1-9A-HJ-NP-Za-km-z]",
        ) {
            let token = invitation.to_token().expect("it fits");
            let at = PREFIX.len() + place.index(token.len() - PREFIX.len());
            let mistyped = format!("{}{letter}{}", &token[..at], &token[at + 1..]);
            if mistyped != token {
                prop_assert_eq!(mistyped.parse::<Invitation>(), Err(TokenError::Mistyped));
            }
            let cut = &token[..at];
            prop_assert_eq!(cut.parse::<Invitation>(), Err(TokenError::Mistyped));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,64}", bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(text.parse::<Invitation>(), Err(TokenError::NotAToken));
            // Also not one that passes the checksum.
            let mut with_sum = bytes.clone();
            with_sum.extend(checksum(&bytes));
            let token = format!("{PREFIX}{}", bs58::encode(with_sum).into_string());
            if let Ok(read) = token.parse::<Invitation>() {
                prop_assert_eq!(read.to_token().expect("it fits"), token);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_a_newer_form_is_told_from_a_slip() {
        let mut invitation = Invitation {
            peer: Identity::from_seed([1; 32]).public_key().peer_id(),
            addresses: vec!["/ip4/192.0.2.1/tcp/4011".parse().expect("an address"); 8],
            constellation: ConstellationId::of_name("x"),
            secret: Secret([7; 16]),
            expires: 9,
            private: false,
        };
        let token = invitation.to_token().expect("it fits");
        assert!(token.len() < 300, "it fits into a message: {}", token.len());
        assert!(
            !format!("{invitation:?}").contains("7, 7"),
            "the secret is not for logs"
        );
        let huge = format!("{token}{}", " ".repeat(TOKEN_CHARS_MAX));
        assert_eq!(huge.parse::<Invitation>(), Err(TokenError::NotAToken));
        invitation.addresses.push(invitation.addresses[0].clone());
        assert_eq!(invitation.to_token(), Err(TokenError::TooManyAddresses));
        let mut newer = vec![0xff; 60];
        newer.extend(checksum(&newer));
        let newer = format!("{PREFIX}{}", bs58::encode(newer).into_string());
        assert_eq!(newer.parse::<Invitation>(), Err(TokenError::OtherVersion));
    }
}
