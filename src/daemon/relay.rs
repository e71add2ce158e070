//! The station's relay, as a part of the station: bound, served, reconfigured.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use super::station::{Station, StationError};
use crate::config::Config;
use crate::relay_server::{
    AcceptedLinks, RelayContext, RelayOptions, RelayServer, RemoteParty, serve_connection,
};
use crate::services::RelayEntrance;

/// A relay that is being served.
#[derive(Debug)]
pub struct StationRelay {
    address: SocketAddr,
    context: Arc<RelayContext>,
    options: watch::Sender<Arc<RelayOptions>>,
}

impl StationRelay {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Live links that other stations opened.
    pub(super) fn accepted_links(&self) -> Arc<AcceptedLinks> {
        self.context.accepted_links()
    }

    /// The way in for stations, through tunnels: they are known by their PeerID, and never count as loopback.
    pub fn entrance(&self) -> RelayEntrance {
        let context = Arc::clone(&self.context);
        Arc::new(move |peer, stream| {
            let party = RemoteParty::station(peer.to_string());
            let served = serve_connection(stream, party, Arc::clone(&context));
            Box::pin(async move {
                let end = served.await;
                tracing::debug!(%peer, %end, "connection through a tunnel ended");
            })
        })
    }

    /// Takes over what can change while it is served; its scope follows the station's.
    pub fn reconfigure(&self, config: &Config) {
        self.options.send_replace(Arc::new(config.relay.clone()));
    }
}

impl Station {
    /// Binds the relay's port and serves clients and other stations until the station closes.
    ///
    /// # Errors
    /// [`StationError::Start`].
    pub fn start_relay(&self, config: &Config) -> Result<StationRelay, StationError> {
        let start =
            |error: &dyn std::fmt::Display| StationError::Start(format!("the relay: {error}"));
        let options = watch::Sender::new(Arc::new(config.relay.clone()));
        let scope = self.follow_scope()?;
        let context = RelayContext::new(
            self.ingest().clone(),
            self.clock().clone(),
            self.random().clone(),
            options.subscribe(),
            scope,
            self.known_as(),
        );
        let context = context
            .with_plugin(self.policy.plugin.clone())
            .with_visitors(self.visitors())
            .with_brought(self.brought.clone());
        let context = Arc::new(context);
        let listener = RelayServer::bind(config.relay_listens()).map_err(|error| start(&error))?;
        let address = listener.local_addr();
        let server = RelayServer::new(Arc::clone(&context));
        // One task for each connection; the relay itself counts them against what is configured.
        let connections = self.tasks().child(config.relay.connections_max);
        let served = connections.clone();
        self.tasks()
            .spawn(async move { server.serve(listener, served).await })
            .map_err(|error| start(&error))?;
        // Clients are not to wait until it has started, and what is wrong with it shows at once.
        self.policy.plugin.start();
        self.adopt_relay(Arc::clone(&context), connections);
        let started_at = self.clock().unix_seconds();
        self.set_facts(|facts| {
            facts.relay = Some(format!("ws://{address}"));
            facts.started_at = Some(started_at);
        });
        Ok(StationRelay {
            address,
            context,
            options,
        })
    }
}
