//! Stations of these tests: their configurations, and what is asked of them.
//!
//! Every station is a process of the real binary with a home of its own. Whatever a test does not turn on is off.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::Value;

use super::network::Place;
use crate::common::{self, Home, Station};

/// Says it past the harness, which shows what a test prints only when the test fails.
pub(crate) fn say(message: &str) {
    // A closed standard error is no reason to fail.
    drop(writeln!(std::io::stderr(), "{message}"));
}

/// How stations reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Tcp,
    Quic,
    Both,
}

impl Over {
    fn listen(self, ip: &str, port: u16) -> String {
        let tcp = format!("\"/ip4/{ip}/tcp/{port}\"");
        let quic = format!("\"/ip4/{ip}/udp/{port}/quic-v1\"");
        match self {
            Self::Tcp => tcp,
            Self::Quic => quic,
            Self::Both => format!("{tcp}, {quic}"),
        }
    }
}

/// What a station is configured with.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    name: String,
    tunnel: String,
    rest: String,
}

impl Setup {
    /// On any port of loopback.
    pub(crate) fn on_loopback(name: &str, over: Over) -> Self {
        Self::listening(name, &over.listen("127.0.0.1", 0))
    }

    /// On every address of its namespace, at the usual port: nobody else is there.
    pub(crate) fn in_namespace(name: &str, over: Over) -> Self {
        Self::listening(name, &over.listen("0.0.0.0", 4011))
    }

    fn listening(name: &str, listen: &str) -> Self {
        Self {
            name: name.to_owned(),
            tunnel: format!("listen = [{listen}]\n"),
            rest: String::new(),
        }
    }

    /// A line of `[tunnel]`.
    pub(crate) fn tunnel(mut self, line: &str) -> Self {
        writeln!(self.tunnel, "{line}").expect("memory");
        self
    }

    /// Further sections.
    pub(crate) fn section(mut self, text: &str) -> Self {
        writeln!(self.rest, "{text}").expect("memory");
        self
    }

    /// A named peer.
    pub(crate) fn peer(self, address: &str) -> Self {
        self.section(&format!("[[peers]]\naddress = \"{address}\""))
    }

    /// Stations that may enter.
    pub(crate) fn allow(self, peers: &[&str]) -> Self {
        self.tunnel(&format!("allow = {peers:?}"))
    }

    pub(crate) fn text(&self) -> String {
        let mut off = String::new();
        for (key, value) in [("mdns", "false"), ("kademlia", "\"off\"")] {
            if !self.tunnel.contains(key) {
                writeln!(off, "{key} = {value}").expect("memory");
            }
        }
        let Self { name, tunnel, rest } = self;
        format!(
            "[station]\nname = \"{name}\"\nconstellation = \"of these tests\"\n[relay]\nlisten = \"127.0.0.1:0\"\n\
             [schedule]\nevery = \"0s\"\n[kubo]\nuse = \"never\"\n[tunnel]\n{tunnel}{off}{rest}"
        )
    }

    pub(crate) fn home(&self) -> Home {
        Home::with_config(&self.text())
    }

    pub(crate) fn home_at(&self, place: &Place) -> Home {
        self.home().in_namespace(&place.namespace)
    }
}

/// Starts a station, and waits until its tunnels are there: its relay serves a moment before.
#[track_caller]
pub(crate) fn start(home: &Home) -> Station<'_> {
    let station = home.start();
    common::wait_until("there are tunnels", || {
        home.run(&["tunnel", "ls"]).code == Some(0)
    });
    station
}

/// `tunnel ls --json`.
#[track_caller]
pub(crate) fn tunnels(home: &Home) -> Value {
    home.run(&["tunnel", "ls", "--json"]).with_code(0).json()
}

/// The PeerID: of a station that runs, or has been made.
#[track_caller]
pub(crate) fn peer_id(home: &Home) -> String {
    text(&tunnels(home)["peer_id"])
}

#[track_caller]
pub(crate) fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// How `home` is connected with a station, if it is.
#[track_caller]
pub(crate) fn link_with(home: &Home, peer: &str) -> Option<Value> {
    let link = tunnels(home)["carrier"]["links"][peer].clone();
    (!link.is_null()).then_some(link)
}

/// An address at which a station listens, with its PeerID.
#[track_caller]
pub(crate) fn address_of(home: &Home) -> String {
    common::wait_for("it listens", || {
        let report = tunnels(home);
        let address = report["carrier"]["addresses"].as_array()?.first()?;
        Some(format!(
            "{}/p2p/{}",
            text(address),
            text(&report["peer_id"])
        ))
    })
}

/// The sources by which `home` knows of a station.
#[track_caller]
pub(crate) fn sources(home: &Home, peer: &str) -> Vec<String> {
    let peers = home.run(&["peers", "--json"]).with_code(0).json();
    let address = format!("/p2p/{peer}");
    let mut peers = peers.as_array().expect("a list").iter();
    let known = peers.find(|one| one["address"] == address.as_str());
    known
        .map(|known| serde_json::from_value(known["sources"].clone()).expect("a list of names"))
        .unwrap_or_default()
}

/// A newcomer joins by a token.
#[track_caller]
pub(crate) fn join(newcomer: &Home, by: &Home) {
    let token = by.run(&["invite"]).with_code(0).out;
    newcomer.run(&["join", token.trim()]).with_code(0);
}
