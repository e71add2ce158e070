//! What a captain sees: `status --watch`, completions and manual pages.

#[path = "common/mod.rs"]
mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use common::{Home, Process, wait_until};
use rustix::process::Signal;

#[test]
fn status_is_watched_by_lines_where_there_is_no_terminal_until_it_is_interrupted() {
    let home = Home::new();
    let station = home.start();
    let mut command = home.command(&["status", "--watch"]);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut watching = command.spawn().expect("the binary starts");
    let mut lines = BufReader::new(watching.stdout.take().expect("piped")).lines();
    let first = lines.next().expect("a line").expect("text");
    assert!(first.contains(" running, 0 events"), "{first}");
    home.import(&common::notes(&common::author(1), 1_700_000_000, 3));
    let second = lines.next().expect("a line").expect("text");
    assert!(
        second.contains(" running, 3 events"),
        "only changes: {second}"
    );
    let process = rustix::process::Pid::from_child(&watching);
    rustix::process::kill_process(process, Signal::INT).expect("our own child");
    wait_until("it ends", || {
        let ended = watching.try_wait().expect("our own child");
        ended.is_some_and(|status| status.code() == Some(0))
    });
    station.stop();
}

#[test]
fn on_a_terminal_status_is_drawn_in_place_and_fits() {
    let home = Home::new();
    let station = home.start();
    let like = home.command(&["status", "--watch"]);
    let words: Vec<String> = std::iter::once(like.get_program())
        .chain(like.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    // `script` gives it a terminal, and `timeout` interrupts it there.
    let line = format!(
        "stty rows 30; timeout --foreground -s INT 3 {}",
        words.join(" ")
    );
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]);
    for (name, value) in like.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("COLUMNS", "40");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let ended = Process::start(command, None).finish();
    let drawn = ended.out.matches("\u{1b}[J").count();
    assert!(drawn >= 2, "drawn again and again: {ended:?}");
    assert!(ended.out.contains("A\r\u{1b}[J"), "in its place: {ended:?}");
    for line in ended.out.lines() {
        let shown = line.rsplit("\u{1b}[J").next().unwrap_or_default();
        assert!(
            shown.trim_end_matches('\r').chars().count() <= 40,
            "{line:?}"
        );
    }
    station.stop();
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        let ended = home.run(&["completions", shell]).with_code(0);
        for word in ["history", "dry-run"] {
            assert!(ended.out.contains(word), "{shell}: {word}");
        }
    }
    let page = home.run(&["man"]).with_code(0).out;
    assert!(page.contains(".TH constellation"), "{page}");
    let folder = home.data().join("man");
    let folder = folder.to_str().expect("text");
    home.run(&["man", folder]).with_code(0);
    for name in [
        "constellation",
        "constellation-sync",
        "constellation-peers-add",
    ] {
        let page = std::fs::read_to_string(format!("{folder}/{name}.1")).expect(name);
        assert!(page.contains(".TH"), "{name}");
    }
}
