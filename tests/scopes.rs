//! Scopes of authors, with the real binary: who is in, what is fetched when that changes, and what it costs.

mod common;

use common::tunnelled::{self, own_node};
use common::{Home, QUIET, Station, author, deletion, event, ids_of, note, notes, now, wait_until};
use nostr::event::Event;
use nostr::key::Keys;
use rustix::process::Signal;
use serde_json::Value;

fn hex(keys: &Keys) -> String {
    keys.public_key().to_hex()
}

/// A station that shares `n2`, with one member.
fn sharing_n2(member: &Keys) -> String {
    format!(
        "{QUIET}[scope]\nauthors = \"n2\"\nmembers = [\"{}\"]\n",
        hex(member)
    )
}

fn follow_list(who: &Keys, at: u64, followed: &[&Keys]) -> Event {
    let followed: Vec<String> = followed.iter().map(|keys| hex(keys)).collect();
    let tags: Vec<[&str; 2]> = followed.iter().map(|key| ["p", key.as_str()]).collect();
    let tags: Vec<&[&str]> = tags.iter().map(|tag| &tag[..]).collect();
    event(who, 3, at, &tags, "")
}

#[track_caller]
fn sync_with(home: &Home, peer: &Station<'_>) -> Value {
    let report = home.sync(&["--peer", peer.address()], 0);
    assert_eq!(report["outcome"], "converged", "{report}");
    report
}

/// Demands how many events came, how many of them are stored, and how many were offered.
#[track_caller]
fn assert_moved(report: &Value, downloaded: usize, stored: usize, uploaded: usize) {
    let totals = &report["totals"];
    assert_eq!(totals["downloaded"], downloaded, "{report}");
    assert_eq!(totals["stored"], stored, "{report}");
    assert_eq!(totals["uploaded"], uploaded, "{report}");
    let outside = totals["rejected"]["out_of_scope"].as_u64().unwrap_or(0);
    assert_eq!(outside, (downloaded - stored) as u64, "{report}");
}

/// Demands a run in which nothing was to be done, for next to nothing.
#[track_caller]
fn assert_idle(report: &Value) {
    assert_moved(report, 0, 0, 0);
    let totals = &report["totals"];
    let bytes = |key: &str| totals[key].as_u64().expect("a number");
    assert_eq!((bytes("need"), bytes("have")), (0, 0), "{report}");
    assert!(bytes("bytes_in") + bytes("bytes_out") < 2_000, "{report}");
}

#[track_caller]
fn assert_has(home: &Home, events: &[Event], expected: bool) {
    let ids = home.ids();
    for id in ids_of(events) {
        assert_eq!(ids.contains(&id), expected, "{id}");
    }
}

#[test]
fn friends_of_friends_come_strangers_do_not_and_what_was_missed_comes_when_they_are_back() {
    let [ana, ben, cleo, dora] = [1, 2, 3, 4].map(author);
    let at = now() - 10_000;
    let (a, b, c) = (
        Home::with_config(&sharing_n2(&ana)),
        Home::with_config(&sharing_n2(&ben)),
        Home::with_config(&sharing_n2(&cleo)),
    );
    let (at_a, at_b, at_c) = (a.start(), b.start(), c.start());
    let of_ben = notes(&ben, at, 10);
    let of_cleo = notes(&cleo, at, 20);
    let of_dora = notes(&dora, at, 30);
    a.import(&[follow_list(&ana, at, &[&ben])]);
    b.import(&of_ben);
    b.import(&[follow_list(&ben, at, &[&cleo])]);
    c.import(&of_cleo);
    c.import(&of_dora);
    c.import(&[follow_list(&cleo, at, &[&dora])]);

    // Who Cleo follows is known to Ben's station when her list has come, and Cleo to Ana's when Ben's has.
    let report = sync_with(&b, &at_c);
    assert_moved(&report, 51, 21, 11);
    assert_eq!(report["totals"]["authors_in_scope"], 2);
    assert_moved(&sync_with(&a, &at_b), 32, 11, 1);
    let report = sync_with(&b, &at_c);
    assert_moved(&report, 30, 30, 0);
    assert_eq!(report["totals"]["authors_in_scope"], 3);
    assert_moved(&sync_with(&a, &at_b), 51, 21, 0);
    assert_has(&a, &of_cleo, true);
    assert_has(&a, &of_dora, false);
    assert_has(&b, &of_dora, true);
    for report in [sync_with(&a, &at_b), sync_with(&b, &at_c)] {
        assert_idle(&report);
    }

    // Ben unfollows Cleo: what she writes now comes neither to his station nor to Ana's.
    b.import(&[follow_list(&ben, at + 1, &[])]);
    assert_moved(&sync_with(&a, &at_b), 1, 1, 0);
    let missed_by_b = notes(&cleo, at + 1_000, 5);
    c.import(&missed_by_b);
    assert_moved(&sync_with(&b, &at_c), 5, 0, 1);
    let missed_by_a = notes(&cleo, at + 2_000, 7);
    b.import(&missed_by_a);
    assert_moved(&sync_with(&a, &at_b), 7, 0, 0);
    for report in [sync_with(&a, &at_b), sync_with(&b, &at_c)] {
        assert_idle(&report);
        assert_eq!(report["totals"]["authors_in_scope"].as_u64(), {
            let is_a = report["peers"][0]["address"] == at_b.address();
            Some(if is_a { 2 } else { 1 })
        });
    }
    assert_has(&a, &of_cleo, true);

    // He follows her again: what was missed comes, and nothing else a second time.
    b.import(&[follow_list(&ben, at + 2, &[&cleo])]);
    assert_moved(&sync_with(&a, &at_b), 1, 1, 0);
    assert_moved(&sync_with(&b, &at_c), 5, 5, 8);
    assert_moved(&sync_with(&a, &at_b), 12, 12, 0);
    assert_has(&a, &[missed_by_a, missed_by_b].concat(), true);
    assert_has(&a, &of_dora, false);
    for report in [sync_with(&a, &at_b), sync_with(&b, &at_c)] {
        assert_idle(&report);
    }
    for station in [at_a, at_b, at_c] {
        station.stop();
    }
    for home in [a, b, c] {
        home.verify();
    }
}

#[test]
fn outsiders_are_fetched_once_never_offered_and_cost_nothing_afterwards() {
    let [member, ours, theirs, shared] = [1, 2, 3, 4].map(author);
    let at = now() - 100_000;
    let (home, peer) = (Home::with_config(&sharing_n2(&member)), Home::new());
    let of_theirs = notes(&theirs, at, 800);
    let of_shared = notes(&shared, at, 1_500);
    home.import(&notes(&ours, at, 1_500));
    home.import(&of_shared);
    home.import(&notes(&member, at, 20));
    let station = peer.start();
    peer.import(&of_theirs);
    peer.import(&of_shared);
    peer.import(&notes(&member, at + 1_000, 30));

    assert_moved(&sync_with(&home, &station), 830, 30, 20);
    assert_idle(&sync_with(&home, &station));

    // What comes in out of scope meanwhile, on either side.
    home.import(&notes(&ours, at + 5_000, 10));
    peer.import(&notes(&ours, at + 5_000, 5));
    assert_moved(&sync_with(&home, &station), 0, 0, 0);
    assert_idle(&sync_with(&home, &station));

    // What they have deleted, of what we hold, is deleted here too, and not offered to them.
    let gone = deletion(&shared, at + 3_000, &of_shared[7]);
    peer.import(&[gone]);
    assert_moved(&sync_with(&home, &station), 1, 1, 0);
    assert_idle(&sync_with(&home, &station));
    assert_has(&home, &of_shared[..7], true);
    for holder in [&home, &peer] {
        assert_has(holder, &of_shared[7..8], false);
    }

    // With everybody in scope all of it is exchanged; with few again nothing moves.
    let all = ["--peer", station.address(), "--authors", "all"];
    let report = home.sync(&all, 0);
    assert_eq!(report["totals"]["authors_in_scope"], Value::Null);
    assert_moved(&report, 800, 800, 1_505);
    assert_idle(&home.sync(&all, 0));
    assert_moved(&sync_with(&home, &station), 0, 0, 0);
    assert_idle(&sync_with(&home, &station));

    // A list stands for both.
    let list = format!("{},{}", hex(&ours), hex(&theirs));
    let report = home.sync(&["--peer", station.address(), "--authors", &list], 0);
    assert_moved(&report, 0, 0, 0);
    assert_eq!(report["totals"]["authors_in_scope"], 2);
    station.stop();
    home.verify();
}

#[test]
fn a_peer_that_holds_mostly_strangers_is_asked_by_author_after_a_sample() {
    let member = author(1);
    let at = now() - 200_000;
    let (home, peer) = (Home::with_config(&sharing_n2(&member)), Home::new());
    let station = peer.start();
    for stranger in 10..20 {
        peer.import(&notes(&author(stranger), at, 10_000));
    }
    peer.import(&notes(&member, at, 100));
    home.import(&notes(&member, at + 1_000, 20));

    let report = sync_with(&home, &station);
    let downloaded = report["totals"]["downloaded"].as_u64().expect("a number");
    assert!(downloaded <= 2_000, "{report}");
    assert_eq!(
        (&report["totals"]["stored"], &report["totals"]["uploaded"]),
        (&Value::from(100), &Value::from(20)),
        "{report}"
    );
    assert_idle(&sync_with(&home, &station));
    assert_idle(&sync_with(&home, &station));
    station.stop();
}

#[test]
fn a_peer_of_its_own_authors_gets_no_others() {
    let [one, two] = [1, 2].map(author);
    let at = now() - 1_000;
    let peer = Home::new();
    let station = peer.start();
    let home = Home::with_config(&format!(
        "{QUIET}[[peers]]\naddress = \"{}\"\nauthors = [\"{}\"]\n",
        station.address(),
        hex(&one)
    ));
    home.import(&notes(&one, at, 3));
    home.import(&notes(&two, at, 4));
    assert_moved(&home.sync(&[], 0), 0, 0, 3);
    assert_eq!(peer.ids(), ids_of(&notes(&one, at, 3)));
    station.stop();
}

#[test]
fn stations_share_all_unless_it_is_said_and_the_relay_takes_what_is_in_scope_at_the_moment() {
    let [ana, ben, stranger] = [1, 2, 3].map(author);
    let at = now() - 1_000;
    let (host, guest) = (Home::new(), Home::new());
    let one_constellation = "[station]\nconstellation = \"ours\"\n";
    let hosting = |scope: &str| {
        let tunnel = own_node("");
        host.configure(&format!("{one_constellation}{tunnel}{scope}"));
    };
    hosting(&format!(
        "[scope]\nauthors = \"n2\"\nmembers = [\"{}\"]\n",
        hex(&ana)
    ));
    guest.configure(&format!(
        "{one_constellation}{}[scope]\nmembers = [\"{}\"]\n",
        own_node(""),
        hex(&ana)
    ));
    let (at_host, at_guest) = (tunnelled::start(&host), tunnelled::start(&guest));
    let guest_id = tunnelled::peer_id(&guest);
    host.run(&["peers", "allow", &guest_id]).with_code(0);
    let address = tunnelled::address(&host);
    let push = || {
        let ended = guest.run(&["sync", "--json", "--peer", &address]);
        let report = ended.json();
        assert_eq!(report["peers"][0]["error"], Value::Null, "{ended:?}");
        report["totals"].clone()
    };
    // Nothing is said of authors at the guest: with a station it shares everybody's. The host takes its own scope.
    guest.import(&[
        note(&ana, at, "a"),
        note(&ben, at, "b"),
        note(&stranger, at, "s"),
    ]);
    let totals = push();
    assert_eq!(totals["authors_in_scope"], Value::Null, "{totals}");
    assert_eq!(totals["uploaded"], 1, "{totals}");
    assert_eq!(totals["refused_by_peer"]["blocked"], 2, "{totals}");
    // From the moment on at which Ana's list is stored, Ben is in.
    host.import(&[follow_list(&ana, at, &[&ben])]);
    let mut number = 0;
    wait_until("what Ben writes is taken", || {
        number += 1;
        guest.import(&[note(&ben, at + number, "b")]);
        push()["uploaded"] == 1
    });
    // A reload that says nothing of authors takes everybody's.
    hosting("");
    at_host.signal(Signal::HUP);
    wait_until("what a stranger writes is taken", || {
        number += 1;
        guest.import(&[note(&stranger, at + number, "s")]);
        push()["uploaded"] == 1
    });
    at_guest.stop();
    at_host.stop();
}

#[test]
fn peers_of_one_run_may_have_different_scopes() {
    let [one, stranger] = [1, 2].map(author);
    let at = now() - 10_000;
    let (open, narrow) = (Home::new(), Home::new());
    let (at_open, at_narrow) = (open.start(), narrow.start());
    let strange = notes(&stranger, at, 600);
    open.import(&strange);
    narrow.import(&strange[300..]);
    narrow.import(&notes(&stranger, at + 5_000, 200));
    narrow.import(&notes(&one, at, 5));
    let home = Home::with_config(&format!(
        "{QUIET}[[peers]]\naddress = \"{}\"\nauthors = \"all\"\n[[peers]]\naddress = \"{}\"\nauthors = [\"{}\"]\n",
        at_open.address(),
        at_narrow.address(),
        hex(&one)
    ));
    // What the one brings, the other may have refused a moment before, or lists too.
    let report = home.sync(&[], 0);
    assert_eq!(report["outcome"], "converged", "{report}");
    assert_eq!(report["totals"]["stored"], 605, "{report}");
    assert_eq!(report["totals"]["authors_in_scope"], Value::Null);
    assert_eq!(home.count("{}"), 605);
    assert_eq!(
        narrow.count("{}"),
        505,
        "nothing of a stranger was offered there"
    );
    // Those of the one are passed on to the other, which has all.
    let report = home.sync(&[], 0);
    assert_eq!(report["outcome"], "converged", "{report}");
    assert_eq!(open.count("{}"), 605);
    assert_moved(&home.sync(&[], 0), 0, 0, 0);
    at_open.stop();
    at_narrow.stop();
}

#[test]
fn relays_get_n2_once_members_are_known_and_n2_without_members_is_an_error_in_words() {
    let [member, stranger] = [1, 2].map(author);
    let at = now() - 1_000;
    let (home, peer) = (Home::new(), Home::new());
    let station = peer.start();
    peer.import(&[note(&stranger, at, "one"), note(&member, at, "two")]);
    let n2 = ["sync", "--peer", station.address(), "--authors", "n2"];
    let ended = home.run(&n2).with_code(2);
    assert!(ended.err.contains("no member is known"), "{ended:?}");
    for wrong in ["n3", "", "7e7e"] {
        let words = ["sync", "--peer", station.address(), "--authors", wrong];
        home.run(&words).with_code(2);
    }
    home.configure(&format!(
        "{QUIET}[scope]\nmembers = [\"{}\"]\n",
        hex(&member)
    ));
    let report = sync_with(&home, &station);
    assert_moved(&report, 2, 1, 0);
    assert_eq!(report["totals"]["authors_in_scope"], 1);
    home.configure(QUIET);
    assert_moved(&sync_with(&home, &station), 1, 1, 0);
    station.stop();
}

#[test]
fn members_are_shown_with_names_and_reasons_by_a_running_station_and_a_stopped_one() {
    let [ana, ben, cleo] = [1, 2, 3].map(author);
    let at = now() - 1_000;
    let home = Home::new();
    let folder = home.data().parent().expect("a folder").to_owned();
    let player = folder.join("players/ben@example.org");
    std::fs::create_dir_all(&player).expect("our own folder");
    std::fs::write(player.join("HEX"), hex(&ben)).expect("our own folder");
    home.configure(&format!(
        "{QUIET}[scope]\nmembers = [\"{}\"]\nmember_files = [\"{}/players/*/HEX\"]\n",
        hex(&ana),
        folder.display()
    ));
    home.import(&[
        event(&ana, 0, at, &[], r#"{"name":"ana"}"#),
        event(&cleo, 0, at, &[], r#"{"display_name":"Cleo"}"#),
        follow_list(&ben, at, &[&cleo, &ana]),
    ]);
    let shown = |arguments: &[&str]| home.run(arguments).with_code(0);
    let stopped = shown(&["members", "--json"]).json();
    let everybody = shown(&["members", "--all", "--json"]).json();
    let text = shown(&["members"]).out;
    assert!(
        text.contains("3 authors: 2 members, 1 whom they follow"),
        "{text}"
    );
    let running = home.start();
    assert_eq!(shown(&["members", "--json"]).json(), stopped);
    assert_eq!(shown(&["members", "--all", "--json"]).json(), everybody);
    assert_eq!(shown(&["members"]).out, text);
    running.stop();
    let authors = |report: &Value| -> Vec<(String, String, String, Value)> {
        let authors = report["authors"].as_array().expect("a list");
        authors
            .iter()
            .map(|author| {
                let name = |key: &str| author[key].as_str().unwrap_or("-").to_owned();
                let names = format!("{}/{}", name("name"), name("display_name"));
                let why = author["why"].as_array().expect("a list").len();
                let level = author["level"].as_str().expect("a level").to_owned();
                assert!(why >= 1);
                (name("pubkey"), names, level, author["why"][0].clone())
            })
            .collect()
    };
    let row = |keys: &Keys, names: &str, level: &str, why: &str| {
        (
            hex(keys),
            names.to_owned(),
            level.to_owned(),
            Value::from(why),
        )
    };
    let mut expected = vec![
        row(&ana, "ana/-", "member", "configured"),
        row(&ben, "-/-", "member", "file"),
    ];
    assert_eq!(authors(&stopped), expected);
    expected.push(row(&cleo, "-/Cleo", "n1", "followed"));
    assert_eq!(authors(&everybody), expected);
    assert_eq!(
        (&stopped["members"], &stopped["n1"], &stopped["n2"]),
        (&2.into(), &1.into(), &0.into())
    );
}

#[test]
fn the_keys_in_cards_of_a_swarm_folder_are_members_also_while_the_folder_is_empty() {
    const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    let [captain, node] = [1, 2].map(author);
    let home = Home::new();
    let swarm = home.data().parent().expect("a folder").join("swarm");
    std::fs::create_dir_all(swarm.join(PEER)).expect("our own folder");
    let card = serde_json::json!({
        "ipfsnodeid": PEER, "UPLANETG1PUB": "ours", "captainHEX": hex(&captain), "NODEHEX": hex(&node),
    });
    std::fs::write(swarm.join(PEER).join("12345.json"), card.to_string()).expect("our own folder");
    home.configure(&format!(
        "{}[astroport]\nenabled = true\nswarm = \"{}\"\nuplanet = \"ours\"\n",
        own_node(""),
        swarm.display()
    ));
    let mut expected = [hex(&captain), hex(&node)];
    expected.sort_unstable();
    let members = || {
        let report = home.run(&["members", "--json"]).with_code(0).json();
        let authors = report["authors"].as_array().expect("a list").clone();
        let shown = authors.iter().map(|author| {
            assert_eq!(author["why"], serde_json::json!(["card"]));
            author["pubkey"].as_str().expect("a key").to_owned()
        });
        shown.collect::<Vec<_>>()
    };
    let station = home.start();
    wait_until("the cards are read", || members() == expected);
    station.stop();
    std::fs::remove_dir_all(swarm.join(PEER)).expect("our own folder");
    assert_eq!(members(), expected);
}

/// Else what was published here and deleted elsewhere would be shown here for ever (D10).
#[test]
fn a_stranger_s_deletion_is_taken_as_soon_as_something_of_its_author_is_stored() {
    let (friend, known, unknown) = (author(1), author(2), author(3));
    let at = now() - 1_000;
    let (first, second) = (note(&known, at, "here"), note(&unknown, at, "later here"));
    let deletions = [
        deletion(&known, at + 1, &first),
        deletion(&unknown, at + 1, &second),
    ];
    let (home, peer) = (Home::new(), Home::new());
    home.import(std::slice::from_ref(&first));
    peer.import(&deletions);
    let station = peer.start();
    let arguments = ["--peer", station.address(), "--authors", &hex(&friend)];
    let sync = || home.sync(&arguments, 0);
    let report = sync();
    assert_eq!(report["totals"]["stored"], 1, "{report}");
    assert_eq!(home.ids(), ids_of(&deletions[..1]));
    assert_idle(&sync());
    home.import(std::slice::from_ref(&second));
    let report = sync();
    assert_eq!(report["totals"]["stored"], 1, "{report}");
    assert_eq!(home.ids(), ids_of(&deletions));
    assert_idle(&sync());
    home.verify();
    station.stop();
}

#[test]
fn strangers_deletions_cost_a_bounded_number_of_bytes_in_each_run() {
    let (friend, stranger) = (author(1), author(2));
    let at = now() - 5_000;
    let published = note(&stranger, at, "here");
    // Half as much again as is taken in one run.
    let deletions: Vec<Event> = (0..750)
        .map(|number| {
            let target = format!("{number:064x}");
            event(
                &stranger,
                5,
                at + number,
                &[&["e", &target]],
                &"x".repeat(1_800),
            )
        })
        .collect();
    let (home, peer) = (Home::new(), Home::new());
    home.import(std::slice::from_ref(&published));
    peer.import(&deletions);
    let station = peer.start();
    let arguments = ["--peer", station.address(), "--authors", &hex(&friend)];
    let report = home.sync(&arguments, 1);
    let stored = report["totals"]["stored"].as_u64().expect("a number");
    assert!((400..600).contains(&stored), "{report}");
    let left = &report["peers"][0]["unresolved"][0];
    assert_eq!(left["count"], 750 - stored, "{report}");
    let report = home.sync(&arguments, 0);
    assert_eq!(report["totals"]["stored"], 750 - stored, "{report}");
    assert_eq!(home.count("{\"kinds\":[5]}"), 750);
    station.stop();
}
