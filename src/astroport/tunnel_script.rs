//! `x_strfry.sh`: how a station that is on the scripts still opens a tunnel to our relay.
//!
//! Takes our PeerID; gives the script, and puts it beside our card. It has what the network's scripts look for in one
//! (`NODE_ID`, `PROTO`, `NATIVE_PORT`, `ALT_PORT`, and `off`): bash, `ipfs` and the tools that those stations have. Invariant:
//! a script of somebody else's that leads to the same service stays. The card's folder is the station's own and is emptied
//! every evening: it is not made here, and the script is put there again when the folder is back. Deliberately absent: the
//! tunnel itself. Worst case: a folder that we may not write, said in the log.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::paths::AstroportPaths;
use crate::peer::PeerId;
use crate::state_file;

/// Where the scripts expect the tunnel's mouth.
const NATIVE_PORT: u16 = 9999;
/// Where it opens while that is taken.
const ALTERNATIVE_PORT: u16 = 9998;
/// Of a script that may be somebody else's.
const SCRIPT_BYTES_MAX: u64 = 64 << 10;
/// Whoever runs it has fetched it first.
const MODE: u32 = 0o755;

/// What came of publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publishing {
    /// It was written.
    Written,
    /// One that leads to us was there.
    WasThere,
    /// The station publishes nothing at the moment.
    NoFolder,
}

/// The script of one station.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelScript {
    path: PathBuf,
    protocol: String,
    text: String,
}

impl TunnelScript {
    /// For the relay of the station that others know as `own`.
    pub fn new(paths: &AstroportPaths, own: PeerId) -> Self {
        let protocol = format!("/x/strfry-{own}");
        Self {
            path: paths.published_by(&own.to_string()).join("x_strfry.sh"),
            text: text(own, &protocol),
            protocol,
        }
    }

    /// Puts it beside the card, unless one that leads to us is there. Blocks.
    ///
    /// # Errors
    /// The system's.
    pub fn publish(&self) -> std::io::Result<Publishing> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        if !folder.is_dir() {
            return Ok(Publishing::NoFolder);
        }
        if self.leads_to_us()? {
            return Ok(Publishing::WasThere);
        }
        let mut draft = tempfile::NamedTempFile::new_in(folder)?;
        draft.write_all(self.text.as_bytes())?;
        let permissions = std::fs::Permissions::from_mode(MODE);
        draft.as_file().set_permissions(permissions)?;
        draft.persist(&self.path).map_err(|error| error.error)?;
        Ok(Publishing::Written)
    }

    /// Takes it away again, if it is ours to the letter. Blocks.
    ///
    /// # Errors
    /// The system's.
    pub fn withdraw(&self) -> std::io::Result<()> {
        let there = state_file::read_up_to(&self.path, SCRIPT_BYTES_MAX)?;
        if there.as_deref() == Some(self.text.as_bytes()) {
            std::fs::remove_file(&self.path)?;
        }
        Ok(())
    }

    fn leads_to_us(&self) -> std::io::Result<bool> {
        let there = state_file::read_up_to(&self.path, SCRIPT_BYTES_MAX)?;
        let there = there.unwrap_or_default();
        let named = format!("PROTO=\"{}\"", self.protocol);
        Ok(String::from_utf8_lossy(&there)
            .lines()
            .any(|line| line.trim() == named))
    }

    /// The script itself.
    pub fn text(&self) -> &str {
        &self.text
    }
}

fn text(own: PeerId, protocol: &str) -> String {
    format!(
        r#"#!/bin/bash
# Opens a tunnel to the Nostr relay of this station through the ipfs daemon; with "off" it is closed.
NODE_ID="{own}"
PROTO="{protocol}"
NATIVE_PORT="{NATIVE_PORT}"
ALT_PORT="{ALTERNATIVE_PORT}"

case "${{1,,}}" in
    off|stop)
        ipfs p2p close --protocol "$PROTO"
        exit
        ;;
esac

is_ours() {{
    ipfs p2p ls 2>/dev/null | grep -F "$PROTO " | grep -q "/tcp/$1 "
}}

is_taken() {{
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}}

LPORT="$NATIVE_PORT"
if [[ "$NATIVE_PORT" -lt 1024 ]]; then
    LPORT="$ALT_PORT"
elif is_taken "$NATIVE_PORT" && ! is_ours "$NATIVE_PORT"; then
    LPORT="$ALT_PORT"
fi
export LPORT

if ! is_ours "$LPORT"; then
    # On a network where ping is refused the tunnel may still open.
    ipfs --timeout=15s swarm connect "/p2p/$NODE_ID" >/dev/null 2>&1
    if ! ipfs p2p forward "$PROTO" "/ip4/127.0.0.1/tcp/$LPORT" "/p2p/$NODE_ID"; then
        echo "Cannot open a tunnel to $NODE_ID" >&2
        exit 1
    fi
fi
echo "The relay of $NODE_ID is at ws://127.0.0.1:$LPORT"
"#
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    #[test]
    fn it_is_put_beside_the_card_again_and_again_but_not_over_one_that_leads_to_us() {
        let home = tempfile::tempdir().expect("a temporary folder");
        let paths = AstroportPaths::below(home.path());
        let own = PeerId::random();
        let script = TunnelScript::new(&paths, own);
        let folder = paths.published_by(&own.to_string());
        let path = folder.join("x_strfry.sh");
        assert_eq!(script.publish().expect("looked"), Publishing::NoFolder);
        assert!(!folder.exists());
        for _ in 0..2 {
            fs::create_dir_all(&folder).expect("ours");
            assert_eq!(script.publish().expect("written"), Publishing::Written);
            assert_eq!(script.publish().expect("looked"), Publishing::WasThere);
            let mode = fs::metadata(&path).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o755);
            // As every evening.
            fs::remove_dir_all(&folder).expect("ours");
        }
        fs::create_dir_all(&folder).expect("ours");
        let theirs = format!("#!/bin/bash\n  PROTO=\"/x/strfry-{own}\"\n");
        fs::write(&path, &theirs).expect("ours");
        assert_eq!(script.publish().expect("looked"), Publishing::WasThere);
        script.withdraw().expect("looked");
        assert_eq!(fs::read_to_string(&path).expect("theirs"), theirs);
        // One that leads elsewhere is of no use to anybody.
        fs::write(&path, "PROTO=\"/x/strfry-another\"\n").expect("ours");
        assert_eq!(script.publish().expect("written"), Publishing::Written);
        script.withdraw().expect("removed");
        assert!(!path.exists());
        script.withdraw().expect("nothing to do");
    }

    #[test]
    fn bash_understands_it() {
        let home = tempfile::tempdir().expect("a temporary folder");
        let script = TunnelScript::new(&AstroportPaths::below(home.path()), PeerId::random());
        let path = home.path().join("x_strfry.sh");
        fs::write(&path, script.text()).expect("ours");
        let checked = Command::new("bash").arg("-n").arg(&path).status();
        assert!(checked.expect("bash").success());
        for wanted in ["NODE_ID=", "PROTO=", "NATIVE_PORT=", "ALT_PORT="] {
            assert!(script.text().lines().any(|line| line.starts_with(wanted)));
        }
    }
}
