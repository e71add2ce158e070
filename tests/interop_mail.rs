//! Reports by mail, through a server that others wrote: encryption, login, what arrives, and what goes wrong.
//!
//! `tests/interop/install.sh` installs aiosmtpd and mailpit. Where one is missing, its tests say so and pass; with `CI=true`
//! they fail.

mod common;
#[path = "interop/mail.rs"]
mod mail;
#[path = "interop/mailpit.rs"]
mod mailpit;

use std::path::Path;

use common::{Home, Station, author, nobody, notes, now, wait_for};
use mail::{Authority, MailServer, PASSWORD, Serves, USER};
use mailpit::Mailpit;
use serde_json::Value;

/// A station that others exchange with, and one that reports every run with it by mail.
struct Two {
    peer: Home,
    home: Home,
}

impl Two {
    fn new() -> Self {
        let peer = Home::new();
        peer.import(&notes(&author(1), now() - 1_000, 7));
        Self {
            peer,
            home: Home::new(),
        }
    }

    /// Configures reports of every run through a server on this port.
    fn configure(&self, peer: &str, port: u16, further: &str) {
        let config = format!(
            "[station]\nname = \"Étoile <b>7</b>\"\n[relay]\nlisten = \"127.0.0.1:0\"\n[schedule]\nevery = \"0s\"\n\
             [[peers]]\naddress = \"{peer}\"\n[report]\nwhen = \"always\"\nto = \"captain@example.org\"\n\
             smtp_host = \"localhost\"\nsmtp_port = {port}\n{further}\n"
        );
        self.home.configure(&config);
    }

    /// The same, with login and the authority that vouches for the server.
    fn configure_whole(&self, peer: &Station<'_>, server: &MailServer, encryption: &str) {
        let authority = server.authority_file();
        self.configure_login(peer, (server.port(), &authority), encryption);
    }

    /// The same for any server, by its port and the certificate of who vouches for it.
    fn configure_login(&self, peer: &Station<'_>, server: (u16, &Path), encryption: &str) {
        let (port, authority) = server;
        let password = self.home.data().with_file_name("password");
        std::fs::write(&password, format!("{PASSWORD}\n")).expect("our own folder");
        common::set_mode(&password, 0o600);
        let further = format!(
            "smtp_encryption = \"{encryption}\"\nsmtp_user = \"{USER}\"\npassword_file = {password:?}\nca_file = {authority:?}\n"
        );
        self.configure(peer.address(), port, &further);
    }
}

/// Demands that the mail tells what the run's JSON tells.
#[track_caller]
fn assert_tells(mail: &Value, run: &Value) {
    let (text, html) = (
        mail["text"].as_str().expect("as it should be"),
        mail["html"].as_str().expect("as it should be"),
    );
    let totals = &run["totals"];
    let figures = [
        ("Total peers", &totals["peers_total"]),
        ("Successful", &totals["peers_succeeded"]),
        ("Failed", &totals["peers_failed"]),
        ("Events collected", &totals["stored"]),
        ("Events given", &totals["uploaded"]),
        ("Distinct authors", &totals["authors_received"]),
    ];
    for (label, figure) in figures {
        let row = text.lines().find(|line| line.trim().starts_with(label));
        let row = row.unwrap_or_else(|| panic!("{label} is told: {text}"));
        assert_eq!(
            row.split_whitespace().last().expect("as it should be"),
            figure.to_string(),
            "{row}"
        );
        let tile = format!("{figure}</div><div class=\"soft\"");
        let place = html.find(&format!(">{label}</div>")).expect("a tile");
        let before = &html[..place];
        assert!(
            before.rfind(&tile).is_some_and(|at| place - at < 200),
            "{label}: {html}"
        );
    }
    let peer = run["peers"][0]["address"]
        .as_str()
        .expect("as it should be");
    let id = run["run_id"].as_str().expect("as it should be");
    for part in [text, html] {
        assert!(part.contains(peer) && part.contains(id), "{part}");
    }
    assert!(html.contains("Étoile &#60;b&#62;7&#60;/b&#62;") && !html.contains("<b>7"));
}

#[test]
fn a_mail_arrives_encrypted_and_says_what_the_run_says() {
    let authority = Authority::new();
    for (encryption, serves) in [("starttls", Serves::Starttls), ("tls", Serves::Tls)] {
        let Some(server) = MailServer::start(&authority, serves) else {
            return;
        };
        let two = Two::new();
        let station = two.peer.start();
        two.configure_whole(&station, &server, encryption);
        let run = two.home.sync(&[], 0);
        let mails = server.mails();
        let [mail] = &mails[..] else {
            panic!("one mail: {mails:?}");
        };
        assert_tells(mail, &run);
        assert_eq!(mail["encrypted"], true);
        assert_eq!(mail["login"], USER);
        assert_eq!(mail["to"][0], "captain@example.org");
        assert_eq!(mail["from"], USER);
        assert_eq!(mail["type"], "multipart/alternative");
        let headers = &mail["headers"];
        assert_eq!(headers["auto-submitted"], "auto-generated");
        assert!(headers["date"].is_string());
        let id = run["run_id"]
            .as_str()
            .expect("as it should be")
            .replace('-', "");
        assert!(
            headers["message-id"]
                .as_str()
                .expect("as it should be")
                .contains(&id),
            "{headers}"
        );
        let subject = headers["subject"].as_str().expect("as it should be");
        assert!(
            subject.contains("Étoile") && subject.contains("all is well"),
            "{subject}"
        );
        // Asked for, it goes at once, and the answer is the server's.
        let sent = two.home.run(&["report", "--send"]).with_code(0);
        let answer = "mail: sent: 250 2.0.0 taken as number 1";
        assert!(sent.out.contains(answer), "{sent:?}");
        station.stop();
    }
}

/// By a server whose mailbox is read back, which takes mails apart by itself, and knows what mail clients show of a page.
#[test]
fn mailpit_shows_what_the_run_says_and_knows_of_no_client_that_would_not() {
    let authority = Authority::new();
    let Some(server) = Mailpit::start(&authority) else {
        return;
    };
    let two = Two::new();
    let station = two.peer.start();
    two.configure_login(&station, (server.port(), &authority.file()), "starttls");
    let run = two.home.sync(&[], 0);
    let mails = server.mails();
    let [mail] = &mails[..] else {
        panic!("one mail: {mails:?}");
    };
    let parts = serde_json::json!({ "text": mail["Text"], "html": mail["HTML"] });
    assert_tells(&parts, &run);
    assert_eq!(mail["To"][0]["Address"], "captain@example.org", "{mail}");
    assert_eq!(mail["From"]["Address"], USER, "{mail}");
    let subject = mail["Subject"].as_str().expect("a subject");
    assert!(
        subject.contains("Étoile") && subject.contains("all is well"),
        "{subject}"
    );
    assert_eq!(mail["Attachments"], serde_json::json!([]), "{mail}");
    let check = server.html_check(mail);
    let supported = check["Total"]["Supported"].as_f64().expect("percent");
    println!("shown by mail clients: {}", check["Total"]);
    assert!(supported > 80.0, "{check}");
    station.stop();
}

#[test]
fn what_is_wrong_is_said_with_a_remedy_and_nothing_leaks() {
    let (two, authority) = (Two::new(), Authority::new());
    let station = two.peer.start();
    let Some(server) = MailServer::start(&authority, Serves::Starttls) else {
        return;
    };
    two.configure_whole(&station, &server, "starttls");
    two.home.sync(&[], 0);
    assert_eq!(server.mails().len(), 1);
    let config = std::fs::read_to_string(two.home.config()).expect("as it should be");
    let send = |config: &str, code: i32, says: &[&str]| {
        two.home.configure(config);
        let ended = two
            .home
            .run(&["report", "--send", "--verbose"])
            .with_code(code);
        let said = format!("{}{}", ended.out, ended.err);
        for word in says {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert!(
            !said.contains(PASSWORD) && !said.contains("guess"),
            "{said}"
        );
    };
    // Another authority: the certificate is nobody's that we know.
    let other = Authority::new();
    let (known, unknown) = (server.authority_file(), other.file());
    let untrusted = config.replace(
        known.to_str().expect("as it should be"),
        unknown.to_str().expect("as it should be"),
    );
    server.forget_login();
    send(&untrusted, 1, &["cannot be trusted", "ca_file"]);
    let none: Vec<&str> = config
        .lines()
        .filter(|line| !line.starts_with("ca_file"))
        .collect();
    send(&none.join("\n"), 1, &["cannot be trusted", "ca_file"]);
    // A name that is not in the certificate.
    send(
        &config.replace("\"localhost\"", "\"127.0.0.1\""),
        1,
        &["cannot be trusted", "smtp_host"],
    );
    // A server that begins in plain text, where TLS was to be from the first byte.
    send(
        &config.replace("\"starttls\"", "\"tls\""),
        1,
        &["cannot be trusted"],
    );
    assert_eq!(server.login(), None, "nobody has tried to log in");
    let password = two.home.data().with_file_name("password");
    std::fs::write(&password, "guessed").expect("as it should be");
    send(&config, 1, &["refused the login", "535", "password"]);
    assert_eq!(server.login().expect("tried")["good"], false);
    common::set_mode(&password, 0o644);
    send(&config, 1, &["chmod 600"]);
    common::set_mode(&password, 0o600);
    // Nobody there, and somebody who says nothing.
    let port = nobody()
        .rsplit(':')
        .next()
        .expect("as it should be")
        .to_owned();
    let of_port = format!("smtp_port = {}", server.port());
    send(
        &config.replace(&of_port, &format!("smtp_port = {port}")),
        3,
        &["could not be reached"],
    );
    assert_eq!(server.mails().len(), 1);
    station.stop();
}

/// Each thing that is wrong is seen by the doctor, and gone when what it says is done.
#[test]
fn the_doctor_sees_what_is_wrong_with_the_mail_server_and_sends_nothing() {
    let (two, authority) = (Two::new(), Authority::new());
    let station = two.peer.start();
    let Some(server) = MailServer::start(&authority, Serves::Starttls) else {
        return;
    };
    two.configure_whole(&station, &server, "starttls");
    let finding = || -> Value {
        let found: Vec<Value> =
            serde_json::from_str(&two.home.run(&["doctor", "--json"]).out).expect("a list");
        let mail = found.into_iter().find(|one| one["check"] == "mail");
        mail.expect("it is looked at")
    };
    let ails = |says: &str| {
        let finding = finding();
        assert_eq!(finding["verdict"], "problem", "{finding}");
        assert!(finding.to_string().contains(says), "{finding}");
        assert!(!finding.to_string().contains(PASSWORD), "{finding}");
        finding["remedy"].clone()
    };
    let is_well = || assert_eq!(finding()["verdict"], "ok", "{}", finding());
    is_well();
    let password = two.home.data().with_file_name("password");
    common::set_mode(&password, 0o644);
    let remedy = ails("may be read by others");
    let line = remedy["line"].as_str().expect("a command");
    let done = std::process::Command::new("sh").args(["-c", line]).status();
    assert!(done.expect("a shell").success(), "{line}");
    is_well();
    std::fs::write(&password, "guessed").expect("our own file");
    ails("as the one line of");
    std::fs::write(&password, PASSWORD).expect("our own file");
    is_well();
    let config = std::fs::read_to_string(two.home.config()).expect("ours");
    let other = Authority::new();
    let known = server.authority_file();
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    two.home
        .configure(&config.replace(&path(&known), &path(&other.file())));
    ails("ca_file");
    two.home.configure(&config);
    is_well();
    let port = server.port();
    server.stop();
    ails("start the mail server");
    let server = MailServer::start_at(&authority, Serves::Starttls, port).expect("installed");
    two.home
        .configure(&config.replace(&path(&known), &path(&server.authority_file())));
    is_well();
    assert_eq!(server.mails().len(), 0);
    station.stop();
}

#[test]
fn a_server_that_is_down_at_first_gets_the_report_later_and_once() {
    let two = Two::new();
    let station = two.peer.start();
    let authority = Authority::new();
    let Some(server) = MailServer::start(&authority, Serves::Starttls) else {
        return;
    };
    two.configure_whole(&station, &server, "starttls");
    let port = server.port();
    server.stop();

    // By a station that runs, and dies.
    let running = two.home.start();
    let run = two.home.sync(&[], 0);
    let spool = two.home.data().join("state/spool");
    let waiting = || {
        let names = std::fs::read_dir(&spool).into_iter().flatten().flatten();
        let mut paths: Vec<_> = names.map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "report"));
        paths
    };
    let read = |path: &std::path::Path| -> Value {
        serde_json::from_slice(&std::fs::read(path).expect("as it should be"))
            .expect("as it should be")
    };
    let tried = wait_for("it was tried in vain", || {
        let path = waiting().pop()?;
        (read(&path)["attempts"] == 1).then_some(path)
    });
    running.kill();
    assert!(
        read(&tried)["try_at"].as_u64().expect("as it should be") >= now() + 30,
        "it waits its minute"
    );

    let server = MailServer::start_at(&authority, Serves::Starttls, port).expect("installed");
    let again = two.home.start();
    assert_eq!(server.mails().len(), 0, "not before its time");
    again.stop();
    // The minute goes by.
    let mut report = read(&tried);
    report["try_at"] = 0.into();
    std::fs::write(&tried, report.to_string()).expect("as it should be");
    std::fs::write(spool.join("tried"), "0").expect("as it should be");
    let running = two.home.start();
    let mail = wait_for("it arrives", || server.mails().pop());
    assert_tells(&mail, &run);
    wait_for("nothing waits any more", || {
        waiting().is_empty().then_some(())
    });
    running.stop();
    let running = two.home.start();
    two.home.run(&["report"]).with_code(0);
    running.stop();
    assert_eq!(server.mails().len(), 1);
    station.stop();
}
