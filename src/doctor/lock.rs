//! Who has the data directory open: nobody, a station or command that answers, or somebody in the way.

use std::time::Duration;

use super::remedy::quoted_path;
use super::{CheckName, Finding, Remedy, Surroundings, holders};
use crate::control::{ControlClient, StatusReport};
use crate::sync::{FileLock, LockError};

/// How long the holder may take to answer. A station that is starting, or busy, takes a moment.
const HOLDER_DEADLINE: Duration = Duration::from_secs(5);

/// The finding, and who answers, if somebody does.
pub(super) async fn check(
    around: &Surroundings,
) -> (Finding, Option<(ControlClient, StatusReport)>) {
    let name = CheckName::Lock;
    let path = around.directory.lock();
    let looked = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || {
            if !path.exists() {
                return (Ok(()), None);
            }
            // Let go at once.
            match FileLock::try_take(&path).map(drop) {
                Err(LockError::Held(held)) => {
                    let holder = holders::of_lock(&held);
                    (Err(LockError::Held(held)), holder)
                }
                other => (other, None),
            }
        })
    };
    let (taken, holder) = match looked.await {
        Ok(looked) => looked,
        Err(failure) => {
            let remedy = Remedy::own_command(&around.command, &["doctor"]);
            return (name.problem(failure.to_string(), remedy), None);
        }
    };
    match taken {
        Ok(()) => return (name.ok("free: no station runs here"), None),
        Err(LockError::Io { source, .. }) => {
            let remedy = Remedy::command(format!("sudo rm -f {}", quoted_path(&path)));
            let seen = format!("cannot lock {}: {source}", path.display());
            return (name.problem(seen, remedy), None);
        }
        Err(LockError::Held(_)) => {}
    }
    let client = ControlClient::new(&around.directory.control_socket());
    let answered = tokio::time::timeout(HOLDER_DEADLINE, client.status()).await;
    let who = holder
        .as_ref()
        .map_or_else(|| "another process".to_owned(), ToString::to_string);
    match answered {
        Ok(Ok(status)) => {
            let seen = match (&status.running, &status.started_at) {
                (true, Some(since)) => format!("held by our station, {who}, since {since}"),
                _ => format!("held by a command, {who}, which answers"),
            };
            (name.ok(seen), Some((client, status)))
        }
        Ok(Err(_)) | Err(_) => {
            let remedy = match holder {
                Some(holder) => Remedy::command(format!("kill {}", holder.process)),
                None => Remedy::command(format!("sudo fuser -k {}", quoted_path(&path))),
            };
            let seen = format!("{} is held by {who}, which does not answer", path.display());
            (name.problem(seen, remedy), None)
        }
    }
}
