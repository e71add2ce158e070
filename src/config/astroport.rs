//! `[astroport]`, and what the keys that the captain did not set are on an Astroport station.
//!
//! Takes the table as it was written, and the home; fills in what is missing. Invariant: a key that stands in the file or in
//! the environment stays as it is, also where it says nothing (`member_files = []`). Deliberately absent: what the station's
//! files say (`crate::astroport`). Worst case: a few small files are read each time that the configuration is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use toml::{Table, Value};

use super::Config;
use crate::astroport::{AstroportPaths, AstroportStation, SwarmKeyFile, detect, look};
use crate::limits::RUN_DEADLINE;
use crate::report::is_mailbox;

/// Kinds that the network shares, private messages aside, and requests to vanish, which its relays do not know.
const KINDS: &str = "0,1,3,5,6,7,8,21,22,40-42,44,62,1063,1111,1222,1244,1506,1984-1986,9735,10000,10001,30001,30005,30008,\
    30009,30023,30024,30078,30303,30312,30313,30315,30500-30506,30508,30800,30850,30851,30904,31900-31902,31910,31922-31925";
/// Where the network's relay listens.
const RELAY: &str = "ws://127.0.0.1:7777";

/// `[astroport]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AstroportOptions {
    /// Whether this is an Astroport station. Absent: as its environment script says.
    pub enabled: bool,
    /// Where its things are. Absent: the home folder.
    pub home: Option<PathBuf>,
    /// Where the cards of its swarm are. Absent: `~/.zen/tmp/swarm`.
    pub swarm: Option<PathBuf>,
    /// The UPlanet (`UPLANETG1PUB`) whose stations these are; cards of another are refused. Absent: that of our own card.
    pub uplanet: Option<String>,
    /// Whether the stations of the swarm folder may open our relay, and no other service. Absent: on an Astroport station.
    pub admit_swarm: bool,
    /// How long a run may take.
    #[serde(deserialize_with = "run_limit")]
    pub run_limit: Duration,
    /// What its files said when the configuration was read.
    #[serde(skip)]
    pub station: Option<AstroportStation>,
}

impl Default for AstroportOptions {
    fn default() -> Self {
        Self {
            enabled: false,
            home: None,
            swarm: None,
            uplanet: None,
            admit_swarm: false,
            run_limit: RUN_DEADLINE,
            station: None,
        }
    }
}

fn run_limit<'de, D: Deserializer<'de>>(source: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(source)?;
    let read: Option<jiff::SignedDuration> = text.parse().ok();
    let limit = read.and_then(|limit| Duration::try_from(limit).ok());
    limit
        .filter(|limit| !limit.is_zero() && *limit <= RUN_DEADLINE)
        .ok_or_else(|| {
            serde::de::Error::custom(format!(
                "{text:?} is no length of a run: expected for instance \"30m\", which is the most"
            ))
        })
}

/// Fills in what is missing in `table`; gives the station, if this is one. `home`: of whoever runs us.
pub(super) fn fill_in(
    table: &mut Table,
    options: &AstroportOptions,
    home: Option<&Path>,
) -> Option<AstroportStation> {
    let home = options.home.as_deref().or(home)?;
    let paths = AstroportPaths::below(home);
    let is_said = table
        .get("astroport")
        .and_then(Value::as_table)
        .is_some_and(|section| section.contains_key("enabled"));
    let station = match (is_said, options.enabled) {
        (true, true) => look(&paths),
        (true, false) => return None,
        (false, _) => detect(&paths)?,
    };
    set(table, "astroport", "enabled", true);
    set(table, "astroport", "home", text(home));
    set(table, "astroport", "admit_swarm", true);
    set(table, "scope", "kinds", KINDS);
    set(table, "scope", "dms", true);
    let members = [paths.member_keys(), paths.place_keys()];
    set(table, "scope", "member_files", list(&members));
    let friends = [paths.friends(), paths.friends_of_others()];
    set(table, "scope", "friend_files", list(&friends));
    set(
        table,
        "scope",
        "blacklist_files",
        list(&[paths.blacklist()]),
    );
    if station.has_relay_folder {
        set(table, "scope", "merge_into", text(&paths.friends()));
    }
    if station.has_relay {
        set(table, "station", "home_relay", RELAY);
        let folder = text(&paths.relay_folder());
        let command = ["env", "-C", folder.as_str(), "./strfry"];
        let command: Vec<Value> = command.into_iter().map(Value::from).collect();
        set(table, "station", "strfry_command", command);
    }
    if let Some(captain) = station
        .captain_email
        .as_deref()
        .filter(|email| is_mailbox(email))
    {
        set(table, "report", "to", captain);
    }
    match station.swarm_key {
        SwarmKeyFile::Secret => set(table, "tunnel", "swarm_key", text(&paths.swarm_key())),
        SwarmKeyFile::Public => tracing::info!(
            path = %paths.swarm_key().display(),
            "the swarm key is the public one of zeros: everybody has it, so it keeps nobody out and is not used here"
        ),
        SwarmKeyFile::Unusable => tracing::warn!(
            path = %paths.swarm_key().display(),
            "the swarm key cannot be read, and is not used here"
        ),
        SwarmKeyFile::Absent => {}
    }
    Some(station)
}

/// Sets a key that is not there. What is no section is refused by whoever reads the table.
fn set(table: &mut Table, section: &str, key: &str, value: impl Into<Value>) {
    let section = table
        .entry(section)
        .or_insert_with(|| Value::Table(Table::new()));
    if let Some(section) = section.as_table_mut() {
        section.entry(key).or_insert_with(|| value.into());
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn list(paths: &[PathBuf]) -> Vec<Value> {
    paths.iter().map(|path| Value::from(text(path))).collect()
}

impl Config {
    /// Where the things of the Astroport station are, if this is one.
    pub fn astroport_paths(&self) -> Option<AstroportPaths> {
        let station = self.astroport.station.as_ref()?;
        Some(station.paths.clone())
    }

    /// The captain of the Astroport station: where reports go unless the configuration says otherwise.
    pub fn astroport_captain_email(&self) -> Option<&str> {
        self.astroport.station.as_ref()?.captain_email.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::tests::load;
    use crate::sync::KindsSpec;

    /// A home with these files.
    fn home(files: &[(&str, &str)]) -> (tempfile::TempDir, String) {
        let home = tempfile::tempdir().expect("a temporary folder");
        for (path, text) in files {
            let path = home.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("ours");
            fs::write(&path, text).expect("ours");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
        }
        let path = text(home.path());
        (home, path)
    }

    const STATION: [(&str, &str); 4] = [
        (".zen/Astroport.ONE/tools/my.sh", "#!/bin/bash\n"),
        (
            ".zen/game/players/.current/.player",
            "captain@example.org\n",
        ),
        (".zen/strfry/strfry", "#!/bin/bash\n"),
        (
            ".ipfs/swarm.key",
            "/key/swarm/psk/1.0.0/\n/base16/\naaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n",
        ),
    ];

    #[test]
    fn a_station_is_found_and_keys_that_are_not_set_are_its_own() {
        let (_home, path) = home(&STATION);
        let config = load("", &[("HOME", &path)]).expect("valid");
        assert!(config.astroport.enabled && config.astroport.admit_swarm);
        assert_eq!(
            config.astroport_captain_email(),
            Some("captain@example.org")
        );
        assert_eq!(
            config.tunnel.swarm_key,
            Some(format!("{path}/.ipfs/swarm.key").into())
        );
        let options = config.sync_options();
        let relay = options.home.expect("a home relay");
        assert_eq!(relay.relay.as_str(), RELAY);
        let folder = format!("{path}/.zen/strfry");
        assert_eq!(
            relay.strfry_command.words(),
            ["env", "-C", &folder, "./strfry"]
        );
        let scope = &config.scope;
        assert!(scope.dms);
        assert_eq!(
            scope.merge_into,
            Some(format!("{folder}/amisOfAmis.txt").into())
        );
        assert_eq!((scope.member_files.len(), scope.friend_files.len()), (2, 2));
        assert_eq!(scope.blacklist_files.len(), 1);
        let Some(KindsSpec::List(kinds)) = &scope.kinds else {
            panic!("{:?}", scope.kinds)
        };
        for kind in [0, 5, 62, 30_506, 30_508, 30_850, 31_925] {
            assert!(kinds.contains(&kind), "{kind}");
        }
        // Ephemeral, and what is not shared.
        assert!(!kinds.contains(&22_242) && !kinds.contains(&30_507));
    }

    #[test]
    fn what_the_captain_set_stays() {
        let (_home, path) = home(&STATION);
        let text = "[scope]\nkinds = \"1\"\ndms = false\nmember_files = []\n[astroport]\nadmit_swarm = false\nrun_limit = \"90s\"\n[station]\n\
            home_relay = \"ws://127.0.0.1:7000\"\n";
        let variables = [
            ("HOME", path.as_str()),
            ("CONSTELLATION_TUNNEL__SWARM_KEY", "/key"),
        ];
        let config = load(text, &variables).expect("valid");
        assert!(config.astroport.enabled && !config.astroport.admit_swarm);
        assert_eq!(config.scope.kinds, Some(KindsSpec::List([1].into())));
        assert!(!config.scope.dms && config.scope.member_files.is_empty());
        assert_eq!(config.scope.friend_files.len(), 2);
        assert_eq!(config.tunnel.swarm_key, Some("/key".into()));
        let options = config.sync_options();
        assert_eq!(
            options.home.expect("a home relay").relay.as_str(),
            "ws://127.0.0.1:7000"
        );
        assert_eq!(options.deadlines.run.as_secs(), 90);
    }

    #[test]
    fn elsewhere_and_where_the_captain_says_no_nothing_changes() {
        let (_home, path) = home(&STATION);
        let off = load("[astroport]\nenabled = false\n", &[("HOME", &path)]).expect("valid");
        assert_eq!(format!("{off:?}"), format!("{:?}", Config::default()));
        let variable = [
            ("HOME", path.as_str()),
            ("CONSTELLATION_ASTROPORT__ENABLED", "false"),
        ];
        let off = load("", &variable).expect("valid");
        assert_eq!(format!("{off:?}"), format!("{:?}", Config::default()));
        let (_home, empty) = home(&[]);
        let elsewhere = load("", &[("HOME", &empty)]).expect("valid");
        assert_eq!(format!("{elsewhere:?}"), format!("{:?}", Config::default()));
        // Without relay and key there is no word of either, wherever the home is said to be.
        let (_home, bare) = home(&STATION[..1]);
        let text = format!("[astroport]\nhome = {bare:?}\n");
        let config = load(&text, &[("HOME", &empty)]).expect("valid");
        assert!(config.astroport.enabled);
        assert_eq!(
            (config.station.home_relay, config.tunnel.swarm_key),
            (None, None)
        );
        assert_eq!(config.scope.merge_into, None);
    }

    #[test]
    fn a_public_swarm_key_is_none() {
        let zeros = format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", "0".repeat(64));
        let (_home, path) = home(&[STATION[0], (".ipfs/swarm.key", &zeros)]);
        let config = load("", &[("HOME", &path)]).expect("valid");
        assert_eq!(config.tunnel.swarm_key, None);
        let station = config.astroport.station.expect("a station");
        assert_eq!(station.swarm_key, SwarmKeyFile::Public);
    }

    #[test]
    fn a_run_has_an_end() {
        for wrong in ["0s", "31m", "soon", "-1m"] {
            let text = format!("[astroport]\nrun_limit = {wrong:?}\n");
            let error = load(&text, &[]).expect_err("refused").to_string();
            assert!(
                error.contains("line 2") && error.contains("length of a run"),
                "{error}"
            );
        }
    }
}
