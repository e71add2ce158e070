//! Twenty stations, a process of the real binary each, with at most eight live links: the graph of links, read from the
//! stations' own reports, is connected, and stays so whichever of them dies.

use std::collections::{BTreeMap, BTreeSet};

use constellation::control::{ControlClient, StatusReport};

use super::common::{Home, Station, author, note, now, wait_for, wait_until};
use super::many::is_connected_without;
use super::{Client, live, with_peers};
use rustix::process::Signal;

const STATIONS: usize = 20;
/// As many as a station has by default.
const LINKS_MAX: usize = 8;
/// Killed in turn.
const KILLED: usize = 3;

/// Asks running stations how they are, without a process for each question.
struct Asking(tokio::runtime::Runtime);

impl Asking {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        Self(runtime.expect("a runtime"))
    }

    fn status(&self, home: &Home) -> StatusReport {
        let client = ControlClient::new(&home.control_socket());
        self.0.block_on(client.status()).expect("it answers")
    }

    /// Who is linked with whom, by PeerID, as they report it; nothing while somebody reports more links than it may have.
    fn graph(&self, homes: &[&Home]) -> Option<BTreeMap<String, BTreeSet<String>>> {
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for home in homes {
            let status = self.status(home);
            if status.live.links.len() > LINKS_MAX {
                return None;
            }
            for other in status
                .live
                .links
                .into_iter()
                .filter_map(|link| link.station)
            {
                let own = status.peer_id.clone();
                graph.entry(own.clone()).or_default().insert(other.clone());
                graph.entry(other).or_default().insert(own);
            }
        }
        Some(graph)
    }

    /// Waits until these, and no others, are linked so that any one may die.
    #[track_caller]
    fn wait_until_any_one_may_die(&self, homes: &[&Home]) {
        wait_for("any one of them may die", || {
            let graph = self.graph(homes)?;
            let may_die = |one: &String| is_connected_without(&graph, one);
            (graph.len() == homes.len() && graph.keys().all(may_die)).then_some(())
        });
    }
}

#[test]
fn twenty_stations_with_eight_links_each_stay_connected_whichever_dies() {
    let homes: Vec<Home> = (0..STATIONS)
        .map(|_| Home::with_config(&live("")))
        .collect();
    let mut running: Vec<(&Home, Station<'_>)> =
        homes.iter().map(|home| (home, home.start())).collect();
    let all: Vec<&Station<'_>> = running.iter().map(|(_, station)| station).collect();
    for (home, station) in &running {
        let others: Vec<&Station<'_>> = all
            .iter()
            .copied()
            .filter(|other| other.address() != station.address())
            .collect();
        home.configure(&with_peers(&others));
        station.signal(Signal::HUP);
    }
    let asking = Asking::new();
    asking.wait_until_any_one_may_die(&homes.iter().collect::<Vec<_>>());

    for round in 0..KILLED {
        // Now one that dialled early, now one that came late.
        let (_, dead) = running.remove(round * 7 % running.len());
        dead.kill();
        let event = note(&author(1), now(), &format!("after {} died", round + 1));
        Client::of(&running[round].1).publish(&event);
        let left: Vec<&Home> = running.iter().map(|(home, _)| *home).collect();
        wait_until("the others have it", || {
            let count = round as u64 + 1;
            left.iter().all(|home| asking.status(home).events == count)
        });
        asking.wait_until_any_one_may_die(&left);
    }
}
