//! What can be asked of two relays: what is to be done, between whom, about which events. Pure.

use std::collections::BTreeSet;

use constellation_eventstore::KindSet;
use constellation_reconcile::Party;

use crate::peer::PeerAddress;
use crate::transfer::Author;

/// Which way events go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Towards {
    /// From A to B: B gets what A has.
    AToB,
    /// From B to A.
    BToA,
    /// Both ways.
    #[default]
    Both,
}

impl Towards {
    /// Whether what only this side has is to be moved.
    pub(super) fn takes_from(self, holder: Party) -> bool {
        matches!(
            (self, holder),
            (Self::Both, _) | (Self::AToB, Party::First) | (Self::BToA, Party::Second)
        )
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairTask {
    /// Compare, moving nothing.
    Compare,
    /// Make equal.
    Mirror(Towards),
    /// Compare what [`Self::Mirror`] would make equal.
    DryRun(Towards),
}

impl PairTask {
    pub(super) fn towards(self) -> Towards {
        match self {
            Self::Compare => Towards::Both,
            Self::Mirror(towards) | Self::DryRun(towards) => towards,
        }
    }
}

/// Between whom, and about what.
#[derive(Debug, Clone)]
pub struct PairRequest {
    /// What is to be done.
    pub task: PairTask,
    /// A and B.
    pub addresses: [PeerAddress; 2],
    /// Which kinds.
    pub kinds: KindSet,
    /// Whose events; `None`: anybody's.
    pub authors: Option<BTreeSet<Author>>,
    /// Unix seconds of the oldest event.
    pub since: Option<u64>,
    /// Unix seconds of the newest event.
    pub until: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direction_takes_from_where_it_begins() {
        let takes = |towards: Towards| Party::BOTH.map(|holder| towards.takes_from(holder));
        assert_eq!(takes(Towards::AToB), [true, false]);
        assert_eq!(takes(Towards::BToA), [false, true]);
        assert_eq!(takes(PairTask::Compare.towards()), [true, true]);
    }
}
