//! What tunnels lead to: a process that swallows bytes or sends them back.
//!
//! A connection begins with a byte that says which, and the number of bytes (8, big-endian). Swallowed ones are
//! answered by one byte when all have come, since a tunnel has no half-close by which their end could be known. It
//! ends with its standard input, so that it never outlives the benchmark.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use constellation::tasks::TaskGroup;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::Measured;

/// The first word of its command line.
pub(crate) const WORD: &str = "target";
/// Swallow what comes.
pub(crate) const SWALLOW: u8 = b's';
/// Send back what comes.
pub(crate) const ECHO: u8 = b'e';
/// The answer to all that was to be swallowed.
pub(crate) const DONE: u8 = b'.';

/// More than a burst has.
const CONNECTIONS_MAX: usize = 4_096;
const BACKLOG: u32 = 4_096;
const BUFFER_BYTES: usize = 256 << 10;

/// What a connection begins with.
pub(crate) fn head(what: u8, bytes: u64) -> [u8; 9] {
    let mut head = [what; 9];
    head[1..].copy_from_slice(&bytes.to_be_bytes());
    head
}

/// The process; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Target {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Target {
    pub(crate) fn start() -> Measured<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(WORD)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no output")?;
        let mut said = String::new();
        BufReader::new(stdout).read_line(&mut said)?;
        let address = said.trim().parse()?;
        Ok(Self { child, address })
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Serves until standard input ends.
pub(crate) fn serve() -> Measured<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let tasks = TaskGroup::new(CONNECTIONS_MAX);
    let listener = runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        socket.listen(BACKLOG)
    })?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", listener.local_addr()?)?;
    stdout.flush()?;
    let _entered = runtime.enter();
    tasks.spawn(accept(listener, tasks.clone()))?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

async fn accept(listener: TcpListener, tasks: TaskGroup) {
    while let Ok((connection, _)) = listener.accept().await {
        // Without room, or when a connection breaks, whoever measures sees it at its end.
        drop(tasks.spawn(async move { drop(answer(connection).await) }));
    }
}

async fn answer(mut connection: TcpStream) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let what = connection.read_u8().await?;
    let mut left = connection.read_u64().await?;
    let size = usize::try_from(left)
        .unwrap_or(BUFFER_BYTES)
        .min(BUFFER_BYTES);
    let mut buffer = vec![0; size];
    while left > 0 {
        let count = connection.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        left = left.saturating_sub(count as u64);
        if what == ECHO {
            connection.write_all(&buffer[..count]).await?;
        }
    }
    if what == SWALLOW {
        connection.write_all(&[DONE]).await?;
    }
    // Whoever opened it closes it.
    while connection.read(&mut buffer).await? > 0 {}
    Ok(())
}
