//! What a running station does for an Astroport network beside its runs: `x_strfry.sh` lies beside its card.
//!
//! Takes where the things are and whether there are tunnels, both followed; puts the script there, again after the evening's
//! clearing, and takes it away when the relay is not offered any more or the station ends. Invariant: no script leads to what
//! is not offered. Deliberately absent: runs (`crate::astroport` attends to them), the card itself, which the network's scripts
//! write. Worst case: two files looked at every `LOOK_EVERY`.

use std::time::Duration;

use tokio::sync::watch;

use super::station::{Station, StationError};
use crate::astroport::{AstroportPaths, Publishing, TunnelScript};
use crate::control::{TunnelState, Tunnels};
use crate::tunnel::ServiceName;

/// The folder of the card is emptied once a day, and written again some minutes later.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Station {
    /// Publishes how our relay is reached, for as long as the station is open.
    ///
    /// # Errors
    /// [`StationError::Start`].
    pub fn start_astroport(&self) -> Result<(), StationError> {
        let publishing = publish(self.astroport_paths(), self.tunnel_state());
        self.tasks()
            .spawn(publishing)
            .map(drop)
            .map_err(|error| StationError::Start(format!("what Astroport needs: {error}")))
    }
}

/// A script that was put there; taken away when dropped.
#[derive(Debug)]
struct Published(TunnelScript);

impl Drop for Published {
    fn drop(&mut self) {
        // One small file, and nobody is served meanwhile that would wait for it.
        if let Err(error) = self.0.withdraw() {
            tracing::warn!(%error, "x_strfry.sh cannot be taken away");
        }
    }
}

async fn publish(
    mut paths: watch::Receiver<Option<AstroportPaths>>,
    mut tunnels: watch::Receiver<TunnelState>,
) {
    let mut published: Option<Published> = None;
    loop {
        let wanted = paths.borrow_and_update().clone().and_then(|paths| {
            let tunnels = tunnels.borrow_and_update().started().cloned()?;
            offers_relay(&tunnels).then(|| TunnelScript::new(&paths, tunnels.carrier.peer_id()))
        });
        if published.as_ref().map(|published| &published.0) != wanted.as_ref() {
            published = wanted.map(Published);
        }
        if let Some(Published(script)) = &published {
            let script = script.clone();
            let put = tokio::task::spawn_blocking(move || script.publish());
            match put.await {
                Ok(Ok(Publishing::Written)) => tracing::info!("x_strfry.sh lies beside our card"),
                Ok(Ok(Publishing::WasThere | Publishing::NoFolder)) | Err(_) => {}
                Ok(Err(error)) => tracing::warn!(%error, "x_strfry.sh cannot be published"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            changed = paths.changed() => if changed.is_err() { return },
            changed = tunnels.changed() => if changed.is_err() { return },
        }
    }
}

fn offers_relay(tunnels: &Tunnels) -> bool {
    let offered = tunnels.services.guests();
    offered.borrow().contains_key(&ServiceName::strfry())
}
