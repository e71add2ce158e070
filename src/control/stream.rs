//! A byte stream to a peer through the station that is open: for commands that speak with another station themselves.
//!
//! Tunnels belong to whoever has the identity. A command asks for a stream by an HTTP upgrade; the station dials, and from
//! then on passes bytes. It does so only while something may be shared (D16). Bounded: the tasks of the control socket, the
//! connect deadline; a stream lives as long as both of its ends.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::time::timeout;

use super::client::ControlClient;
use super::messages::CommandError;
use super::server::{ControlContext, started};
use crate::limits::CONNECT_DEADLINE;
use crate::peer::{PeerAddress, Target};
use crate::relay_client::{ConnectError, Dial, Dialer, Dialling};
use crate::services::splice;

/// What the connection becomes.
pub(super) const PROTOCOL: &str = "bytes";

#[derive(Deserialize)]
pub(super) struct StreamParameter {
    address: PeerAddress,
}

pub(super) async fn get_stream(
    State(context): State<Arc<ControlContext>>,
    Query(StreamParameter { address }): Query<StreamParameter>,
    mut request: Request,
) -> Result<Response, CommandError> {
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let upgrade = upgrade.ok_or_else(|| CommandError::usage("expected an upgrade"))?;
    started(&context).await;
    if let Some(why) = context.halted.borrow().clone() {
        return Err(CommandError::usage(why));
    }
    let stream = context.dialer.dial(&address, CONNECT_DEADLINE).await;
    let stream = stream.map_err(CommandError::unreachable)?;
    let mut halted = context.halted.clone();
    let passing = async move {
        let Ok(command) = upgrade.await else {
            return;
        };
        tokio::select! {
            ended = splice(TokioIo::new(command), stream) => {
                if let Err(error) = ended {
                    tracing::debug!(peer = %address, %error, "a command's stream broke");
                }
            }
            Ok(_) = halted.wait_for(Option::is_some) => {}
        }
    };
    context.tasks.spawn(passing).map_err(CommandError::local)?;
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, PROTOCOL)
        .body(Body::empty())
        .map_err(CommandError::local)
}

/// Dials stations through the process that has the station open, and relays from here.
#[derive(Debug, Clone)]
pub struct DialThroughStation {
    station: ControlClient,
    relays: Dialer,
}

impl DialThroughStation {
    /// Through that process.
    pub fn of(station: ControlClient) -> Self {
        Self {
            station,
            relays: Dialer::new(),
        }
    }
}

impl Dial for DialThroughStation {
    fn dial<'d>(&'d self, address: &'d PeerAddress, deadline: Duration) -> Dialling<'d> {
        if let Target::Relay(_) = address.target() {
            return self.relays.dial(address, deadline);
        }
        Box::pin(async move {
            let opened = timeout(deadline, self.station.stream(address)).await;
            let opened = opened.map_err(|_| ConnectError::Timeout)?;
            opened.map_err(|error| ConnectError::Network(error.to_string()))
        })
    }
}
