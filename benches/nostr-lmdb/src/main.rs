//! How fast nostr-lmdb writes events, without verifying them: for comparison with `constellation bench --keep FOLDER`,
//! which leaves the events that it imported in `FOLDER/uniform.jsonl`.
//!
//! `benches/run.sh` does both. A thousand saves are under way at a time, so that it may write them together. Prints one
//! line: events per second, processor time, highest anonymous memory, size on disk.

use std::io::BufRead;
use std::path::Path;
use std::time::Instant;

use futures_util::StreamExt;
use nostr::event::Event;
use nostr_database::NostrDatabase;
use nostr_lmdb::NostrLmdb;

const UNDER_WAY: usize = 1_000;
const MAP_BYTES: usize = 16 << 30;

fn main() {
    let path = std::env::args()
        .nth(1)
        .expect("a file of events as JSON lines");
    let folder = tempfile::tempdir().expect("a folder to work in");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let database = NostrLmdb::builder(folder.path())
            .map_size(MAP_BYTES)
            .build()
            .await
            .expect("an empty database");
        let file = std::fs::File::open(path).expect("the file");
        let events = std::io::BufReader::new(file).lines().map(|line| {
            Event::from_json(line.expect("a line")).expect("an event of the benchmark")
        });
        let before = Instant::now();
        let mut saving = futures_util::stream::iter(events)
            .map(|event| {
                let database = &database;
                async move { database.save_event(&event).await.expect("room") }
            })
            .buffer_unordered(UNDER_WAY);
        let (mut saved, mut highest) = (0u64, 0);
        while let Some(status) = saving.next().await {
            saved += u64::from(status.is_success());
            if saved % 1_000 == 0 {
                highest = highest.max(anonymous_bytes());
            }
        }
        let seconds = before.elapsed().as_secs_f64();
        println!(
            "nostr-lmdb, unverified: {saved} events in {seconds:.1} s, {:.0}/s, processor {} ms, anonymous {} MB, on disk {} MB",
            saved as f64 / seconds,
            cpu_ms(),
            highest / 1_000_000,
            bytes_in(folder.path()) / 1_000_000,
        );
    });
}

fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes: Option<u64> =
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kilobytes.unwrap_or_default() * 1_024
}

fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let numbers = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = numbers.split(' ').skip(11).take(2);
    ticks
        .filter_map(|number| number.parse::<u64>().ok())
        .sum::<u64>()
        * 10
}

/// What the files hold, not how long they claim to be: the map is mostly a hole.
fn bytes_in(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(folder).expect("the folder");
    entries
        .map(|entry| {
            entry
                .expect("an entry")
                .metadata()
                .expect("a file")
                .blocks()
                * 512
        })
        .sum()
}
