//! The keys of `[scope]`, `[schedule]`, `[live]` and `[[peers]]`: what is shared, when, and with whom.
//!
//! Data alone: an explanation for each group of keys, in lines as the sample has them, and of each key its type, a value and its default.
//! Whether the keys and values are right, the tests of `config::reference` say.

use super::{Group, Key, Section, Shape};

/// `[scope]`.
pub(super) const SCOPE: Section = Section {
    name: "scope",
    shape: Shape::Table,
    about: "",
    groups: &[
        Group {
            explained: r#"Kinds that are shared: "all", a list such as "0,1,30000-30003", or numbers."#,
            keys: &[
                Key::with_default("kinds", r#"`"all"`, a text with numbers and ranges, or a list of numbers"#, r#""0,1,3,5,6,7,62,30023,30024,31922-31925""#),
            ],
        },
        Group {
            explained: "Also share private messages (kinds 4, 13, 1059).",
            keys: &[
                Key::with_default("dms", "`true` or `false`", "false"),
            ],
        },
        Group {
            explained: r#"Whose events are shared: "all", "n2" (members, whom they follow, and whom those follow), or a list of public keys (npub
or hex). By default all with stations, and with relays (ws://, wss://) n2 once members are known."#,
            keys: &[
                Key::with_example("authors", r#"`"all"`, `"n2"`, or a list of public keys"#, r#""n2""#, r#"`"all"` with stations; with relays `"n2"` once members are known"#),
            ],
        },
        Group {
            explained: "Members: the public keys (npub or hex) that this station vouches for. The station and captain keys of the cards of an
Astroport swarm are members too.",
            keys: &[
                Key::with_default("members", "list of public keys (npub or hex)", "[]"),
            ],
        },
        Group {
            explained: "Files with members' keys, one a line. Paths are absolute and may be patterns: * within a name, ** for any folders. What
was in a file counts for 48 hours after it has gone.",
            keys: &[
                Key::with_example("member_files", "list of absolute paths or patterns", r#"["/home/captain/.zen/game/nostr/*/HEX", "/home/captain/.zen/flashmem/**/HEX"]"#, "none"),
            ],
        },
        Group {
            explained: "Files with friends of friends, as other stations merge them; they count as those whom n2 ends with.",
            keys: &[
                Key::with_example("friend_files", "list of absolute paths or patterns", r#"["/home/captain/.zen/tmp/swarm/*/amisOfAmis.txt"]"#, "none"),
            ],
        },
        Group {
            explained: "Files with keys that friend_files do not bring in. Whom members follow, or those whom they follow, is never blocked, and
where all are shared nobody is.",
            keys: &[
                Key::with_example("blacklist_files", "list of absolute paths or patterns", r#"["/home/captain/.zen/strfry/blacklist.txt"]"#, "none"),
            ],
        },
        Group {
            explained: "The most authors under n2: members first, then whom they follow, then the others, each the most followed first.",
            keys: &[
                Key::with_default("authors_max", "whole number", "50000"),
            ],
        },
        Group {
            explained: "The file that those whom members follow, and whom these follow, are merged into; what others write there stays.",
            keys: &[
                Key::with_example("merge_into", "absolute path", r#""/home/captain/.zen/strfry/amisOfAmis.txt""#, "none"),
            ],
        },
    ],
};

/// `[schedule]`.
pub(super) const SCHEDULE: Section = Section {
    name: "schedule",
    shape: Shape::Table,
    about: "",
    groups: &[
        Group {
            explained: r#"How often to exchange with all peers; also at start. "0s" never does it by itself. What was missed while the machine
slept or was off is made up for by one run."#,
            keys: &[
                Key::with_default("every", "span of time", r#""1h""#),
            ],
        },
        Group {
            explained: r#"When to do it instead: minute, hour, day of the month, month, day of the week, by this machine's time zone or one that
is named after them ("0 3 * * * Europe/Paris"). At start then only if one was missed."#,
            keys: &[
                Key::with_example("cron", "cron expression", r#""7 * * * *""#, "none"),
            ],
        },
        Group {
            explained: "Each run begins up to so much later, at random, so that not all stations begin at once; at most a tenth of the time
between two runs.",
            keys: &[
                Key::with_default("jitter", "span of time", r#""5m""#),
            ],
        },
    ],
};

/// `[live]`.
pub(super) const LIVE: Section = Section {
    name: "live",
    shape: Shape::Table,
    about: "",
    groups: &[
        Group {
            explained: "Whether to keep links to other stations (and configured relays) open, over which new events go at once, and to take
those that other stations open.",
            keys: &[
                Key::with_default("enabled", "`true` or `false`", "true"),
            ],
        },
        Group {
            explained: "Links with other stations, dialled and accepted together: 2 to 8.",
            keys: &[
                Key::with_default("links_max", "whole number", "8"),
            ],
        },
    ],
};

/// `[[peers]]`.
pub(super) const PEERS: Section = Section {
    name: "peers",
    shape: Shape::List,
    about: "One entry for each peer; none by default.",
    groups: &[
        Group {
            explained: "Its address: ws://host:port, wss://host, /ip4/…/tcp/…/p2p/<PeerID> (any multiaddr), or /p2p/<PeerID>. A station
that is named here may also enter.",
            keys: &[
                Key::with_example("address", "address of a peer", r#""wss://relay.example.org""#, "none: it must be given"),
            ],
        },
        Group {
            explained: r#"Which way events go: "down" (to us), "up" (to the peer) or "both"."#,
            keys: &[
                Key::with_default("direction", r#"`"down"`, `"up"` or `"both"`"#, r#""both""#),
            ],
        },
        Group {
            explained: "Kinds shared with this peer instead of those of [scope].",
            keys: &[
                Key::with_example("kinds", "as `[scope] kinds`", r#""all""#, "that of `[scope]`"),
            ],
        },
        Group {
            explained: "Whose events are shared with this peer, as in [scope].",
            keys: &[
                Key::with_example("authors", "as `[scope] authors`", r#""all""#, "that of `[scope]`"),
            ],
        },
        Group {
            explained: "Bytes a second that may go to this peer, and as many from it; at least 16000. No limit by default.",
            keys: &[
                Key::with_example("bandwidth", "whole number (bytes a second)", "125000", "no limit"),
            ],
        },
        Group {
            explained: "Hours of the day (local time) in which scheduled runs leave it alone; none by default.",
            keys: &[
                Key::with_example("quiet_hours", "two times of the day", r#""22:00-06:30""#, "none"),
            ],
        },
    ],
};
