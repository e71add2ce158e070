//! Constellations of registries in one process, whose cards go round in memory.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::*;
use crate::peer::PeerId;
use crate::protocol::hex;
use crate::random::Random;
use crate::tasks::TaskGroup;
use crate::time::Clock;
use crate::trust::{ConstellationId, Invitation, Membership, Origin};
use crate::tunnel::hub::{Hub, HubCarrier};
use crate::tunnel::{Carrier, GuestList, Identity, InboundStream};

mod batches;
mod captains;
mod key_holders;
mod strangers;
mod telling;

struct Member {
    registry: Arc<Registry>,
    carrier: Arc<HubCarrier>,
    guests: watch::Receiver<Arc<GuestList>>,
    tasks: TaskGroup,
    folder: tempfile::TempDir,
    seed: u8,
}

impl Member {
    fn start(hub: &Hub, seed: u8, id: ConstellationId) -> Self {
        Self::at(hub, seed, id, tempfile::tempdir().unwrap())
    }

    fn at(hub: &Hub, seed: u8, id: ConstellationId, folder: tempfile::TempDir) -> Self {
        Self::with(hub, seed, id, folder, |_, _| {})
    }

    fn with(
        hub: &Hub,
        seed: u8,
        id: ConstellationId,
        folder: tempfile::TempDir,
        adjust: impl FnOnce(&mut RegistryOptions, &mut RegistrySettings),
    ) -> Self {
        let identity = Identity::from_seed([seed; 32]);
        let own = identity.public_key().peer_id();
        let (publish, guests) = watch::channel(Arc::default());
        let (carrier, inbound) = hub.plug(own, guests.clone());
        let mut options = RegistryOptions {
            state: folder.path().to_owned(),
            identity,
            own,
            membership: Membership::new(id, Origin::Founded),
            private_swarm: false,
            swarm_key_is_secret: false,
            halted: false,
            serves_relay: false,
            guests: publish,
        };
        let mut settings = RegistrySettings {
            name: format!("member {seed}"),
            ..RegistrySettings::default()
        };
        adjust(&mut options, &mut settings);
        let random = Random::seeded(u64::from(seed));
        let registry = Registry::open(options, settings, Clock::system(), random.clone()).unwrap();
        let registry = Arc::new(registry);
        registry.set_addresses(vec![format!("/memory/{seed}").parse().unwrap()]);
        let tasks = TaskGroup::new(16);
        tasks.spawn(serve(Arc::clone(&registry), inbound)).unwrap();
        let gossiping = gossip(
            Arc::clone(&carrier) as Arc<dyn Carrier>,
            Arc::clone(&registry),
            random,
        );
        tasks.spawn(gossiping).unwrap();
        tasks
            .spawn(keep(Arc::clone(&registry), Arc::clone(&carrier)))
            .unwrap();
        Self {
            registry,
            carrier,
            guests,
            tasks,
            folder,
            seed,
        }
    }

    fn id(&self) -> PeerId {
        self.registry.own()
    }

    fn invite(&self) -> Invitation {
        let addresses = vec!["/memory/1".parse().unwrap()];
        self.registry
            .invite(60, addresses)
            .unwrap()
            .token
            .parse()
            .unwrap()
    }

    async fn join(&self, invitation: &Invitation) -> Result<(), String> {
        self.join_if(invitation, false).await
    }

    /// Leaves the constellation that it belongs to.
    async fn rejoin(&self, invitation: &Invitation) -> Result<(), String> {
        self.join_if(invitation, true).await
    }

    async fn join_if(&self, invitation: &Invitation, accept: bool) -> Result<(), String> {
        let card = self
            .registry
            .prepare_to_join(invitation, accept)
            .map_err(|error| error.to_string())?;
        let secret = hex::encode(invitation.secret.as_bytes());
        let cards = redeem(self.carrier.as_ref(), invitation.peer, secret, card)
            .await
            .map_err(|error| error.to_string())?;
        self.registry
            .has_joined(invitation, cards)
            .map(drop)
            .map_err(|error| error.to_string())
    }

    async fn admits(&self, expected: &BTreeSet<PeerId>) {
        let mut guests = self.guests.clone();
        let same = guests.wait_for(|guests| guests.admitted == *expected);
        if timeout(Duration::from_secs(30), same).await.is_err() {
            let admitted = self.guests.borrow().admitted.clone();
            panic!(
                "member {}: admits {admitted:?}, not {expected:?}",
                self.seed
            );
        }
    }
}

async fn serve(registry: Arc<Registry>, mut inbound: mpsc::Receiver<InboundStream>) {
    let mut visits = FuturesUnordered::new();
    loop {
        tokio::select! {
            stream = inbound.recv() => match stream {
                Some(stream) => visits.push(answer(Arc::clone(&registry), stream.peer, stream.stream)),
                None => return,
            },
            Some(()) = visits.next() => {}
        }
    }
}

/// A registry that nobody gossips for.
fn alone(
    state: &std::path::Path,
    seed: u8,
    adjust: impl FnOnce(&mut RegistryOptions, &mut RegistrySettings),
) -> Arc<Registry> {
    let identity = Identity::from_seed([seed; 32]);
    let mut options = RegistryOptions {
        state: state.to_owned(),
        own: identity.public_key().peer_id(),
        identity,
        membership: Membership::new(ConstellationId::of_name("test"), Origin::Name),
        private_swarm: false,
        swarm_key_is_secret: false,
        halted: false,
        serves_relay: false,
        guests: watch::Sender::default(),
    };
    let mut settings = RegistrySettings::default();
    adjust(&mut options, &mut settings);
    let random = Random::seeded(u64::from(seed));
    Arc::new(Registry::open(options, settings, Clock::system(), random).unwrap())
}

async fn keep(registry: Arc<Registry>, carrier: Arc<HubCarrier>) {
    let mut wanted = registry.wanted();
    loop {
        let peers = wanted.borrow_and_update().clone();
        carrier.keep((*peers).clone());
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

fn all_but(members: &[Member], out: &[&Member], own: &Member) -> BTreeSet<PeerId> {
    let out: BTreeSet<PeerId> = out.iter().map(|member| member.id()).collect();
    members
        .iter()
        .map(Member::id)
        .filter(|peer| *peer != own.id() && !out.contains(peer))
        .collect()
}

/// Each joins through the one before it.
async fn chain(hub: &Hub, count: u8) -> Vec<Member> {
    let id = ConstellationId::of_name("test");
    let members: Vec<Member> = (1..=count)
        .map(|seed| Member::start(hub, seed, id))
        .collect();
    for pair in members.windows(2) {
        pair[1].join(&pair[0].invite()).await.unwrap();
    }
    members
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_twenty_knows_itself_whole_and_still_does_after_a_restart() {
    let hub = Hub::default();
    let mut members = chain(&hub, 20).await;
    for member in &members {
        member.admits(&all_but(&members, &[], member)).await;
    }
    let last = members.pop().unwrap();
    hub.unplug(&last.id());
    last.tasks.end().await;
    last.registry.save_cards();
    let (seed, folder) = (last.seed, last.folder);
    members.push(Member::at(
        &hub,
        seed,
        ConstellationId::of_name("test"),
        folder,
    ));
    let again = members.last().unwrap();
    again.admits(&all_but(&members, &[], again)).await;
    assert_eq!(
        again.registry.peers().len(),
        19,
        "all are known from before"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_put_out_is_out_everywhere_with_whom_it_let_in_until_somebody_else_stands_for_those()
 {
    let hub = Hub::default();
    let members = chain(&hub, 6).await;
    for member in &members {
        member.admits(&all_but(&members, &[], member)).await;
    }
    // The third let the fourth in, the fourth the fifth, and so on: they go with it.
    let out: Vec<&Member> = members[3..].iter().collect();
    members[2]
        .registry
        .revoke(&members[3].id().to_string())
        .unwrap();
    for member in &members[..3] {
        member.admits(&all_but(&members, &out, member)).await;
        assert!(member.guests.borrow().banned.contains(&members[3].id()));
    }
    // The last is welcome again by a token of its own, and with it the fifth, for whom it stands; the fourth is not.
    members[5].join(&members[0].invite()).await.unwrap();
    for member in &members[..3] {
        member
            .admits(&all_but(&members, &[&members[3]], member))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_put_out_is_out_also_at_the_one_that_came_in_through_it_and_came_again() {
    let hub = Hub::default();
    let members = chain(&hub, 3).await;
    for member in &members {
        member.admits(&all_but(&members, &[], member)).await;
    }
    let [first, second, third] = &members[..] else {
        unreachable!("three");
    };
    first.registry.revoke(&second.id().to_string()).unwrap();
    first.admits(&BTreeSet::new()).await;
    third.join(&first.invite()).await.unwrap();
    first.admits(&[third.id()].into()).await;
    third.admits(&[first.id()].into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_leaves_for_another_constellation_takes_nobody_along() {
    let hub = Hub::default();
    let old = chain(&hub, 3).await;
    let host = Member::start(&hub, 9, ConstellationId::of_name("new"));
    let leaver = &old[1];
    leaver.admits(&all_but(&old, &[], leaver)).await;
    let invitation = host.invite();
    leaver.rejoin(&invitation).await.unwrap();
    leaver.admits(&[host.id()].into()).await;
    host.admits(&[leaver.id()].into()).await;
    let found = leaver.registry.found();
    let peers: Vec<_> = found
        .borrow()
        .iter()
        .filter_map(crate::peer::PeerAddress::peer_id)
        .collect();
    assert_eq!(
        peers,
        [host.id()],
        "nobody of the old one is exchanged with"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_good_once_in_its_own_constellation_and_for_whoever_comes_with_its_own_card() {
    let hub = Hub::default();
    let ours = ConstellationId::of_name("ours");
    let [host, guest, other] = [1, 2, 3].map(|seed| Member::start(&hub, seed, ours));
    let invitation = host.invite();
    // Another constellation's station cannot use it without leaving its own.
    let stranger = Member::start(&hub, 4, ConstellationId::of_name("theirs"));
    stranger.join(&stranger_token(&hub, 5).await).await.unwrap();
    let refused = stranger.join(&invitation).await.unwrap_err();
    assert!(refused.contains("another constellation"), "{refused}");
    // Somebody else's card does not pass for one's own.
    let secret = hex::encode(invitation.secret.as_bytes());
    let foreign = other.registry.prepare_to_join(&invitation, false).unwrap();
    let refused = redeem(guest.carrier.as_ref(), host.id(), secret, foreign)
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("not the newcomer's own"),
        "{refused}"
    );
    guest.join(&invitation).await.unwrap();
    host.admits(&[guest.id()].into()).await;
    // While another token is out whoever knocks is told.
    let _another = host.invite();
    let refused = other.join(&invitation).await.unwrap_err();
    assert!(refused.contains("used"), "{refused}");
    guest
        .join(&invitation)
        .await
        .expect("the same again: the answer may have been lost");
}

/// A token of a station of the other constellation.
async fn stranger_token(hub: &Hub, seed: u8) -> Invitation {
    let host = Member::start(hub, seed, ConstellationId::of_name("theirs"));
    let invitation = host.invite();
    // Its tasks go on: the group is ended by nobody.
    std::mem::forget(host);
    invitation
}
