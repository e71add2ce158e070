//! A service that says who it is and then repeats what it hears, and those who talk to it, one or a thousand at once.
//!
//! It speaks first, as OpenSSH and mail servers do: a tunnel that waits for the client's first byte would hang.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream as BlockingStream};
use std::time::Duration;

use constellation::tasks::TaskGroup;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Barrier;
use tokio::time::timeout;

use super::PATIENCE;

/// Connections at a time.
const CONNECTIONS_MAX: usize = 2_100;
/// How many the system holds until they are accepted.
const BACKLOG: u32 = 2_048;
/// How long one conversation may take where it is expected to fail.
const ONE_CONVERSATION: Duration = Duration::from_secs(20);
/// Longer than every greeting.
const LINE_BYTES_MAX: usize = 64;

/// The service, on a port of loopback; ended when dropped.
#[derive(Debug)]
pub(crate) struct Echo {
    port: u16,
    runtime: Option<Runtime>,
}

impl Echo {
    /// Starts it. `name` is what it says of itself.
    pub(crate) fn start(name: &str) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a thread");
        let greeting = format!("{name}\n");
        let port = runtime.block_on(async {
            let socket = TcpSocket::new_v4().expect("a socket");
            let any = (Ipv4Addr::LOCALHOST, 0).into();
            socket.bind(any).expect("a free port");
            let listener = socket.listen(BACKLOG).expect("bound");
            let port = listener.local_addr().expect("bound").port();
            let tasks = TaskGroup::new(CONNECTIONS_MAX);
            let serving = serve(listener, greeting, tasks.clone());
            tasks.spawn(serving).expect("there is room");
            port
        });
        Self {
            port,
            runtime: Some(runtime),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(listener: TcpListener, greeting: String, tasks: TaskGroup) {
    while let Ok((stream, _)) = listener.accept().await {
        let repeating = repeat(stream, greeting.clone());
        tasks.spawn(repeating).expect("as many as a test makes");
    }
}

async fn repeat(mut stream: TcpStream, greeting: String) {
    if stream.write_all(greeting.as_bytes()).await.is_err() {
        return;
    }
    let (mut from, mut to) = stream.split();
    // A client that has gone is no fault.
    drop(tokio::io::copy(&mut from, &mut to).await);
}

/// Asks whoever is at this port for its name, and whether it repeats. `Err`: what happened instead.
pub(crate) fn name_at(port: u16) -> Result<String, String> {
    let talking = || -> std::io::Result<String> {
        let mut stream = BlockingStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(ONE_CONVERSATION))?;
        let mut name = Vec::new();
        while name.last() != Some(&b'\n') && name.len() < LINE_BYTES_MAX {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            name.extend(byte);
        }
        stream.write_all(b"and back")?;
        let mut heard = [0; 8];
        stream.read_exact(&mut heard)?;
        assert_eq!(&heard, b"and back");
        Ok(String::from_utf8_lossy(&name).trim_end().to_owned())
    };
    talking().map_err(|error| error.to_string())
}

/// `count` connections, all open at the same time; each must get its own bytes back. Gives what went wrong.
pub(crate) fn burst(port: u16, count: u32) -> Vec<String> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("no thread of its own");
    runtime.block_on(async {
        let all = Barrier::new(usize::try_from(count).expect("small"));
        let all = &all;
        let talks = (0..count).map(|number| async move {
            let opened = async move {
                let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
                let heard = converse(&mut stream, number).await?;
                std::io::Result::Ok((stream, heard))
            };
            let opened = timeout(PATIENCE, opened).await;
            // None ends before all have been answered, or have failed.
            all.wait().await;
            match opened {
                Err(_) => Some(format!("{number}: timed out")),
                Ok(Err(error)) => Some(format!("{number}: {error}")),
                Ok(Ok((_, false))) => Some(format!("{number}: somebody else's bytes")),
                Ok(Ok((_, true))) => None,
            }
        });
        let talks = futures_util::future::join_all(talks).await;
        talks.into_iter().flatten().collect()
    })
}

/// Whether what comes back is what was sent. The greeting is read first.
async fn converse(stream: &mut TcpStream, number: u32) -> std::io::Result<bool> {
    while stream.read_u8().await? != b'\n' {}
    stream.write_u32(number).await?;
    Ok(stream.read_u32().await? == number)
}
