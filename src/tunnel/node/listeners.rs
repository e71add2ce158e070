//! Where we listen ourselves: opened when the node starts, and again when one closes.
//!
//! Pure: takes what happened to the listeners and the time, gives the addresses to listen on. Pauses as in dialling.
//! What is closed is a problem that the captain sees. Deliberately absent: places at relays; errors of single calls,
//! after which a listener goes on. Worst case: one attempt every ten seconds for each address. Port 0 may become another
//! port than before, which others are told.

use std::time::Duration;

use libp2p::core::transport::ListenerId;
use tokio::time::Instant;

use super::dialler::jittered;
use crate::random::Random;
use crate::tunnel::Multiaddr;

const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(8);

#[derive(Debug)]
struct Place {
    address: Multiaddr,
    listener: Option<ListenerId>,
    /// Why it is closed, until it is open.
    problem: Option<String>,
    pause: Duration,
    next: Instant,
}

/// All places where we listen ourselves.
#[derive(Debug, Default)]
pub(super) struct Listeners(Vec<Place>);

impl Listeners {
    /// This one was made when the node started.
    pub(super) fn made(&mut self, address: Multiaddr, listener: ListenerId, now: Instant) {
        self.0.push(Place {
            address,
            listener: Some(listener),
            problem: None,
            pause: PAUSE_FIRST,
            next: now,
        });
    }

    /// It has an address.
    pub(super) fn is_open(&mut self, listener: ListenerId) {
        if let Some(place) = self.place_of(listener) {
            place.problem = None;
            place.pause = PAUSE_FIRST;
        }
    }

    /// It is made again after a pause. Whether it was one of ours.
    pub(super) fn closed(
        &mut self,
        listener: ListenerId,
        why: &str,
        now: Instant,
        random: &Random,
    ) -> bool {
        let Some(place) = self.place_of(listener) else {
            return false;
        };
        place.listener = None;
        place.failed(why, now, random);
        true
    }

    /// Listens again where it is due.
    pub(super) fn renew(
        &mut self,
        now: Instant,
        random: &Random,
        mut listen: impl FnMut(Multiaddr) -> Result<ListenerId, String>,
    ) {
        for place in &mut self.0 {
            if place.listener.is_none() && place.next <= now {
                match listen(place.address.clone()) {
                    Ok(listener) => place.listener = Some(listener),
                    Err(why) => place.failed(&why, now, random),
                }
            }
        }
    }

    /// What is closed, and why.
    pub(super) fn problem(&self) -> Option<String> {
        let problems: Vec<&str> = self
            .0
            .iter()
            .filter_map(|place| place.problem.as_deref())
            .collect();
        (!problems.is_empty()).then(|| problems.join("; "))
    }

    fn place_of(&mut self, listener: ListenerId) -> Option<&mut Place> {
        self.0
            .iter_mut()
            .find(|place| place.listener == Some(listener))
    }
}

impl Place {
    fn failed(&mut self, why: &str, now: Instant, random: &Random) {
        let problem = format!("does not listen on {} any more: {why}", self.address);
        if self.problem.is_none() {
            tracing::error!("{problem}");
        }
        self.problem = Some(problem);
        self.next = now + jittered(self.pause, random);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_closes_is_opened_again_with_growing_pauses() {
        let (start, random) = (Instant::now(), Random::seeded(5));
        let address: Multiaddr = "/ip4/192.0.2.1/tcp/4011".parse().expect("an address");
        let mut listeners = Listeners::default();
        let first = ListenerId::next();
        listeners.made(address.clone(), first, start);
        assert!(!listeners.closed(ListenerId::next(), "of a relay", start, &random));
        assert_eq!(listeners.problem(), None);

        assert!(listeners.closed(first, "no such device", start, &random));
        let problem = listeners.problem().expect("the captain is told");
        assert!(problem.contains("4011") && problem.contains("no such device"));
        let (mut now, mut asked) = (start, Vec::new());
        while now < start + Duration::from_secs(60) {
            listeners.renew(now, &random, |which| {
                assert_eq!(which, address);
                asked.push(now);
                Err("still not".to_owned())
            });
            now += Duration::from_millis(50);
        }
        assert!(asked[0] < start + Duration::from_secs(1), "soon");
        assert!((6..15).contains(&asked.len()), "{} attempts", asked.len());

        let again = ListenerId::next();
        listeners.renew(now + PAUSE_MAX * 2, &random, |_| Ok(again));
        assert!(listeners.problem().is_some(), "not yet open");
        listeners.is_open(again);
        assert_eq!(listeners.problem(), None);
        listeners.renew(now + PAUSE_MAX * 4, &random, |_| panic!("it is open"));
    }
}
