//! What a piece of work cost: time, processor time, bytes to the disk, anonymous memory.
//!
//! Takes its figures from `/proc`; elsewhere than on Linux they are zero. *Written* is `wchar`: the bytes given to
//! system calls, which for this store are whole changed pages, each written once in a transaction (a few twice, that
//! were written early and changed again). `write_bytes` stands beside it: it counts writes through a map too, but by
//! the whole piece of page cache that a page lies in, which may be many times as large. *Memory* is the highest
//! `RssAnon` seen by a thread that looks every few milliseconds, less what was there at the start: where all events are
//! loaded beforehand it is too low by what their making left free, so only the figures of `stream` are the store's and
//! a batch's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A running measurement.
pub(crate) struct Meter {
    started: Instant,
    cpu: Duration,
    io: (u64, u64),
    anonymous: u64,
    highest: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    watcher: JoinHandle<()>,
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) time: Duration,
    /// Of all threads.
    pub(crate) cpu: Duration,
    pub(crate) write_bytes: u64,
    pub(crate) wchar: u64,
    /// Highest anonymous memory above that at the start, and what is left of it at the end, in bytes.
    pub(crate) anonymous_peak: u64,
    pub(crate) anonymous_left: u64,
}

impl Meter {
    pub(crate) fn start() -> Self {
        let anonymous = anonymous_bytes();
        let highest = Arc::new(AtomicU64::new(anonymous));
        let over = Arc::new(AtomicBool::new(false));
        let watcher = {
            let (highest, over) = (Arc::clone(&highest), Arc::clone(&over));
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    highest.fetch_max(anonymous_bytes(), Ordering::Relaxed);
                    std::thread::sleep(LOOK_EVERY);
                }
            })
        };
        Self {
            started: Instant::now(),
            cpu: process_cpu(),
            io: io_bytes(),
            anonymous,
            highest,
            over,
            watcher,
        }
    }

    pub(crate) fn stop(self) -> Reading {
        let time = self.started.elapsed();
        let cpu = process_cpu().saturating_sub(self.cpu);
        let (write_bytes, wchar) = io_bytes();
        let left = anonymous_bytes();
        self.over.store(true, Ordering::Relaxed);
        self.watcher.join().expect("the watcher does not panic");
        let highest = self.highest.load(Ordering::Relaxed).max(left);
        Reading {
            time,
            cpu,
            write_bytes: write_bytes - self.io.0,
            wchar: wchar - self.io.1,
            anonymous_peak: highest.saturating_sub(self.anonymous),
            anonymous_left: left.saturating_sub(self.anonymous),
        }
    }
}

/// The number after `name` in a file of `/proc`; zero where there is none.
fn number_in(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}

pub(crate) fn anonymous_bytes() -> u64 {
    number_in("/proc/self/status", "RssAnon:") * 1_024
}

fn io_bytes() -> (u64, u64) {
    let file = "/proc/self/io";
    (number_in(file, "write_bytes:"), number_in(file, "wchar:"))
}

/// Processor time of all threads, to 10 ms.
fn process_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15, counted after the name, which may hold spaces.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}

/// Runs `work` and gives the time it took. For work of one thread that waits for nothing this is processor time, and
/// finer than what the system accounts for; of several runs the shortest is the one that was disturbed least.
pub(crate) fn timed<R>(work: impl FnOnce() -> R) -> (R, Duration) {
    let begun = Instant::now();
    let result = work();
    (result, begun.elapsed())
}

pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
