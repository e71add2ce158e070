//! The station's write policy plugin: one program for all ways into the store, run when something is to be asked.
//!
//! The relay, live links and runs ask it, as far as the captain wants that. A station that is only opened for a command
//! starts none, unless its run asks. Follows the configuration; one that stays the same is not started anew.

use std::sync::Arc;

use tokio::sync::watch;

use super::station::StationError;
use crate::config::Config;
use crate::plugin::{Plugin, PluginOptions};
use crate::tasks::TaskGroup;

/// The plugin, and what it follows.
#[derive(Debug)]
pub(super) struct PolicyPart {
    pub(super) plugin: Plugin,
    options: watch::Sender<Option<Arc<PluginOptions>>>,
}

impl PolicyPart {
    /// # Errors
    /// [`StationError::Start`].
    pub(super) fn new(tasks: &TaskGroup, config: &Config) -> Result<Self, StationError> {
        let options = watch::Sender::new(config.relay.plugin_options().map(Arc::new));
        let (plugin, keeper) = Plugin::new(options.subscribe());
        tasks
            .spawn(keeper.run_when_wanted())
            .map_err(|error| StationError::Start(format!("the write policy plugin: {error}")))?;
        Ok(Self { plugin, options })
    }

    /// Takes over what can change while it runs.
    pub(super) fn reconfigure(&self, config: &Config) {
        let options = config.relay.plugin_options().map(Arc::new);
        self.options.send_if_modified(|current| {
            let is_another = *current != options;
            *current = options;
            is_another
        });
    }
}
