//! What can be configured of reports: when one is sent, to whom, by which ways.
//!
//! Typed and checked when read, so that a mail that could never go is refused at the start and not at night. Invariant:
//! no secret shows in `Debug`, in an error or in the log. Reads no file: what password and key files hold is looked at when
//! it is needed.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::civil::Time;
use lettre::message::Mailbox;
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

/// Of which runs a report is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Of every run with all peers.
    Always,
    /// When all is no longer well, or is well again.
    #[default]
    Change,
    /// Of every run that was not well.
    Failure,
    /// Once a day, of all runs since the last time.
    Daily,
    /// Of none, unless asked for.
    Never,
}

/// How a report goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// To a mail server.
    Mail,
    /// By a command.
    Command,
    /// As a Nostr note in our own store.
    Note,
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Mail => "mail",
            Self::Command => "command",
            Self::Note => "note",
        })
    }
}

/// How the connection with the mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encryption {
    /// Begun in plain text and encrypted before anything is said; port 587.
    #[default]
    Starttls,
    /// Encrypted from the first byte; port 465.
    Tls,
    /// Not at all; port 25.
    None,
}

impl Encryption {
    const fn port(self) -> u16 {
        match self {
            Self::Starttls => 587,
            Self::Tls => 465,
            Self::None => 25,
        }
    }
}

/// Something that nobody but its user is shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes it.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Gives it away: to the mail server, and nobody else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// `[report]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReportOptions {
    /// Of which runs a report is sent.
    pub when: When,
    /// To whom mails go, and what the command is given as recipient.
    #[serde(deserialize_with = "mailbox")]
    pub to: Option<Mailbox>,
    /// From whom mails are. Absent: `smtp_user` where that is an address, else `to`.
    #[serde(deserialize_with = "mailbox")]
    pub from: Option<Mailbox>,
    /// When the daily report is due, local time.
    #[serde(deserialize_with = "time_of_day")]
    pub digest_at: Time,
    /// For how long a peer must not have been reached before that counts as a fault.
    #[serde(deserialize_with = "unreached_for")]
    pub unreached_for: Duration,
    /// The mail server. Absent: no mail is sent.
    pub smtp_host: Option<String>,
    /// Its port. Absent: what is usual for the encryption.
    pub smtp_port: Option<u16>,
    /// How the connection with it is protected.
    pub smtp_encryption: Encryption,
    /// Whether mails may go in plain text to another machine.
    pub smtp_plain_anywhere: bool,
    /// As whom to log in. Absent: not at all.
    pub smtp_user: Option<String>,
    /// The file with the password: its owner's alone.
    pub password_file: Option<PathBuf>,
    /// The password, from the environment; refused in the configuration file.
    pub password: Option<Secret>,
    /// Certificates (PEM) of those who may vouch for the mail server, besides those that browsers believe.
    pub ca_file: Option<PathBuf>,
    /// The command, as words; it gets the recipient, an HTML file and the subject besides. Empty: none.
    #[serde(deserialize_with = "words")]
    pub command: Vec<String>,
    /// The file with the key (nsec or hex) by which a note is signed: its owner's alone. Absent: no note.
    pub note_key_file: Option<PathBuf>,
    /// How long a note lasts.
    #[serde(deserialize_with = "note_expires")]
    pub note_expires: Duration,
}

impl Default for ReportOptions {
    fn default() -> Self {
        Self {
            when: When::default(),
            to: None,
            from: None,
            digest_at: Time::constant(7, 0, 0, 0),
            unreached_for: Duration::from_secs(26 * 3600),
            smtp_host: None,
            smtp_port: None,
            smtp_encryption: Encryption::default(),
            smtp_plain_anywhere: false,
            smtp_user: None,
            password_file: None,
            password: None,
            ca_file: None,
            command: Vec::new(),
            note_key_file: None,
            note_expires: Duration::from_secs(3600),
        }
    }
}

impl ReportOptions {
    /// The ways that are configured.
    pub fn channels(&self) -> BTreeSet<Channel> {
        let mut channels = BTreeSet::new();
        if self.smtp_host.is_some() && self.to.is_some() {
            channels.insert(Channel::Mail);
        }
        if !self.command.is_empty() && self.to.is_some() {
            channels.insert(Channel::Command);
        }
        if self.note_key_file.is_some() {
            channels.insert(Channel::Note);
        }
        channels
    }

    /// The port of the mail server.
    pub fn port(&self) -> u16 {
        self.smtp_port.unwrap_or(self.smtp_encryption.port())
    }

    /// From whom mails are.
    pub fn sender(&self) -> Option<Mailbox> {
        let user = || self.smtp_user.as_deref()?.parse().ok();
        self.from.clone().or_else(user).or_else(|| self.to.clone())
    }

    /// Refuses what each key by itself does not show.
    ///
    /// # Errors
    /// What is wrong and what to do, in words.
    pub fn check(&self) -> Result<(), String> {
        let refuse = |why: &str| Err(format!("[report] {why}"));
        if self.to.is_none() && self.smtp_host.is_some() {
            return refuse(
                "smtp_host is set, but nobody to send to: set to = \"captain@example.org\"",
            );
        }
        if self.to.is_none() && !self.command.is_empty() {
            return refuse("command is set, but no recipient that it could be given: set to");
        }
        let Some(host) = &self.smtp_host else {
            return match &self.smtp_user {
                Some(_) => refuse("smtp_user is set, but no mail server: set smtp_host"),
                None => Ok(()),
            };
        };
        let is_address = host.parse::<IpAddr>().is_ok();
        if !is_address && (host.is_empty() || host.contains([' ', '/', '@', ':'])) {
            return refuse(
                "smtp_host is no host's name: expected for instance \"smtp.example.org\", and its port in smtp_port",
            );
        }
        match (&self.smtp_user, &self.password_file, &self.password) {
            (None, Some(_), _) | (None, _, Some(_)) => {
                return refuse("there is a password, but nobody to log in with it: set smtp_user");
            }
            (Some(_), None, None) => {
                return refuse(
                    "smtp_user is set, but no password: name a password_file, or set CONSTELLATION_REPORT__PASSWORD",
                );
            }
            (Some(_), Some(_), Some(_)) => {
                return refuse(
                    "there is a password_file and a password in the environment: keep one",
                );
            }
            _ => {}
        }
        if self.smtp_encryption == Encryption::None
            && !self.smtp_plain_anywhere
            && !is_this_machine(host)
        {
            return refuse(
                "mails, and the password, would go to another machine in plain text: set smtp_encryption to \"starttls\" \
                 or \"tls\", or smtp_plain_anywhere = true",
            );
        }
        Ok(())
    }
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether this is a mail address that reports can go to.
pub fn is_mailbox(text: &str) -> bool {
    text.parse::<Mailbox>().is_ok()
}

fn mailbox<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Mailbox>, D::Error> {
    let text = String::deserialize(source)?;
    text.parse().map(Some).map_err(|_| {
        D::Error::custom(format!(
            "{text:?} is no mail address: expected for instance \"captain@example.org\""
        ))
    })
}

fn time_of_day<'de, D: Deserializer<'de>>(source: D) -> Result<Time, D::Error> {
    let text = String::deserialize(source)?;
    Time::strptime("%H:%M", &text).map_err(|_| {
        D::Error::custom(format!(
            "{text:?} is no time of day: expected for instance \"07:00\""
        ))
    })
}

fn friendly(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let duration: Option<jiff::SignedDuration> = text.parse().ok();
    let duration = duration.and_then(|duration| Duration::try_from(duration).ok());
    duration
        .filter(|duration| (least..=most).contains(duration))
        .ok_or_else(|| {
            format!(
                "{text:?} is no such time: expected for instance \"3h\", at least {} and at most {}",
                super::numbers::span(least.as_secs()),
                super::numbers::span(most.as_secs())
            )
        })
}

fn unreached_for<'de, D: Deserializer<'de>>(source: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(source)?;
    let most = Duration::from_secs(366 * 24 * 3600);
    friendly(&text, Duration::ZERO, most).map_err(D::Error::custom)
}

fn note_expires<'de, D: Deserializer<'de>>(source: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(source)?;
    let (least, most) = (
        Duration::from_secs(60),
        Duration::from_secs(366 * 24 * 3600),
    );
    friendly(&text, least, most).map_err(D::Error::custom)
}

fn words<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<String>, D::Error> {
    let words = Vec::<String>::deserialize(source)?;
    if words
        .first()
        .is_some_and(|program| program.trim().is_empty())
    {
        return Err(D::Error::custom(
            "command names no program: expected for instance [\"/usr/local/bin/mail-report\"]",
        ));
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ReportOptions, String> {
        let options: ReportOptions = toml::from_str(text).map_err(|error| error.to_string())?;
        options.check()?;
        Ok(options)
    }

    #[test]
    fn what_could_never_be_sent_is_refused_with_a_remedy() {
        let mail = "to = \"captain@example.org\"\nsmtp_host = \"smtp.example.org\"\n";
        for (text, remedy) in [
            ("smtp_host = \"smtp.example.org\"".to_owned(), "set to ="),
            ("command = [\"mailer\"]".to_owned(), "set to"),
            ("smtp_user = \"captain\"".to_owned(), "set smtp_host"),
            (format!("{mail}smtp_user = \"captain\""), "password_file"),
            (format!("{mail}password_file = \"/p\""), "set smtp_user"),
            (
                format!("{mail}smtp_encryption = \"none\""),
                "smtp_plain_anywhere",
            ),
            ("to = \"nobody\"".to_owned(), "captain@example.org"),
            ("digest_at = \"7 o'clock\"".to_owned(), "07:00"),
            ("unreached_for = \"soon\"".to_owned(), "3h"),
            ("note_expires = \"1s\"".to_owned(), "at least 1 min"),
            ("command = [\"\"]".to_owned(), "names no program"),
            (
                "to = \"a@b.example\"\nsmtp_host = \"smtp.example.org:587\"".to_owned(),
                "smtp_port",
            ),
            ("host = 1".to_owned(), "unknown field"),
        ] {
            let error = read(&text).expect_err(&text);
            assert!(error.contains(remedy), "{text}: {error}");
        }
    }

    #[test]
    fn ports_sender_and_ways_follow_from_what_is_set() {
        assert!(
            read("when = \"always\"")
                .expect("fine")
                .channels()
                .is_empty()
        );
        let options = read(
            "to = \"captain@example.org\"\nsmtp_host = \"localhost\"\nsmtp_encryption = \"none\"\ncommand = [\"m\"]",
        )
        .expect("plain to this machine");
        assert_eq!(options.port(), 25);
        assert_eq!(options.channels(), [Channel::Mail, Channel::Command].into());
        assert_eq!(options.sender(), options.to);
        let options = read(
            "to = \"c@example.org\"\nsmtp_host = \"s.example.org\"\nsmtp_user = \"u@example.org\"\n\
             password = \"hunter2\"\nsmtp_encryption = \"tls\"",
        )
        .expect("valid");
        assert_eq!(options.port(), 465);
        let sender = options.sender().expect("somebody");
        assert_eq!(sender.email.to_string(), "u@example.org");
        let shown = format!("{options:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
