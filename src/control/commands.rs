//! What commands ask of tunnels and of who may enter, carried out where the station is open.
//!
//! One enum goes over the socket, and is carried out the same in the process of a command that has the station open
//! itself. Answers are JSON of the type that each request names.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::messages::CommandError;
use crate::discovery::{self, PeerReport, Registry, TrustFiles};
use crate::peer::{Multiaddr, PeerAddress, PeerId};
use crate::protocol::hex;
use crate::services::{
    ExposedOptions, OpenOptions, ServiceError, Services, ServicesStatus, detect,
};
use crate::trust::Invitation;
use crate::tunnel::{Carrier, CarrierState, OpenError, Refusal, ServiceName, Source};

/// How long the carrier may take to find out where it may be reached.
const ADDRESSES_DEADLINE: Duration = Duration::from_secs(5);

/// The station's tunnels, as commands know them.
#[derive(Debug)]
pub struct Tunnels {
    /// Opens streams.
    pub carrier: Arc<dyn Carrier>,
    /// Who there is and who may enter.
    pub registry: Arc<Registry>,
    /// What goes through.
    pub services: Arc<Services>,
}

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TunnelCommand {
    /// [`TunnelsReport`].
    List,
    /// [`crate::services::ExposedStatus`].
    Expose(ExposedOptions),
    /// A list of [`crate::services::Detected`].
    Detect,
    /// [`crate::services::MouthStatus`].
    Open(OpenOptions),
    /// Nothing.
    Close {
        /// The service.
        name: ServiceName,
        /// The station, where one of its tunnels is to be closed.
        peer: Option<PeerAddress>,
    },
    /// [`discovery::InvitationReport`].
    Invite {
        /// How long the token is good.
        lifetime_s: u64,
    },
    /// [`JoinReport`].
    Join {
        /// The token.
        token: String,
        /// Leave the constellation that the station belongs to.
        accept_constellation: bool,
    },
    /// A list of [`PeerReport`].
    Peers,
    /// By whom it is out still, in words; nothing if it may enter, or is a relay.
    AddPeer(PeerAddress),
    /// Nothing.
    RemovePeer(String),
    /// The PeerID.
    AllowPeer(String),
    /// The PeerID.
    RevokePeer(String),
}

/// What `tunnel ls --json` prints; part of `status --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TunnelsReport {
    /// Our PeerID, as the carrier has it.
    pub peer_id: String,
    /// What the carrier lets be seen.
    pub carrier: CarrierState,
    /// What is exposed and open.
    #[serde(flatten)]
    pub services: ServicesStatus,
}

/// What `join --json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinReport {
    /// The station that let us in.
    pub through: String,
    /// The constellation.
    pub constellation: String,
    /// Stations of it that we heard of by that, itself included; none when nothing was new.
    pub stations: usize,
}

impl Tunnels {
    /// How tunnels are.
    pub fn report(&self) -> TunnelsReport {
        let mut carrier = self.carrier.state().borrow().as_ref().clone();
        // The carrier let them in, and nobody had time for them.
        let turned_away = self.registry.turned_away();
        if turned_away > 0 {
            *carrier.refused.entry(Refusal::Overloaded).or_default() += turned_away;
        }
        TunnelsReport {
            peer_id: self.carrier.peer_id().to_string(),
            carrier,
            services: self.services.status(),
        }
    }

    /// Stations and relays that are known of.
    pub fn peers(&self) -> Vec<PeerReport> {
        self.registry.peers()
    }

    /// Carries out one command.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn carry_out(
        self: &Arc<Self>,
        command: TunnelCommand,
    ) -> Result<Value, CommandError> {
        match command {
            TunnelCommand::List => answer(&self.report()),
            TunnelCommand::Detect => answer(&detect().await),
            TunnelCommand::Invite { lifetime_s } => {
                let addresses = self.own_addresses().await;
                let registry = Arc::clone(&self.registry);
                let invited = blocking(move || registry.invite(lifetime_s, addresses)).await?;
                answer(&invited.map_err(why_not_said)?)
            }
            TunnelCommand::Join {
                token,
                accept_constellation,
            } => answer(&self.join(&token, accept_constellation).await?),
            TunnelCommand::Peers => answer(&self.peers()),
            other => {
                let tunnels = Arc::clone(self);
                let runtime = tokio::runtime::Handle::current();
                // These write files, and mouths need the runtime to listen.
                blocking(move || {
                    let _runtime = runtime.enter();
                    tunnels.change(other)
                })
                .await?
            }
        }
    }

    fn change(&self, command: TunnelCommand) -> Result<Value, CommandError> {
        let peer_of = |address: PeerAddress| {
            address.peer_id().ok_or_else(|| {
                CommandError::usage(format!("{address} is no station: expected /p2p/<PeerID>"))
            })
        };
        let usage = |error: ServiceError| match error {
            ServiceError::State { .. } | ServiceError::Damaged { .. } => CommandError::local(error),
            other => CommandError::usage(other),
        };
        let captain = why_not_said;
        let registry = &self.registry;
        match command {
            TunnelCommand::Expose(options) => {
                answer(&self.services.expose(options).map_err(usage)?)
            }
            TunnelCommand::Open(options) => answer(&self.services.open(options).map_err(usage)?),
            TunnelCommand::Close { name, peer } => {
                let peer: Option<PeerId> = peer.map(peer_of).transpose()?;
                answer(&self.services.close(&name, peer).map_err(usage)?)
            }
            TunnelCommand::AddPeer(address) => answer(&registry.add(address).map_err(captain)?),
            TunnelCommand::RemovePeer(who) => answer(&registry.remove(&who).map_err(captain)?),
            TunnelCommand::AllowPeer(who) => {
                answer(&registry.allow(&who).map_err(captain)?.to_string())
            }
            TunnelCommand::RevokePeer(who) => {
                answer(&registry.revoke(&who).map_err(captain)?.to_string())
            }
            TunnelCommand::List
            | TunnelCommand::Detect
            | TunnelCommand::Invite { .. }
            | TunnelCommand::Join { .. }
            | TunnelCommand::Peers => Err(CommandError::local("asked at the wrong place")),
        }
    }

    /// Where a newcomer may look for us. Just after the start the carrier may not know yet.
    async fn own_addresses(&self) -> Vec<Multiaddr> {
        let mut states = self.carrier.state();
        let known = states.wait_for(|state| !state.addresses.is_empty());
        // In vain: then there is none, and whoever invites is told.
        drop(tokio::time::timeout(ADDRESSES_DEADLINE, known).await);
        let registry = Arc::clone(&self.registry);
        let state = self.carrier.state().borrow().clone();
        let addresses = state
            .addresses
            .iter()
            .filter_map(|address| address.parse().ok());
        let addresses: Vec<Multiaddr> = addresses.collect();
        let told = blocking(move || {
            registry.set_addresses(addresses);
            registry.own_addresses()
        });
        told.await.unwrap_or_default()
    }

    fn is_linked_with(&self, peer: PeerId) -> bool {
        let state = self.carrier.state();
        state.borrow().links.contains_key(&peer.to_string())
    }

    async fn join(
        &self,
        token: &str,
        accept_constellation: bool,
    ) -> Result<JoinReport, CommandError> {
        let invitation: Invitation = token.trim().parse().map_err(CommandError::usage)?;
        let card = self
            .registry
            .prepare_to_join(&invitation, accept_constellation)
            .map_err(why_not_said)?;
        let peer = invitation.peer;
        self.carrier
            .learn(peer, &invitation.addresses, Source::Static);
        let secret = hex::encode(invitation.secret.as_bytes());
        let redeemed = discovery::redeem(self.carrier.as_ref(), peer, secret, card).await;
        let cards = redeemed.map_err(|error| {
            let is_linked = self.is_linked_with(peer);
            why_not_joined(&invitation, &error, is_linked)
        })?;
        let constellation = invitation.constellation.to_string();
        let registry = Arc::clone(&self.registry);
        let joined = blocking(move || registry.has_joined(&invitation, cards)).await?;
        Ok(JoinReport {
            through: peer.to_string(),
            constellation,
            stations: joined.map_err(why_not_said)?,
        })
    }
}

/// Whose fault it is: a disk that fails is this machine's.
fn why_not_said(error: discovery::CaptainError) -> CommandError {
    match error {
        discovery::CaptainError::State(_) => CommandError::local(error),
        other => CommandError::usage(other),
    }
}

/// What the captain with the token can do about it. `is_linked`: there is a connection with the station still.
fn why_not_joined(
    invitation: &Invitation,
    error: &discovery::ExchangeError,
    is_linked: bool,
) -> CommandError {
    let peer = invitation.peer;
    match error {
        discovery::ExchangeError::Ask(busy) if busy.is_for_now() => CommandError::unreachable(
            format!("{peer} is busy with others who join; the token is still good: try again"),
        ),
        discovery::ExchangeError::Ask(discovery::AskError::Refused { reason, .. }) => {
            let said = match reason.as_str() {
                "used" => "the token was used by another station: ask for a new one",
                "expired" => "the token has expired: ask for a new one",
                "unknown" => {
                    "the station that made the token does not know it (any more): ask for a new one"
                }
                "foreign" => "the token is of another constellation",
                "revoked" => "this station was put out of that constellation",
                other => other,
            };
            CommandError::refused(format!("{peer} did not let us in: {said}"))
        }
        discovery::ExchangeError::Ask(discovery::AskError::Timeout) => {
            CommandError::unreachable(format!("{peer} did not answer in time: try again"))
        }
        // Whoever used a token may use it again, so trying again never spoils it.
        discovery::ExchangeError::Ask(discovery::AskError::Broken(detail)) if !is_linked => {
            CommandError::unreachable(format!(
                "the connection with {peer} broke before it answered ({detail}): unless another station has used the \
                 token meanwhile it is still good, so try again; if it breaks each time, nobody with this token is let in \
                 there any more: ask for a new one"
            ))
        }
        // Where no token is out nobody may knock, and nobody is told why: the stream ends, the connection does not.
        discovery::ExchangeError::Ask(_)
        | discovery::ExchangeError::Open(OpenError::NotOffered { .. }) => {
            CommandError::refused(format!(
                "{peer} did not let us in ({error}): the token was used by another station, has expired, or was not made \
                 there; ask for a new one"
            ))
        }
        error => {
            let mut message = format!("cannot join through {peer}: {error}");
            if invitation.private {
                message.push_str(
                    "; that constellation is a private swarm: [tunnel] swarm_key must name its key here too",
                );
            }
            CommandError::unreachable(message)
        }
    }
}

fn answer(value: &impl Serialize) -> Result<Value, CommandError> {
    serde_json::to_value(value).map_err(CommandError::local)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CommandError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(CommandError::local)
}

/// Carries out what can be said where no tunnels have started: the captain's word, kept for when they do. `why_none` is told
/// for all else. Blocks.
///
/// # Errors
/// [`CommandError`].
pub(super) fn carry_out_without_tunnels(
    files: &TrustFiles,
    own: PeerId,
    command: TunnelCommand,
    why_none: CommandError,
) -> Result<Value, CommandError> {
    match command {
        TunnelCommand::AllowPeer(who) => {
            let peer = files.allow(&who, own).map_err(why_not_said)?;
            answer(&peer.to_string())
        }
        TunnelCommand::RevokePeer(who) => {
            let peer = files.revoke(&who, own).map_err(why_not_said)?;
            answer(&peer.to_string())
        }
        TunnelCommand::AddPeer(address) => answer(&files.add(address, own).map_err(why_not_said)?),
        TunnelCommand::RemovePeer(who) => answer(&files.remove(&who, own).map_err(why_not_said)?),
        TunnelCommand::Detect
        | TunnelCommand::List
        | TunnelCommand::Expose(_)
        | TunnelCommand::Open(_)
        | TunnelCommand::Close { .. }
        | TunnelCommand::Invite { .. }
        | TunnelCommand::Join { .. }
        | TunnelCommand::Peers => Err(why_none),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::messages::ExitReason;
    use crate::discovery::{AskError, ExchangeError};
    use crate::trust::{ConstellationId, Secret};

    #[test]
    fn a_connection_that_broke_says_nothing_against_the_token() {
        let invitation = Invitation {
            peer: PeerId::random(),
            addresses: Vec::new(),
            constellation: ConstellationId::of_name("x"),
            secret: Secret::from_bytes([1; 16]),
            expires: 0,
            private: false,
        };
        let broken = ExchangeError::Ask(AskError::Broken("reset".to_owned()));
        let busy = ExchangeError::Ask(AskError::Refused {
            status: http::StatusCode::SERVICE_UNAVAILABLE,
            reason: "come again".to_owned(),
        });
        for error in [broken, busy] {
            let said = why_not_joined(&invitation, &error, false);
            assert_eq!(said.exit, ExitReason::Unreachable, "{}", said.message);
            assert!(said.message.contains("still good"), "{}", said.message);
            assert!(said.message.contains("try again"), "{}", said.message);
        }
        let used = ExchangeError::Ask(AskError::Refused {
            status: http::StatusCode::FORBIDDEN,
            reason: "used".to_owned(),
        });
        let turned_away = ExchangeError::Ask(AskError::Broken("reset".to_owned()));
        for error in [used, turned_away] {
            let said = why_not_joined(&invitation, &error, true);
            assert_eq!(said.exit, ExitReason::Refused, "{}", said.message);
        }
    }
}
