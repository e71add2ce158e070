//! Other stations' nodes, many in one process, each connected with the station that idles.
//!
//! Its words: the station's address with its PeerID, a folder for identities, and how many. It says a line when all
//! have begun, and ends with its standard input. Nodes, not whole stations: no events, no cards.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use constellation::peer::{Multiaddr, PeerAddress, PeerId};
use constellation::random::Random;
use constellation::tasks::TaskGroup;
use constellation::time::Clock;
use constellation::tunnel::{Carrier, GuestList, Identity, Node, NodeOptions, Source};
use tokio::sync::watch;

use crate::Measured;

/// The first word of its command line.
pub(crate) const WORD: &str = "neighbours";
/// Tasks of one node.
const TASKS_MAX: usize = 64;

/// The process; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Neighbours(Child);

impl Neighbours {
    pub(crate) fn start(address: &str, folder: &Path, count: usize) -> Measured<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(WORD)
            .args([address.as_ref(), folder.as_os_str()])
            .arg(count.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no output")?;
        BufReader::new(stdout).read_line(&mut String::new())?;
        Ok(Self(child))
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn identity_file(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("{number}.key"))
}

/// Makes identities; gives their PeerIDs.
pub(crate) fn identities(folder: &Path, count: usize) -> Measured<Vec<String>> {
    let made = (0..count).map(|number| Identity::load_or_create(&identity_file(folder, number)));
    Ok(made
        .map(|identity| identity.map(|identity| identity.peer_id()))
        .collect::<Result<_, _>>()?)
}

/// Stays connected until standard input ends.
pub(crate) fn stay(words: &[String]) -> Measured<()> {
    let [address, folder, count] = words else {
        return Err("expected an address, a folder and a number".into());
    };
    // It must be an address with a PeerID.
    let station: PeerAddress = address.parse()?;
    let station: PeerId = station.peer_id().ok_or("no PeerID")?;
    let address: Multiaddr = address.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut nodes = Vec::new();
    for number in 0..count.parse()? {
        let identity = Identity::load_or_create(&identity_file(Path::new(folder), number))?;
        let (guests, list) = watch::channel(Arc::new(GuestList {
            admitted: BTreeSet::from([station]),
            ..GuestList::default()
        }));
        let tasks = TaskGroup::new(TASKS_MAX);
        let starting = Node::start(
            &identity,
            NodeOptions::default(),
            list,
            Clock::system(),
            Random::system(),
            &tasks,
        );
        let started = runtime.block_on(starting)?;
        started
            .node
            .learn(station, std::slice::from_ref(&address), Source::Static);
        started.node.keep(BTreeSet::from([station]));
        nodes.push((started, guests, tasks));
    }
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "begun")?;
    stdout.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
