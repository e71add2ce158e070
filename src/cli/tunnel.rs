//! `constellation tunnel`, `invite`, `join`, `peers`: what is said of tunnels and of who may enter.
//!
//! Each asks the running station; where none runs, the station is opened, its tunnels started, and closed again.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::access::Access;
use super::arguments::{
    ExposeArguments, Global, InviteArguments, JoinArguments, JsonArguments, OpenArguments,
    PeersArguments, PeersCommand, TunnelAction,
};
use super::exit::{Exit, Failure};
use super::table::columns;
use crate::control::{self, JoinReport, TunnelCommand, TunnelsReport};
use crate::discovery::{InvitationReport, PeerReport};
use crate::services::{Detected, ExposedOptions, ExposedStatus, MouthStatus, OpenOptions};

/// Has the station carry out a command.
async fn ask(global: &Global, command: TunnelCommand) -> Result<Value, Failure> {
    match global.access().await? {
        Access::Running(station) => Ok(station.tunnels(&command).await?),
        Access::Own(station) => {
            let config = global.load_config()?;
            let answered = match station.start_tunnels(&config, None).await {
                Ok(()) => {
                    let context = station.control_context(station.tasks().clone());
                    control::tunnels(&context, command)
                        .await
                        .map_err(Failure::from)
                }
                Err(error) => Err(error.into()),
            };
            station.close().await;
            answered
        }
    }
}

fn read<T: DeserializeOwned>(answer: Value) -> Result<T, Failure> {
    serde_json::from_value(answer).map_err(Failure::local)
}

/// Prints the answer as it is, or in words.
fn show(
    json: bool,
    answer: &Value,
    words: impl FnOnce() -> Result<String, Failure>,
) -> Result<Exit, Failure> {
    if json {
        outln!("{answer}");
    } else {
        outln!("{}", words()?.trim_end());
    }
    Ok(Exit::Done)
}

pub(super) async fn tunnel(global: &Global, action: TunnelAction) -> Result<Exit, Failure> {
    match action {
        TunnelAction::Ls(JsonArguments { json }) => {
            let answer = ask(global, TunnelCommand::List).await?;
            show(json, &answer, || Ok(listed(&read(answer.clone())?)))
        }
        TunnelAction::Expose(arguments) => expose(global, arguments).await,
        TunnelAction::Open(OpenArguments {
            name,
            peer,
            port,
            json,
        }) => {
            let answer = ask(
                global,
                TunnelCommand::Open(OpenOptions { name, peer, port }),
            )
            .await?;
            show(json, &answer, || {
                let open: MouthStatus = read(answer.clone())?;
                Ok(format!(
                    "{} of {} is at {}",
                    open.name, open.peer, open.listen
                ))
            })
        }
        TunnelAction::Close(arguments) => {
            let (name, peer) = (arguments.name.clone(), arguments.peer);
            ask(global, TunnelCommand::Close { name, peer }).await?;
            outln!("{} is closed", arguments.name);
            Ok(Exit::Done)
        }
    }
}

async fn expose(global: &Global, arguments: ExposeArguments) -> Result<Exit, Failure> {
    let json = arguments.json;
    let Some(name) = arguments.name else {
        let answer = ask(global, TunnelCommand::Detect).await?;
        return show(json, &answer, || {
            let found: Vec<Detected> = read(answer.clone())?;
            let rows = found.iter().map(|service| {
                let listens = if service.listens { "listens" } else { "-" };
                vec![
                    service.name.to_string(),
                    service.port.to_string(),
                    listens.to_owned(),
                ]
            });
            Ok(columns(&["service", "port", ""], rows))
        });
    };
    let options = ExposedOptions {
        name,
        port: arguments.port,
        allow: (!arguments.allow.is_empty()).then_some(arguments.allow),
    };
    let answer = ask(global, TunnelCommand::Expose(options)).await?;
    show(json, &answer, || {
        let exposed: ExposedStatus = read(answer.clone())?;
        Ok(format!(
            "{} ({}) is exposed to {}",
            exposed.name,
            place(&exposed),
            whom(&exposed)
        ))
    })
}

fn place(exposed: &ExposedStatus) -> String {
    exposed
        .port
        .map_or_else(|| "our relay".to_owned(), |port| format!("port {port}"))
}

fn whom(exposed: &ExposedStatus) -> String {
    exposed
        .allow
        .as_ref()
        .map_or_else(|| "admitted stations".to_owned(), |allow| allow.join(", "))
}

fn listed(report: &TunnelsReport) -> String {
    let carrier = &report.carrier;
    let mut text = format!("PeerID  {}\n", report.peer_id);
    for address in &carrier.addresses {
        text.push_str(&format!("at      {address}\n"));
    }
    if let Some(problem) = &carrier.problem {
        text.push_str(&format!("\n! {problem}\n"));
    }
    let exposed = report.services.exposed.iter();
    let rows = exposed.map(|service| vec![service.name.to_string(), place(service), whom(service)]);
    text.push('\n');
    text.push_str(&columns(&["exposed", "where", "to"], rows));
    if !report.services.open.is_empty() {
        let rows = report.services.open.iter().map(|open| {
            let how = match &open.path {
                Some(path) => format!("{}, {path}", open.state),
                None => open.state.clone(),
            };
            let last_error = open.last_error.clone().unwrap_or_default();
            vec![
                open.name.to_string(),
                open.listen.clone(),
                open.peer.clone(),
                how,
                last_error,
            ]
        });
        text.push('\n');
        text.push_str(&columns(&["open", "at", "of", "state", "last error"], rows));
    }
    if !carrier.links.is_empty() {
        let rows = carrier.links.iter().map(|(peer, link)| {
            let rtt = link
                .rtt_ms
                .map_or_else(|| "-".to_owned(), |rtt| format!("{rtt:.1} ms"));
            let path = match link.path {
                crate::tunnel::Path::Direct => "direct",
                crate::tunnel::Path::Relayed => "relayed",
            };
            let streams = format!("{} in, {} out", link.streams_in, link.streams_out);
            vec![
                peer.clone(),
                path.to_owned(),
                rtt,
                streams,
                link.address.clone(),
            ]
        });
        text.push('\n');
        text.push_str(&columns(
            &["connected", "how", "round trip", "streams", "address"],
            rows,
        ));
    }
    let refused: Vec<String> = carrier
        .refused
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| format!("{} {count}", reason.label()))
        .collect();
    if !refused.is_empty() {
        text.push_str(&format!("\nrefused  {}\n", refused.join(", ")));
    }
    text
}

pub(super) async fn invite(global: &Global, arguments: InviteArguments) -> Result<Exit, Failure> {
    let lifetime_s = arguments.expires.as_secs();
    let answer = ask(global, TunnelCommand::Invite { lifetime_s }).await?;
    if arguments.json {
        outln!("{answer}");
        return Ok(Exit::Done);
    }
    let invitation: InvitationReport = read(answer)?;
    // The token alone on standard output: it can be piped.
    outln!("{}", invitation.token);
    eprintln!(
        "For one station, until {}. There: constellation join TOKEN",
        invitation.expires_at
    );
    Ok(Exit::Done)
}

pub(super) async fn join(global: &Global, arguments: JoinArguments) -> Result<Exit, Failure> {
    let command = TunnelCommand::Join {
        token: arguments.token,
        accept_constellation: arguments.accept_constellation,
    };
    let answer = ask(global, command).await?;
    show(arguments.json, &answer, || {
        let joined: JoinReport = read(answer.clone())?;
        Ok(format!(
            "Joined through {}, which told of {} stations that were not known here.",
            joined.through, joined.stations
        ))
    })
}

pub(super) async fn peers(global: &Global, arguments: PeersArguments) -> Result<Exit, Failure> {
    let json = arguments.json;
    match arguments.command {
        None => {
            let answer = ask(global, TunnelCommand::Peers).await?;
            show(json, &answer, || {
                let peers: Vec<PeerReport> = read(answer.clone())?;
                if peers.is_empty() {
                    return Ok("nobody is known yet: constellation join TOKEN, or constellation peers add ADDRESS".into());
                }
                Ok(peers_listed(&peers))
            })
        }
        Some(PeersCommand::Add { address }) => {
            let is_station = address.peer_id().is_some();
            let shown = address.to_string();
            let answer = ask(global, TunnelCommand::AddPeer(address)).await?;
            let revoked: Option<String> = read(answer)?;
            outln!("{}", added(&shown, is_station, revoked));
            Ok(Exit::Done)
        }
        Some(PeersCommand::Remove { peer }) => {
            ask(global, TunnelCommand::RemovePeer(peer.clone())).await?;
            outln!(
                "{peer} is removed; others may still vouch for it (to put it out everywhere: peers revoke)"
            );
            Ok(Exit::Done)
        }
        Some(PeersCommand::Allow { peer }) => {
            let allowed: String = read(ask(global, TunnelCommand::AllowPeer(peer)).await?)?;
            outln!("{allowed} may enter");
            Ok(Exit::Done)
        }
        Some(PeersCommand::Revoke { peer }) => {
            let revoked: String = read(ask(global, TunnelCommand::RevokePeer(peer)).await?)?;
            outln!("{revoked} is out here, and everywhere once the cards have gone round");
            Ok(Exit::Done)
        }
    }
}

fn added(address: &str, is_station: bool, revoked: Option<String>) -> String {
    match revoked {
        Some(by) => format!(
            "{address} is added, but {by}: it does not enter, and no run exchanges with it, until constellation peers \
             allow {address} takes that back"
        ),
        None if is_station => format!("{address} is a peer now, and may enter"),
        None => format!("{address} is a peer now"),
    }
}

fn peers_listed(peers: &[PeerReport]) -> String {
    let rows = peers.iter().map(|peer| {
        let sources: Vec<String> = peer
            .sources
            .iter()
            .map(|source| source.label().to_owned())
            .collect();
        let standing = match (&peer.standing, &peer.why) {
            (Some(standing), Some(why)) => format!("{standing}: {why}"),
            (Some(standing), None) => standing.clone(),
            _ => "relay".to_owned(),
        };
        vec![
            peer.address.clone(),
            peer.name.clone().unwrap_or_default(),
            standing,
            sources.join(", "),
        ]
    });
    columns(&["peer", "name", "standing", "known from"], rows)
}
