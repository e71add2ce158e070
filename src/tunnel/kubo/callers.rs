//! Who on this machine connects to a private port: only kubo may, since it alone proves PeerIDs.
//!
//! TCP has no peer credentials. Linux tells the owner of every socket in `/proc/net/tcp`: the connecting socket must
//! belong to whoever owns kubo's listening one, or to root. Only established sockets count: those that their process
//! has left behind are listed as root's. One reading serves all who connected before it, so a burst costs a few; and there
//! are at most [`READINGS_AT_ONCE`] of them at once and [`READINGS_A_SECOND`] a second, so a flood costs a few as well:
//! who comes then waits for the next one.
//! Where kubo is elsewhere, or there is no such table, all are let through to the guest list, with one warning: then any
//! process of this machine can claim any PeerID. A process of kubo's own user always can; it could also steer kubo.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::KuboApi;

/// Sockets of this network namespace.
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
const ESTABLISHED: &str = "01";
const LISTENING: &str = "0A";
const ROOT: u32 = 0;
/// Linux gives the table in pieces; a socket may slip through when another one vanishes between two of them.
const READINGS_MAX: usize = 3;
/// Readings of the table at once, and how many a second after that: each takes some milliseconds where sockets are many.
const READINGS_AT_ONCE: f64 = 32.0;
const READINGS_A_SECOND: f64 = 20.0;

/// One socket of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row<'t> {
    local_ip: &'t str,
    local_port: u16,
    remote_ip: &'t str,
    remote_port: u16,
    state: &'t str,
    uid: u32,
}

/// The rows of a table as Linux writes it; others are left out.
fn rows(table: &str) -> impl Iterator<Item = Row<'_>> {
    table.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (local_ip, local_port) = words.next()?.split_once(':')?;
        let (remote_ip, remote_port) = words.next()?.split_once(':')?;
        Some(Row {
            local_ip,
            local_port: u16::from_str_radix(local_port, 16).ok()?,
            remote_ip,
            remote_port: u16::from_str_radix(remote_port, 16).ok()?,
            state: words.next()?,
            uid: words.nth(3)?.parse().ok()?,
        })
    })
}

/// An IPv4 address as Linux writes it: the number in this machine's byte order.
fn ipv4(hex: &str) -> Option<Ipv4Addr> {
    (hex.len() == 8).then_some(())?;
    let number = u32::from_str_radix(hex, 16).ok()?;
    Some(number.to_ne_bytes().into())
}

/// Connections within loopback: from which port, to which port, and whose.
fn callers(table: &str) -> HashMap<(u16, u16), u32> {
    let within_loopback = |row: &Row<'_>| {
        row.state == ESTABLISHED
            && ipv4(row.local_ip) == Some(Ipv4Addr::LOCALHOST)
            && ipv4(row.remote_ip) == Some(Ipv4Addr::LOCALHOST)
    };
    rows(table)
        .filter(within_loopback)
        .map(|row| ((row.local_port, row.remote_port), row.uid))
        .collect()
}

/// Whose socket listens on this port.
fn owner_of(table: &str, port: u16) -> Option<u32> {
    rows(table)
        .find(|row| row.state == LISTENING && row.local_port == port)
        .map(|row| row.uid)
}

#[derive(Debug)]
struct Seen {
    began: Option<Instant>,
    callers: HashMap<(u16, u16), u32>,
    /// Readings that may be made, when that was last counted.
    credit: f64,
    counted: Instant,
}

impl Seen {
    /// Waits until the table may be read.
    ///
    /// Cancel safe.
    async fn may_read(&mut self) {
        let now = Instant::now();
        let since = now.duration_since(self.counted).as_secs_f64();
        self.credit = (self.credit + since * READINGS_A_SECOND).min(READINGS_AT_ONCE);
        self.counted = now;
        if self.credit < 1.0 {
            let missing = (1.0 - self.credit) / READINGS_A_SECOND;
            sleep(Duration::from_secs_f64(missing)).await;
            self.counted = Instant::now();
            self.credit = 1.0;
        }
        self.credit -= 1.0;
    }
}

/// Tells kubo's connections from others'.
#[derive(Debug)]
pub(super) struct Callers {
    api: KuboApi,
    kubo: Mutex<Option<u32>>,
    seen: tokio::sync::Mutex<Seen>,
    has_warned: AtomicBool,
}

impl Callers {
    pub(super) fn new(api: KuboApi) -> Self {
        Self {
            api,
            kubo: Mutex::new(None),
            seen: tokio::sync::Mutex::new(Seen {
                began: None,
                callers: HashMap::new(),
                credit: READINGS_AT_ONCE,
                counted: Instant::now(),
            }),
            has_warned: AtomicBool::new(false),
        }
    }

    /// Looks up whose kubo is, while it is known to answer. What is not found leaves what was known.
    pub(super) async fn look_up_kubo(&self) {
        if !self.api.is_loopback() {
            return;
        }
        for path in TABLES {
            let table = tokio::fs::read_to_string(path).await.unwrap_or_default();
            if let Some(uid) = owner_of(&table, self.api.port()) {
                *self.kubo.lock().unwrap_or_else(PoisonError::into_inner) = Some(uid);
                return;
            }
        }
    }

    /// Whether the connection that was just accepted from `caller` at our port `door` is kubo's.
    ///
    /// Cancel safe.
    pub(super) async fn is_kubo(&self, caller: SocketAddr, door: u16) -> bool {
        let kubo = *self.kubo.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(kubo) = kubo else {
            self.warn("its owner is not known");
            return true;
        };
        for _ in 0..READINGS_MAX {
            let asked = Instant::now();
            let mut seen = self.seen.lock().await;
            if seen.began.is_none_or(|began| began < asked) {
                seen.may_read().await;
                let began = Instant::now();
                match tokio::fs::read_to_string(TABLES[0]).await {
                    Ok(table) => {
                        seen.began = Some(began);
                        seen.callers = callers(&table);
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        self.warn("this system has no table of sockets");
                        return true;
                    }
                    // Out of file descriptors, perhaps, which whoever connects may have brought about.
                    Err(error) => {
                        tracing::debug!(%error, "{}", TABLES[0]);
                        return false;
                    }
                }
            }
            if let Some(uid) = seen.callers.get(&(caller.port(), door)) {
                return *uid == kubo || *uid == ROOT;
            }
        }
        false
    }

    fn warn(&self, why: &'static str) {
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                kubo = %self.api, why,
                "cannot tell kubo's connections from those of other programs of this machine"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpStream};

    #[test]
    fn owners_are_read_as_linux_writes_them() {
        let ip = |ip: Ipv4Addr| format!("{:08X}", u32::from_ne_bytes(ip.octets()));
        let (here, there) = (ip(Ipv4Addr::LOCALHOST), ip(Ipv4Addr::new(192, 0, 2, 1)));
        let table = format!(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                0: {here}:1389 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 958439 2\n\
                1: {here}:8C90 {here}:1F90 01 00000000:00000000 03:0000176E 00000000  1001        0 77 3\n\
                2: {here}:8C91 {here}:1F90 06 00000000:00000000 03:0000176F 00000000     0        0 0 3\n\
                3: {there}:8C92 {here}:1F90 01 00000000:00000000 03:0000176F 00000000  1000        0 0 3\n\
                garbage\n"
        );
        assert_eq!(owner_of(&table, 5001), Some(1000));
        assert_eq!(owner_of(&table, 0x8C90), None, "it does not listen");
        let expected = HashMap::from([((0x8C90, 0x1F90), 1001)]);
        assert_eq!(callers(&table), expected, "not what was left behind");
    }

    #[tokio::test]
    async fn only_those_of_kubos_owner_are_kubos() {
        let api = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let door = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let ports = [&api, &door].map(|socket| socket.local_addr().expect("bound").port());
        let callers = Callers::new(
            format!("http://127.0.0.1:{}", ports[0])
                .parse()
                .expect("an address"),
        );
        callers.look_up_kubo().await;
        let ours = rustix::process::getuid().as_raw();
        assert_eq!(*callers.kubo.lock().expect("not poisoned"), Some(ours));

        let connected = TcpStream::connect(("127.0.0.1", ports[1])).await;
        let connected = connected.expect("it listens");
        let (_accepted, caller) = door.accept().await.expect("it comes");
        assert!(callers.is_kubo(caller, ports[1]).await, "the owner is us");
        drop(connected);
        let later = callers.is_kubo(caller, ports[1]).await;
        assert!(!later, "whoever has left it behind cannot be told");

        // As if kubo were somebody else's; root may do what it likes.
        *callers.kubo.lock().expect("not poisoned") = Some(ours + 1);
        let connected = TcpStream::connect(("127.0.0.1", ports[1])).await;
        let _connected = connected.expect("it listens");
        let (_accepted, caller) = door.accept().await.expect("it comes");
        assert_eq!(callers.is_kubo(caller, ports[1]).await, ours == ROOT);
    }

    /// The clock stands still but for the pauses.
    #[tokio::test(start_paused = true)]
    async fn a_flood_of_connections_reads_the_table_a_few_times_a_second() {
        let callers = Callers::new(KuboApi::default());
        let mut seen = callers.seen.lock().await;
        let began = Instant::now();
        for _ in 0..32 {
            seen.may_read().await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO, "a burst does not wait");
        for _ in 0..100 {
            seen.may_read().await;
        }
        let elapsed = began.elapsed().as_secs_f64();
        assert!((4.9..5.5).contains(&elapsed), "{elapsed}");
    }
}
