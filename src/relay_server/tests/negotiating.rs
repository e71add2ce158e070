//! NEG: both kinds of filter, what is in the set, and the bounds.

use constellation_eventstore::{KindSet, SetScope};
use constellation_reconcile::{Difference, FrameLimit, Initiator, Item, Step, VecSet};

use super::*;
use crate::protocol::hex;
use crate::protocol::websocket::STATION_HEADER;
use crate::relay_server::adhoc::Hoard;
use crate::relay_server::negotiation::{Patience, respond_stored};

fn items(events: &[Event]) -> Vec<Item> {
    let item = |event: &Event| Item {
        timestamp: event.created_at.as_secs(),
        id: event.id.to_bytes(),
    };
    events.iter().map(item).collect()
}

/// Reconciles `ours` with what the relay has for `filter`: (have, need) and the longest answer, in hex digits.
async fn reconcile(
    client: &mut Client,
    filter: Value,
    ours: &[Event],
) -> (BTreeSet<String>, BTreeSet<String>, usize) {
    let set = VecSet::from_unsorted(items(ours));
    let mut initiator = Initiator::new(FrameLimit::new(500_000).unwrap());
    let mut difference = Difference::default();
    let message = hex::encode(&initiator.open(&set).unwrap());
    let mut answer = client.ask(json!(["NEG-OPEN", "n", filter, message])).await;
    let mut longest = 0;
    loop {
        assert_eq!(
            (&answer[0], &answer[1]),
            (&json!("NEG-MSG"), &json!("n")),
            "{answer}"
        );
        let text = answer[2].as_str().unwrap();
        longest = longest.max(text.len());
        let answered = hex::decode(text).unwrap();
        match initiator
            .reconcile(&set, &answered, &mut difference)
            .unwrap()
        {
            Step::Continue(next) => {
                answer = client
                    .ask(json!(["NEG-MSG", "n", hex::encode(&next)]))
                    .await;
            }
            Step::Done => break,
        }
    }
    client.say(json!(["NEG-CLOSE", "n"])).await;
    difference.sort_dedup();
    let have = difference
        .have
        .iter()
        .map(|item| hex::encode(&item.id))
        .collect();
    let need = difference
        .need
        .iter()
        .map(|item| hex::encode(&item.id))
        .collect();
    (have, need, longest)
}

async fn lists(client: &mut Client, filter: Value) -> BTreeSet<String> {
    reconcile(client, filter, &[]).await.1
}

#[tokio::test(start_paused = true)]
async fn differences_are_exact_for_both_kinds_of_filter() {
    let relay = Relay::new();
    let notes: Vec<Event> = (0..300)
        .map(|n: u64| event(1, 1, n / 3, &[], &n.to_string()))
        .collect();
    let pick = |rule: fn(usize) -> bool| -> Vec<Event> {
        let picked = notes.iter().enumerate().filter(|(index, _)| rule(*index));
        picked.map(|(_, note)| note.clone()).collect()
    };
    let (ours, theirs) = (pick(|n| n % 41 != 2), pick(|n| n % 37 != 1));
    relay.store(&theirs).await;
    let mut client = relay.stranger().await;
    let (only_ours, only_theirs) = (
        pick(|n| n % 37 == 1 && n % 41 != 2),
        pick(|n| n % 41 == 2 && n % 37 != 1),
    );
    let author = keys(1).public_key().to_hex();
    for filter in [
        json!({}),
        json!({"kinds": [1]}),
        json!({"authors": [author]}),
    ] {
        let (have, need, _) = reconcile(&mut client, filter, &ours).await;
        assert_eq!(have, set(&ids(&only_ours)));
        assert_eq!(need, set(&ids(&only_theirs)));
    }
    let since = NOW - 10;
    let recent = |event: &&Event| event.created_at.as_secs() >= since;
    let expected: Vec<Event> = theirs.iter().filter(recent).cloned().collect();
    for filter in [
        json!({"since": since}),
        json!({"since": since, "authors": [author]}),
    ] {
        assert_eq!(lists(&mut client, filter).await, set(&ids(&expected)));
    }
}

#[tokio::test(start_paused = true)]
async fn the_set_is_what_stations_share_and_the_reader_may_see() {
    let relay = Relay::new();
    let author = keys(1).public_key().to_hex();
    let soon = (NOW + 10).to_string();
    let (public, private) = (note(1, 9), event(1, 4, 8, &[], "secret"));
    let protected = event(1, 1, 7, &[&["-"]], "protected");
    let expiring = event(1, 1, 6, &[&["expiration", &soon]], "expiring");
    relay
        .store(&[public.clone(), private.clone(), protected, expiring.clone()])
        .await;
    let (mut stranger, mut local) = (relay.stranger().await, relay.local().await);
    for filter in [json!({}), json!({"authors": [author]})] {
        let shared = ids(&[public.clone(), expiring.clone()]);
        assert_eq!(lists(&mut stranger, filter.clone()).await, set(&shared));
        let all = ids(&[public.clone(), expiring.clone(), private.clone()]);
        assert_eq!(lists(&mut local, filter).await, set(&all));
    }
    let refused = stranger
        .ask(json!(["NEG-OPEN", "p", {"kinds": [4]}, "6100000200"]))
        .await;
    assert!(
        refused[2].as_str().unwrap().starts_with("auth-required: "),
        "{refused}"
    );
    relay.time.0.fetch_add(10, Ordering::SeqCst);
    for filter in [json!({}), json!({"authors": [author]})] {
        assert_eq!(
            lists(&mut stranger, filter).await,
            set(&ids(std::slice::from_ref(&public)))
        );
    }
    // Whoever is involved finds what is theirs, if they name the kind.
    relay.time.0.store(NOW, Ordering::SeqCst);
    relay.set(|options| options.own_urls = vec!["wss://relay.example.org".to_owned()]);
    assert!(
        stranger
            .authenticate(&keys(1), "wss://relay.example.org")
            .await
            .0
    );
    assert_eq!(
        lists(&mut stranger, json!({"kinds": [4]})).await,
        set(&ids(&[private]))
    );
}

#[tokio::test(start_paused = true)]
async fn stations_get_larger_frames() {
    let relay = Relay::new();
    let notes: Vec<Event> = (0..2_500).map(|ago| note(1, ago)).collect();
    relay.store(&notes).await;
    let header = [(STATION_HEADER, HeaderValue::from_static("1"))];
    let mut station = relay
        .connect_with(RemoteParty::default(), 4 << 20, &header)
        .await;
    let (_, need, longest) = reconcile(&mut station, json!({}), &[]).await;
    assert_eq!((need.len(), longest > 160_000), (2_500, true));
    let (_, need, longest) = reconcile(&mut relay.stranger().await, json!({}), &[]).await;
    assert_eq!((need.len(), longest <= 120_000), (2_500, true));
}

#[tokio::test(start_paused = true)]
async fn sessions_and_their_ids_have_bounds() {
    let relay = Relay::with(|context| context.hoard = Arc::new(Hoard::new(10, 15)));
    let notes: Vec<Event> = (0..30).map(|n| note(1 + u8::from(n >= 8), n)).collect();
    relay.store(&notes).await;
    let mut client = relay.stranger().await;
    let of = |author: u8| json!({"authors": [keys(author).public_key().to_hex()]});
    let open = |name: &str, filter: Value| json!(["NEG-OPEN", name, filter, "6100000200"]);

    let refused = client.ask(open("big", of(2))).await;
    assert_eq!(
        refused,
        json!(["NEG-ERR", "big", "blocked: too many query results", 10])
    );
    assert_eq!(client.ask(open("one", of(1))).await[0], "NEG-MSG");
    assert_eq!(client.ask(open("two", of(1))).await[0], "NEG-MSG");
    let evicted = client.ask(json!(["NEG-MSG", "one", "6100000200"])).await;
    assert!(
        evicted[2].as_str().unwrap().starts_with("closed: "),
        "{evicted}"
    );
    assert_eq!(
        client.ask(json!(["NEG-MSG", "two", "6100000200"])).await[0],
        "NEG-MSG"
    );

    // Four at a time; the same name replaces.
    for name in ["a", "b", "c", "a"] {
        assert_eq!(client.ask(open(name, json!({}))).await[0], "NEG-MSG");
    }
    let refused = client.ask(open("d", json!({}))).await;
    assert!(
        refused[2].as_str().unwrap().starts_with("blocked: "),
        "{refused}"
    );
    client.say(json!(["NEG-CLOSE", "a"])).await;
    assert_eq!(client.ask(open("d", json!({}))).await[0], "NEG-MSG");
    let unknown = client.ask(json!(["NEG-MSG", "a", "61"])).await;
    assert_eq!(
        unknown,
        json!(["NEG-ERR", "a", "closed: unknown subscription handle"])
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_no_negentropy_ends_the_session_only() {
    let relay = Relay::new();
    let mut client = relay.stranger().await;
    for message in ["", "61000001", "xyz", "ff"] {
        let error = client.ask(json!(["NEG-OPEN", "n", {}, message])).await;
        assert_eq!(
            (&error[0], &error[1]),
            (&json!("NEG-ERR"), &json!("n")),
            "{message}"
        );
        assert!(
            error[2].as_str().unwrap().starts_with("invalid: "),
            "{error}"
        );
        assert_eq!(
            client.ask(json!(["NEG-MSG", "n", "61"])).await[0],
            "NEG-ERR"
        );
    }
    let version = client.ask(json!(["NEG-OPEN", "n", {}, "62000002"])).await;
    assert_eq!(version, json!(["NEG-MSG", "n", "61"]));
    // Impatience: a second message before the first is answered.
    for _ in 0..3 {
        client.say(json!(["NEG-MSG", "n", "6100000200"])).await;
    }
    // A request that stands behind it in the line tells when all answers have come.
    client.say(json!(["REQ", "end", {"limit": 0}])).await;
    loop {
        let answer = client.hear().await;
        if answer == json!(["EOSE", "end"]) {
            break;
        }
        let label = answer[0].as_str().unwrap();
        assert!(matches!(label, "NEG-MSG" | "NEG-ERR"), "{answer}");
    }
    let opened = client.ask(json!(["NEG-OPEN", "n", {}, "6100000200"])).await;
    assert_eq!(opened[0], "NEG-MSG");
}

/// Seconds that pass each time somebody asks.
#[derive(Clone, Default)]
struct HurriedClock(Arc<AtomicU64>);

impl TimeSource for HurriedClock {
    fn wall(&self) -> Duration {
        Duration::from_secs(self.0.fetch_add(1, Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        self.wall()
    }
}

/// Once a snapshot had grown old, the answer was begun again over fresh ones, for which no age was ever too great: 29,000
/// ranges in one message held one of a few readers for as long as they took.
#[test]
fn an_answer_that_takes_too_long_is_given_up_and_a_stranger_has_less_time() {
    let (folder, hurried) = (tempfile::tempdir().unwrap(), HurriedClock::default());
    let time = hurried.clone();
    let (store, _writer) = open(
        folder.path(),
        Options::new(Arc::new(move || time.monotonic())),
    )
    .unwrap();
    let ours = (0..1_000)
        .map(|n: u64| Item {
            timestamp: n,
            id: [7; 32],
        })
        .collect();
    let limit = FrameLimit::new(500_000).unwrap();
    // Sixteen ranges, each of which is looked at.
    let message = Initiator::new(limit)
        .open(&VecSet::from_unsorted(ours))
        .unwrap();
    let scope = SetScope {
        kinds: KindSet::all(),
        since: None,
        until: None,
    };
    let standing = Clock::new(HandClock(Arc::default()));
    let answer = |patience: &Patience| {
        let answered = respond_stored(&store, &scope, &message, limit, patience);
        answered.map_err(|error| error.reason)
    };
    let too_long = |answered: Result<Vec<u8>, String>| {
        answered.is_err_and(|reason| reason.starts_with("blocked: too big"))
    };
    assert!(too_long(answer(&Patience::OneSnapshot)));
    assert!(answer(&Patience::Until(standing, Duration::from_secs(1))).is_ok());
    let passing = Clock::new(hurried.clone());
    let until = hurried.monotonic() + Duration::from_secs(10);
    assert!(too_long(answer(&Patience::Until(passing, until))));
}
