//! Whether this machine is an Astroport station, and what its files say of it.
//!
//! Takes the paths; gives the station, or nothing where the network's environment script is missing or empty. Blocks; each
//! file is read within a bound, and one that cannot be read counts as one that is not there: whoever needs it says so.
//! Deliberately absent: what follows for the configuration, and other stations' cards.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use super::paths::AstroportPaths;
use crate::peer::PeerId;
use crate::state_file;
use crate::tunnel::SwarmKey;

/// Of a card, or kubo's configuration.
const JSON_BYTES_MAX: u64 = 1 << 20;
/// Of a swarm key, or the file that names the captain.
const SMALL_FILE_BYTES_MAX: u64 = 4 << 10;
/// The longest address that mail takes.
const EMAIL_BYTES_MAX: usize = 254;
/// Folders that are looked at for our own card.
const FOLDERS_MAX: usize = 4_096;

/// What there is of the key of a private swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwarmKeyFile {
    /// No file.
    Absent,
    /// A key that only its holders know.
    Secret,
    /// The key of zeros: everybody has it, so that it keeps nobody out and says nothing of who belongs to whom.
    Public,
    /// A file that holds no key, or that we may not read.
    Unusable,
}

/// An Astroport station, by its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AstroportStation {
    /// Where its things are.
    pub paths: AstroportPaths,
    /// Its PeerID: by kubo's configuration, else by the card that it publishes.
    pub peer: Option<PeerId>,
    /// Where reports go.
    pub captain_email: Option<String>,
    /// Which UPlanet it belongs to (`UPLANETG1PUB`), by its own card.
    pub uplanet: Option<String>,
    /// The key of its swarm.
    pub swarm_key: SwarmKeyFile,
    /// Whether the relay's program is there.
    pub has_relay: bool,
    /// Whether the relay's folder is there.
    pub has_relay_folder: bool,
}

/// Whether the environment script is there, and not empty: the network's own test for a station.
pub fn is_station(paths: &AstroportPaths) -> bool {
    std::fs::metadata(paths.environment_script())
        .is_ok_and(|script| script.is_file() && script.len() > 0)
}

/// The station of these paths; `None`: this is none.
pub fn detect(paths: &AstroportPaths) -> Option<AstroportStation> {
    is_station(paths).then(|| look(paths))
}

/// What the files say, whether or not this is a station by its own test.
pub(crate) fn look(paths: &AstroportPaths) -> AstroportStation {
    let peer = peer_of_kubo(&paths.kubo_config()).or_else(|| peer_of_card(&paths.published()));
    let card =
        peer.and_then(|peer| read_json(&paths.published_by(&peer.to_string()).join("12345.json")));
    AstroportStation {
        peer,
        captain_email: captain_email(&paths.captain()),
        uplanet: card.and_then(|card| text(&card, "UPLANETG1PUB")),
        swarm_key: swarm_key(&paths.swarm_key()),
        has_relay: is_program(&paths.relay_program()),
        has_relay_folder: paths.relay_folder().is_dir(),
        paths: paths.clone(),
    }
}

fn read_small(path: &Path, bytes_max: u64) -> Option<Vec<u8>> {
    let bytes = state_file::read_up_to(path, bytes_max).ok()??;
    (bytes.len() as u64 <= bytes_max).then_some(bytes)
}

fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&read_small(path, JSON_BYTES_MAX)?).ok()
}

fn text(json: &Value, key: &str) -> Option<String> {
    let text = json.get(key)?.as_str()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn peer_of_kubo(config: &Path) -> Option<PeerId> {
    let config = read_json(config)?;
    config.pointer("/Identity/PeerID")?.as_str()?.parse().ok()
}

/// The station whose card lies in the folder of its own PeerID; `None` if there are several.
fn peer_of_card(published: &Path) -> Option<PeerId> {
    let folders = std::fs::read_dir(published).ok()?.flatten();
    let mut own = folders.take(FOLDERS_MAX).filter_map(|folder| {
        let peer: PeerId = folder.file_name().to_str()?.parse().ok()?;
        let card = read_json(&folder.path().join("12345.json"))?;
        (text(&card, "ipfsnodeid")? == peer.to_string()).then_some(peer)
    });
    let first = own.next()?;
    own.next().is_none().then_some(first)
}

fn captain_email(path: &Path) -> Option<String> {
    let bytes = read_small(path, SMALL_FILE_BYTES_MAX)?;
    let text = String::from_utf8(bytes).ok()?;
    let email = text.lines().next()?.trim();
    let is_one = email.len() <= EMAIL_BYTES_MAX
        && email.split('@').filter(|part| !part.is_empty()).count() == 2
        && email.matches('@').count() == 1
        && email.chars().all(|letter| letter.is_ascii_graphic());
    is_one.then(|| email.to_owned())
}

fn swarm_key(path: &Path) -> SwarmKeyFile {
    match state_file::read_up_to(path, SMALL_FILE_BYTES_MAX) {
        Ok(None) => SwarmKeyFile::Absent,
        Err(_) => SwarmKeyFile::Unusable,
        Ok(Some(bytes)) => match SwarmKey::from_text(&String::from_utf8_lossy(&bytes)) {
            Ok(key) if key.is_public() => SwarmKeyFile::Public,
            Ok(_) => SwarmKeyFile::Secret,
            Err(_) => SwarmKeyFile::Unusable,
        },
    }
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().expect("a folder")).expect("ours");
        fs::write(path, text).expect("ours");
    }

    fn key(digit: &str) -> String {
        format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", digit.repeat(64))
    }

    #[test]
    fn a_machine_without_the_environment_script_is_no_station() {
        let home = tempfile::tempdir().expect("a temporary folder");
        let paths = AstroportPaths::below(home.path());
        assert_eq!(detect(&paths), None);
        write(&paths.environment_script(), "");
        assert_eq!(
            detect(&paths),
            None,
            "the scripts too want one that says something"
        );
        write(&paths.environment_script(), "#!/bin/bash\n");
        let bare = detect(&paths).expect("a station");
        assert_eq!(
            (bare.peer, bare.captain_email, bare.uplanet),
            (None, None, None)
        );
        assert_eq!(bare.swarm_key, SwarmKeyFile::Absent);
        assert!(!bare.has_relay && !bare.has_relay_folder);
    }

    #[test]
    fn a_station_is_what_its_files_say() {
        let home = tempfile::tempdir().expect("a temporary folder");
        let paths = AstroportPaths::below(home.path());
        write(&paths.environment_script(), "#!/bin/bash\n");
        write(&paths.captain(), "captain@example.org\n");
        let card = format!(r#"{{"ipfsnodeid": "{PEER}", "UPLANETG1PUB": "ours"}}"#);
        write(&paths.published_by(PEER).join("12345.json"), &card);
        write(&paths.relay_program(), "");
        for (text, expected) in [
            (key("0"), SwarmKeyFile::Public),
            (key("a"), SwarmKeyFile::Secret),
            ("nonsense".to_owned(), SwarmKeyFile::Unusable),
        ] {
            write(&paths.swarm_key(), &text);
            assert_eq!(detect(&paths).expect("a station").swarm_key, expected);
        }
        let by_card = detect(&paths).expect("a station");
        assert_eq!(by_card.peer.expect("by its card").to_string(), PEER);
        assert_eq!(
            by_card.captain_email.as_deref(),
            Some("captain@example.org")
        );
        assert_eq!(by_card.uplanet.as_deref(), Some("ours"));
        assert!(
            by_card.has_relay_folder && !by_card.has_relay,
            "it cannot be run"
        );
        let program = fs::Permissions::from_mode(0o755);
        fs::set_permissions(paths.relay_program(), program).expect("ours");
        assert!(detect(&paths).expect("a station").has_relay);
        // kubo's own word counts more, and two cards prove nothing.
        let other = PeerId::random().to_string();
        write(
            &paths.published_by(&other).join("12345.json"),
            &format!(r#"{{"ipfsnodeid": "{other}"}}"#),
        );
        assert_eq!(detect(&paths).expect("a station").peer, None);
        let config = format!(r#"{{"Identity": {{"PeerID": "{other}"}}}}"#);
        write(&paths.kubo_config(), &config);
        let by_kubo = detect(&paths).expect("a station");
        assert_eq!(by_kubo.peer.expect("by kubo").to_string(), other);
    }

    #[test]
    fn what_is_no_address_is_nobody() {
        let home = tempfile::tempdir().expect("a temporary folder");
        let paths = AstroportPaths::below(home.path());
        for wrong in ["", "captain", "@", "a@", "a b@c", "a@b@c", "a@b\tc"] {
            write(&paths.captain(), wrong);
            assert_eq!(captain_email(&paths.captain()), None, "{wrong:?}");
        }
    }
}
