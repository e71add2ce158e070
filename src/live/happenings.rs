//! What the keeper makes of what happens: a peer said who it is, a link stands, a link has ended.

use std::sync::Arc;

use tokio::time::Instant;

use super::asking::Said;
use super::board::Standing;
use super::candidates::{Candidate, Who};
use super::keeper::{Keeper, stop};
use super::link::{LinkEnd, LinkNews};
use crate::peer::{PeerAddress, PeerId};

impl Keeper {
    pub(super) fn take_said(&mut self, address: &PeerAddress, said: Said) {
        let out = Arc::clone(&self.context.neighbours.borrow());
        let own = *self.context.known_as.borrow();
        let Some(candidate) = self.candidates.get_mut(address) else {
            return;
        };
        candidate.who = match said {
            Said::Station(peer) if peer == own || out.out.contains(&peer) => Who::NoPeer,
            Said::Station(peer) => Who::Station(peer),
            Said::Relay(limits) => Who::Relay(limits),
            Said::Nothing(why) => {
                let why = LinkEnd::NotReached(why);
                candidate.went_away(&why, Instant::now(), &self.context.random);
                return;
            }
        };
    }

    fn candidate_of(&mut self, number: u64) -> Option<&mut Candidate> {
        let is_it = |one: &&mut Candidate| {
            let link = one.link.as_ref();
            link.is_some_and(|link| link.number == number)
        };
        self.candidates.values_mut().find(is_it)
    }

    pub(super) fn take_news(&mut self, number: u64, news: LinkNews) {
        let since = self.context.clock.unix_seconds();
        let Some(candidate) = self.candidate_of(number) else {
            return;
        };
        let address = candidate.address.clone();
        if news == LinkNews::Stands {
            candidate.is_back(Instant::now());
            let station = match candidate.who {
                Who::Station(peer) => Some(peer.to_string()),
                Who::Unknown | Who::Asked | Who::NoPeer | Who::Relay(_) => None,
            };
            let Some(link) = &mut candidate.link else {
                return;
            };
            link.stands = true;
            let standing = Standing {
                peer: address.as_str().to_owned(),
                station,
                since,
                stats: Arc::clone(&link.stats),
            };
            tracing::info!(peer = %address, "live link stands");
            // First those end in whose place it stands: never are more shown than there may be.
            self.look();
            self.context.board.enter(number, standing);
        }
        self.exchanges.want(&address);
    }

    pub(super) fn take_end(&mut self, number: u64, end: &LinkEnd) {
        self.context.board.leave(number);
        let random = self.context.random.clone();
        let Some(candidate) = self.candidate_of(number) else {
            return;
        };
        let had_stood = candidate.link.take().is_some_and(|link| link.stands);
        let address = candidate.address.clone();
        if *end != LinkEnd::Asked {
            candidate.went_away(end, Instant::now(), &random);
        }
        match end {
            LinkEnd::Asked => tracing::debug!(peer = %address, "live link not wanted any more"),
            LinkEnd::Forgeries(why) | LinkEnd::Local(why) => {
                tracing::warn!(peer = %address, "live link ended: {why}");
            }
            LinkEnd::Lost(why) | LinkEnd::Refused(why) | LinkEnd::NotReached(why) if had_stood => {
                tracing::info!(peer = %address, "live link ended: {why}");
            }
            LinkEnd::Lost(why) | LinkEnd::Refused(why) | LinkEnd::NotReached(why) => {
                tracing::debug!(peer = %address, "no live link: {why}");
            }
        }
        self.exchanges.forget(&address);
    }

    /// Takes over who is out: with a station that is, by whatever address, no link is kept; who was is asked again.
    pub(super) fn take_who_is_out(&mut self, own: PeerId) {
        let neighbours = Arc::clone(&self.context.neighbours.borrow());
        let is_news = !Arc::ptr_eq(&neighbours, &self.judged_by.0) || own != self.judged_by.1;
        for candidate in self.candidates.values_mut() {
            match candidate.who {
                Who::NoPeer if is_news => {
                    candidate.who = candidate
                        .address
                        .peer_id()
                        .map_or(Who::Unknown, Who::Station);
                }
                Who::Station(peer) if peer == own || neighbours.out.contains(&peer) => {
                    stop(candidate);
                    candidate.who = Who::NoPeer;
                }
                Who::Unknown | Who::Asked | Who::NoPeer | Who::Station(_) | Who::Relay(_) => {}
            }
        }
        self.judged_by = (neighbours, own);
    }
}
