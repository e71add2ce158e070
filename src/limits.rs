//! Every bound in one place, with its reason. What is configurable has its default here.

use std::time::Duration;

/// Largest WebSocket message our relay takes: a 500,000-byte frame in hex, with room for its envelope (D3).
pub const MESSAGE_BYTES_MAX: usize = 1_100_000;

/// Negentropy frames, in bytes before hex: between stations, and towards others.
pub const FRAME_BYTES_STATION: usize = 500_000;
/// What any relay takes: hex doubles it, and strfry reads messages up to 131,072 bytes.
pub const FRAME_BYTES_OTHER: usize = 60_000;
/// The smallest limit that negentropy allows.
pub const FRAME_BYTES_MIN: usize = 4_096;
/// What a NEG-MSG has besides the frame in hex: the session's name, a filter with some kinds.
pub const NEG_ENVELOPE_BYTES: usize = 2_048;
/// What an EVENT message has besides the event.
pub const EVENT_ENVELOPE_BYTES: usize = 16;

/// Ingest: events of one submission. Larger ones are cut by the submitter.
pub const SUBMISSION_EVENTS_MAX: usize = 1_000;
/// Ingest: submissions of one lane waiting to be examined. Their bytes are bounded besides.
pub const INGEST_QUEUE: usize = 1_024;
/// Ingest: bytes of JSON in the bulk lane, accepted but not yet committed; more slows the producers. More than one
/// commit takes: the next events are verified while it is written.
pub const INGEST_BULK_BYTES: usize = 64 << 20;
/// Ingest: the same for what somebody waits for.
pub const INGEST_PROMPT_BYTES: usize = 16 << 20;
/// Ingest: the same for sources that sent bad signatures.
pub const INGEST_SUSPECT_BYTES: usize = 2 << 20;
/// Ingest: other work waiting for the writer.
pub const INGEST_SLOTS: usize = 64;
/// Ingest: bytes of JSON examined together.
pub const EXAMINE_BYTES_MAX: usize = 16 << 20;
/// Ingest: events in one bulk commit. Smaller ones write more bytes for each event (at random times: 5 kB at 50,000,
/// 16 kB at 10,000), larger ones hold more in memory. An exchange seldom has as many under way.
pub const COMMIT_EVENTS_MAX: usize = 49_152;
/// Ingest: bytes of JSON in one commit.
pub const COMMIT_BYTES_MAX: usize = 40 << 20;
/// Ingest: how long a bulk commit gathers while more is coming.
pub const COMMIT_GATHERS_FOR: Duration = Duration::from_secs(2);
/// Ingest: a bulk commit is not cut short below this many events, whoever waits.
pub const COMMIT_CUT_EVENTS_MIN: usize = 4_096;
/// Events that one sweep removes before others get their turn.
pub const SWEEP_EVENTS_MAX: usize = 2_000;
/// Entries of the list of what is blocked that one answer shows.
pub const BLOCKS_PER_PAGE: usize = 1_000;
/// How often expired events are looked for.
pub const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often memory that nothing uses goes back to the system.
pub const RETURN_MEMORY_EVERY: Duration = Duration::from_secs(60);

/// `created_at` may be this far ahead of our clock, as strfry has it.
pub const FUTURE_SECONDS_MAX: u64 = 900;

/// How long to wait for a connection.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long one answer of a peer may take.
pub const STEP_DEADLINE: Duration = Duration::from_secs(30);
/// How long an exchange with one peer may take.
pub const EXCHANGE_DEADLINE: Duration = Duration::from_secs(10 * 60);
/// How long a run with all peers may take.
pub const RUN_DEADLINE: Duration = Duration::from_secs(30 * 60);
/// While what carries our tunnels is away, a peer is nobody's failure until nothing was achieved with it for so long: a
/// station whose kubo runs an hour a day has it back within a day, and an hour late is no failure either.
pub const NO_CARRIER_EXCUSED_FOR: Duration = Duration::from_secs(26 * 3600);
/// Peers exchanged with at a time; the others wait for a place.
pub const EXCHANGES_AT_ONCE: usize = 8;

/// Rounds of one reconciliation. An honest one over a million events in 60,000-byte frames takes about 600.
pub const RECONCILE_ROUNDS_MAX: u64 = 4_000;
/// Ids that one reconciliation collects before they are transferred; it then starts again.
pub const DIFFERENCE_IDS_MAX: usize = 500_000;
/// Reconciliations of one exchange: each must bring the peers closer, this only bounds a peer that churns.
pub const RECONCILE_PASSES_MAX: usize = 16;
/// How long the third of them waits for other exchanges of the run that are bringing something; each further one waits
/// twice as long, up to half a minute: some five minutes together.
pub const OTHERS_AWAITED: Duration = Duration::from_secs(1);

/// Ids that two relays do not share, held while they are compared: some 150 MB at worst.
pub const PAIR_IDS_MAX: usize = 1_000_000;
/// Ranges that wait to be compared meanwhile. An honest comparison holds some thousands: it goes on with the oldest.
pub const PAIR_RANGES_MAX: usize = 200_000;
/// REQs in flight while events are moved from one of them to the other.
pub const PAIR_REQUESTS_MAX: usize = 8;

/// Ids in one REQ: within strfry's 500 events a filter, and a message of 17 kB.
pub const DOWNLOAD_IDS_PER_REQUEST: usize = 250;
/// The same towards stations, which have no cap: a message of 34 kB.
pub const DOWNLOAD_IDS_PER_REQUEST_STATION: usize = 500;
/// REQs in flight: within the 20 subscriptions a connection that strfry and stations allow, with some to spare.
pub const DOWNLOADS_IN_FLIGHT: usize = 16;
/// The same towards a peer that does not state how many it allows.
pub const DOWNLOADS_IN_FLIGHT_UNSTATED: usize = 10;
/// Bytes of events that are asked for and have not come: at first, at least and at most. strfry drops a reader with
/// 32 MB pending; at 50 ms of round trip the most is 160 MB/s.
pub const DOWNLOAD_BYTES_FIRST: usize = 256 << 10;
/// What a slow line delivers in a second or two.
pub const DOWNLOAD_BYTES_LEAST: usize = 64 << 10;
/// A quarter of what strfry bears.
pub const DOWNLOAD_BYTES_MAX: usize = 8 << 20;
/// Events asked for at a time where a relay lists whole events: what most give, and far from what makes strfry drop a
/// reader.
pub const LISTED_AT_A_TIME: usize = 500;

/// Transfer: events in one answer, repeated ones among them. Some relays give all they have, whatever is asked.
pub const ANSWER_EVENTS_MAX: usize = 500_000;
/// Size of an event before any was seen.
pub const EVENT_BYTES_GUESSED: usize = 1_024;
/// How often a peer is asked for one id in a pass, refusals for the moment and answers that were cut off included.
pub const ASKED_MAX: u8 = 4;
/// Bytes of events fetched and not stored yet, of all exchanges of a run, above which no more is asked for: 37,000
/// events of usual size. Waiting they take half as much memory again; more store no faster.
pub const UNSETTLED_BYTES_MAX: usize = 24 << 20;
/// What one exchange may have of them however many the others have, so that none stands still.
pub const UNSETTLED_BYTES_EACH: usize = 2 << 20;
/// Above this, of all exchanges of a run, nothing is read from a peer that has more than its share of them.
pub const UNSETTLED_BYTES_HARD: usize = UNSETTLED_BYTES_MAX + 2 * DOWNLOAD_BYTES_MAX;
/// A peer that has brought nothing for so long is not what commits wait for.
pub const MORE_COMES_WITHIN: Duration = Duration::from_millis(250);
/// `auth-required:` to this many offers, and nothing taken: the rest would be refused as well.
pub const AUTH_REFUSALS_MAX: u32 = 20;
/// How long events gather while others are being stored: large batches are cheaper to verify and to commit.
pub const GATHER_FOR: Duration = Duration::from_millis(20);
/// After this a claim of an id is up for the next peer that lists it: the claimant's peer stalls or trickles.
pub const CLAIM_OVERDUE: Duration = Duration::from_secs(5);
/// How often an exchange looks whether claims of others are overdue.
pub const CLAIM_LOOK_EVERY: Duration = Duration::from_secs(1);
/// How soon it looks again after something was let go: each look goes through all that it waits for.
pub const DEFERRED_LOOK_EVERY: Duration = Duration::from_millis(50);

/// An answer that takes longer makes the next requests and offers fewer: what queues up at a slow peer keeps other
/// answers waiting.
pub const ANSWER_LATE: Duration = Duration::from_secs(1);
/// How long nothing is asked or offered after a peer said that it was too fast; twice that the next time.
pub const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// The longest such pause.
pub const PAUSE_MAX: Duration = Duration::from_secs(8);
/// How long a request may bring nothing at a peer that has refused one by a notice that does not say which.
pub const NOTICED_PATIENCE: Duration = Duration::from_secs(3);
/// Pauses in a row, in which the peer took nothing, after which the rest is left to the next run.
pub const PAUSES_MAX: u32 = 4;

/// EVENTs sent whose OK has not come: at first, at least and at most. A conversation bears 4,096.
pub const UPLOADS_FIRST: usize = 128;
/// Also a peer that takes 190 ms for each event answers the last of these in time.
pub const UPLOADS_LEAST: usize = 4;
/// At 50 ms of round trip: 40,000 a second.
pub const UPLOADS_IN_FLIGHT: usize = 2_048;
/// Their bytes: within the 4 MB that a conversation lets wait to be written.
pub const UPLOAD_BYTES_IN_FLIGHT: usize = 3 << 20;
/// How often an event is offered in one exchange to a peer that says it is too fast.
pub const OFFERED_MAX: u8 = 5;

/// Home relay: events given to one import. strfry commits every 10,000 lines of an import by itself.
pub const IMPORT_BATCH_EVENTS: usize = 10_000;
/// Home relay: bytes of events given to one import, but for the last event.
pub const IMPORT_BATCH_BYTES: usize = 8 << 20;
/// Home relay: how many step deadlines one import may take. strfry verifies and stores a full batch in one to two seconds
/// on a PC, ten times that on a small board, and waits its turn behind a relay whose plugin takes 190 ms for each event.
pub const IMPORT_STEPS: u32 = 4;
/// Home relay: how long an import that was killed may take to be gone.
pub const IMPORT_REAP_DEADLINE: Duration = Duration::from_secs(5);
/// Home relay: what is kept of one line that an import says.
pub const IMPORT_LINE_BYTES: usize = 4 << 10;
/// Home relay: how often a batch is read back when the sets change meanwhile.
pub const IMPORT_READ_BACKS_MAX: usize = 4;
/// Home relay: of a run's time, one part in so many is kept for what goes to it last.
pub const HOME_SHARE_OF_RUN: u32 = 6;

/// Forged or unreadable events that end an exchange, when they are also more than the share below (D8).
pub const FORGERIES_MAX: u64 = 100;
/// One in this many.
pub const FORGERIES_SHARE: u64 = 20;
/// How long a bad signature or id is remembered for a peer.
pub const FORGERY_REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a peer's refusal by policy is respected before it is offered the event again.
pub const POLICY_REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// How long it is remembered that an event is larger than the messages that a peer takes: it was reported, and limits
/// seldom change.
pub const TOO_LARGE_REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long an `error:` is: the peer may have had a bad moment, or may answer so to what it never takes.
pub const ERROR_REMEMBERED: Duration = Duration::from_secs(3600);

/// How long a peer is not asked again for an event that it lists and did not deliver; twice as long after each time.
pub const UNDELIVERED_PAUSE: Duration = Duration::from_secs(3600);
/// The longest of these pauses.
pub const UNDELIVERED_PAUSE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Ids named in a report for each peer and reason; the rest is counted.
pub const UNRESOLVED_IDS_NAMED: usize = 100;
/// Ranges named in a report for each peer; further ones widen the last.
pub const GAPS_NAMED: usize = 100;
/// Runs kept in the history.
pub const HISTORY_RUNS_MAX: usize = 1_000;

/// Relay: subscriptions of one connection.
pub const SUBSCRIPTIONS_MAX: usize = 20;
/// Relay: filters of one REQ.
pub const FILTERS_MAX: usize = 20;
/// Relay: negentropy sessions of one connection.
pub const NEG_SESSIONS_MAX: usize = 4;
/// Relay: ids held by one ad-hoc negentropy session, 72 bytes each.
pub const NEG_ADHOC_IDS_MAX: usize = 500_000;
/// Relay: ids held by all ad-hoc negentropy sessions together.
pub const NEG_ADHOC_IDS_TOTAL: usize = 1_000_000;
/// Relay: how long a reader may leave bytes waiting without taking any.
pub const SLOW_READER_DEADLINE: Duration = Duration::from_secs(30);
/// Relay: how long the answer to one negentropy message of a station or program here may be worked on. Below what we
/// ourselves wait for an answer.
pub const NEG_ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// Relay: connections at a time.
pub const CONNECTIONS_MAX: usize = 1_024;
/// Relay: connections at a time from one address: a household's clients, and a small part of all places.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 64;
/// Relay: how long the HTTP request of a new connection may take.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Characters of a subscription's name (NIP-01).
pub const SUBSCRIPTION_ID_CHARS_MAX: usize = 64;

/// Write policy plugin: questions that wait to be written to it. Above it, whoever asks waits.
pub const PLUGIN_QUEUE: usize = 256;
/// Write policy plugin: questions without an answer.
pub const PLUGIN_QUESTIONS_MAX: usize = 256;
/// Write policy plugin: bytes that wait to be written, but for the last question.
pub const PLUGIN_OUTGOING_BYTES: usize = 256 << 10;
/// Write policy plugin: one line of its output.
pub const PLUGIN_LINE_BYTES: usize = 64 << 10;
/// Write policy plugin: how long a question may wait for its answer, unless configured.
pub const PLUGIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Write policy plugin: the pause before it is started anew, doubled each time until it answers.
pub const PLUGIN_PAUSE_FIRST: Duration = Duration::from_millis(500);
/// Write policy plugin: the longest such pause.
pub const PLUGIN_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Write policy plugin: how long one that was killed may take to be gone.
pub const PLUGIN_REAP_DEADLINE: Duration = Duration::from_secs(5);
/// Write policy plugin: between two lines in the log about what goes wrong with it.
pub const PLUGIN_LOG_EVERY: Duration = Duration::from_secs(60);
/// Write policy plugin: questions under way about what one exchange or live link brought. As many in vain, and the rest of
/// what came together is not asked about.
pub const PLUGIN_SCREENED_AT_ONCE: usize = 16;
/// Graph: authors in scope, unless the configuration says otherwise: 1.6 MB, and 3.4 MB in a filter.
pub const GRAPH_AUTHORS_DEFAULT: usize = 50_000;
/// Graph: the most that can be configured.
pub const GRAPH_AUTHORS_MAX: usize = 1_000_000;
/// Graph: entries of all follow lists together that are held: 8 MB, and at worst as many keys of 60 bytes. 4,000 lists of
/// usual length; those of the least followed are not read beyond that.
pub const GRAPH_FOLLOWS_MAX: usize = 2_000_000;
/// Graph: files with keys.
pub const GRAPH_FILES_MAX: usize = 10_000;
/// Graph: bytes of one of them: 120,000 keys.
pub const GRAPH_FILE_BYTES_MAX: u64 = 8 << 20;
/// Graph: keys of all files together.
pub const GRAPH_FILE_KEYS_MAX: usize = 200_000;
/// Graph: how long a file's keys outlive it: an Astroport station deletes its lists every evening, and some run for an
/// hour a day.
pub const GRAPH_FILES_OUTLIVE: Duration = Duration::from_secs(48 * 3600);
/// Graph: how often files are looked at, besides before each run.
pub const GRAPH_LOOK_EVERY: Duration = Duration::from_secs(60);
/// Graph: how long follow lists that arrive gather before it is computed again.
pub const GRAPH_GATHERS_FOR: Duration = Duration::from_secs(1);
/// Graph: characters of a name that are shown.
pub const GRAPH_NAME_CHARS_MAX: usize = 64;
/// Live: links with other stations, dialled and accepted together (D14).
pub const LIVE_LINKS_MAX: usize = 8;
/// Live: links with configured relays that are no stations, besides.
pub const LIVE_RELAY_LINKS_MAX: usize = 8;
/// Live: records that may be new to a link and still go over it one by one; above, reconciling is cheaper.
pub const LIVE_BACKLOG_MAX: u64 = 4_096;
/// Ids remembered of each peer with which a link stands or an exchange goes on, so that nothing goes back over a live link
/// to where it came from. More than a backlog.
pub const LIVE_RECENT_IDS: usize = 8_192;
/// Live: EVENTs of a link whose OK has not come, and their bytes.
pub const LIVE_PUSHES_IN_FLIGHT: usize = 256;
/// Half of what waits to be written at most.
pub const LIVE_PUSH_BYTES_IN_FLIGHT: usize = 1 << 20;
/// Live: events that came over a link and are not decided, and their bytes; above, it is not read from.
pub const LIVE_ARRIVALS_IN_FLIGHT: usize = 1_024;
/// The largest event, several times.
pub const LIVE_ARRIVAL_BYTES_IN_FLIGHT: usize = 2 << 20;
/// Live: after so long without a word from the other end it is asked for one: connections die without saying so.
pub const LIVE_SILENCE: Duration = Duration::from_secs(60);
/// Live: authors in one subscription at a relay that is no station: 60 kB, which any relay reads that says nothing of it.
pub const LIVE_AUTHORS_PER_FILTER: usize = 900;
/// Live: how long after the authors in scope have changed such a relay is asked anew; twice that if they change again.
pub const LIVE_ASKED_ANEW_FIRST: Duration = Duration::from_secs(1);
/// Live: a station that is away is dialled again after a twentieth of the time that it has been away, within these.
pub const LIVE_REDIAL_FIRST: Duration = Duration::from_millis(500);
/// The most: a station that was away for two hours.
pub const LIVE_REDIAL_MAX: Duration = Duration::from_secs(360);
/// Live: a link that stood for so long is one that was lost by chance.
pub const LIVE_STOOD_LONG: Duration = Duration::from_secs(60);
/// Live: a station that had no room for a link, or ended one, is not asked again before.
pub const LIVE_REFUSED_PAUSE: Duration = Duration::from_secs(30);
/// Live: a peer that sent forgeries is not asked again before.
pub const LIVE_FORGERY_PAUSE: Duration = Duration::from_secs(3600);
/// Live: how long after an exchange that failed it is made again; twice that the next time.
pub const LIVE_EXCHANGE_AGAIN: Duration = Duration::from_secs(5);
/// The longest such pause.
pub const LIVE_EXCHANGE_AGAIN_MAX: Duration = Duration::from_secs(3600);
/// Live: how long one short exchange may take before others have their turn; it then goes on where it was.
pub const LIVE_EXCHANGE_DEADLINE: Duration = Duration::from_secs(120);
/// Live: how long what is stored gathers before the home relay is given it.
pub const LIVE_HOME_GATHERS_FOR: Duration = Duration::from_secs(5);
/// Live: how often it is looked whether the quiet hours of a peer have come or gone.
pub const LIVE_QUIET_LOOK: Duration = Duration::from_secs(60);
/// Live: a relay that is no station is asked for what it stores from so long before now, in case it was slow to show it.
pub const LIVE_OVERLAP: Duration = Duration::from_secs(300);

/// Tunnels: anonymous memory of the process above which no more connections of stations are taken: four times what the
/// largest exchange needs.
pub const TUNNEL_MEMORY_BYTES_MAX: u64 = 512 << 20;

/// Tasks that live as long as the station: listeners, the schedule, sweeping, tunnels.
pub const STATION_TASKS_MAX: usize = 32;
/// Tasks of runs. Each exchange has a group of two below it, for its conversation.
pub const RUN_TASKS_MAX: usize = 64;
/// Commands at a time on the control socket.
pub const CONTROL_TASKS_MAX: usize = 64;

/// How long an exchange waits for the one that the same station makes with us at the same time.
pub const VISIT_AWAITED: Duration = Duration::from_secs(60);
/// How long after an OK an event that is missing is looked for once more.
pub const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Peers of which something is remembered between runs.
pub const PEERS_REMEMBERED: usize = 2_000;
/// Failures in a row after which scheduled runs leave a peer alone for a while.
pub const RESTS_AFTER_FAILURES: u32 = 3;
/// How long at first; twice as long after each further failure.
pub const REST_FIRST: Duration = Duration::from_secs(30 * 60);
/// The longest.
pub const REST_MAX: Duration = Duration::from_secs(12 * 3600);
/// Attempts in a row of one exchange that achieved nothing, before it is given up.
pub const ATTEMPTS_MAX: u32 = 3;
/// The pause before the second attempt; twice that before the third.
pub const ATTEMPT_PAUSE: Duration = Duration::from_millis(500);
/// How long it is remembered that a peer does not speak NIP-77.
pub const WITHOUT_NIP77_REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Windows: how far back a run looks at least (D9).
pub const WINDOW: Duration = Duration::from_secs(24 * 3600);
/// Windows: what the last success may have missed by clocks that differ.
pub const WINDOW_SLACK: Duration = Duration::from_secs(3600);
/// Windows: gift wraps are dated back by up to this (NIP-59).
pub const GIFT_WRAP_DATED_BACK: Duration = Duration::from_secs(2 * 24 * 3600);
/// Windows: how often the whole history is read.
pub const WHOLE_HISTORY_EVERY: Duration = Duration::from_secs(7 * 24 * 3600);
/// Windows: events of the whole history that one run reads.
pub const HISTORY_EVENTS_PER_RUN: usize = 20_000;
/// Windows: as many at least of each list of authors into which it is divided.
pub const HISTORY_EVENTS_LEAST: usize = 500;
/// Deletions by authors outside the scope of whom something is stored: their bytes, for each peer and run (D10).
pub const STRANGERS_DELETIONS_BYTES_MAX: u64 = 1 << 20;
/// How long it is remembered what messages a peer was found to take.
pub const LEARNT_REMEMBERED: Duration = Duration::from_secs(24 * 3_600);
/// After so many exchanges in a row without an answer to NIP-77 a peer that spoke it is taken for one that does not.
pub const SILENT_TO_NIP77_MAX: u32 = 3;
/// Windows: authors whose profiles a run looks for besides.
pub const PROFILES_ASKED_MAX: usize = 2_000;
/// Authors named in one filter: 27 kB.
pub const AUTHORS_PER_FILTER: usize = 400;
/// Of so many events that a peer delivered at first, most are by authors that we do not share: it is asked by author.
pub const OUTSIDE_SAMPLE: u64 = 1_000;
/// After a run: authors that are looked up for its report.
pub const FACTS_AUTHORS_MAX: usize = 10_000;
/// After a run: authors seen for the first time that are named.
pub const FACTS_AUTHORS_NAMED: usize = 50;
/// Reports: how many wait to be sent; beyond, the oldest are only counted.
pub const REPORTS_SPOOLED_MAX: usize = 100;
/// Reports: how long one waits.
pub const REPORT_KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// Reports: the least time between two that are sent by themselves.
pub const REPORT_EVERY: Duration = Duration::from_secs(60);
/// Reports: the pause after the first attempt that failed; twice as long after each further one.
pub const REPORT_PAUSE_FIRST: Duration = Duration::from_secs(60);
/// Reports: the longest such pause.
pub const REPORT_PAUSE_MAX: Duration = Duration::from_secs(6 * 3600);
/// Reports: lines of older ones in a later one.
pub const REPORT_LINES_MAX: usize = 100;
/// Reports: bytes of one that waits. A hundred peers with eight sentences each are a quarter of that.
pub const REPORT_FILE_BYTES_MAX: u64 = 2 << 20;
/// Reports: how long one answer of the mail server may take.
pub const MAIL_STEP_DEADLINE: Duration = Duration::from_secs(30);
/// Reports: how long the mail server may take to say that it has the mail: some look for viruses first.
pub const MAIL_DATA_DEADLINE: Duration = Duration::from_secs(120);
/// Reports: how long the command may take.
pub const REPORT_COMMAND_DEADLINE: Duration = Duration::from_secs(120);
/// Reports: how long a command that was killed may take to be gone.
pub const REPORT_REAP_DEADLINE: Duration = Duration::from_secs(5);
/// Reports: bytes of what the command says that are kept.
pub const REPORT_COMMAND_SAYS_BYTES: usize = 2 << 10;
/// Reports: bytes of a key, password or certificate file.
pub const REPORT_SECRET_BYTES_MAX: u64 = 1 << 20;
/// Reports: how long a lone `sync` tries to send its report before it leaves it in the spool.
pub const REPORT_LONE_DEADLINE: Duration = Duration::from_secs(15);
