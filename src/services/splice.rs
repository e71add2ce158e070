//! Copies bytes between a tunnel and a local connection until both directions have ended.
//!
//! The wire has no half-close (kubo closes both directions when one ends): the end of one is passed on, and the
//! other may still bring what is under way, for a moment. Worst case: one buffer for each direction. What was copied is
//! flushed before more is waited for, so nothing small lingers.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// With 8 KiB a third is lost (FACTS §7).
const BUFFER_BYTES: usize = 64 << 10;
/// How long the other direction may bring nothing after one has ended.
const LINGER: Duration = Duration::from_secs(5);

/// Copies both ways until it is over.
///
/// Cancel safe in that dropping it closes both.
///
/// # Errors
/// The system's, when a direction breaks rather than ends.
pub(crate) async fn splice(
    one: impl AsyncRead + AsyncWrite + Unpin,
    other: impl AsyncRead + AsyncWrite + Unpin,
) -> io::Result<()> {
    let (one_read, one_write) = tokio::io::split(one);
    let (other_read, other_write) = tokio::io::split(other);
    let ending = CancellationToken::new();
    tokio::try_join!(
        copy(one_read, other_write, &ending),
        copy(other_read, one_write, &ending)
    )?;
    Ok(())
}

/// Copies until the end of `from` and passes that on; once `ending`, also when nothing has come for a while.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    ending: &CancellationToken,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let lingered = || async {
        ending.cancelled().await;
        sleep(LINGER).await;
    };
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read?,
            () = lingered() => 0,
        };
        if read == 0 {
            ending.cancel();
            // One that does not read must not keep us.
            return timeout(LINGER, to.shutdown()).await?;
        }
        let written = async {
            to.write_all(&buffer[..read]).await?;
            to.flush().await
        };
        tokio::select! {
            written = written => written?,
            () = lingered() => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_when_one_side_ends_still_arrives() {
        let (mut client, near) = duplex(16);
        let (far, mut server) = duplex(16);
        let request = vec![1; 100_000];
        let reply = vec![2; 100_000];
        let serving = async {
            let mut got = Vec::new();
            server.read_to_end(&mut got).await.unwrap();
            server.write_all(&reply).await.unwrap();
            server.shutdown().await.unwrap();
            got
        };
        let asking = async {
            client.write_all(&request).await.unwrap();
            client.shutdown().await.unwrap();
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            got
        };
        let (got, answer, ended) = tokio::join!(serving, asking, splice(near, far));
        ended.unwrap();
        assert!(got == request && answer == reply);
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_does_not_read_is_not_waited_for_once_the_other_has_ended() {
        let (mut client, near) = duplex(16);
        let (far, mut server) = duplex(16);
        let flooding = async {
            server.write_all(&[3; 1_000]).await.unwrap_err();
        };
        let leaving = async {
            client.shutdown().await.unwrap();
            client
        };
        let (ended, (), _client) = tokio::join!(splice(near, far), flooding, leaving);
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_stays_open_and_silent_is_not_waited_for() {
        let (client, near) = duplex(16);
        let (far, _server) = duplex(16);
        drop(client);
        let started = tokio::time::Instant::now();
        splice(near, far).await.unwrap();
        assert!(started.elapsed() < 2 * LINGER);
    }
}
