//! What is stored here goes on to a home relay that is written by its `import` command: soon, but not one by one.
//!
//! Waits for something new, lets it gather, and asks for an exchange with the home relay: that one writes what the relay
//! lacks in one batch, and reads it back. What came from there costs one round trip. The other way, from the home relay to
//! us, is a live link like any other, which only listens. Costs nothing while nothing is stored.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::sleep;

use super::exchanges::Exchanges;
use super::options::LiveOptions;
use crate::home::HomeWrite;
use crate::ingest::Ingest;
use crate::limits::LIVE_HOME_GATHERS_FOR;
use crate::sync::SyncOptions;

/// Bridges for as long as it is polled.
pub(super) async fn bridge(
    ingest: Ingest,
    exchanges: Arc<Exchanges>,
    sync_options: watch::Receiver<Arc<SyncOptions>>,
    options: watch::Receiver<LiveOptions>,
) {
    let mut published = ingest.published();
    let mut bridged = published.borrow_and_update().sequence;
    while published.changed().await.is_ok() {
        let home = sync_options.borrow().home.clone();
        let home = home.filter(|home| home.write == HomeWrite::Import);
        let Some(home) = home.filter(|_| options.borrow().enabled) else {
            continue;
        };
        sleep(LIVE_HOME_GATHERS_FOR).await;
        let now = published.borrow_and_update().sequence;
        // Ephemeral events are news too, but nothing to be written.
        if now != bridged {
            bridged = now;
            exchanges.want(&home.relay);
        }
    }
}
