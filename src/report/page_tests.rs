//! Text, page, mail and note of the same report: all of it is told, and what peers wrote stays text.

use nostr::key::{Keys, SecretKey};

use super::super::deciding::Occasion;
use super::super::deciding::tests::{Fate, run_at};
use super::super::message::message;
use super::super::note::note;
use super::super::summary::{StationName, Summary};
use super::super::text::text;
use super::*;
use crate::sync::{AuthorName, GraphSizes, PeerReport, RunFacts, RunReport};
use crate::transfer::Unresolved;

const EVIL: &str = "</div><script>alert('x')</script>\u{202e}\u{1b}[2J\r\nBcc: all@example.org";

/// A run in which everything that others may write is meant to do harm.
fn evil_run() -> RunReport {
    let mut run = run_at(
        1_767_225_600,
        &[("ws://a/", Fate::Equal), (EVIL, Fate::BrokeOff)],
    );
    let [good, bad] = &mut run.peers[..] else {
        panic!("two peers");
    };
    good.stored = 1_234;
    good.by_kind = [(1, 1_200), (30_800, 30), (1_059, 4)].into();
    good.bytes_in = 1;
    bad.error.as_mut().expect("it broke off").detail = EVIL.to_owned();
    bad.unresolved = vec![Unresolved::Events {
        ids: vec![EVIL.to_owned()],
        count: 3,
        why: EVIL.to_owned(),
    }];
    bad.method = EVIL.to_owned();
    run.totals = RunReport::totals_of(&run.peers, Some(77));
    run.totals.authors_received = 5;
    run.facts = Some(RunFacts {
        graph: GraphSizes {
            members: 7,
            n1: 30,
            n2: 40,
        },
        first_seen: 60,
        first_seen_named: vec![AuthorName {
            pubkey: "ab".repeat(32),
            name: Some(EVIL.to_owned()),
        }],
        profiles_found: 4,
        profiles_missing: 1,
        store_bytes: 5_000_000,
        free_bytes: Some(7_000_000_000),
        ..RunFacts::default()
    });
    run
}

fn station() -> StationName {
    StationName {
        name: EVIL.to_owned(),
        peer_id: "12D3KooW".to_owned(),
    }
}

#[test]
fn what_others_wrote_stays_text_and_fetches_nothing() {
    let run = evil_run();
    let before = [run_at(1_767_222_000, &[("ws://a/", Fate::Equal)])];
    let summary = Summary::of_run(&run, &before, State::Partial, &station());
    let page = html(&Letter::asked(&summary)).expect("a page");
    assert!(
        page.contains("&#60;script&#62;alert"),
        "it is there, as text"
    );
    for forbidden in [
        "<script", "\u{202e}", "\u{1b}", "http:", "https:", "url(", "@import", "src=",
    ] {
        assert!(!page.contains(forbidden), "{forbidden}: {page}");
    }
    let opened = page.matches("<div").count();
    assert_eq!(
        opened,
        page.matches("</div>").count(),
        "nobody closes what we opened"
    );
    let plain = text(&Letter::asked(&summary));
    assert!(!plain.contains(['\u{202e}', '\u{1b}', '\r']), "{plain}");
    assert!(
        !plain.lines().any(|line| line.starts_with("Bcc:")),
        "{plain}"
    );
    let address = || "captain@example.org".parse().expect("an address");
    let mail = message(
        &Letter::asked(&summary),
        &run.run_id,
        address(),
        address(),
        1_767_225_700,
    );
    let mail = String::from_utf8(mail.expect("a mail").formatted()).expect("ASCII");
    let (headers, _) = mail.split_once("\r\n\r\n").expect("headers");
    assert!(!headers.contains("\r\nBcc:"), "{headers}");
    assert!(headers.contains("Auto-Submitted: auto-generated"));
    assert!(
        headers.contains("Date: Thu, 01 Jan 2026 00:01:40 +0000"),
        "{headers}"
    );
}

#[test]
fn text_and_page_tell_the_same() {
    let run = evil_run();
    let before: Vec<RunReport> = (1..30)
        .map(|hour| {
            run_at(
                1_767_225_600 - 3_600 * (30 - hour),
                &[("ws://a/", Fate::LeftOver)],
            )
        })
        .collect();
    let summary = Summary::of_run(&run, &before, State::Failed, &station());
    assert_eq!(summary.runs.len(), RUNS_SHOWN);
    let earlier = ["2026-01-01 00:00 UTC: converged".to_owned()];
    let letter = Letter {
        summary: &summary,
        occasion: Occasion::Change,
        earlier: &earlier,
        dropped: 3,
    };
    let (plain, page) = (text(&letter), html(&letter).expect("a page"));
    for told in [
        "The run failed",
        "1,234",
        "3 earlier reports were dropped",
        "private messages",
        "77 (7 members, 30 whom they follow, 40 whom those follow)",
        "4 found, 1 missing",
        "5.0 MB, 7.0 GB left on the disk",
        "3 events were left over",
        "59 others",
        "(abababab…)",
        "▲▲▲▲▲▲▲▲▲▲▲▲▲▲▲▲▲▲▲▲▲▲▲▲",
        "2026-01-01 00:00 UTC: converged",
        &run.run_id,
    ] {
        let chart_line = told.starts_with('▲');
        let told: String = if chart_line {
            told.chars().take(23).collect()
        } else {
            told.to_owned()
        };
        assert!(plain.contains(&told), "{told}: {plain}");
        assert!(page.contains(&told), "{told}: {page}");
    }
    assert_eq!(page.matches("<rect").count(), RUNS_SHOWN);
    for dark in ["prefers-color-scheme: dark", "name=\"color-scheme\""] {
        assert!(page.contains(dark));
    }
}

#[test]
fn a_note_expires_is_signed_and_has_the_lines_that_scripts_read() {
    let run = evil_run();
    let summary = Summary::of_run(&run, &[], State::Partial, &station());
    let keys = Keys::new(SecretKey::from_slice(&[7; 32]).expect("a key"));
    let (now, later) = (1_767_225_700, 1_767_229_300);
    let event = note(&Letter::asked(&summary), &keys, now, later).expect("signed");
    event.verify().expect("genuine");
    assert_eq!((event.kind.as_u16(), event.created_at.as_secs()), (1, now));
    let expiration = event.tags.iter().map(|tag| tag.as_slice().join("="));
    assert_eq!(
        expiration.collect::<Vec<_>>(),
        [format!("expiration={later}")]
    );
    let lines: Vec<&str> = event.content.lines().collect();
    for line in [
        "SYNC_STATS: events=1234 dms=4 uploaded=0 duration=1",
        "SYNC_HEX: count=5",
        "SYNC_PROFILES: found=4 missing=1",
        "SYNC_PEERS: success=1 total=2",
        "SYNC_IMPORT: events=1234 mode=verified",
    ] {
        assert!(lines.contains(&line), "{line}: {lines:?}");
    }
}

#[test]
fn many_peers_and_kinds_are_counted_and_a_digest_adds_up() {
    let mut run = run_at(1_767_225_600, &[]);
    for number in 0..250_u16 {
        let mut peer = PeerReport::new(&format!("ws://{number}/"));
        peer.outcome = if number == 249 {
            crate::sync::Outcome::Failed
        } else {
            crate::sync::Outcome::Converged
        };
        peer.stored = 2;
        peer.by_kind = [(number, 2)].into();
        run.peers.push(peer);
    }
    run.totals = RunReport::totals_of(&run.peers, None);
    let summary = Summary::of_run(&run, &[], State::Partial, &station());
    assert_eq!((summary.peers.len(), summary.peers_not_shown), (100, 150));
    assert_eq!(summary.peers[0].address, "ws://249/", "trouble comes first");
    let kinds: u64 = summary.by_kind.iter().map(|kind| kind.count).sum();
    assert_eq!((kinds, summary.by_kind.len()), (500, 24));
    let mut second = run.clone();
    second.peers.truncate(10);
    second.totals = RunReport::totals_of(&second.peers, None);
    let runs = [run, second];
    let (since, until) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
    let digest = Summary::of_digest(&runs, since, until, State::Well, &station());
    let digest = digest.expect("there were runs");
    assert_eq!((digest.peers_total, digest.stored), (250, 520));
    assert_eq!(digest.authors_received, None, "nobody knows who came twice");
    assert!(Summary::of_digest(&[], since, until, State::Well, &station()).is_none());
}
