//! What to do about links at this moment: whom to dial, which to end, how many to accept. Pure.
//!
//! Takes what is known of each station and the links there are; gives a [`Decision`]. Whom we dial is the ring's to say,
//! among those that are not away. Invariants: links that stand never exceed what may be, dialled and accepted together;
//! of two links with one station the one that the smaller PeerID dialled stays; a link that is not wanted any more is ended
//! only when all that are wanted stand, or when its place is needed. Who knows less than others dials more of the wrong
//! ones: then somebody has no room, and ends what nobody would dial who knew what it knows, the newest first.

use std::collections::{BTreeMap, BTreeSet};

use super::ring::{Place, successors};
use crate::peer::PeerId;

/// How it stands with a station that may be linked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// It may be dialled now.
    Free,
    /// It could not be reached, or did not want to, and is not dialled yet again.
    Away,
    /// It is being dialled.
    Dialling,
    /// Our link with it stands.
    Linked,
    /// Our link with it is being ended.
    Ending,
}

/// What a decision is made of.
#[derive(Debug)]
pub(super) struct View<'v> {
    pub(super) own: PeerId,
    /// Links with stations, dialled and accepted together.
    pub(super) links_max: usize,
    pub(super) stations: &'v BTreeMap<PeerId, Reach>,
    /// Links that others opened, the oldest first.
    pub(super) accepted: &'v [Accepted],
}

/// A link that another station opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) number: u64,
    pub(super) station: Option<PeerId>,
}

/// What to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// How many links of others there may be.
    pub(super) accept_max: usize,
    pub(super) dial: Vec<PeerId>,
    /// Links that we dialled, or are dialling.
    pub(super) end_dialled: Vec<PeerId>,
    /// Numbers of links that others opened.
    pub(super) end_accepted: Vec<u64>,
}

/// Decides.
pub(super) fn decide(view: &View<'_>) -> Decision {
    let most = dialled_max(view.links_max);
    let accepted: BTreeSet<PeerId> = view.accepted.iter().filter_map(|one| one.station).collect();
    let reach = |peer: &PeerId| view.stations.get(peer).copied().unwrap_or(Reach::Free);
    let is_there = |peer: &PeerId| accepted.contains(peer) || reach(peer) != Reach::Away;
    let known: BTreeMap<Place, PeerId> = view
        .stations
        .keys()
        .chain(&accepted)
        .filter(|peer| **peer != view.own && is_there(peer))
        .map(|peer| (Place::of(peer), *peer))
        .collect();
    let own = Place::of(&view.own);
    let wanted: Vec<PeerId> = successors(own, known.keys().copied(), most)
        .iter()
        .map(|place| known[place])
        .collect();

    let mut decision = Decision::default();
    let dialled = |of: Reach| {
        let of_it = view.stations.iter().filter(move |(_, reach)| **reach == of);
        of_it.map(|(peer, _)| *peer)
    };
    // Two links with one station.
    let is_double = |peer: &PeerId| accepted.contains(peer) && view.own > *peer;
    decision.end_dialled = dialled(Reach::Linked)
        .chain(dialled(Reach::Dialling))
        .filter(is_double)
        .collect();
    let linked: Vec<PeerId> = dialled(Reach::Linked)
        .filter(|peer| !is_double(peer))
        .collect();
    let to_dial = wanted.iter().filter(|peer| !accepted.contains(*peer));
    decision.accept_max = view
        .links_max
        .saturating_sub(to_dial.clone().count().max(linked.len()));

    let mut superfluous: Vec<PeerId> = linked
        .iter()
        .filter(|peer| !wanted.contains(peer))
        .copied()
        .collect();
    let is_complete = to_dial.clone().all(|peer| reach(peer) == Reach::Linked);
    // The newest that nobody would dial who knew what we know goes first.
    let (mut expected, mut unexpected): (Vec<&Accepted>, Vec<&Accepted>) = view
        .accepted
        .iter()
        .partition(|one| is_expected(one, own, &known, most));
    // One that was dialled in the place of another stands now, or one was accepted while we dialled.
    let mut standing = linked.len() + view.accepted.len();
    while (is_complete && !superfluous.is_empty()) || standing > view.links_max {
        if let Some(peer) = superfluous.pop() {
            decision.end_dialled.push(peer);
        } else if let Some(link) = unexpected.pop().or_else(|| expected.pop()) {
            decision.end_accepted.push(link.number);
        } else {
            break;
        }
        standing -= 1;
    }
    let dialling = dialled(Reach::Dialling)
        .filter(|peer| !is_double(peer))
        .count();
    let mut used = standing + dialling;
    let mut replaceable = superfluous.len().saturating_sub(dialling);
    for peer in to_dial.filter(|peer| reach(peer) == Reach::Free) {
        if used < view.links_max {
            used += 1;
        } else if replaceable > 0 {
            // Its place is free when this one stands.
            replaceable -= 1;
        } else if let Some(link) = unexpected.pop() {
            decision.end_accepted.push(link.number);
        } else {
            continue;
        }
        decision.dial.push(*peer);
    }
    decision
}

/// Of the links that there may be, those that we dial: half, so that there is room for as many that dial us.
fn dialled_max(links_max: usize) -> usize {
    (links_max / 2).max(1)
}

/// Whether it would dial us if it knew what we know.
fn is_expected(link: &Accepted, own: Place, known: &BTreeMap<Place, PeerId>, most: usize) -> bool {
    let Some(station) = link.station else {
        return false;
    };
    let its = Place::of(&station);
    let others = known.keys().copied().filter(|place| *place != its);
    successors(its, others.chain([own]), most).contains(&own)
}

#[cfg(test)]
mod tests;
