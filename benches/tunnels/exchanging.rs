//! Cold exchanges through a tunnel beside the same over `ws://`, in turns.
//!
//! Each fetches everything into an empty station, by `constellation sync`, from the same running one. All must
//! converge.

use std::io::Write;
use std::process::Stdio;

use constellation::samples::uniform;
use constellation::time::Clock;

use crate::station::Home;
use crate::table::Table;
use crate::{Asked, Measured};

const SEED: u64 = 7;
/// How often each way.
const TURNS: usize = 2;
const LISTEN: &str = "listen = [\"/ip4/127.0.0.1/tcp/0\"]";

/// Milliseconds each way, and the rate through the tunnel as a share of the direct one.
pub(crate) fn exchange(asked: &Asked, table: &mut Table) -> Measured<()> {
    let (full, empty) = (Home::new(asked)?, Home::new(asked)?);
    empty.configure("listen = []")?;
    full.configure(&format!("{LISTEN}\nallow = [\"{}\"]", empty.peer()))?;
    import(&full, asked.events)?;
    let full = full.start()?;
    let through = format!("{}/p2p/{}", full.address()?, full.home.peer());
    let direct = full.relay()?;

    let mut taken = [Vec::new(), Vec::new()];
    for _ in 0..TURNS {
        for (address, taken) in [&direct, &through].into_iter().zip(&mut taken) {
            taken.push(fetch(&empty.twin()?, address, asked.events)?);
        }
    }
    let [direct, through] = taken.map(|taken| taken.iter().sum::<f64>() / TURNS as f64);
    for (what, took, ratio) in [
        ("cold exchange over ws://", direct, None),
        (
            "cold exchange through a tunnel",
            through,
            Some(direct / through),
        ),
    ] {
        table.add(
            what,
            &[
                ("ms", Some(took)),
                ("events/s", Some(asked.events as f64 / took * 1e3)),
                ("of ws://", ratio),
            ],
        );
    }
    Ok(())
}

fn import(home: &Home, count: usize) -> Measured<()> {
    let events = uniform(SEED, Clock::system().unix_seconds(), count);
    let mut child = home
        .command(&["import", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let mut stdin = std::io::BufWriter::new(child.stdin.take().ok_or("no input")?);
    for event in events {
        writeln!(stdin, "{}", event.as_json())?;
    }
    drop(stdin);
    if !child.wait()?.success() {
        return Err("the events could not be imported".into());
    }
    Ok(())
}

/// Milliseconds of the run, without starting and ending its process.
fn fetch(home: &Home, address: &str, events: usize) -> Measured<f64> {
    let report = home.ask(&["sync", "--json", "--kinds", "all", "--peer", address])?;
    if report["totals"]["stored"] != events {
        return Err(format!("not everything was fetched: {report}").into());
    }
    report["duration_ms"]
        .as_f64()
        .ok_or_else(|| "no time".into())
}
