//! What the captain says, and what becomes of it on the disk.

use super::*;
use crate::peer::PeerAddress;
use crate::trust::Ledger;

fn station(peer: PeerId) -> PeerAddress {
    PeerAddress::of_station(peer)
}

#[test]
fn a_revoked_peer_of_the_configuration_is_out_of_runs_until_it_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let [peer, other] = [(); 2].map(|()| PeerId::random());
    let registry = alone(folder.path(), 1, |_, settings| {
        settings.peers = vec![station(peer), station(other)];
    });
    assert!(registry.out().borrow().is_empty());
    registry.revoke(&peer.to_string()).unwrap();
    assert_eq!(**registry.out().borrow(), [peer].into());
    registry.allow(&peer.to_string()).unwrap();
    assert!(registry.out().borrow().is_empty());
}

#[test]
fn whoever_adds_a_revoked_station_is_told_that_it_is_out_still() {
    let folder = tempfile::tempdir().unwrap();
    let registry = alone(folder.path(), 1, |_, _| {});
    let peer = PeerId::random();
    registry.revoke(&peer.to_string()).unwrap();
    let said = registry.add(station(peer)).unwrap();
    assert_eq!(said.as_deref(), Some("revoked here"));
    assert!(!registry.is_admitted(&peer));
    registry.allow(&peer.to_string()).unwrap();
    assert_eq!(registry.add(station(peer)).unwrap(), None);
    assert!(registry.is_admitted(&peer));
}

#[test]
fn a_halted_station_links_with_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let peer = PeerId::random();
    let open = |halted| {
        alone(folder.path(), 1, |options, settings| {
            options.halted = halted;
            settings.peers = vec![
                format!("/ip4/192.0.2.1/tcp/4011/p2p/{peer}")
                    .parse()
                    .unwrap(),
            ];
        })
    };
    let registry = open(false);
    registry.add(station(peer)).unwrap();
    assert!(registry.wanted().borrow().contains(&peer));
    assert!(registry.places().borrow().contains_key(&peer));
    drop(registry);
    let registry = open(true);
    registry.set_tunnelled([peer].into());
    assert!(registry.found().borrow().is_empty());
    assert!(registry.wanted().borrow().is_empty());
    assert!(registry.places().borrow().is_empty());
    assert!(registry.relays().borrow().is_empty());
    assert!(!registry.is_admitted(&peer));
}

#[test]
fn a_name_and_addresses_that_no_card_has_room_for_do_not_cost_us_our_card() {
    let folder = tempfile::tempdir().unwrap();
    let registry = alone(folder.path(), 1, |_, settings| {
        settings.name = "é".repeat(200)
    });
    let long = format!("/dns4/{}/tcp/4011", "x".repeat(300));
    let short = "/ip4/192.0.2.1/tcp/4011";
    let addresses = [long.as_str(), short].map(|address| address.parse().unwrap());
    registry.set_addresses(addresses.to_vec());
    let card = registry.own_card().expect("signed");
    assert!(card.card_json().contains(short) && !card.card_json().contains("xxx"));
    assert!(
        card.card_json()
            .contains(&format!("\"{}\"", "é".repeat(128)))
    );
    registry.renew();
    assert_eq!(
        registry.own_card().as_ref(),
        Some(&card),
        "nothing has changed"
    );
    let other = alone(tempfile::tempdir().unwrap().path(), 2, |_, _| {});
    assert_eq!(
        other.receive(vec![card], registry.own()),
        1,
        "others take it"
    );
}

/// The draft of the ledger is a pipe: whoever writes it waits for a reader, as on a disk that hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_the_disk_but_whoever_writes() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let folder = tempfile::tempdir().unwrap();
    let registry = alone(folder.path(), 1, |_, _| {});
    let draft = folder.path().join("trust.new");
    mknodat(CWD, &draft, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let peer = PeerId::random();
    let writing = {
        let registry = Arc::clone(&registry);
        tokio::task::spawn_blocking(move || registry.allow(&peer.to_string()))
    };
    // The writer holds the pen when it waits.
    let begun = Arc::clone(&registry);
    let holds_the_pen = tokio::task::spawn_blocking(move || {
        while begun.pen.try_lock().is_ok() {
            std::thread::yield_now();
        }
    });
    timeout(Duration::from_secs(30), holds_the_pen)
        .await
        .unwrap()
        .unwrap();
    let asking = Arc::clone(&registry);
    let asked = tokio::task::spawn_blocking(move || {
        asking.renew();
        asking.since(crate::trust::Cursor::default());
        asking.reachable();
        asking.peers()
    });
    let answered = timeout(Duration::from_secs(30), asked).await;
    // Lets the writer go on, whatever came: a pipe cannot be synchronised, so its word is not kept.
    let reading = tokio::task::spawn_blocking(move || std::fs::read(draft));
    let said = writing.await.unwrap();
    reading.await.unwrap().unwrap();
    assert!(answered.is_ok(), "somebody waited for the disk");
    assert!(matches!(said, Err(CaptainError::State(_))), "{said:?}");
    assert!(
        !registry.is_admitted(&peer),
        "what is not on disk does not count"
    );
}

#[test]
fn what_many_say_at_once_is_all_kept() {
    let folder = tempfile::tempdir().unwrap();
    let registry = alone(folder.path(), 1, |_, _| {});
    let peers: Vec<PeerId> = (0..40).map(|_| PeerId::random()).collect();
    std::thread::scope(|scope| {
        for some in peers.chunks(10) {
            let registry = &registry;
            scope.spawn(move || {
                for peer in some {
                    registry.allow(&peer.to_string()).unwrap();
                    registry.add(station(*peer)).unwrap();
                }
            });
        }
    });
    let kept = Ledger::load(&folder.path().join("trust.json")).unwrap();
    assert_eq!(kept.allowed().len(), peers.len());
    let again = alone(folder.path(), 1, |_, _| {});
    assert_eq!(again.found().borrow().len(), peers.len());
}
