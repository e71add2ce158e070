use std::fs;

use super::super::swarm_card::Reach;
use super::*;
use crate::peer::PeerAddress;
use crate::time::TimeSource;

#[derive(Clone)]
struct Hands(Arc<std::sync::atomic::AtomicU64>);

impl TimeSource for Hands {
    fn wall(&self) -> Duration {
        Duration::from_secs(self.0.load(std::sync::atomic::Ordering::Relaxed))
    }
    fn monotonic(&self) -> Duration {
        self.wall()
    }
}

struct Zen {
    folder: tempfile::TempDir,
    hands: Hands,
    own: PeerId,
}

impl Zen {
    fn new() -> Self {
        let zen = Self {
            folder: tempfile::tempdir().unwrap(),
            hands: Hands(Arc::new(1_700_000_000.into())),
            own: PeerId::random(),
        };
        fs::create_dir(zen.swarm()).unwrap();
        zen
    }

    fn swarm(&self) -> PathBuf {
        self.folder.path().join("swarm")
    }

    fn write(&self, folder: &str, card: &str) {
        let folder = self.swarm().join(folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("12345.json"), card).unwrap();
    }

    fn card(&self, peer: PeerId, relay: &str) {
        self.card_of(peer, relay, "ours");
    }

    fn card_of(&self, peer: PeerId, relay: &str, uplanet: &str) {
        let peer = peer.to_string();
        let card = serde_json::json!({
            "version": "12345.0.2", "created": "1700000000", "hostname": "host", "ipfsnodeid": peer,
            "myRELAY": relay, "UPLANETG1PUB": uplanet, "myIP": "192.0.2.7", "capacities": {"x": 1},
        });
        self.write(&peer, &card.to_string());
    }

    fn reader(&self) -> SwarmFolder {
        let options = SwarmFolderOptions {
            folder: self.swarm(),
            kept: self.folder.path().join("kept.json"),
            uplanet: Some("ours".into()),
            own: self.own,
        };
        SwarmFolder::new(options, Clock::new(self.hands.clone()))
    }

    fn pass(&self, seconds: u64) {
        self.hands
            .0
            .fetch_add(seconds, std::sync::atomic::Ordering::Relaxed);
    }
}

fn reaches(folder: &mut SwarmFolder) -> BTreeMap<PeerId, Reach> {
    folder.look();
    let known = folder.known.iter();
    known
        .map(|(peer, known)| (*peer, known.station.reach.clone()))
        .collect()
}

#[test]
fn cards_say_how_a_relay_is_reached() {
    let zen = Zen::new();
    let [tunnelled, hidden, public] = [(); 3].map(|()| PeerId::random());
    zen.card(tunnelled, "ws://127.0.0.1:7777");
    fs::write(
        zen.swarm().join(tunnelled.to_string()).join("x_strfry.sh"),
        "",
    )
    .unwrap();
    zen.card(hidden, "ws://127.0.0.1:7777");
    zen.card(public, "wss://relay.example");
    zen.card(zen.own, "wss://own.example");
    fs::write(zen.swarm().join("list.txt"), "no folder").unwrap();
    let mut folder = zen.reader();
    let found = reaches(&mut folder);
    let relay: PeerAddress = "wss://relay.example".parse().unwrap();
    let expected = [
        (tunnelled, Reach::Tunnel),
        (hidden, Reach::Nowhere),
        (public, Reach::Direct(Box::new(relay))),
    ];
    assert_eq!(found, expected.into());
    let addresses = &folder.known[&tunnelled].station.addresses;
    assert!(addresses.contains(&"/ip4/192.0.2.7/tcp/4001".parse().unwrap()));
}

#[test]
fn broken_foreign_and_lying_cards_are_refused_and_warned_of_once() {
    let zen = Zen::new();
    let good = PeerId::random();
    zen.card(good, "wss://relay.example");
    let refused: Vec<(String, String, CardRefusal)> = vec![
        ("{\"ipfsnodeid\": \"12D".into(), String::new(), CardRefusal::NotJson),
        (String::new(), String::new(), CardRefusal::NotJson),
        ("x".repeat(70_000), String::new(), CardRefusal::TooLarge),
        ("{}".into(), String::new(), CardRefusal::Incomplete),
        (format!("{{\"ipfsnodeid\":\"{good}\",\"UPLANETG1PUB\":\"ours\"}}"), String::new(), CardRefusal::NotItsFolder),
        ("SELF theirs".into(), "theirs".into(), CardRefusal::AnotherUplanet),
        ("SELF 7".into(), "7".into(), CardRefusal::AnotherUplanet),
    ]
    .into_iter()
    .map(|(card, uplanet, why)| {
        let peer = PeerId::random().to_string();
        let card = if uplanet.is_empty() {
            card
        } else {
            serde_json::json!({"ipfsnodeid": peer, "UPLANETG1PUB": uplanet, "myRELAY": "wss://x.example"}).to_string()
        };
        zen.write(&peer, &card);
        (peer, uplanet, why)
    })
    .collect();
    let mut folder = zen.reader();
    assert_eq!(
        reaches(&mut folder).keys().copied().collect::<Vec<_>>(),
        [good]
    );
    for (peer, _, why) in &refused {
        assert_eq!(folder.warned.get(peer), Some(why), "{why:?}");
    }
    let warned = folder.warned.clone();
    folder.look();
    assert_eq!(folder.warned, warned);
}

#[test]
fn the_last_known_cards_outlive_the_folder_by_two_days_also_over_a_restart() {
    let zen = Zen::new();
    let peer = PeerId::random();
    zen.card(peer, "wss://relay.example");
    let mut folder = zen.reader();
    assert_eq!(reaches(&mut folder).len(), 1);
    fs::remove_dir_all(zen.swarm()).unwrap();
    zen.pass(47 * 3600);
    let mut again = zen.reader();
    assert_eq!(reaches(&mut again).len(), 1, "kept over a restart");
    zen.pass(2 * 3600);
    assert!(reaches(&mut again).is_empty());
    assert!(reaches(&mut zen.reader()).is_empty());
}

#[test]
fn a_card_that_contradicts_ends_what_was_known_at_once_and_one_that_is_broken_does_not() {
    let zen = Zen::new();
    let [turned, false_id, broken] = [(); 3].map(|()| PeerId::random());
    for peer in [turned, false_id, broken] {
        zen.card(peer, "wss://relay.example");
    }
    let mut folder = zen.reader();
    assert_eq!(reaches(&mut folder).len(), 3);
    zen.card_of(turned, "wss://relay.example", "theirs");
    let other = PeerId::random();
    zen.write(
        &false_id.to_string(),
        &format!("{{\"ipfsnodeid\":\"{other}\",\"UPLANETG1PUB\":\"ours\"}}"),
    );
    zen.write(&broken.to_string(), "{\"ipfsnodeid\": \"12D");
    let left = |folder: &mut SwarmFolder| reaches(folder).into_keys().collect::<Vec<_>>();
    assert_eq!(left(&mut folder), [broken]);
    assert_eq!(left(&mut zen.reader()), [broken], "also after a restart");
    zen.write(&broken.to_string(), "{}");
    assert_eq!(
        left(&mut folder),
        [broken],
        "it says nothing to the contrary"
    );
}

#[test]
fn what_is_remembered_of_one_uplanet_says_nothing_in_another() {
    let zen = Zen::new();
    let peer = PeerId::random();
    zen.card(peer, "wss://relay.example");
    assert_eq!(reaches(&mut zen.reader()).len(), 1);
    fs::remove_dir_all(zen.swarm()).unwrap();
    // Our own card is gone for a moment, as every evening: then the memory is ours still.
    let mut unknown = zen.reader();
    unknown.options.uplanet = None;
    assert_eq!(reaches(&mut unknown).len(), 1);
    let mut moved = zen.reader();
    moved.options.uplanet = Some("theirs".into());
    assert!(reaches(&mut moved).is_empty());
    let mut back = zen.reader();
    assert!(reaches(&mut back).is_empty(), "and it was forgotten");
    // A memory in a form that does not say is none.
    fs::write(&back.options.kept, "[]").unwrap();
    assert!(reaches(&mut zen.reader()).is_empty());
}

#[test]
fn that_a_card_is_still_there_is_no_news() {
    let zen = Zen::new();
    let peer = PeerId::random();
    zen.card(peer, "wss://relay.example");
    let mut folder = zen.reader();
    let (told, mut stations) = watch::channel(Arc::default());
    folder.look();
    folder.tell(&told);
    assert!(stations.has_changed().unwrap());
    stations.mark_unchanged();
    for _ in 0..3 {
        zen.pass(3_600);
        folder.look();
        folder.tell(&told);
    }
    assert!(!stations.has_changed().unwrap());
    zen.card(peer, "wss://elsewhere.example");
    folder.look();
    folder.tell(&told);
    assert!(stations.has_changed().unwrap());
}

#[test]
fn without_knowing_our_uplanet_nobody_is_taken_and_our_own_card_tells_it() {
    let zen = Zen::new();
    let peer = PeerId::random();
    zen.card(peer, "wss://relay.example");
    let mut folder = zen.reader();
    folder.options.uplanet = None;
    assert!(reaches(&mut folder).is_empty());
    let own = zen.folder.path().join(zen.own.to_string());
    fs::create_dir(&own).unwrap();
    fs::write(own.join("12345.json"), r#"{"UPLANETG1PUB":"ours"}"#).unwrap();
    assert_eq!(reaches(&mut folder).len(), 1);
}

#[tokio::test]
async fn a_card_that_appears_is_found_without_waiting_for_the_next_look() {
    let zen = Zen::new();
    let (told, mut stations) = watch::channel(Arc::default());
    let following = zen.reader().follow(told);
    let peer = PeerId::random();
    let finding = async {
        zen.card(peer, "wss://relay.example");
        stations
            .wait_for(|stations| stations.len() == 1)
            .await
            .unwrap();
    };
    let found = async {
        tokio::select! {
            () = following => unreachable!("it follows for ever"),
            () = finding => {}
        }
    };
    timeout(RESCAN_EVERY / 2, found)
        .await
        .expect("well before the next look");
}

#[test]
fn a_card_names_the_keys_of_its_station_and_captain() {
    let zen = Zen::new();
    let peer = PeerId::random();
    let captain = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e";
    let card = serde_json::json!({
        "ipfsnodeid": peer.to_string(), "UPLANETG1PUB": "ours", "captainHEX": captain, "NODEHEX": "none",
    });
    zen.write(&peer.to_string(), &card.to_string());
    let mut folder = zen.reader();
    folder.look();
    let keys = |folder: &SwarmFolder| -> Vec<String> {
        let keys = folder
            .stations()
            .into_iter()
            .flat_map(|station| station.keys);
        keys.map(|key| key.to_hex()).collect()
    };
    assert_eq!(keys(&folder), [captain]);
    // What was kept before cards had keys is still read.
    let kept = std::fs::read_to_string(zen.folder.path().join("kept.json")).unwrap();
    let mut kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    let station = kept["stations"][0]["station"].as_object_mut().unwrap();
    assert!(station.remove("keys").is_some());
    fs::write(zen.folder.path().join("kept.json"), kept.to_string()).unwrap();
    assert_eq!(keys(&zen.reader()), [""; 0]);
    assert_eq!(zen.reader().stations().len(), 1);
}

#[test]
fn a_station_that_has_not_published_for_half_a_day_is_not_found_and_one_that_was_known_stays_its_time()
 {
    let zen = Zen::new();
    let [known, unknown] = [(); 2].map(|()| PeerId::random());
    let published = |peer: PeerId, at: u64| {
        let beside = zen.swarm().join(peer.to_string()).join("_MySwarm.moats");
        fs::write(beside, format!("{at}\n")).unwrap();
    };
    zen.card(known, "wss://known.example");
    published(known, 1_700_000_000);
    let mut folder = zen.reader();
    assert_eq!(reaches(&mut folder).len(), 1);
    zen.pass(12 * 3600 + 1);
    zen.card(unknown, "wss://unknown.example");
    published(unknown, 1_700_000_000);
    let found: Vec<PeerId> = reaches(&mut folder).into_keys().collect();
    assert_eq!(found, [known]);
    // It publishes again.
    published(unknown, 1_700_000_000 + 60);
    assert_eq!(reaches(&mut folder).len(), 2);
    zen.pass(48 * 3600 + 1);
    assert!(reaches(&mut folder).is_empty());
    // What is no time says nothing.
    fs::write(
        zen.swarm().join(known.to_string()).join("_MySwarm.moats"),
        "soon",
    )
    .unwrap();
    assert_eq!(reaches(&mut folder).len(), 1);
}
