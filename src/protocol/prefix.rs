//! The machine-readable prefix of a relay's reasons (OK, CLOSED, NEG-ERR).
//!
//! Takes `"rate-limited: slow down"`; gives [`ReasonPrefix::RateLimited`]. What is not known is `Other`, and no
//! reason at all is `Policy`, as relays with a write policy send it. Decides nothing about what to do then.

use serde::{Deserialize, Serialize};

/// Why a relay refused, as far as a program can tell. The serde names are keys of `refused_by_peer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonPrefix {
    /// It has the event already: success.
    Duplicate,
    /// It has a newer version of the same coordinate (strfry).
    Replaced,
    /// It knows that the event was deleted (strfry).
    Deleted,
    /// It wants proof of work.
    Pow,
    /// It does not want this author or event; in NEG-ERR: too many results.
    Blocked,
    /// Too fast: slow down and offer it again.
    RateLimited,
    /// It does not take the event for a valid one.
    Invalid,
    /// It failed.
    Error,
    /// It does not speak this message or filter.
    Unsupported,
    /// NIP-42 first.
    AuthRequired,
    /// Authenticated or not: this party may not.
    Restricted,
    /// A negentropy session that it has closed or forgotten.
    Closed,
    /// It ignores the event (NIP-01's `mute`).
    Mute,
    /// It said that it took the event, and does not show it: ours to say, never on the wire.
    Shadow,
    /// It is larger than the messages that it takes: ours to say, never on the wire.
    TooLarge,
    /// No reason given: a policy that does not explain itself.
    Policy,
    /// A reason that is no known prefix.
    Other,
}

impl ReasonPrefix {
    /// The prefixes that have a spelling on the wire.
    const ON_THE_WIRE: [Self; 13] = [
        Self::Duplicate,
        Self::Replaced,
        Self::Deleted,
        Self::Pow,
        Self::Blocked,
        Self::RateLimited,
        Self::Invalid,
        Self::Error,
        Self::Unsupported,
        Self::AuthRequired,
        Self::Restricted,
        Self::Closed,
        Self::Mute,
    ];

    /// The prefix of `reason`.
    pub fn parse(reason: &str) -> Self {
        let reason = reason.trim();
        if reason.is_empty() {
            return Self::Policy;
        }
        let word = reason
            .split_once(':')
            .map_or(reason, |(word, _)| word)
            .trim_end();
        Self::ON_THE_WIRE
            .into_iter()
            .find(|prefix| word.eq_ignore_ascii_case(prefix.as_str()))
            .unwrap_or(Self::Other)
    }

    /// The prefix as it is written on the wire, without the colon.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Replaced => "replaced",
            Self::Deleted => "deleted",
            Self::Pow => "pow",
            Self::Blocked => "blocked",
            Self::RateLimited => "rate-limited",
            Self::Invalid => "invalid",
            Self::Error => "error",
            Self::Unsupported => "unsupported",
            Self::AuthRequired => "auth-required",
            Self::Restricted => "restricted",
            Self::Closed => "closed",
            Self::Mute => "mute",
            Self::Shadow => "shadow",
            Self::TooLarge => "too-large",
            Self::Policy => "policy",
            Self::Other => "other",
        }
    }

    /// The number that stands for it in a peer's overlay, on disk. It never changes.
    pub const fn code(self) -> u8 {
        match self {
            Self::Duplicate => 1,
            Self::Replaced => 2,
            Self::Deleted => 3,
            Self::Pow => 4,
            Self::Blocked => 5,
            Self::RateLimited => 6,
            Self::Invalid => 7,
            Self::Error => 8,
            Self::Unsupported => 9,
            Self::AuthRequired => 10,
            Self::Restricted => 11,
            Self::Closed => 12,
            Self::Mute => 13,
            Self::Policy => 14,
            Self::Other => 15,
            Self::Shadow => 16,
            Self::TooLarge => 17,
        }
    }

    /// A reason with this prefix, for an answer: `"blocked: not here"`.
    pub fn with(self, text: &str) -> String {
        format!("{}: {text}", self.as_str())
    }
}

impl std::fmt::Display for ReasonPrefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read_as_relays_write_them() {
        for (reason, prefix) in [
            ("duplicate: have this event", ReasonPrefix::Duplicate),
            ("rate-limited: slow down", ReasonPrefix::RateLimited),
            ("auth-required:", ReasonPrefix::AuthRequired),
            ("blocked", ReasonPrefix::Blocked),
            (" Error : oops", ReasonPrefix::Error),
            ("closed: unknown subscription handle", ReasonPrefix::Closed),
            ("", ReasonPrefix::Policy),
            ("  ", ReasonPrefix::Policy),
            ("PROTOCOL-ERROR", ReasonPrefix::Other),
            ("no prefix here: none", ReasonPrefix::Other),
        ] {
            assert_eq!(ReasonPrefix::parse(reason), prefix, "{reason:?}");
        }
    }

    #[test]
    fn every_prefix_is_read_back_and_has_a_snake_case_name_in_json() {
        for prefix in ReasonPrefix::ON_THE_WIRE {
            assert_eq!(ReasonPrefix::parse(&prefix.with("x")), prefix);
        }
        let json = serde_json::to_string(&ReasonPrefix::RateLimited).expect("a unit variant");
        assert_eq!(json, "\"rate_limited\"");
    }
}
