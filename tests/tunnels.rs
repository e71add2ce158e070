//! Stations that meet by tunnels, with the real binary: joining, knowing each other, being put out, coming back.

mod common;

use std::time::Duration;

use common::tunnelled::{address, own_node, peer_id};
use common::{Home, Station, author, notes, wait_past, wait_within};

/// What the issue of a newcomer, a restart or a revocation may take to be known everywhere.
const SOON: Duration = Duration::from_secs(10);

fn home(name: &str) -> Home {
    Home::with_config(&format!("[station]\nname = \"{name}\"\n{}", own_node("")))
}

fn invite(home: &Home, arguments: &[&str]) -> String {
    let all: Vec<&str> = ["invite", "--json"]
        .iter()
        .chain(arguments)
        .copied()
        .collect();
    let invitation = home.run(&all).with_code(0).json();
    invitation["token"].as_str().expect("a token").to_owned()
}

/// Stations that may enter, by name where that is known.
fn admitted(home: &Home) -> Vec<String> {
    let peers = home.run(&["peers", "--json"]).with_code(0).json();
    let peers = peers.as_array().expect("a list").clone();
    peers
        .iter()
        .filter(|peer| peer["standing"] == "admitted")
        .map(|peer| peer["name"].as_str().unwrap_or("?").to_owned())
        .collect()
}

fn links(home: &Home) -> Vec<String> {
    let tunnels = home.run(&["tunnel", "ls", "--json"]).with_code(0).json();
    let links = tunnels["carrier"]["links"]
        .as_object()
        .expect("links")
        .clone();
    links.into_iter().map(|(peer, _)| peer).collect()
}

#[track_caller]
fn soon(what: &str, is_so: impl FnMut() -> bool) {
    wait_within(SOON, what, is_so);
}

#[test]
fn ten_stations_that_know_only_their_predecessor_know_all_ten_and_a_killed_one_comes_back() {
    let homes: Vec<Home> = (0..10)
        .map(|number| home(&format!("station-{number}")))
        .collect();
    let mut stations: Vec<Option<Station<'_>>> =
        homes.iter().map(|home| Some(home.start())).collect();
    for pair in homes.windows(2) {
        let token = invite(&pair[0], &[]);
        pair[1].run(&["join", &token]).with_code(0);
    }
    soon("all ten know and admit all ten", || {
        homes.iter().all(|home| admitted(home).len() == 9)
    });
    soon("all are connected with all", || {
        homes.iter().all(|home| links(home).len() == 9)
    });

    // One in the middle opens a service of its predecessor, and is killed.
    let opened = homes[5].run(&[
        "tunnel",
        "open",
        "strfry",
        &format!("/p2p/{}", peer_id(&homes[4])),
        "--json",
    ]);
    let port = opened.with_code(0).json()["listen"].clone();
    let gone = peer_id(&homes[5]);
    stations[5].take().expect("running").kill();
    soon("the others notice", || {
        homes
            .iter()
            .enumerate()
            .filter(|(number, _)| *number != 5)
            .all(|(_, home)| !links(home).contains(&gone))
    });
    stations[5] = Some(homes[5].start());
    soon("it is connected with all again", || {
        let others = homes.iter().enumerate().filter(|(number, _)| *number != 5);
        let back = others.clone().all(|(_, home)| links(home).contains(&gone));
        back && links(&homes[5]).len() == 9
    });
    let tunnels = homes[5]
        .run(&["tunnel", "ls", "--json"])
        .with_code(0)
        .json();
    assert_eq!(
        tunnels["open"][0]["listen"], port,
        "the port is the same: {tunnels}"
    );

    // An eleventh comes in by a token of one of them, and goes out by the word of another.
    let newcomer = home("newcomer");
    let _eleventh = newcomer.start();
    newcomer
        .run(&["join", &invite(&homes[3], &[])])
        .with_code(0);
    soon("all ten accept the newcomer", || {
        homes
            .iter()
            .all(|home| admitted(home).contains(&"newcomer".to_owned()))
    });
    soon("the newcomer knows and is connected with all ten", || {
        admitted(&newcomer).len() == 10 && links(&newcomer).len() == 10
    });
    newcomer.import(&notes(&author(2), 1_700_000_000, 7));
    let report = newcomer.sync(&[], 0);
    assert_eq!(report["totals"]["peers_succeeded"], 10, "{report}");
    let out = peer_id(&newcomer);
    homes[8].run(&["peers", "revoke", &out]).with_code(0);
    soon("it is out everywhere", || {
        homes
            .iter()
            .all(|home| !admitted(home).contains(&"newcomer".to_owned()))
    });
    soon("it is connected with none", || {
        homes.iter().all(|home| !links(home).contains(&out))
    });
    newcomer.import(&notes(&author(3), 1_700_000_000, 1));
    newcomer.sync(&["--peer", &address(&homes[0])], 3);

    // What one of them has, all have after each has synced once with all.
    homes[9].import(&notes(&author(1), 1_700_000_000, 50));
    let report = homes[9].sync(&[], 0);
    assert_eq!(
        report["peers"].as_array().map(Vec::len),
        Some(9),
        "{report}"
    );
    for home in &homes {
        assert_eq!(home.count("{}"), 57);
    }
}

#[test]
fn a_newcomer_is_let_in_everywhere_by_a_token_that_is_good_once_and_put_out_everywhere_by_one_word()
{
    let (first, second, third, newcomer, late) = (
        home("first"),
        home("second"),
        home("third"),
        home("newcomer"),
        home("late"),
    );
    let _running: Vec<Station<'_>> = [&first, &second, &third, &newcomer, &late]
        .map(Home::start)
        .into();
    for home in [&second, &third] {
        home.run(&["join", &invite(&first, &[])]).with_code(0);
    }
    let token = invite(&second, &[]);
    newcomer.run(&["join", &token]).with_code(0);
    for home in [&first, &second, &third] {
        soon("the newcomer is known", || {
            admitted(home).contains(&"newcomer".to_owned())
        });
    }
    soon("the newcomer knows all", || admitted(&newcomer).len() == 3);

    // Used, mistyped, expired.
    let used = late.run(&["join", &token]).with_code(1);
    assert!(used.err.contains("ask for a new one"), "{used:?}");
    let mistyped = late.run(&["join", &token[..token.len() - 1]]).with_code(2);
    assert!(mistyped.err.contains("token"), "{mistyped:?}");
    let short = invite(&second, &["--expires", "1s"]);
    wait_past(1);
    let expired = late.run(&["join", &short]).with_code(1);
    assert!(expired.err.contains("ask for a new one"), "{expired:?}");
    // Whoever has used one may say so again: the answer may have been lost.
    newcomer.run(&["join", &token]).with_code(0);
    assert!(admitted(&late).is_empty());

    // A stranger finds no way in.
    let to_first = address(&first);
    late.import(&notes(&author(2), 1_700_000_000, 3));
    let refused = late.sync(&["--peer", &to_first], 3);
    assert_eq!(refused["outcome"], "failed", "{refused}");
    soon("the refusal is counted", || {
        let tunnels = first.run(&["tunnel", "ls", "--json"]).with_code(0).json();
        tunnels["carrier"]["refused"]["not_admitted"].as_u64() > Some(0)
    });
    assert_eq!(first.count("{}"), 0);

    // The first puts the newcomer out: it had not let it in itself.
    let out = peer_id(&newcomer);
    first.run(&["peers", "revoke", &out]).with_code(0);
    for home in [&first, &second, &third] {
        soon("it is out", || {
            !admitted(home).contains(&"newcomer".to_owned())
        });
        soon("it is disconnected", || !links(home).contains(&out));
    }
    let refused = newcomer.sync(&["--peer", &to_first], 3);
    assert_eq!(refused["outcome"], "failed", "{refused}");
}

#[test]
fn the_captains_word_counts_at_once_and_is_kept() {
    let (one, other) = (home("one"), home("other"));
    let first = one.start();
    let _second = other.start();
    let (one_at, other_id) = (address(&one), peer_id(&other));
    one.import(&notes(&author(1), 1_700_000_000, 5));
    other.sync(&["--peer", &one_at], 3);

    one.run(&["peers", "allow", &other_id]).with_code(0);
    let report = other.sync(&["--peer", &one_at], 0);
    assert_eq!(report["totals"]["stored"], 5, "{report}");
    one.run(&["peers", "remove", &other_id]).with_code(0);
    other.sync(&["--peer", &one_at], 3);
    let unknown = one.run(&["peers", "remove", &other_id]).with_code(2);
    assert!(
        unknown.err.contains("neither added nor allowed"),
        "{unknown:?}"
    );

    // Added, it is a peer of every run, and may enter; both also after a restart.
    other.run(&["peers", "add", &one_at]).with_code(0);
    one.run(&["peers", "add", &format!("/p2p/{other_id}")])
        .with_code(0);
    first.stop();
    let _again = one.start();
    let moved = address(&one);
    let report = other.sync(&["--peer", &moved], 0);
    assert_eq!(
        report["peers"].as_array().map(Vec::len),
        Some(1),
        "{report}"
    );
    let unnamed = one.sync(&[], 0);
    assert_eq!(
        unnamed["peers"].as_array().map(Vec::len),
        Some(1),
        "{unnamed}"
    );

    for wrong in ["12D3KooW", "ssh-ed25519 AAAA", "/ip4/127.0.0.1/tcp/1"] {
        let ended = one.run(&["peers", "allow", wrong]).with_code(2);
        assert!(ended.err.contains("PeerID"), "{wrong}: {ended:?}");
    }
    let ourselves = one.run(&["peers", "allow", &peer_id(&one)]).with_code(2);
    assert!(ourselves.err.contains("itself"), "{ourselves:?}");
}

#[test]
fn a_station_that_is_found_is_met_at_once_and_not_at_the_next_hour() {
    let hourly = own_node("").replace("every = \"0s\"", "every = \"1h\"");
    let (one, other) = (Home::with_config(&hourly), home("other"));
    let _running = [one.start(), other.start()];
    other.import(&notes(&author(1), 1_700_000_000, 5));
    other.run(&["join", &invite(&one, &[])]).with_code(0);
    soon("what the newcomer brings is here", || one.count("{}") == 5);
}
