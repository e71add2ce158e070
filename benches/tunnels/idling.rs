//! What a station costs that does nothing: with many links beside one without any, in the same half minute.

use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;

use crate::neighbours::{Neighbours, identities};
use crate::station::{Home, Station, until};
use crate::table::Table;
use crate::{Asked, Measured};

const LINKS: usize = 50;
/// Until what starting left to do is done.
const SETTLES: Duration = Duration::from_secs(5);
/// Long enough for pings and every other thing that is done now and then.
const WATCHED: Duration = Duration::from_secs(30);
const LISTEN: &str = "listen = [\"/ip4/127.0.0.1/tcp/0\"]";

/// Memory and processor share.
pub(crate) fn idle(asked: &Asked, table: &mut Table) -> Measured<()> {
    let alone = Home::new(asked)?;
    alone.configure(LISTEN)?;
    let alone = alone.start()?;

    let folder = TempDir::new()?;
    let peers = identities(folder.path(), LINKS)?;
    let linked = Home::new(asked)?;
    linked.configure(&format!("{LISTEN}\nallow = {peers:?}"))?;
    let linked = linked.start()?;
    let address = format!("{}/p2p/{}", linked.address()?, linked.home.peer());
    let _neighbours = Neighbours::start(&address, folder.path(), LINKS)?;
    until("all are connected", || {
        let links = linked.tunnels()?["carrier"]["links"]
            .as_object()
            .map(serde_json::Map::len);
        Ok((links == Some(LINKS)).then_some(()))
    })?;

    sleep(SETTLES);
    let stations = [
        ("a station without links", &alone),
        ("a station with 50 links", &linked),
    ];
    let mut before = Vec::new();
    for (_, station) in stations {
        before.push(station.process().processor_seconds()?);
    }
    sleep(WATCHED);
    for ((what, station), before) in stations.into_iter().zip(before) {
        row(table, what, station, before)?;
    }
    Ok(())
}

fn row(table: &mut Table, what: &str, station: &Station, before: f64) -> Measured<()> {
    let process = station.process();
    let used = process.processor_seconds()? - before;
    table.add(
        what,
        &[
            ("anonymous MB", Some(process.anonymous_megabytes()?)),
            (
                "CPU % of a core",
                Some(100.0 * used / WATCHED.as_secs_f64()),
            ),
        ],
    );
    Ok(())
}
