//! The keys of `[station]` and `[relay]`.
//!
//! Data alone: an explanation for each group of keys, in lines as the sample has them, and of each key its type, a value and its default.
//! Whether the keys and values are right, the tests of `config::reference` say.

use super::{Group, Key, Section, Shape};

/// `[station]`.
pub(super) const STATION: Section = Section {
    name: "station",
    shape: Shape::Table,
    about: "",
    groups: &[
        Group {
            explained: "What the station calls itself in reports; at most 256 bytes.",
            keys: &[
                Key::with_default("name", "text", r#""constellation""#),
            ],
        },
        Group {
            explained: "The name of the constellation. By default it is known by its swarm key, or is the one that this station joined, or one
of its own. When it changes, nothing is shared until you confirm it: constellation init --accept-constellation.",
            keys: &[
                Key::with_example("constellation", "text", r#""our-constellation""#, "none"),
            ],
        },
        Group {
            explained: "An existing relay on this machine that this station serves, for instance a strfry: it is read first and written last in
every run. Beside one, [relay] listens at port 7778 by default. None by default.",
            keys: &[
                Key::with_example("home_relay", "address of a relay (`ws://`, `wss://`)", r#""ws://127.0.0.1:7777""#, "none"),
            ],
        },
        Group {
            explained: r#"How events get into it: "import" (by the import of strfry_command, so that its write policy plugin is never asked) or
"event" (by EVENT, as into any relay)."#,
            keys: &[
                Key::with_default("home_write", r#"`"import"` or `"event"`"#, r#""import""#),
            ],
        },
        Group {
            explained: r#"The command to which "import" is added, as words; no shell reads it. strfry looks for its database where it is started
and where its configuration says: ["env", "-C", "/home/captain/.zen/strfry", "./strfry"] starts it in that folder."#,
            keys: &[
                Key::with_default("strfry_command", "list of words", r#"["strfry"]"#),
            ],
        },
    ],
};

/// `[relay]`.
pub(super) const RELAY: Section = Section {
    name: "relay",
    shape: Shape::Table,
    about: "",
    groups: &[
        Group {
            explained: "Where the relay listens (beside a home relay by default at port 7778). Loopback only: open it to others behind a
proxy, or by your own decision.",
            keys: &[
                Key::with_example("listen", "IP address and port", r#""127.0.0.1:7777""#, r#"`"127.0.0.1:7777"`, beside a home relay `"127.0.0.1:7778"`"#),
            ],
        },
        Group {
            explained: "What clients are told of the relay (NIP-11).",
            keys: &[
                Key::with_default("name", "text", r#""constellation""#),
                Key::with_default("description", "text", r#""A station that keeps its relay equal with those of its constellation.""#),
            ],
        },
        Group {
            explained: "How to reach its operator, and the operator's public key (npub or hex); absent by default.",
            keys: &[
                Key::with_example("contact", "text", r#""mailto:captain@example.org""#, "none"),
                Key::with_example("pubkey", "public key (npub or hex)", r#""npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg""#, "none"),
            ],
        },
        Group {
            explained: "Addresses by which clients know this relay. Authentication (NIP-42) from elsewhere and requests to vanish (NIP-62)
must name one of them.",
            keys: &[
                Key::with_default("own_urls", "list of addresses (`ws://`, `wss://`)", "[]"),
            ],
        },
        Group {
            explained: r#"Who may write besides programs on this machine: "loopback" (nobody else), "scope" (the kinds and authors shared),
"anyone", or a list of public keys (npub or hex)."#,
            keys: &[
                Key::with_default("write", r#"`"loopback"`, `"scope"`, `"anyone"`, or a list of public keys"#, r#""loopback""#),
            ],
        },
        Group {
            explained: "Whether connections from this machine have all rights. Set it to false behind a proxy on this machine that adds no
X-Forwarded-For.",
            keys: &[
                Key::with_default("trust_loopback", "`true` or `false`", "true"),
            ],
        },
        Group {
            explained: "Proxies whose X-Forwarded-For is believed: the addresses it names count for connections_per_address_max.",
            keys: &[
                Key::with_default("trusted_proxies", "list of IP addresses", "[]"),
            ],
        },
        Group {
            explained: "Whether messages are compressed for clients elsewhere that offer it (permessage-deflate): a third fewer bytes for some
processor time. Stations and programs on this machine are never sent compressed messages.",
            keys: &[
                Key::with_default("compression", "`true` or `false`", "true"),
            ],
        },
        Group {
            explained: "Limits: connections in all (a sixteenth of them is kept for programs on this machine) and from one address (this machine\nexempt), and what one connection may have. Tunnels are not counted.",
            keys: &[
                Key::with_default("connections_max", "whole number", "1024"),
                Key::with_default("connections_per_address_max", "whole number", "64"),
                Key::with_default("subscriptions_max", "whole number", "20"),
                Key::with_default("filters_max", "whole number", "20"),
                Key::with_default("negentropy_sessions_max", "whole number", "4"),
                Key::with_default("event_bytes_max", "whole number (bytes)", "262144"),
                Key::with_default("event_tags_max", "whole number", "5000"),
                Key::with_default("events_per_minute", "whole number", "600"),
            ],
        },
        Group {
            explained: "A write policy plugin as strfry has them (a line of JSON in, a line out), as the words of a command; none by default. It
is asked about verified events before they are stored, by the ways that plugin_asks names; never about constellation import.",
            keys: &[
                Key::with_example("plugin", "list of words", r#"["/usr/local/bin/policy"]"#, "none"),
            ],
        },
        Group {
            explained: "How long it may take to answer about one event, at most a minute; before that, an event waits as long at most for its turn.",
            keys: &[
                Key::with_default("plugin_timeout", "span of time", r#""5s""#),
            ],
        },
        Group {
            explained: r#"What is done with an event while the plugin does not answer, or does not run: "reject" (whoever offered it may try
again, and the next run fetches it) or "accept"."#,
            keys: &[
                Key::with_default("plugin_on_failure", r#"`"reject"` or `"accept"`"#, r#""reject""#),
            ],
        },
        Group {
            explained: r#"Which events it is asked about: "clients" (what is published over TCP), "stations" (what admitted ones publish through
their tunnels), "live" (what live links bring that this station opens), "runs" (what its runs fetch, also from the home
relay). What it refuses of the last two is left alone for a day. It sees a sourceType of IP4, IP6, Stream, Stream or Sync."#,
            keys: &[
                Key::with_default("plugin_asks", r#"list of `"clients"`, `"stations"`, `"live"`, `"runs"`"#, r#"["clients"]"#),
            ],
        },
    ],
};
