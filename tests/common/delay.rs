//! A relay at a distance: a TCP proxy in this process that delays what passes, and limits nothing else.
//!
//! Each direction of each connection keeps its order; every piece is handed on a fixed time after it came. It ends
//! when it is dropped.

use std::time::Duration;

use constellation::tasks::TaskGroup;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Pieces on their way, in one direction: 64 KiB each at most.
const PIECES_MAX: usize = 4_096;

/// A proxy on a free port of loopback.
#[derive(Debug)]
pub(crate) struct Distance {
    address: String,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Distance {
    /// Puts a round trip of `round_trip` between whoever dials [`Self::address`] and the relay at `relay`
    /// (`ws://127.0.0.1:…`).
    pub(crate) fn to(relay: &str, round_trip: Duration) -> Self {
        let target = relay.trim_start_matches("ws://").to_owned();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a free port");
        let address = format!("ws://{}", listener.local_addr().expect("bound"));
        let group = TaskGroup::new(64);
        let accepting = {
            let group = group.clone();
            async move {
                while let Ok((near, _)) = listener.accept().await {
                    drop(group.spawn(carry(near, target.clone(), round_trip / 2)));
                }
            }
        };
        runtime.block_on(async { drop(group.spawn(accepting)) });
        Self {
            address,
            runtime: Some(runtime),
        }
    }

    /// `ws://127.0.0.1:…`
    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn carry(near: TcpStream, target: String, delay: Duration) {
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    for stream in [&near, &far] {
        stream.set_nodelay(true).expect("a TCP stream");
    }
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::join!(
        one_way(near_read, far_write, delay),
        one_way(far_read, near_write, delay)
    );
}

async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let piece = (Instant::now() + delay, buffer[..count].to_vec());
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, piece)) = pieces.recv().await {
            sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        drop(to.shutdown().await);
    };
    tokio::join!(reading, writing);
}
