//! The four classes of kinds (NIP-01). The class decides how many events of an author are kept.

use nostr::event::Kind;

/// How events of a kind are kept (NIP-01).
///
/// Kind 41 is regular here, as in NIP-01: some libraries treat it as replaceable, but a relay that drops what
/// others keep never converges with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KindClass {
    /// Every event is kept.
    Regular,
    /// The newest of (author, kind) is kept.
    Replaceable,
    /// The newest of (author, kind, `d` tag) is kept.
    Addressable,
    /// Never stored; passed on to those who listen.
    Ephemeral,
}

impl KindClass {
    /// The class of `kind`.
    pub const fn of(kind: u16) -> Self {
        match kind {
            0 | 3 | 10_000..=19_999 => Self::Replaceable,
            20_000..=29_999 => Self::Ephemeral,
            30_000..=39_999 => Self::Addressable,
            _ => Self::Regular,
        }
    }

    /// The class of a `nostr` kind.
    pub fn of_kind(kind: Kind) -> Self {
        Self::of(kind.as_u16())
    }

    /// Whether only the newest event of a coordinate is kept.
    pub const fn has_coordinate(self) -> bool {
        matches!(self, Self::Replaceable | Self::Addressable)
    }
}

#[cfg(test)]
mod tests {
    use super::KindClass::{Addressable, Ephemeral, Regular, Replaceable};
    use super::*;

    #[test]
    fn classes_change_exactly_at_the_borders_of_nip_01() {
        for (kind, class) in [
            (0, Replaceable),
            (1, Regular),
            (2, Regular),
            (3, Replaceable),
            (4, Regular),
            (41, Regular),
            (9_999, Regular),
            (10_000, Replaceable),
            (19_999, Replaceable),
            (20_000, Ephemeral),
            (29_999, Ephemeral),
            (30_000, Addressable),
            (39_999, Addressable),
            (40_000, Regular),
            (65_535, Regular),
        ] {
            assert_eq!(KindClass::of(kind), class, "kind {kind}");
        }
    }
}
