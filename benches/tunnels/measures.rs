//! What is measured of tunnels themselves: bytes, distance, round trips, bursts.
//!
//! Each section makes its tunnels anew, one at a time, so that none competes with another.

use std::time::Duration;

use constellation::time::Clock;

use crate::load::{self, Burst};
use crate::table::Table;
use crate::target::Target;
use crate::way::{
    BY_QUIC, FROM_KUBO, KEYED, KUBO, KUBO_KEYED, KUBO_NOISE, Kind, OVER_TCP, TO_KUBO, Way,
};
use crate::{Asked, Measured};

/// What a small transfer moves.
const SMALL_BYTES: u64 = 1_000_000;
/// The distance: so far each way.
const ONE_WAY: Duration = Duration::from_millis(25);
/// Round trips and new streams on loopback, and at a distance.
const ROUND_TRIPS: usize = 5_000;
const ROUND_TRIPS_AFAR: usize = 40;
const NEW_STREAMS: usize = 300;
const NEW_STREAMS_AFAR: usize = 20;
/// Connections at once.
const BURST: usize = 1_000;

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64().max(1e-9)
}

fn megabytes_a_second(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / seconds(time)
}

/// Megabytes a second, one stream on loopback, and what they cost.
pub(crate) fn bulk(asked: &Asked, table: &mut Table) -> Measured<()> {
    let clock = Clock::system();
    let target = Target::start()?;
    let bytes = asked.megabytes * 1_000_000;
    let took = load::send(&clock, target.address, bytes)?;
    table.add("direct TCP", &bulk_row(bytes, took, None));
    for kind in [OVER_TCP, KUBO_NOISE, KUBO, KEYED, KUBO_KEYED, BY_QUIC] {
        let Some(way) = Way::through(kind, asked, &target, None)? else {
            continue;
        };
        // Windows grow and pages are touched before anything is counted.
        load::send(&clock, way.mouth, bytes / 20)?;
        let before = used(&way)?;
        let took = load::send(&clock, way.mouth, bytes)?;
        let after = used(&way)?;
        let cost = [after[0] - before[0], after[1] - before[1]];
        table.add(kind.name, &bulk_row(bytes, took, Some(cost)));
    }
    Ok(())
}

fn used(way: &Way) -> Measured<[f64; 2]> {
    let [opener, exposer] = way.processes();
    Ok([opener.processor_seconds()?, exposer.processor_seconds()?])
}

fn bulk_row(
    bytes: u64,
    took: Duration,
    cost: Option<[f64; 2]>,
) -> [(&'static str, Option<f64>); 3] {
    let gigabytes = bytes as f64 / 1e9;
    [
        ("MB/s", Some(megabytes_a_second(bytes, took))),
        ("sender CPU s/GB", cost.map(|cost| cost[0] / gigabytes)),
        ("taker CPU s/GB", cost.map(|cost| cost[1] / gigabytes)),
    ]
}

/// The same at a distance: a small transfer on a fresh connection, a long one, round trips and new streams.
pub(crate) fn distance(asked: &Asked, table: &mut Table) -> Measured<()> {
    let clock = Clock::system();
    let target = Target::start()?;
    let bytes = asked.megabytes * 1_000_000 / 2;
    for kind in [OVER_TCP, KUBO, KEYED, KUBO_KEYED] {
        let Some(way) = Way::through(kind, asked, &target, Some(ONE_WAY))? else {
            continue;
        };
        // The first stream asks whether the service is there; that is not what the next ones cost.
        load::open(&clock, way.mouth, 1)?;
        let small = load::send(&clock, way.mouth, SMALL_BYTES)?;
        let long = load::send(&clock, way.mouth, bytes)?;
        let echoes = load::echo(&clock, way.mouth, ROUND_TRIPS_AFAR)?;
        let opened = load::open(&clock, way.mouth, NEW_STREAMS_AFAR)?;
        table.add(
            format!("{}, {} ms round trip", kind.name, 2 * ONE_WAY.as_millis()),
            &[
                ("MB/s", Some(megabytes_a_second(bytes, long))),
                ("1 MB ms", Some(seconds(small) * 1e3)),
                ("echo p50 ms", Some(echoes.microseconds(0.5) / 1e3)),
                ("new p50 ms", Some(opened.microseconds(0.5) / 1e3)),
            ],
        );
    }
    Ok(())
}

/// Round trips of a hundred bytes, and new streams until their first byte is back, on loopback.
pub(crate) fn latency(asked: &Asked, table: &mut Table) -> Measured<()> {
    let clock = Clock::system();
    let target = Target::start()?;
    let mut measure = |what: &str, address| -> Measured<()> {
        load::open(&clock, address, 1)?;
        let echoes = load::echo(&clock, address, ROUND_TRIPS)?;
        let opened = load::open(&clock, address, NEW_STREAMS)?;
        table.add(
            what,
            &[
                ("echo p50 µs", Some(echoes.microseconds(0.5))),
                ("echo p99 µs", Some(echoes.microseconds(0.99))),
                ("new p50 µs", Some(opened.microseconds(0.5))),
                ("new p99 µs", Some(opened.microseconds(0.99))),
            ],
        );
        Ok(())
    };
    measure("direct TCP", target.address)?;
    for kind in [OVER_TCP, KEYED, BY_QUIC, KUBO, FROM_KUBO, TO_KUBO] {
        if let Some(way) = Way::through(kind, asked, &target, None)? {
            measure(kind.name, way.mouth)?;
        }
    }
    Ok(())
}

/// A thousand connections at once.
pub(crate) fn burst(asked: &Asked, table: &mut Table) -> Measured<()> {
    let clock = Clock::system();
    let target = Target::start()?;
    let direct = load::burst(&clock, target.address, BURST)?;
    table.add("direct TCP", &burst_row(&direct));
    let kinds: [Kind; 6] = [OVER_TCP, KEYED, BY_QUIC, FROM_KUBO, TO_KUBO, KUBO];
    for kind in kinds {
        if let Some(way) = Way::through(kind, asked, &target, None)? {
            let burst = load::burst(&clock, way.mouth, BURST)?;
            table.add(kind.name, &burst_row(&burst));
        }
    }
    Ok(())
}

fn burst_row(burst: &Burst) -> [(&'static str, Option<f64>); 4] {
    let succeeded = burst.succeeded as f64;
    [
        ("of", Some(BURST as f64)),
        ("succeeded", Some(succeeded)),
        ("ms", Some(seconds(burst.took) * 1e3)),
        ("streams/s", Some(succeeded / seconds(burst.took))),
    ]
}
