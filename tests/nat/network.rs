//! Networks for tests: stations at a public network, and behind routers that translate addresses.
//!
//! ```text
//! host ─┐
//! host ─┴─ bridge (203.0.113.0/24, "public") ─┬─ router ─ host (192.168.1.2)
//!                                             └─ router ─ host (192.168.1.2)
//! ```
//!
//! All in network namespaces of their own, with addresses that nobody has: nothing here touches the machine's network.
//! Behind every router the same addresses are in use, as at home. Invariant: what a [`Network`] makes it removes, also
//! when a test panics; what a killed run left behind, the next one removes. Worst case: [`NAMESPACES_MAX`] of them.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::stations::say;

/// Namespaces of one network: a bridge, and a router or not with each host.
const NAMESPACES_MAX: usize = 16;
/// Where named namespaces are, for `ip`.
const NAMESPACES: &str = "/run/netns";
/// What the names of ours begin with; then the process that made them.
const PREFIX: &str = "cstl-test-";
/// The first three numbers of the public network.
const PUBLIC: &str = "203.0.113";
/// A host behind a router, and the router as it sees it.
const HOST_AT_HOME: &str = "192.168.1.2";
const ROUTER_AT_HOME: &str = "192.168.1.1";

/// How a router translates addresses. Whatever was not asked for from behind it, it drops, as routers at home do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nat {
    /// The port stays the same: whoever calls from one port is seen at one port, and can be called there.
    KeepsPorts,
    /// Every connection gets a port of its own: what one has seen is of no use to another.
    RandomPorts,
}

/// A network, until dropped.
#[derive(Debug)]
pub(crate) struct Network {
    prefix: String,
    namespaces: Vec<String>,
    public_hosts: u8,
}

/// Where a station may live.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The namespace's name.
    pub(crate) namespace: String,
    /// The address that it has itself.
    pub(crate) ip: String,
    /// The namespace of its router, and the address at which others see it.
    router: Option<(String, String)>,
}

/// While it lives, two places cannot reach each other.
#[derive(Debug)]
pub(crate) struct Parted([(String, String); 2]);

impl Parted {
    /// What a router refuses to its host: calls to the other's router.
    fn rule(to: &str) -> String {
        format!("FORWARD -p tcp -d {to} -j REJECT --reject-with tcp-reset")
    }
}

impl Drop for Parted {
    fn drop(&mut self) {
        for (router, to) in &self.0 {
            let rule = Self::rule(to);
            within(router, &format!("iptables -w -D {rule}"));
        }
    }
}

impl Network {
    /// A bridge with nobody on it. `None`: that cannot be done here, and it was said why; with `CI=true` it fails.
    pub(crate) fn new() -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        if let Err(why) = is_possible() {
            let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
            assert!(!ci, "{why}");
            say(&format!("skipped: {why}"));
            return None;
        }
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let mut network = Self {
            prefix: format!("{PREFIX}{}-{number}-", std::process::id()),
            namespaces: Vec::new(),
            public_hosts: 0,
        };
        let bridge = network.namespace("bridge");
        within(&bridge, "ip link add public type bridge");
        within(&bridge, "ip link set public up");
        Some(network)
    }

    /// A host on the public network.
    pub(crate) fn public_host(&mut self, name: &str) -> Place {
        let namespace = self.namespace(name);
        let ip = self.join_public(&namespace);
        Place {
            namespace,
            ip,
            router: None,
        }
    }

    /// Two hosts behind routers cannot reach each other directly over TCP: whoever tries is refused at once.
    pub(crate) fn part(&self, places: &[Place; 2]) -> Parted {
        let routers = [0, 1].map(|at: usize| places[at].router.clone().expect("behind a router"));
        let [(first, first_ip), (second, second_ip)] = routers;
        let parted = Parted([(first, second_ip), (second, first_ip)]);
        for (router, to) in &parted.0 {
            within(router, &format!("iptables -w -I {}", Parted::rule(to)));
        }
        parted
    }

    /// A host behind a router of its own.
    pub(crate) fn host_behind(&mut self, nat: Nat, name: &str) -> Place {
        let router = self.namespace(&format!("{name}-router"));
        let seen_at = self.join_public(&router);
        let namespace = self.namespace(name);
        within(
            &router,
            &format!("ip link add home type veth peer name uplink netns {namespace}"),
        );
        within(
            &router,
            &format!("ip address add {ROUTER_AT_HOME}/24 dev home"),
        );
        within(&router, "ip link set home up");
        within(
            &namespace,
            &format!("ip address add {HOST_AT_HOME}/24 dev uplink"),
        );
        within(&namespace, "ip link set uplink up");
        within(
            &namespace,
            &format!("ip route add default via {ROUTER_AT_HOME}"),
        );
        let ports = match nat {
            Nat::KeepsPorts => "",
            Nat::RandomPorts => "--random-fully",
        };
        for rule in [
            "-P FORWARD DROP",
            "-A FORWARD -i home -j ACCEPT",
            "-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
            "-A INPUT -i uplink -j DROP",
            &format!("-t nat -A POSTROUTING -o uplink -j MASQUERADE {ports}"),
        ] {
            within(&router, &format!("iptables -w {rule}"));
        }
        within(&router, "sysctl -q -w net.ipv4.ip_forward=1");
        Place {
            namespace,
            ip: HOST_AT_HOME.to_owned(),
            router: Some((router, seen_at)),
        }
    }

    fn join_public(&mut self, namespace: &str) -> String {
        self.public_hosts += 1;
        let (number, bridge) = (self.public_hosts, &self.namespaces[0]);
        within(
            bridge,
            &format!("ip link add to-{number} type veth peer name uplink netns {namespace}"),
        );
        within(bridge, &format!("ip link set to-{number} master public up"));
        let ip = format!("{PUBLIC}.{number}");
        within(namespace, &format!("ip address add {ip}/24 dev uplink"));
        within(namespace, "ip link set uplink up");
        // Multicast needs one.
        within(namespace, "ip route add 224.0.0.0/4 dev uplink");
        ip
    }

    fn namespace(&mut self, name: &str) -> String {
        assert!(
            self.namespaces.len() < NAMESPACES_MAX,
            "too many namespaces"
        );
        let name = format!("{}{name}", self.prefix);
        // Before it is there: it is removed also if what follows fails.
        self.namespaces.push(name.clone());
        run(&format!("ip netns add {name}"));
        within(&name, "ip link set lo up");
        name
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.namespaces {
            remove(name);
        }
    }
}

/// Whether namespaces can be made here, with routers in them.
fn is_possible() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("tests in network namespaces need root".to_owned());
    }
    remove_what_was_left();
    for program in ["ip -V", "iptables -V", "sysctl -V"] {
        try_run(program).map_err(|why| {
            format!("{why}; tests/interop/install.sh installs iproute2, iptables and procps")
        })?;
    }
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let number = TRIED.fetch_add(1, Ordering::Relaxed);
    let trial = format!("{PREFIX}{}-trial-{number}", std::process::id());
    let made = try_run(&format!("ip netns add {trial}")).and_then(|()| {
        let rule = "iptables -w -t nat -A POSTROUTING -j MASQUERADE --random-fully";
        try_run(&format!("ip netns exec {trial} {rule}"))
    });
    remove(&trial);
    made.map_err(|why| format!("no network namespaces with address translation here: {why}"))
}

/// Namespaces of processes that are no more.
fn remove_what_was_left() {
    let Ok(entries) = std::fs::read_dir(NAMESPACES) else {
        return;
    };
    let names: BTreeSet<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    for name in names {
        let made_by = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if made_by.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&name);
        }
    }
}

fn remove(name: &str) {
    // It may not be there: nothing is to be removed then.
    drop(try_run(&format!("ip netns delete {name}")));
}

#[track_caller]
fn within(namespace: &str, command: &str) {
    run(&format!("ip netns exec {namespace} {command}"));
}

#[track_caller]
fn run(command: &str) {
    if let Err(why) = try_run(command) {
        panic!("{why}");
    }
}

fn try_run(command: &str) -> Result<(), String> {
    let mut words = command.split_whitespace();
    let program = words.next().expect("a command");
    let ended = Command::new(program).args(words).output();
    let ended = ended.map_err(|error| format!("{program}: {error}"))?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    Err(format!("{command}: {}", said.trim()))
}
