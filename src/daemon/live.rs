//! Live links, as a part of the station: started beside a relay that is served, followed by a reload, ended first.

use std::sync::Arc;

use tokio::sync::watch;

use super::relay::StationRelay;
use super::station::{Station, StationError};
use crate::config::Config;
use crate::live::{self, LIVE_TASKS_MAX, LiveBoard, LiveContext, LiveOptions};
use crate::tasks::TaskGroup;

/// What live links have of a station before they start.
#[derive(Debug)]
pub(super) struct LiveParts {
    /// In force; followed by the links.
    pub(super) options: watch::Sender<LiveOptions>,
    pub(super) board: Arc<LiveBoard>,
    pub(super) tasks: TaskGroup,
}

impl LiveParts {
    pub(super) fn new(tasks: &TaskGroup, config: &Config) -> Self {
        Self {
            options: watch::Sender::new(config.live),
            board: Arc::default(),
            tasks: tasks.child(LIVE_TASKS_MAX),
        }
    }
}

impl Station {
    /// Keeps live links, and takes those that others open at `relay`, until the station closes.
    ///
    /// # Errors
    /// [`StationError::Start`].
    pub fn start_live(&self, relay: &StationRelay) -> Result<(), StationError> {
        let context = LiveContext {
            runner: self.runner().clone(),
            ingest: self.ingest().clone(),
            dialer: Arc::new(self.dialer.clone()),
            clock: self.clock().clone(),
            random: self.random().clone(),
            tasks: self.live.tasks.clone(),
            known_as: self.known_as(),
            options: self.live.options.subscribe(),
            sync_options: self.sync_options(),
            neighbours: self.found(),
            graph: self.graph().graph(),
            halted: self.halted(),
            brought: self.brought.clone(),
            plugin: self.policy.plugin.clone(),
            accepted: relay.accepted_links(),
            board: Arc::clone(&self.live.board),
        };
        live::start(context).map_err(|error| StationError::Start(format!("live links: {error}")))
    }
}
