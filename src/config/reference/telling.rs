//! The keys of `[report]`: what is told of runs, and how.
//!
//! Data alone: an explanation for each group of keys, in lines as the sample has them, and of each key its type, a value and its default.
//! Whether the keys and values are right, the tests of `config::reference` say. Deliberately absent: `password`, which the file may not hold.

use super::{Group, Key, Section, Shape};

/// `[report]`.
pub(super) const REPORT: Section = Section {
    name: "report",
    shape: Shape::Table,
    about: "",
    groups: &[
        Group {
            explained: r#"Of which runs a report is sent, if a way to send it is set below: "always" (every run with all peers), "change" (when
all is no longer well, or is well again), "failure" (every run that was not well), "daily", "never". Whatever stands
here, constellation report shows any run, and constellation report --send sends it."#,
            keys: &[
                Key::with_default("when", r#"`"always"`, `"change"`, `"failure"`, `"daily"` or `"never"`"#, r#""change""#),
            ],
        },
        Group {
            explained: "When the daily report is due, local time.",
            keys: &[
                Key::with_default("digest_at", "time of the day", r#""07:00""#),
            ],
        },
        Group {
            explained: "For how long a peer must not have been reached before that counts as a fault. Stations that are up for an hour a day
are none with the default.",
            keys: &[
                Key::with_default("unreached_for", "span of time", r#""26h""#),
            ],
        },
        Group {
            explained: "To whom reports go; none by default.",
            keys: &[
                Key::with_example("to", "mail address", r#""captain@example.org""#, "none"),
            ],
        },
        Group {
            explained: r#"From whom mails are; by default smtp_user where that is an address, else "to"."#,
            keys: &[
                Key::with_example("from", "mail address", r#""station@example.org""#, "`smtp_user` where that is an address, else `to`"),
            ],
        },
        Group {
            explained: "The mail server; none by default, and then no mail is sent.",
            keys: &[
                Key::with_example("smtp_host", "host", r#""smtp.example.org""#, "none"),
            ],
        },
        Group {
            explained: r#"How the connection with it is protected: "starttls" (port 587), "tls" (port 465), "none" (port 25; only for a server on
this machine, unless smtp_plain_anywhere says that mails and password may go in plain text). smtp_port names another."#,
            keys: &[
                Key::with_default("smtp_encryption", r#"`"starttls"`, `"tls"` or `"none"`"#, r#""starttls""#),
                Key::with_example("smtp_port", "port", "587", "that of the encryption: 587, 465 or 25"),
                Key::with_default("smtp_plain_anywhere", "`true` or `false`", "false"),
            ],
        },
        Group {
            explained: "As whom to log in; not at all by default. The password stands in a file that others cannot read, or in the variable
CONSTELLATION_REPORT__PASSWORD, never here.",
            keys: &[
                Key::with_example("smtp_user", "text", r#""station@example.org""#, "none"),
                Key::with_example("password_file", "path", r#""/home/captain/.config/constellation/mail-password""#, "none"),
            ],
        },
        Group {
            explained: "Certificates (PEM) of those who may vouch for the mail server, besides those that browsers believe.",
            keys: &[
                Key::with_example("ca_file", "path", r#""/etc/ssl/own-ca.pem""#, "none"),
            ],
        },
        Group {
            explained: r#"A command that sends reports, as words; no shell reads it. It is given three more: the recipient ("to"), an HTML file
and the subject. It has two minutes. None by default."#,
            keys: &[
                Key::with_example("command", "list of words", r#"["/home/captain/.zen/Astroport.ONE/tools/mailjet.sh"]"#, "none"),
            ],
        },
        Group {
            explained: "A file, its owner's alone, with the key (nsec or 64 hex digits) by which reports are signed as Nostr notes, which are
stored here, shared like all notes, and expire. None by default.",
            keys: &[
                Key::with_example("note_key_file", "path", r#""/home/captain/.config/constellation/report-key""#, "none"),
                Key::with_default("note_expires", "span of time", r#""1h""#),
            ],
        },
    ],
};
