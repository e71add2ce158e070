//! Why an event was not taken. The names are also JSON keys, log fields, metric labels; the codes are on disk.

use serde::{Deserialize, Serialize};

/// Why an event that was offered is not in the store afterwards.
///
/// A duplicate is not a rejection: it is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Rejection {
    /// The id is not the hash of the content.
    BadId = 1,
    /// The signature does not belong to id and author.
    BadSignature = 2,
    /// Not an event: JSON or field of the wrong form.
    Malformed = 3,
    /// A newer version of the same coordinate is stored (NIP-01).
    Superseded = 4,
    /// Its author (or a gift wrap's addressee) asked for its deletion (NIP-09, NIP-62).
    Deleted = 5,
    /// Its expiration has passed (NIP-40).
    Expired = 6,
    /// `created_at` is too far ahead of our clock.
    Future = 7,
    /// Not among the kinds or authors that we share with this peer.
    OutOfScope = 8,
    /// Delivered though it does not match what was asked for.
    OutsideFilter = 9,
    /// Over the limit of bytes or tags.
    TooLarge = 10,
    /// Protected (NIP-70), and not offered by its author.
    Protected = 11,
    /// The captain of this station blocked it, or its author.
    Blocked = 12,
    /// Its author may not write through this connection.
    MayNotWrite = 13,
    /// The write policy plugin said no.
    WritePolicy = 14,
}

impl Rejection {
    /// Every reason, in the order of the codes.
    pub const ALL: [Self; 14] = [
        Self::BadId,
        Self::BadSignature,
        Self::Malformed,
        Self::Superseded,
        Self::Deleted,
        Self::Expired,
        Self::Future,
        Self::OutOfScope,
        Self::OutsideFilter,
        Self::TooLarge,
        Self::Protected,
        Self::Blocked,
        Self::MayNotWrite,
        Self::WritePolicy,
    ];

    /// The name used in JSON, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadId => "bad_id",
            Self::BadSignature => "bad_signature",
            Self::Malformed => "malformed",
            Self::Superseded => "superseded",
            Self::Deleted => "deleted",
            Self::Expired => "expired",
            Self::Future => "future",
            Self::OutOfScope => "out_of_scope",
            Self::OutsideFilter => "outside_filter",
            Self::TooLarge => "too_large",
            Self::Protected => "protected",
            Self::Blocked => "blocked",
            Self::MayNotWrite => "may_not_write",
            Self::WritePolicy => "write_policy",
        }
    }

    /// The code that stands on disk. It never changes.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The reason with this code on disk.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// Whether the verdict follows from the event's own, verified content (for `Blocked`: and from the captain's list),
    /// so that it holds whoever sends it (D8).
    pub const fn is_global(self) -> bool {
        matches!(
            self,
            Self::Superseded
                | Self::Deleted
                | Self::Expired
                | Self::Future
                | Self::OutOfScope
                | Self::Blocked
        )
    }

    /// Whether whoever sent it is at fault: the event cannot have come from an honest, verifying relay.
    pub const fn is_forgery(self) -> bool {
        matches!(
            self,
            Self::BadId | Self::BadSignature | Self::Malformed | Self::OutsideFilter
        )
    }
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_distinct_and_survive_the_round_trip() {
        for reason in Rejection::ALL {
            assert_eq!(Rejection::from_code(reason.code()), Some(reason));
            let json = serde_json::to_string(&reason).expect("a unit variant serialises");
            assert_eq!(json, format!("\"{reason}\""));
        }
        assert_eq!(Rejection::from_code(0), None);
    }
}
