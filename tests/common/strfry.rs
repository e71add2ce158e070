//! A stand-in for strfry as a home relay, in this process: what FACTS say of it, and no more.
//!
//! REQ brings at most 500 events a filter and omits private messages (kinds 4 and 1059), which negentropy lists; 20
//! requests are open at a time; messages have at most 131,072 bytes; what it does not know it answers by NOTICE; too large
//! a negentropy set by `blocked:`. Its event rules differ from ours in the documented ways. A plugin logs each EVENT to a
//! file. `import` is a shell script that hands its input to this process, and prints what strfry prints; it can be made
//! to misbehave. It ends when it is dropped.

mod rules;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use constellation::protocol::websocket::{Message, Role, SocketLimits, TextSocket};
use constellation::protocol::{ClientMessage, hex, relay_message};
use constellation_reconcile::{FrameLimit, Item, VecSet, respond};
use nostr::event::Event;
use nostr::filter::Filter;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use serde_json::Value;

use rules::{Fate, Stored, matches};

use super::fake_relay::{FakeRelay, Stream};
use super::now;

const MESSAGE_BYTES_MAX: usize = 131_072;
const FILTER_LIMIT: usize = 500;
const REQUESTS_MAX: usize = 20;
const FILTERS_MAX: usize = 200;
const FRAME_BYTES: usize = 500_000;
const PAST_SECONDS: u64 = 3 * 365 * 24 * 3600;

/// How the import command behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Import {
    /// As strfry's.
    Works,
    /// Reads all, and fails.
    Fails,
    /// A signal ends it.
    IsKilled,
    /// Goes on for ever, with a child of its own; writes its process group's number to [`Strfry::group_file`].
    Hangs,
    /// Says that it added all, and stores nothing.
    Lies,
    /// Says nothing, and stores nothing.
    IsSilent,
    /// Forgets a line when it counts.
    Miscounts,
}

/// The relay.
#[derive(Debug)]
pub(crate) struct Strfry {
    relay: FakeRelay,
    database: Arc<Database>,
    folder: tempfile::TempDir,
}

#[derive(Debug, Default)]
struct Database {
    stored: Mutex<Stored>,
    plugin_log: PathBuf,
    connections: AtomicUsize,
    imports: AtomicUsize,
    sync_events_max: AtomicUsize,
    has_ended: AtomicBool,
}

impl Strfry {
    /// An empty relay on a free port.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let database = Arc::new(Database {
            plugin_log: folder.path().join("plugin.log"),
            sync_events_max: AtomicUsize::new(1_000_000),
            ..Database::default()
        });
        for pipe in ["lines", "counts"] {
            let path = folder.path().join(pipe);
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        }
        let importing = (Arc::clone(&database), folder.path().to_owned());
        std::thread::spawn(move || serve_imports(&importing.0, &importing.1));
        let shared = Arc::clone(&database);
        let relay = FakeRelay::informed(Some(INFORMATION), move |stream| {
            shared.connections.fetch_add(1, Ordering::SeqCst);
            serve(stream, Arc::clone(&shared))
        });
        let strfry = Self {
            relay,
            database,
            folder,
        };
        strfry.import_now(Import::Works);
        strfry
    }

    /// `ws://127.0.0.1:…`
    pub(crate) fn address(&self) -> &str {
        self.relay.address()
    }

    /// `[station]` of a station whose home relay it is, found at `address`.
    pub(crate) fn station_config_at(&self, address: &str) -> String {
        let script = self.script();
        format!(
            "[station]\nhome_relay = \"{address}\"\nstrfry_command = [\"sh\", \"{}\"]\n",
            script.display()
        )
    }

    /// The same, found where it listens.
    pub(crate) fn station_config(&self) -> String {
        self.station_config_at(self.address())
    }

    /// Makes its import behave so from now on.
    pub(crate) fn import_now(&self, import: Import) {
        let folder = self.folder.path().display();
        let counts = |more: u32| {
            format!(
                "lines=$(wc -l); echo \"Processed $lines lines. $((lines - {more})) added, 0 rejected, 0 dups\" >&2"
            )
        };
        let body = match import {
            Import::Works => format!("cat > '{folder}/lines'; cat '{folder}/counts' >&2"),
            Import::Fails => "cat >/dev/null; echo 'no space left' >&2; exit 1".to_owned(),
            Import::IsKilled => "kill -9 $$".to_owned(),
            Import::Hangs => {
                format!("echo $$ > '{folder}/group'; sleep 600 & cat >/dev/null; sleep 600")
            }
            Import::Lies => counts(0),
            Import::IsSilent => "cat >/dev/null".to_owned(),
            Import::Miscounts => counts(1),
        };
        let text = format!("[ \"$1\" = import ] || exit 64\n{body}\n");
        std::fs::write(self.script(), text).expect("our own folder");
    }

    /// The command that stands for strfry, to be run by `sh`.
    pub(crate) fn script(&self) -> PathBuf {
        self.folder.path().join("strfry.sh")
    }

    /// Where a hanging import writes its process group's number.
    pub(crate) fn group_file(&self) -> PathBuf {
        self.folder.path().join("group")
    }

    /// It bears no more events in a negentropy set.
    pub(crate) fn set_sync_events_max(&self, most: usize) {
        self.database.sync_events_max.store(most, Ordering::SeqCst);
    }

    /// Stores events as if its own clients had published them long ago.
    #[track_caller]
    pub(crate) fn hold(&self, events: &[Event]) {
        let mut stored = self.database.stored();
        for event in events {
            assert_eq!(stored.admit(event, event.as_json().len()), Fate::Added);
        }
    }

    /// The ids of what it stores.
    pub(crate) fn ids(&self) -> BTreeSet<String> {
        let stored = self.database.stored();
        stored.places.keys().map(|id| hex::encode(id)).collect()
    }

    /// The ids of the events about which its plugin was asked.
    pub(crate) fn plugin_calls(&self) -> Vec<String> {
        let log = std::fs::read_to_string(&self.database.plugin_log).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// Connections since the start.
    pub(crate) fn connections(&self) -> usize {
        self.database.connections.load(Ordering::SeqCst)
    }

    /// Imports that worked, since the start.
    pub(crate) fn imports(&self) -> usize {
        self.database.imports.load(Ordering::SeqCst)
    }
}

impl Drop for Strfry {
    fn drop(&mut self) {
        self.database.has_ended.store(true, Ordering::SeqCst);
        // Wakes the thread, if it waits for an import; fails if it does not.
        let mut waking = OpenOptions::new();
        waking
            .write(true)
            .custom_flags(i32::try_from(OFlags::NONBLOCK.bits()).expect("a flag"));
        drop(waking.open(self.folder.path().join("lines")));
    }
}

const INFORMATION: &str = r#"{"name":"strfry","software":"git+https://github.com/hoytech/strfry.git","supported_nips":[1,2,4,9,11,22,28,40,70,77],"limitation":{"max_message_length":131072,"max_subscriptions":20,"max_limit":500},"negentropy":1}"#;

/// What `strfry import` does with its input: signatures are verified, no plugin is asked.
fn serve_imports(database: &Database, folder: &Path) {
    loop {
        let Ok(lines) = File::open(folder.join("lines")) else {
            return;
        };
        let (mut processed, mut added, mut rejected, mut duplicates) = (0, 0, 0, 0);
        let mut said = String::new();
        for line in BufReader::new(lines).lines().map_while(Result::ok) {
            processed += 1;
            let event: Option<Event> = serde_json::from_str(&line).ok();
            let fate = match event.filter(|event| event.verify().is_ok()) {
                Some(event) => database.stored().admit(&event, line.len()),
                None => Fate::Rejected("invalid: bad signature"),
            };
            match fate {
                Fate::Added => added += 1,
                Fate::Duplicate => duplicates += 1,
                Fate::Rejected(why) => {
                    rejected += 1;
                    said.push_str(&format!("WARN| Rejected event: {line} reason: {why}\n"));
                }
            }
        }
        if database.has_ended.load(Ordering::SeqCst) {
            return;
        }
        database.imports.fetch_add(1, Ordering::SeqCst);
        said.push_str(&format!(
            "2026-01-31 12:00:00.000 (   0.1s) [main thread     ]    INFO| Done. Processed {processed} lines. {added} added, \
             {rejected} rejected, {duplicates} dups\n"
        ));
        if let Ok(mut counts) = OpenOptions::new().write(true).open(folder.join("counts")) {
            // A command that was killed breaks the pipe.
            drop(counts.write_all(said.as_bytes()));
        }
    }
}

impl Database {
    fn stored(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().expect("not poisoned")
    }

    /// EVENT: the plugin is asked, and 3 years are too old.
    fn publish(&self, json: &str) -> Option<String> {
        let event: Event = serde_json::from_str(json).ok()?;
        let mut log = OpenOptions::new();
        let log = log.create(true).append(true).open(&self.plugin_log);
        writeln!(log.expect("our own folder"), "{}", event.id.to_hex()).expect("our own file");
        let id = event.id.to_bytes();
        let fate = if event.verify().is_err() {
            Fate::Rejected("invalid: bad signature")
        } else if event.created_at.as_secs() + PAST_SECONDS < now() {
            Fate::Rejected("invalid: created_at too early")
        } else {
            self.stored().admit(&event, json.len())
        };
        Some(match fate {
            Fate::Added => relay_message::encode_ok(&id, true, ""),
            Fate::Duplicate => relay_message::encode_ok(&id, true, "duplicate: have this event"),
            Fate::Rejected(why) => relay_message::encode_ok(&id, false, why),
        })
    }

    fn listed(&self, filter: &Filter) -> Result<VecSet, String> {
        let stored = self.stored();
        let matching = stored
            .events
            .iter()
            .filter(|(_, event)| matches(filter, event));
        let items: Vec<Item> = matching
            .map(|((timestamp, id), _)| Item {
                timestamp: *timestamp,
                id: *id,
            })
            .collect();
        if items.len() > self.sync_events_max.load(Ordering::SeqCst) {
            return Err("blocked: too many query results".to_owned());
        }
        Ok(VecSet::from_unsorted(items))
    }
}

/// Serves one connection.
async fn serve(stream: Stream, database: Arc<Database>) {
    let limits = SocketLimits {
        message_bytes_max: MESSAGE_BYTES_MAX,
    };
    let mut socket = TextSocket::over(stream, Role::Server, limits).expect("valid options");
    let mut open: HashSet<String> = HashSet::new();
    let mut sessions: HashMap<String, VecSet> = HashMap::new();
    while let Ok(Some(Message::Text(text))) = socket.recv().await {
        for reply in answer(&database, text.as_str(), &mut open, &mut sessions) {
            if socket.send(reply).await.is_err() {
                return;
            }
        }
    }
}

fn answer(
    database: &Database,
    text: &str,
    open: &mut HashSet<String>,
    sessions: &mut HashMap<String, VecSet>,
) -> Vec<String> {
    let negotiate = |set: &VecSet, subscription: &str, message: &[u8]| {
        let limit = FrameLimit::new(FRAME_BYTES).expect("large enough");
        match respond(set, message, limit) {
            Ok(reply) => relay_message::encode_neg_message(subscription, &reply),
            Err(_) => relay_message::encode_neg_error(subscription, "PROTOCOL-ERROR", None),
        }
    };
    match ClientMessage::parse(text, FILTERS_MAX) {
        Ok(ClientMessage::Event(json)) => database.publish(json).into_iter().collect(),
        Ok(ClientMessage::Request {
            subscription,
            filters,
        }) => {
            if !open.contains(subscription.as_ref()) && open.len() >= REQUESTS_MAX {
                return vec![relay_message::encode_notice(
                    "ERROR: too many concurrent REQs",
                )];
            }
            open.insert(subscription.to_string());
            let stored = database.stored();
            let mut replies = Vec::new();
            for filter in &filters {
                let limit = filter.limit.unwrap_or(FILTER_LIMIT).min(FILTER_LIMIT);
                let found = stored.events.values().rev();
                let found = found.filter(|event| !matches!(event.kind.as_u16(), 4 | 1059));
                let found = found.filter(|event| matches(filter, event)).take(limit);
                replies.extend(
                    found.map(|event| relay_message::encode_event(&subscription, &event.as_json())),
                );
            }
            replies.push(relay_message::encode_end_of_stored(&subscription));
            replies
        }
        Ok(ClientMessage::Close { subscription }) => {
            open.remove(subscription.as_ref());
            Vec::new()
        }
        Ok(ClientMessage::NegOpen {
            subscription,
            filter,
            message,
        }) => match database.listed(&filter) {
            Ok(set) => {
                let reply = negotiate(&set, &subscription, &message);
                sessions.insert(subscription.to_string(), set);
                vec![reply]
            }
            Err(why) => vec![relay_message::encode_neg_error(&subscription, &why, None)],
        },
        Ok(ClientMessage::NegMessage {
            subscription,
            message,
        }) => vec![match sessions.get(subscription.as_ref()) {
            Some(set) => negotiate(set, &subscription, &message),
            None => relay_message::encode_neg_error(
                &subscription,
                "closed: unknown subscription handle",
                None,
            ),
        }],
        Ok(ClientMessage::NegClose { subscription }) => {
            sessions.remove(subscription.as_ref());
            Vec::new()
        }
        Ok(ClientMessage::Auth(_) | ClientMessage::Count { .. }) => {
            vec![relay_message::encode_notice("ERROR: bad msg: unknown cmd")]
        }
        Err(error) => vec![relay_message::encode_notice(&format!(
            "ERROR: bad msg: {error}"
        ))],
    }
}

/// The ids that a report names as not taken by the home relay, and how many there are.
pub(crate) fn named_in(report: &Value) -> (BTreeSet<String>, u64) {
    let left = report["peers"][0]["unresolved"].as_array().expect("a list");
    let ids = left
        .iter()
        .flat_map(|left| left["ids"].as_array().expect("a list"));
    let ids = ids
        .map(|id| id.as_str().expect("an id").to_owned())
        .collect();
    let counts = left
        .iter()
        .map(|left| left["count"].as_u64().expect("a number"));
    (ids, counts.sum())
}
