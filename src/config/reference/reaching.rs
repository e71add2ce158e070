//! The keys of `[tunnel]`, `[kubo]` and `[astroport]`: how stations are reached.
//!
//! Data alone: an explanation for each group of keys, in lines as the sample has them, and of each key its type, a value and its default.
//! Whether the keys and values are right, the tests of `config::reference` say.

use super::{Group, Key, Section, Shape};

/// `[tunnel]`.
pub(super) const TUNNEL: Section = Section {
    name: "tunnel",
    shape: Shape::Table,
    about: "",
    groups: &[
        Group {
            explained: r#"Tunnels to other stations over libp2p, as kubo's "ipfs p2p". Only admitted stations may enter: those listed here, those
that joined with a token (constellation invite, constellation join), and those that admitted ones vouch for."#,
            keys: &[Key::with_default("enabled", "`true` or `false`", "true")],
        },
        Group {
            explained: "Where to listen. By default port 4011 on all addresses, over TCP and (without a swarm key) QUIC.",
            keys: &[Key::with_example(
                "listen",
                "list of multiaddrs",
                r#"["/ip4/0.0.0.0/tcp/4011", "/ip4/0.0.0.0/udp/4011/quic-v1"]"#,
                "port 4011 on all addresses",
            )],
        },
        Group {
            explained: "Addresses by which others reach this station besides those it sees itself, for instance a forwarded port.",
            keys: &[Key::with_default("external", "list of multiaddrs", "[]")],
        },
        Group {
            explained: "The key file of a private swarm, as kubo's. Only TCP then.",
            keys: &[Key::with_example(
                "swarm_key",
                "path",
                r#""/home/captain/.ipfs/swarm.key""#,
                "none",
            )],
        },
        Group {
            explained: "Another identity than identity.key: an OpenSSH ed25519 key, or the configuration of a kubo that does not run here.",
            keys: &[Key::with_example(
                "identity",
                "path",
                r#""/home/captain/.ssh/id_ed25519""#,
                "`identity.key` in the data directory",
            )],
        },
        Group {
            explained: r#"Stations that may enter: PeerIDs, or lines as in authorized_keys ("ssh-ed25519 AAAA…")."#,
            keys: &[Key::with_default(
                "allow",
                "list of PeerIDs or `ssh-ed25519` lines",
                "[]",
            )],
        },
        Group {
            explained: "Whether whoever holds the swarm key may enter. A key of zeros is public and admits nobody.",
            keys: &[Key::with_default(
                "swarm_key_admits",
                "`true` or `false`",
                "false",
            )],
        },
        Group {
            explained: r#"Looking for stations: on the local network, and in a distributed hash table ("constellation": one that the stations
make up among themselves, "ipfs": that of IPFS, "off")."#,
            keys: &[
                Key::with_default("mdns", "`true` or `false`", "true"),
                Key::with_default(
                    "kademlia",
                    r#"`"constellation"`, `"ipfs"` or `"off"`"#,
                    r#""constellation""#,
                ),
            ],
        },
        Group {
            explained: "Whether to relay for stations that cannot reach each other. Those that need it use it by themselves.",
            keys: &[Key::with_default(
                "serve_relay",
                "`true` or `false`",
                "false",
            )],
        },
        Group {
            explained: "Stations that relay for this one, besides those that say so themselves: addresses with /p2p/<PeerID>.",
            keys: &[Key::with_default(
                "relays",
                "list of multiaddrs with `/p2p/<PeerID>`",
                "[]",
            )],
        },
        Group {
            explained: "Whether to ask the router for a port (untested).",
            keys: &[Key::with_default("upnp", "`true` or `false`", "false")],
        },
        Group {
            explained: "Services that are never exposed, whatever a command says.",
            keys: &[Key::with_default(
                "private",
                "list of names of services",
                "[]",
            )],
        },
        Group {
            explained: r#"Services that others may open. The relay ("strfry") is exposed by default. Known by name: strfry 7777, ssh (its
server's port), ollama 11434, comfyui 8188, orpheus 5005, perplexica 3001. "allow" names the only stations it is for."#,
            keys: &[Key::with_example(
                "services",
                "list of tables with `name`, `port` (its known one), `allow` (all that are admitted)",
                r#"[{ name = "ssh", port = 22, allow = [] }]"#,
                "none: the relay alone is exposed",
            )],
        },
        Group {
            explained: "Services of other stations, open on a port of this machine: the one named, or always the same free one.",
            keys: &[Key::with_default(
                "open",
                "list of tables with `name`, `peer`, `port` (a free one)",
                "[]",
            )],
        },
    ],
};

/// `[kubo]`.
pub(super) const KUBO: Section = Section {
    name: "kubo",
    shape: Shape::Table,
    about: "",
    groups: &[
        Group {
            explained: r#"Whether a kubo daemon on this machine carries the tunnels: "auto" (if one answers, or ever did), "always", "never"."#,
            keys: &[Key::with_default(
                "use",
                r#"`"auto"`, `"always"` or `"never"`"#,
                r#""auto""#,
            )],
        },
        Group {
            explained: "Where its RPC answers.",
            keys: &[Key::with_default(
                "api",
                "URL or multiaddr",
                r#""http://127.0.0.1:5001""#,
            )],
        },
    ],
};

/// `[astroport]`.
pub(super) const ASTROPORT: Section = Section {
    name: "astroport",
    shape: Shape::Table,
    about: "",
    groups: &[
        Group {
            explained: "Whether this is an Astroport station: its swarm's cards are read, its scripts' locks held and logs written, and keys that
are not set here are what that network has. By default as ~/.zen/Astroport.ONE/tools/my.sh says; then true.",
            keys: &[
                Key::with_example("enabled", "`true` or `false`", "false", "`true` on an Astroport station, else `false`"),
            ],
        },
        Group {
            explained: "Where its things are (by default the home folder), and the cards of its swarm (by default ~/.zen/tmp/swarm).",
            keys: &[
                Key::with_example("home", "path", r#""/home/captain""#, "the home folder"),
                Key::with_example("swarm", "path", r#""/home/captain/.zen/tmp/swarm""#, "`~/.zen/tmp/swarm`"),
            ],
        },
        Group {
            explained: "The UPlanet (UPLANETG1PUB) whose stations these are; by default that of this station's own card.",
            keys: &[
                Key::with_example("uplanet", "text", r#""AwdjhpJNqzQgmSrvpUk5Fd2GxBZMJVQkBQmXn4JQLr6z""#, "that of this station's own card"),
            ],
        },
        Group {
            explained: r#"Whether the stations of the swarm folder may open this station's relay ("strfry"), and no other service. On an Astroport
station they may by default."#,
            keys: &[
                Key::with_example("admit_swarm", "`true` or `false`", "false", "`true` on an Astroport station, else `false`"),
            ],
        },
        Group {
            explained: "How long a run may take, at most half an hour.",
            keys: &[
                Key::with_default("run_limit", "span of time, at most half an hour", r#""30m""#),
            ],
        },
    ],
};
