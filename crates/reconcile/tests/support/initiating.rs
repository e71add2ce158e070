//! The reference implementation in the initiator's role.

use constellation_reconcile::Id;

use crate::support::Oracle;

/// What the oracle makes of an answer; the ids are sorted.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) next: Option<Vec<u8>>,
    pub(crate) have: Vec<Id>,
    pub(crate) need: Vec<Id>,
}

/// Has the oracle's initiator take an answer.
pub(crate) fn oracle_step(
    oracle: &mut Oracle<'_>,
    message: &[u8],
) -> Result<Told, negentropy::Error> {
    let (mut have, mut need) = (Vec::new(), Vec::new());
    let next = oracle.reconcile_with_ids(message, &mut have, &mut need)?;
    let sorted = |ids: Vec<negentropy::Id>| {
        let mut ids: Vec<Id> = ids.into_iter().map(negentropy::Id::to_bytes).collect();
        ids.sort_unstable();
        ids
    };
    Ok(Told {
        next,
        have: sorted(have),
        need: sorted(need),
    })
}
