//! The commented configuration that `constellation init` writes: every key with its default.

/// A configuration in which every key is explained and commented out, so that it says the same as an empty one.
pub fn sample() -> String {
    SAMPLE.to_owned()
}

const SAMPLE: &str = r#"# Configuration of a Constellation station.
#
# Every key stands here with its default, commented out. Unknown keys are refused.
# CONSTELLATION_<SECTION>__<KEY> in the environment overrides a key, for instance
# CONSTELLATION_RELAY__LISTEN=127.0.0.1:7778. SIGHUP has a running station read this file again.

[station]
# What the station calls itself in reports; at most 256 bytes.
#name = "constellation"
# The name of the constellation. By default it is known by its swarm key, or is the one that this station joined, or one
# of its own. When it changes, nothing is shared until you confirm it: constellation init --accept-constellation.
#constellation = "our-constellation"
# An existing relay on this machine that this station serves, for instance a strfry: it is read first and written last in
# every run. Beside one, [relay] listens at port 7778 by default. None by default.
#home_relay = "ws://127.0.0.1:7777"
# How events get into it: "import" (by the import of strfry_command, so that its write policy plugin is never asked) or
# "event" (by EVENT, as into any relay).
#home_write = "import"
# The command to which "import" is added, as words; no shell reads it. strfry looks for its database where it is started
# and where its configuration says: ["env", "-C", "/home/captain/.zen/strfry", "./strfry"] starts it in that folder.
#strfry_command = ["strfry"]

[relay]
# Where the relay listens (beside a home relay by default at port 7778). Loopback only: open it to others behind a
# proxy, or by your own decision.
#listen = "127.0.0.1:7777"
# What clients are told of the relay (NIP-11).
#name = "constellation"
#description = "A station that keeps its relay equal with those of its constellation."
# How to reach its operator, and the operator's public key (npub or hex); absent by default.
#contact = "mailto:captain@example.org"
#pubkey = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg"
# Addresses by which clients know this relay. Authentication (NIP-42) from elsewhere and requests to vanish (NIP-62)
# must name one of them.
#own_urls = []
# Who may write besides programs on this machine: "loopback" (nobody else), "scope" (the kinds and authors shared),
# "anyone", or a list of public keys (npub or hex).
#write = "loopback"
# Whether connections from this machine have all rights. Set it to false behind a proxy on this machine that adds no
# X-Forwarded-For.
#trust_loopback = true
# Proxies whose X-Forwarded-For is believed: the addresses it names count for connections_per_address_max.
#trusted_proxies = []
# Whether messages are compressed for clients elsewhere that offer it (permessage-deflate): a third fewer bytes for some
# processor time. Stations and programs on this machine are never sent compressed messages.
#compression = true
# Limits: connections in all (a sixteenth of them is kept for programs on this machine) and from one address (this machine
# exempt), and what one connection may have. Tunnels are not counted.
#connections_max = 1024
#connections_per_address_max = 64
#subscriptions_max = 20
#filters_max = 20
#negentropy_sessions_max = 4
#event_bytes_max = 262144
#event_tags_max = 5000
#events_per_minute = 600
# A write policy plugin as strfry has them (a line of JSON in, a line out), as the words of a command; none by default. It
# is asked about verified events before they are stored, by the ways that plugin_asks names; never about constellation import.
#plugin = ["/usr/local/bin/policy"]
# How long it may take to answer about one event, at most a minute; before that, an event waits as long at most for its turn.
#plugin_timeout = "5s"
# What is done with an event while the plugin does not answer, or does not run: "reject" (whoever offered it may try
# again, and the next run fetches it) or "accept".
#plugin_on_failure = "reject"
# Which events it is asked about: "clients" (what is published over TCP), "stations" (what admitted ones publish through
# their tunnels), "live" (what live links bring that this station opens), "runs" (what its runs fetch, also from the home
# relay). What it refuses of the last two is left alone for a day. It sees a sourceType of IP4, IP6, Stream, Stream or Sync.
#plugin_asks = ["clients"]

[tunnel]
# Tunnels to other stations over libp2p, as kubo's "ipfs p2p". Only admitted stations may enter: those listed here, those
# that joined with a token (constellation invite, constellation join), and those that admitted ones vouch for.
#enabled = true
# Where to listen. By default port 4011 on all addresses, over TCP and (without a swarm key) QUIC.
#listen = ["/ip4/0.0.0.0/tcp/4011", "/ip4/0.0.0.0/udp/4011/quic-v1"]
# Addresses by which others reach this station besides those it sees itself, for instance a forwarded port.
#external = []
# The key file of a private swarm, as kubo's. Only TCP then.
#swarm_key = "/home/captain/.ipfs/swarm.key"
# Another identity than identity.key: an OpenSSH ed25519 key, or the configuration of a kubo that does not run here.
#identity = "/home/captain/.ssh/id_ed25519"
# Stations that may enter: PeerIDs, or lines as in authorized_keys ("ssh-ed25519 AAAA…").
#allow = []
# Whether whoever holds the swarm key may enter. A key of zeros is public and admits nobody.
#swarm_key_admits = false
# Looking for stations: on the local network, and in a distributed hash table ("constellation": one that the stations
# make up among themselves, "ipfs": that of IPFS, "off").
#mdns = true
#kademlia = "constellation"
# Whether to relay for stations that cannot reach each other. Those that need it use it by themselves.
#serve_relay = false
# Stations that relay for this one, besides those that say so themselves: addresses with /p2p/<PeerID>.
#relays = []
# Whether to ask the router for a port (untested).
#upnp = false
# Services that are never exposed, whatever a command says.
#private = []
# Services that others may open. The relay ("strfry") is exposed by default. Known by name: strfry 7777, ssh (its
# server's port), ollama 11434, comfyui 8188, orpheus 5005, perplexica 3001. "allow" names the only stations it is for.
#services = [{ name = "ssh", port = 22, allow = [] }]
# Services of other stations, open on a port of this machine: the one named, or always the same free one.
#open = []

[kubo]
# Whether a kubo daemon on this machine carries the tunnels: "auto" (if one answers, or ever did), "always", "never".
#use = "auto"
# Where its RPC answers.
#api = "http://127.0.0.1:5001"

[astroport]
# Whether this is an Astroport station: its swarm's cards are read, its scripts' locks held and logs written, and keys that
# are not set here are what that network has. By default as ~/.zen/Astroport.ONE/tools/my.sh says; then true.
#enabled = false
# Where its things are (by default the home folder), and the cards of its swarm (by default ~/.zen/tmp/swarm).
#home = "/home/captain"
#swarm = "/home/captain/.zen/tmp/swarm"
# The UPlanet (UPLANETG1PUB) whose stations these are; by default that of this station's own card.
#uplanet = "AwdjhpJNqzQgmSrvpUk5Fd2GxBZMJVQkBQmXn4JQLr6z"
# Whether the stations of the swarm folder may open this station's relay ("strfry"), and no other service. On an Astroport
# station they may by default.
#admit_swarm = false
# How long a run may take, at most half an hour.
#run_limit = "30m"

[scope]
# Kinds that are shared: "all", a list such as "0,1,30000-30003", or numbers.
#kinds = "0,1,3,5,6,7,62,30023,30024,31922-31925"
# Also share private messages (kinds 4, 13, 1059).
#dms = false
# Whose events are shared: "all", "n2" (members, whom they follow, and whom those follow), or a list of public keys (npub
# or hex). By default all with stations, and with relays (ws://, wss://) n2 once members are known.
#authors = "n2"
# Members: the public keys (npub or hex) that this station vouches for. The station and captain keys of the cards of an
# Astroport swarm are members too.
#members = []
# Files with members' keys, one a line. Paths are absolute and may be patterns: * within a name, ** for any folders. What
# was in a file counts for 48 hours after it has gone.
#member_files = ["/home/captain/.zen/game/nostr/*/HEX", "/home/captain/.zen/flashmem/**/HEX"]
# Files with friends of friends, as other stations merge them; they count as those whom n2 ends with.
#friend_files = ["/home/captain/.zen/tmp/swarm/*/amisOfAmis.txt"]
# Files with keys that friend_files do not bring in. Whom members follow, or those whom they follow, is never blocked, and
# where all are shared nobody is.
#blacklist_files = ["/home/captain/.zen/strfry/blacklist.txt"]
# The most authors under n2: members first, then whom they follow, then the others, each the most followed first.
#authors_max = 50000
# The file that those whom members follow, and whom these follow, are merged into; what others write there stays.
#merge_into = "/home/captain/.zen/strfry/amisOfAmis.txt"

[schedule]
# How often to exchange with all peers; also at start. "0s" never does it by itself. What was missed while the machine
# slept or was off is made up for by one run.
#every = "1h"
# When to do it instead: minute, hour, day of the month, month, day of the week, by this machine's time zone or one that
# is named after them ("0 3 * * * Europe/Paris"). At start then only if one was missed.
#cron = "7 * * * *"
# Each run begins up to so much later, at random, so that not all stations begin at once; at most a tenth of the time
# between two runs.
#jitter = "5m"

[live]
# Whether to keep links to other stations (and configured relays) open, over which new events go at once, and to take
# those that other stations open.
#enabled = true
# Links with other stations, dialled and accepted together: 2 to 8.
#links_max = 8

[report]
# Of which runs a report is sent, if a way to send it is set below: "always" (every run with all peers), "change" (when
# all is no longer well, or is well again), "failure" (every run that was not well), "daily", "never". Whatever stands
# here, constellation report shows any run, and constellation report --send sends it.
#when = "change"
# When the daily report is due, local time.
#digest_at = "07:00"
# For how long a peer must not have been reached before that counts as a fault. Stations that are up for an hour a day
# are none with the default.
#unreached_for = "26h"
# To whom reports go; none by default.
#to = "captain@example.org"
# From whom mails are; by default smtp_user where that is an address, else "to".
#from = "station@example.org"
# The mail server; none by default, and then no mail is sent.
#smtp_host = "smtp.example.org"
# How the connection with it is protected: "starttls" (port 587), "tls" (port 465), "none" (port 25; only for a server on
# this machine, unless smtp_plain_anywhere says that mails and password may go in plain text). smtp_port names another.
#smtp_encryption = "starttls"
#smtp_port = 587
#smtp_plain_anywhere = false
# As whom to log in; not at all by default. The password stands in a file that others cannot read, or in the variable
# CONSTELLATION_REPORT__PASSWORD, never here.
#smtp_user = "station@example.org"
#password_file = "/home/captain/.config/constellation/mail-password"
# Certificates (PEM) of those who may vouch for the mail server, besides those that browsers believe.
#ca_file = "/etc/ssl/own-ca.pem"
# A command that sends reports, as words; no shell reads it. It is given three more: the recipient ("to"), an HTML file
# and the subject. It has two minutes. None by default.
#command = ["/home/captain/.zen/Astroport.ONE/tools/mailjet.sh"]
# A file, its owner's alone, with the key (nsec or 64 hex digits) by which reports are signed as Nostr notes, which are
# stored here, shared like all notes, and expire. None by default.
#note_key_file = "/home/captain/.config/constellation/report-key"
#note_expires = "1h"

# One entry for each peer; none by default.
#[[peers]]
# Its address: ws://host:port, wss://host, /ip4/…/tcp/…/p2p/<PeerID> (any multiaddr), or /p2p/<PeerID>. A station
# that is named here may also enter.
#address = "wss://relay.example.org"
# Which way events go: "down" (to us), "up" (to the peer) or "both".
#direction = "both"
# Kinds shared with this peer instead of those of [scope].
#kinds = "all"
# Whose events are shared with this peer, as in [scope].
#authors = "all"
# Bytes a second that may go to this peer, and as many from it; at least 16000. No limit by default.
#bandwidth = 125000
# Hours of the day (local time) in which scheduled runs leave it alone; none by default.
#quiet_hours = "22:00-06:30"
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn every_commented_key_is_a_key_and_its_value_a_valid_one() {
        let without = |alternative: &str| -> Config {
            let uncommented: String = SAMPLE
                .lines()
                .filter(|line| !line.starts_with("# ") && !line.starts_with(alternative))
                .map(|line| format!("{}\n", line.strip_prefix('#').unwrap_or(line)))
                .collect();
            toml::from_str(&uncommented).expect("valid when uncommented")
        };
        // One of two says when runs are due.
        assert!(without("#every").schedule.cron.is_some());
        let config = without("#cron");
        let defaults = Config::default();
        assert_eq!(config.relay.listen, Some(defaults.relay_listens()));
        assert_eq!(
            config.station.strfry_command,
            defaults.station.strfry_command
        );
        assert_eq!(config.station.home_write, defaults.station.home_write);
        assert_eq!(config.relay.plugin_timeout, defaults.relay.plugin_timeout);
        assert_eq!(
            config.relay.plugin_on_failure,
            defaults.relay.plugin_on_failure
        );
        assert_eq!(config.relay.plugin_asks, defaults.relay.plugin_asks);
        assert_eq!(config.schedule, defaults.schedule);
        assert_eq!(config.live, defaults.live);
        let report = &config.report;
        assert_eq!(report.check(), Ok(()));
        assert_eq!(report.when, defaults.report.when);
        assert_eq!(report.digest_at, defaults.report.digest_at);
        assert_eq!(report.unreached_for, defaults.report.unreached_for);
        assert_eq!(report.smtp_encryption, defaults.report.smtp_encryption);
        assert_eq!(report.smtp_port, Some(defaults.report.port()));
        assert_eq!(report.note_expires, defaults.report.note_expires);
        assert!(defaults.report.channels().is_empty());
        assert_eq!(config.peers.len(), 1);
        assert_eq!(config.scope.authors_max, defaults.scope.authors_max);
        let kinds = config.scope.kinds.expect("given");
        let listed = crate::sync::KindsSpec::List(crate::sync::DEFAULT_KINDS.into());
        assert_eq!(kinds, listed, "the list in the comment is the default");
    }
}
