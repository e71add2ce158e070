//! Whether the store opens and its format is known, and whether it holds events from the future.
//!
//! A station that runs has it open: that is answer enough. Otherwise it is opened as a start would, under the lock.

use std::sync::Arc;

use constellation_eventstore::{OpenError, Options, Store};
use nostr::filter::Filter;
use nostr::types::Timestamp;

use super::remedy::quoted_path;
use super::{CheckName, Finding, Remedy, Scene};
use crate::archive;
use crate::sync::FileLock;

/// How far ahead of the clock an event may be when it is taken.
const AHEAD_SECONDS: u64 = 900;

/// What was found.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) finding: Option<Finding>,
    /// Events that are ahead of the clock by more than could have been taken.
    pub(super) from_the_future: u64,
}

pub(super) async fn check(scene: &Scene<'_>) -> Stored {
    let now = scene.around.clock.unix_seconds();
    let ahead = now.saturating_add(AHEAD_SECONDS);
    if let Some((client, status)) = &scene.holder {
        let filter = format!("{{\"since\":{ahead}}}");
        return Stored {
            finding: Some(CheckName::Store.ok(format!("open, {} events", status.events))),
            from_the_future: client.count(&filter).await.unwrap_or_default(),
        };
    }
    let opened = open(scene).await;
    match opened {
        Err(finding) => Stored {
            finding: Some(finding),
            from_the_future: 0,
        },
        Ok(None) => Stored {
            finding: None,
            from_the_future: 0,
        },
        Ok(Some((store, events, _lock))) => {
            let filter = Filter::new().since(Timestamp::from(ahead));
            let counted = archive::count(&store, filter, now).await;
            Stored {
                finding: Some(CheckName::Store.ok(format!("opens, {events} events"))),
                from_the_future: counted.unwrap_or_default(),
            }
        }
    }
}

/// The store, under the lock; `None` where there is none yet, or where somebody else has it.
async fn open(scene: &Scene<'_>) -> Result<Option<(Store, u64, FileLock)>, Finding> {
    let directory = scene.around.directory.clone();
    let events = directory.events();
    let clock = scene.around.clock.clone();
    let opening = tokio::task::spawn_blocking(move || {
        let folder = directory.events();
        if !folder.join("data.mdb").exists() {
            return Ok(None);
        }
        let Ok(lock) = FileLock::try_take(&directory.lock()) else {
            return Ok(None);
        };
        let options = Options::new(Arc::new(move || clock.monotonic()));
        let (store, writer) = constellation_eventstore::open(&folder, options)?;
        drop(writer);
        let events = store.snapshot()?.event_count()?;
        Ok::<_, OpenError>(Some((store, events, lock)))
    });
    let error = match opening.await {
        Ok(Ok(opened)) => return Ok(opened),
        Ok(Err(error)) => error.to_string(),
        Err(failure) => failure.to_string(),
    };
    let path = quoted_path(&events);
    let aside = format!("{path}.aside-{}", scene.around.clock.unix_seconds());
    Err(CheckName::Store.problem(
        format!(
            "the event store {} does not open: {error}. (Set aside, it stays; the next run fetches what peers have)",
            events.display()
        ),
        Remedy::command(format!("mv {path} {aside}")),
    ))
}
