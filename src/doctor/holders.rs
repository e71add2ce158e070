//! Who holds a lock or a port, as far as `/proc` shows it. Blocks.
//!
//! Other systems have no `/proc`, and of other users' processes it shows little: then nobody is named.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) process: u32,
    pub(super) name: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (process {})", self.name, self.process)
    }
}

fn holder(process: u32) -> Holder {
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    Holder {
        process,
        name: name.trim().to_owned(),
    }
}

/// Who has locked a file by `flock`.
pub(super) fn of_lock(path: &Path) -> Option<Holder> {
    let inode = fs::metadata(path).ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let process = lock_in(&locks, inode);
    // A lock stays with the file when who took it has started others and gone.
    let there = process.filter(|process| is_alive(*process));
    there
        .or_else(|| who_has(&|entry| fs::metadata(entry).is_ok_and(|open| open.ino() == inode)))
        .map(holder)
}

/// Whether it is there, and not only its number, which stays until its parent has asked how it ended.
fn is_alive(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
    !state.is_empty() && !state.starts_with('Z')
}

/// The process in `/proc/locks` that has locked this inode.
fn lock_in(locks: &str, inode: u64) -> Option<u32> {
    let mut fields = locks.lines().map(|line| {
        line.split_whitespace()
            .filter(|word| *word != "->")
            .collect::<Vec<_>>()
    });
    let line = fields.find(|fields| {
        let at = fields.get(5).and_then(|place| place.rsplit(':').next());
        fields.get(1) == Some(&"FLOCK") && at == Some(&inode.to_string())
    })?;
    line.get(4)?.parse().ok()
}

/// Who listens at a port: `table` is `tcp` or `udp`.
pub(super) fn of_port(table: &str, port: u16) -> Option<Holder> {
    let inode = [table.to_owned(), format!("{table}6")]
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/net/{table}")).ok())
        .find_map(|sockets| socket_in(&sockets, port))?;
    let wanted = format!("socket:[{inode}]");
    who_has(&|entry| fs::read_link(entry).is_ok_and(|link| link.as_os_str() == wanted.as_str()))
        .map(holder)
}

/// The inode of the socket that is bound to a port without a peer.
fn socket_in(sockets: &str, port: u16) -> Option<u64> {
    let suffix = format!(":{port:04X}");
    sockets.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields.get(2)?.ends_with(":0000");
        (listens && fields.get(1)?.ends_with(&suffix)).then(|| fields.get(9)?.parse().ok())?
    })
}

/// The first other process that has an open file of this kind.
fn who_has(is_it: &dyn Fn(&Path) -> bool) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut others = numbers.filter(|process| *process != std::process::id());
    others.find(|process| {
        let open = fs::read_dir(format!("/proc/{process}/fd"));
        open.is_ok_and(|open| {
            open.filter_map(Result::ok)
                .any(|entry| is_it(&entry.path()))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_the_kernel_are_read() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 08:01:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 4242 08:01:77 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 9 08:01:77 0 EOF\n";
        assert_eq!(lock_in(locks, 77), Some(4_242));
        assert_eq!(lock_in(locks, 7), None);
        let sockets = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 0100007F:1E61 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 1 1\n   \
             1: 0100007F:1E61 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 31337 1\n";
        assert_eq!(socket_in(sockets, 7_777), Some(31_337));
        assert_eq!(socket_in(sockets, 80), None);
    }

    #[test]
    fn who_listens_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let sockets = fs::read_to_string("/proc/net/tcp").expect("Linux");
        assert!(socket_in(&sockets, port).is_some());
    }
}
