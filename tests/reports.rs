//! Reports of the real binary: what is told by a command and as a note, when, and what `report` and `history` show.

mod common;

use common::{Home, author, json_lines, nobody, note, notes, now, set_mode};
use serde_json::Value;

/// A home whose reports go by a script that notes what it was given.
struct Reporting {
    home: Home,
    seen: std::path::PathBuf,
}

impl Reporting {
    fn new() -> Self {
        let home = Home::new();
        let seen = home.data().with_file_name("seen");
        Self { home, seen }
    }

    fn configure(&self, peer: &str, further: &str) {
        let script = format!(
            "printf '%s %s\\n' \"$1\" \"$3\" >> {0}; cp \"$2\" {0}.html",
            self.seen.display()
        );
        let config = format!(
            "[relay]\nlisten = \"127.0.0.1:0\"\n[schedule]\nevery = \"0s\"\n[[peers]]\naddress = \"{peer}\"\n\
             [report]\nto = \"captain@example.org\"\ncommand = [\"sh\", \"-c\", {script:?}, \"sh\"]\n{further}\n"
        );
        self.home.configure(&config);
    }

    /// What the command was given, a line for each time.
    fn seen(&self) -> Vec<String> {
        let seen = std::fs::read_to_string(&self.seen).unwrap_or_default();
        seen.lines().map(str::to_owned).collect()
    }

    /// The minute between two reports goes by.
    fn let_a_minute_pass(&self) {
        let tried = self.home.data().join("state/spool/tried");
        std::fs::write(tried, "0").expect("there was a report");
    }
}

#[test]
fn a_command_is_told_when_things_change_and_only_then() {
    let reporting = Reporting::new();
    let (home, peer) = (&reporting.home, Home::new());
    let station = peer.start();
    peer.import(&notes(&author(1), now() - 1_000, 3));
    reporting.configure(station.address(), "unreached_for = \"0s\"");
    home.sync(&[], 0);
    assert!(reporting.seen().is_empty(), "all was well, and is");
    let away = nobody();
    reporting.configure(&away, "unreached_for = \"0s\"");
    // What does not speak of the whole is nobody's news.
    home.sync(&["--peer", &away], 3);
    home.sync(&["--dry-run"], 3);
    assert!(reporting.seen().is_empty());
    home.sync(&[], 3);
    let failed = "captain@example.org constellation: the run failed (0 of 1 peers equal, 0 events collected)";
    assert_eq!(reporting.seen(), [failed]);
    let page = std::fs::read_to_string(reporting.seen.with_file_name("seen.html")).expect("a page");
    assert!(
        page.starts_with("<!DOCTYPE html>") && page.contains("connection refused"),
        "{page}"
    );
    home.sync(&[], 3);
    assert_eq!(reporting.seen().len(), 1, "it is as it was");
    reporting.let_a_minute_pass();
    reporting.configure(station.address(), "unreached_for = \"0s\"");
    home.sync(&[], 0);
    assert!(reporting.seen()[1].contains("all is well again (1 of 1 peers equal"));
    let left: Vec<_> = std::fs::read_dir(home.data().join("state/tmp"))
        .expect("there")
        .collect();
    assert!(left.is_empty(), "{left:?}");
    // A peer that is merely away is no fault for more than a day.
    reporting.configure(&away, "");
    home.sync(&[], 3);
    assert_eq!(reporting.seen().len(), 2);
    station.stop();
}

#[test]
fn a_run_is_shown_listed_and_kept_with_what_the_store_says() {
    let (home, peer) = (Home::new(), Home::new());
    home.run(&["report"]).with_code(2);
    assert!(
        home.run(&["history"])
            .with_code(0)
            .out
            .contains("no run yet")
    );
    let station = peer.start();
    let (one, two) = (author(1), author(2));
    let mut events = notes(&one, now() - 1_000, 5);
    events.push(common::event(
        &one,
        0,
        now(),
        &[],
        "{\"name\":\"Zo\u{e9}\\u001b[31m\"}",
    ));
    events.push(note(&two, now() - 10, "hello"));
    peer.import(&events);
    let config = format!(
        "{}[[peers]]\naddress = \"{}\"\n",
        common::QUIET,
        station.address()
    );
    home.configure(&config);
    let run = home.sync(&[], 0);
    let facts = &run["facts"];
    assert_eq!(facts["first_seen"], 2, "{facts}");
    assert_eq!(
        (&facts["profiles_found"], &facts["profiles_missing"]),
        (&1.into(), &1.into())
    );
    assert_eq!(
        facts["first_seen_named"].as_array().expect("a list").len(),
        2
    );
    assert!(
        facts["free_bytes"].as_u64().expect("known") > 0 && facts["store_bytes"].as_u64() > Some(0)
    );
    // Who came by another way since is told with the next run, and once.
    home.feed(
        &["import"],
        json_lines(&[note(&author(3), now(), "imported")]),
    )
    .with_code(0);
    let second = home.sync(&[], 0);
    assert_eq!(second["facts"]["first_seen"], 1);
    assert_eq!(home.sync(&[], 0)["facts"]["first_seen"], 0);

    let id = run["run_id"].as_str().expect("an id");
    let shown = home.run(&["report", "--run", id]).with_code(0).out;
    assert!(
        shown.contains("2 AUTHORS SEEN FOR THE FIRST TIME") && shown.contains("Zoé[31m ("),
        "{shown}"
    );
    let json = home
        .run(&["report", "--run", id, "--json"])
        .with_code(0)
        .json();
    assert_eq!(
        (&json["run_id"], &json["stored"]),
        (&run["run_id"], &run["totals"]["stored"])
    );
    let page = home.run(&["report", "--html", "-"]).with_code(0).out;
    assert!(page.starts_with("<!DOCTYPE html>"));
    let file = home.data().with_file_name("page.html");
    home.run(&["report", "--html", file.to_str().expect("text")])
        .with_code(0);
    let written = std::fs::read_to_string(&file).expect("written");
    assert!(written.trim_end() == page.trim_end());
    let wrong = home.run(&["report", "--run", "none"]).with_code(2);
    assert!(wrong.err.contains("constellation history"), "{wrong:?}");
    let nobody = home.run(&["report", "--send"]).with_code(2);
    assert!(nobody.err.contains("smtp_host"), "{nobody:?}");
    let lines = home
        .run(&["history", "--json", "--limit", "2"])
        .with_code(0);
    let lines: Vec<Value> = serde_json::from_str(&lines.out).expect("a list");
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["run_id"], second["run_id"]);
    // The same from a station that runs.
    let running = home.start();
    assert_eq!(home.run(&["report", "--run", id]).with_code(0).out, shown);
    assert!(home.run(&["history"]).with_code(0).out.contains(id));
    running.stop();
    station.stop();
}

#[test]
fn a_note_is_stored_here_with_its_expiration() {
    let (home, peer) = (Home::new(), Home::new());
    let station = peer.start();
    peer.import(&notes(&author(1), now() - 1_000, 3));
    let key = home.data().with_file_name("report.key");
    std::fs::write(&key, author(9).secret_key().to_secret_hex()).expect("our own folder");
    set_mode(&key, 0o600);
    let config = format!(
        "{}[[peers]]\naddress = \"{}\"\n[report]\nwhen = \"always\"\nnote_key_file = {key:?}\n",
        common::QUIET,
        station.address()
    );
    home.configure(&config);
    home.sync(&[], 0);
    let filter = format!("{{\"authors\":[\"{}\"]}}", author(9).public_key().to_hex());
    let notes = home
        .run(&["export", "--filter", &filter])
        .with_code(0)
        .lines();
    let [note] = &notes[..] else {
        panic!("one note: {notes:?}");
    };
    assert_eq!(note["kind"], 1);
    let tag = &note["tags"][0];
    let lasts = tag[1]
        .as_str()
        .and_then(|at| at.parse::<u64>().ok())
        .expect("a time")
        - note["created_at"].as_u64().expect("a time");
    assert_eq!((&tag[0], lasts), (&"expiration".into(), 3_600));
    let content = note["content"].as_str().expect("text");
    assert!(
        content.contains("\nSYNC_STATS: events=3 dms=0 "),
        "{content}"
    );
    assert!(
        content.contains("\nSYNC_PEERS: success=1 total=1\n"),
        "{content}"
    );
    set_mode(&key, 0o640);
    let refused = home.run(&["report", "--send"]).with_code(1);
    assert!(refused.out.contains("chmod 600"), "{refused:?}");
    station.stop();
}

#[test]
fn a_password_in_the_file_is_refused_and_one_in_the_environment_is_not_shown() {
    let home = Home::new();
    home.configure("[report]\npassword = \"hunter2\"\n");
    let refused = home.run(&["status"]).with_code(2);
    assert!(
        refused.err.contains("CONSTELLATION_REPORT__PASSWORD") && !refused.err.contains("hunter2"),
        "{refused:?}"
    );
    let smtp =
        "[report]\nto = \"c@example.org\"\nsmtp_host = \"smtp.example.org\"\nsmtp_user = \"u\"\n";
    home.configure(smtp);
    home.run(&["status"]).with_code(2);
    let mut command = home.command(&["status", "--verbose"]);
    command.env("CONSTELLATION_REPORT__PASSWORD", "hunter2");
    let ended = common::Process::start(command, None).finish().with_code(0);
    assert!(!format!("{ended:?}").contains("hunter2"));
}
