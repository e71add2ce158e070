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
# What the station calls itself in reports.
#name = "constellation"

[relay]
# Where the relay listens. Loopback only: open it to others behind a proxy, or by your own decision.
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
# Proxies whose X-Forwarded-For is believed.
#trusted_proxies = []
# Limits: connections in all, and what one connection may have.
#connections_max = 1024
#subscriptions_max = 20
#filters_max = 20
#negentropy_sessions_max = 4
#event_bytes_max = 262144
#event_tags_max = 5000
#events_per_minute = 600

[scope]
# Kinds that are shared: "all", a list such as "0,1,30000-30003", or numbers.
#kinds = "0,1,3,5,6,7,62,30023,30024,31922-31925"
# Also share private messages (kinds 4, 13, 1059).
#dms = false

[schedule]
# How often to exchange with all peers; also at start. "0s" never does it by itself.
#every = "1h"

# One entry for each peer; none by default.
#[[peers]]
# Its address: ws://host:port or wss://host.
#address = "wss://relay.example.org"
# Which way events go: "down" (to us), "up" (to the peer) or "both".
#direction = "both"
# Kinds shared with this peer instead of those of [scope].
#kinds = "all"
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn every_commented_key_is_a_key_and_its_value_a_valid_one() {
        let uncommented: String = SAMPLE
            .lines()
            .filter(|line| !line.starts_with("# "))
            .map(|line| format!("{}\n", line.strip_prefix('#').unwrap_or(line)))
            .collect();
        let config: Config = toml::from_str(&uncommented).expect("valid when uncommented");
        let defaults = Config::default();
        assert_eq!(config.relay.listen, defaults.relay.listen);
        assert_eq!(config.schedule, defaults.schedule);
        assert_eq!(config.peers.len(), 1);
        let kinds = config.scope.kinds.expect("given");
        let listed = crate::sync::KindsSpec::List(crate::sync::DEFAULT_KINDS.into());
        assert_eq!(kinds, listed, "the list in the comment is the default");
    }
}
