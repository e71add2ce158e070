//! The tunnels of a station over its life: started, waited for, taken over by a reload, closed.
//!
//! Where kubo is to carry them and does not answer, they start when it does, by the configuration in force then. Worst
//! case: a kubo that never comes, asked every `KUBO_AGAIN_AFTER`; meanwhile commands are told so, and the captain's word
//! on who may enter is kept. Invariant: whoever closes waits for all that was begun, also for a start that is under way.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::settings::registry_settings;
use super::{Compared, Start, StationTunnels, TunnelError, TunnelStarter, carrying};
use crate::config::Config;
use crate::control::TunnelState;
use crate::services::RelayEntrance;
use crate::tasks::TaskGroup;

/// How long to wait before looking for kubo again.
const KUBO_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Keeps a station's tunnels.
#[derive(Debug)]
pub(in crate::daemon) struct TunnelUpkeep {
    starter: TunnelStarter,
    started: Arc<Mutex<Option<StationTunnels>>>,
    /// In force; followed by whoever waits for kubo.
    config: watch::Sender<Arc<Config>>,
    waiting: TaskGroup,
}

impl TunnelUpkeep {
    pub(in crate::daemon) fn new(starter: TunnelStarter, config: &Config) -> Self {
        let waiting = starter.tasks.child(1);
        Self {
            starter,
            started: Arc::default(),
            config: watch::Sender::new(Arc::new(config.clone())),
            waiting,
        }
    }

    /// Starts tunnels if they are configured, now or when kubo answers; `relay` is where those lead that others open to it.
    ///
    /// # Errors
    /// [`TunnelError`].
    pub(in crate::daemon) async fn start(
        &self,
        config: &Config,
        relay: Option<RelayEntrance>,
    ) -> Result<(), TunnelError> {
        if !config.tunnel.enabled {
            self.starter.say(TunnelState::SwitchedOff);
            return Ok(());
        }
        self.starter.say(TunnelState::Starting);
        match Box::pin(self.starter.start(config, relay.as_ref())).await? {
            Start::Started(tunnels) => self.adopt(*tunnels),
            Start::WaitsForKubo(why) => {
                self.starter.say(TunnelState::Waiting(why));
                // It will be the one that it was.
                if let Some(peer) = carrying::remembered_peer(&self.starter.directory).await {
                    self.starter.known_as.send_replace(peer);
                }
                let (starter, started) = (self.starter.clone(), Arc::clone(&self.started));
                let waiting = wait_for_kubo(starter, self.config.subscribe(), relay, started);
                self.waiting.spawn(waiting)?;
            }
        }
        Ok(())
    }

    fn adopt(&self, tunnels: StationTunnels) {
        *hold(&self.started) = Some(tunnels);
    }

    /// Takes over what tunnels can take over while they run; gives why nothing may be shared now. `compared` is what came of
    /// comparing the constellation.
    ///
    /// # Errors
    /// [`TunnelError`]: what was in force stays.
    pub(in crate::daemon) async fn reconfigure(
        &self,
        config: &Config,
        compared: Compared,
    ) -> Result<Option<String>, TunnelError> {
        registry_settings(config)?;
        self.config.send_replace(Arc::new(config.clone()));
        // Where none have started yet, whoever waits sees the new configuration.
        let started = hold(&self.started).clone();
        match started {
            Some(tunnels) => tunnels.reconfigure(config, compared).await,
            None => Ok(compared.halted),
        }
    }

    /// Ends what waits and what goes through the tunnels, and in kubo closes what we opened there.
    pub(in crate::daemon) async fn close(&self) {
        self.waiting.end().await;
        let started = hold(&self.started).take();
        if let Some(tunnels) = started {
            tunnels.close().await;
        }
    }
}

/// Starts tunnels as soon as kubo answers, by the configuration of that moment.
async fn wait_for_kubo(
    starter: TunnelStarter,
    mut config: watch::Receiver<Arc<Config>>,
    relay: Option<RelayEntrance>,
    started: Arc<Mutex<Option<StationTunnels>>>,
) {
    let tunnels = loop {
        tokio::time::sleep(KUBO_AGAIN_AFTER).await;
        let now = config.borrow_and_update().clone();
        match Box::pin(starter.start(&now, relay.as_ref())).await {
            Ok(Start::Started(tunnels)) => break *tunnels,
            Ok(Start::WaitsForKubo(why)) => starter.say(TunnelState::Waiting(why)),
            Err(error) => {
                tracing::error!(%error, "no tunnels; they start once the configuration is mended and read again (SIGHUP)");
                starter.say(TunnelState::Waiting(error.to_string()));
                if config.changed().await.is_err() {
                    return;
                }
            }
        }
    };
    tracing::info!("kubo answers: tunnels have started");
    *hold(&started) = Some(tunnels.clone());
    // A reload meanwhile found none that it could change.
    while config.has_changed().unwrap_or(false) {
        let now = config.borrow_and_update().clone();
        match reconfigure_late(&starter, &tunnels, &now).await {
            Ok(halted) => {
                starter.halted.send_replace(halted);
            }
            Err(error) => tracing::error!(%error, "the configuration in force stays"),
        }
    }
}

async fn reconfigure_late(
    starter: &TunnelStarter,
    tunnels: &StationTunnels,
    config: &Config,
) -> Result<Option<String>, TunnelError> {
    let (directory, random) = (&starter.directory, starter.random.clone());
    let compared = super::compare_constellation(directory, config, random).await?;
    tunnels.reconfigure(config, compared).await
}

fn hold(
    started: &Mutex<Option<StationTunnels>>,
) -> std::sync::MutexGuard<'_, Option<StationTunnels>> {
    // Replaced whole: what a panic left behind is whole too.
    started.lock().unwrap_or_else(PoisonError::into_inner)
}
