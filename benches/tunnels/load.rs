//! What goes through a tunnel to be measured: many bytes, small round trips, new connections, a burst of them.
//!
//! Takes an address that leads to the target, directly or through a tunnel; gives times. Every wait is under
//! [`DEADLINE`].

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use constellation::tasks::TaskGroup;
use constellation::time::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::Measured;
use crate::target::{DONE, ECHO, SWALLOW, head};

/// Far beyond what anything measured here takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);
/// As large as a program that copies files would have it.
const CHUNK_BYTES: usize = 256 << 10;
/// Bytes of a small round trip.
const SMALL_BYTES: usize = 100;
/// Bytes that each connection of a burst has echoed.
const BURST_BYTES: usize = 1_000;

/// How long things took.
#[derive(Debug, Clone)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// The time that this share of them did not exceed, in microseconds.
    pub(crate) fn microseconds(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        // Shares are between 0 and 1, so this is one of them.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let place = (last as f64 * share).round() as usize;
        sorted
            .get(place)
            .map_or(0.0, |time| time.as_secs_f64() * 1e6)
    }
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let connection = TcpStream::connect_timeout(&address, DEADLINE)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(DEADLINE))?;
    connection.set_write_timeout(Some(DEADLINE))?;
    Ok(connection)
}

/// Sends so many bytes one way over one connection; until the other end says that it has them all.
pub(crate) fn send(clock: &Clock, address: SocketAddr, bytes: u64) -> Measured<Duration> {
    let chunk = vec![0x5a; CHUNK_BYTES];
    let started = clock.monotonic();
    let mut connection = connect(address)?;
    connection.write_all(&head(SWALLOW, bytes))?;
    let mut left = bytes;
    while left > 0 {
        let count = usize::try_from(left)
            .unwrap_or(CHUNK_BYTES)
            .min(CHUNK_BYTES);
        connection.write_all(&chunk[..count])?;
        left -= count as u64;
    }
    let mut answer = [0];
    connection.read_exact(&mut answer)?;
    if answer != [DONE] {
        return Err("the target answers something else".into());
    }
    Ok(clock.monotonic().saturating_sub(started))
}

/// Echoes of a hundred bytes over one connection, one after the other; the first tenth only warms up.
pub(crate) fn echo(clock: &Clock, address: SocketAddr, times: usize) -> Measured<Times> {
    let warming = times / 10;
    let mut connection = connect(address)?;
    connection.write_all(&head(ECHO, ((times + warming) * SMALL_BYTES) as u64))?;
    let (sent, mut got) = ([7; SMALL_BYTES], [0; SMALL_BYTES]);
    let mut taken = Vec::with_capacity(times);
    for round in 0..times + warming {
        let started = clock.monotonic();
        connection.write_all(&sent)?;
        connection.read_exact(&mut got)?;
        if round >= warming {
            taken.push(clock.monotonic().saturating_sub(started));
        }
    }
    Ok(Times(taken))
}

/// New connections one after the other, each until its first byte has come back.
pub(crate) fn open(clock: &Clock, address: SocketAddr, times: usize) -> Measured<Times> {
    let mut request = head(ECHO, 1).to_vec();
    request.push(7);
    let mut taken = Vec::with_capacity(times);
    for _ in 0..times {
        let started = clock.monotonic();
        let mut connection = connect(address)?;
        connection.write_all(&request)?;
        connection.read_exact(&mut [0])?;
        taken.push(clock.monotonic().saturating_sub(started));
    }
    Ok(Times(taken))
}

/// A burst: how many connections of it had their bytes echoed, while all stayed open, and when the last had.
#[derive(Debug)]
pub(crate) struct Burst {
    pub(crate) succeeded: usize,
    pub(crate) took: Duration,
}

/// So many connections at once.
pub(crate) fn burst(clock: &Clock, address: SocketAddr, connections: usize) -> Measured<Burst> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tasks = TaskGroup::new(connections);
    runtime.block_on(async {
        let started = clock.monotonic();
        let mut running = Vec::with_capacity(connections);
        for _ in 0..connections {
            running.push(tasks.spawn(timeout(DEADLINE, one_of_many(address)))?);
        }
        // They are held until all are through: that is what makes them simultaneous.
        let mut held = Vec::with_capacity(connections);
        for one in running {
            if let Ok(Some(Ok(Ok(connection)))) = one.await {
                held.push(connection);
            }
        }
        Ok(Burst {
            succeeded: held.len(),
            took: clock.monotonic().saturating_sub(started),
        })
    })
}

async fn one_of_many(address: SocketAddr) -> std::io::Result<tokio::net::TcpStream> {
    let mut connection = tokio::net::TcpStream::connect(address).await?;
    let (sent, mut got) = ([7; BURST_BYTES], [0; BURST_BYTES]);
    connection
        .write_all(&head(ECHO, BURST_BYTES as u64))
        .await?;
    connection.write_all(&sent).await?;
    connection.read_exact(&mut got).await?;
    Ok(connection)
}
