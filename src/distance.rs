//! A proxy on loopback that delays every byte, in each direction, by a fixed time: distance without a network.
//!
//! For measuring and for tests. Order is kept, nothing is lost, and bandwidth is not limited, as long as what is on its
//! way fits its bound. Worst case: 256 MB for each direction of each connection.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::tasks::TaskGroup;

/// Pieces of at most this many bytes.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces on their way in one direction: 256 MB at most.
const PIECES_ON_THE_WAY: usize = 4_096;
/// Tasks: the listener, and one for each connection.
const TASKS_MAX: usize = 64;

/// A proxy. [`Self::end`] ends it; otherwise it lives as long as its runtime.
#[derive(Debug)]
pub struct DelayingProxy {
    address: SocketAddr,
    tasks: TaskGroup,
}

impl DelayingProxy {
    /// Listens on a free port and passes everything on to `target` (`host:port`), `one_way` later.
    ///
    /// # Errors
    /// The system's, if there is no port to be had.
    pub async fn start(target: &str, one_way: Duration) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let tasks = TaskGroup::new(TASKS_MAX);
        let (group, target) = (tasks.clone(), target.to_owned());
        let listening = async move {
            while let Ok((near, _)) = listener.accept().await {
                let target = target.clone();
                // With no room for another connection this one is refused, and the exchange fails visibly.
                let _ = group.spawn(async move {
                    if let Ok(far) = TcpStream::connect(&target).await {
                        pass_both_ways(near, far, one_way).await;
                    }
                });
            }
        };
        tasks.spawn(listening).map_err(std::io::Error::other)?;
        Ok(Self { address, tasks })
    }

    /// Where to connect to instead of the target.
    pub fn address(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Ends every connection.
    pub async fn end(self) {
        self.tasks.end().await;
    }
}

async fn pass_both_ways(near: TcpStream, far: TcpStream, one_way: Duration) {
    // What small messages wait for must be the distance alone.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    tokio::join!(
        pass(near_in, far_out, one_way),
        pass(far_in, near_out, one_way)
    );
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    one_way: Duration,
) {
    let (sender, mut on_the_way) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_ON_THE_WAY);
    let taking = async move {
        loop {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            match from.read_buf(&mut piece).await {
                Ok(count) if count > 0 => {}
                _ => return,
            }
            if sender
                .send((Instant::now() + one_way, piece))
                .await
                .is_err()
            {
                return;
            }
        }
    };
    let giving = async move {
        while let Some((due, piece)) = on_the_way.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        // The other end sees that this direction is over; a failure means that it is gone.
        let _ = to.shutdown().await;
    };
    tokio::join!(taking, giving);
}
