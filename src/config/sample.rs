//! The commented configuration that `constellation init` writes: every key with its default, made from
//! [`super::reference`].
//!
//! Pure. Invariant: read as a configuration it is an empty one. Deliberately absent: what is on the machine, and what keys do.

use super::reference::{Group, SECTIONS, Shape};

const HEAD: &str = "\
# Configuration of a Constellation station.
#
# Every key stands here with its default, commented out. Unknown keys are refused.
# CONSTELLATION_<SECTION>__<KEY> in the environment overrides a key, for instance
# CONSTELLATION_RELAY__LISTEN=127.0.0.1:7778. SIGHUP has a running station read this file again.
";

/// A configuration in which every key is explained and commented out, so that it says the same as an empty one.
pub fn sample() -> String {
    let mut text = HEAD.to_owned();
    for section in SECTIONS {
        text.push('\n');
        for line in section.about.lines() {
            text.push_str(&format!("# {line}\n"));
        }
        let commented = if section.shape == Shape::List {
            "#"
        } else {
            ""
        };
        text.push_str(&format!("{commented}{}\n", section.head()));
        for group in section.groups {
            write_group(&mut text, group);
        }
    }
    text
}

fn write_group(text: &mut String, group: &Group) {
    for line in group.explained.lines() {
        text.push_str(&format!("# {line}\n"));
    }
    for key in group.keys {
        text.push_str(&format!("#{} = {}\n", key.name, key.value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn every_commented_key_is_a_key_and_its_value_a_valid_one() {
        let without = |alternative: &str| -> Config {
            let uncommented: String = sample()
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
