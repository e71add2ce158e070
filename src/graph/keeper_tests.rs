//! The keeper over a real store: what arrives through ingest changes the graph.

use std::sync::Arc;
use std::time::Duration;

use constellation_event::{BreakEven, UnverifiedEvent};
use nostr::event::{Event, EventBuilder, FinalizeEvent, Kind, Tag};
use nostr::key::{Keys, SecretKey};
use nostr::types::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::ingest::{Lane, Mode, Origin, Parts};
use crate::protocol::hex;
use crate::random::Random;
use crate::tasks::TaskGroup;

const AT: u64 = 1_700_000_000;
const PATIENCE: Duration = Duration::from_secs(60);

fn keys(number: u8) -> Keys {
    let mut secret = [7; 32];
    secret[0] = number;
    Keys::new(SecretKey::from_slice(&secret).unwrap())
}

fn key(number: u8) -> AuthorKey {
    keys(number).public_key().to_bytes()
}

fn event(author: u8, kind: u16, at: u64, tags: &[[String; 2]]) -> Event {
    EventBuilder::new(Kind::from_u16(kind), "")
        .tags(tags.iter().map(|tag| Tag::parse(tag).unwrap()))
        .custom_created_at(Timestamp::from_secs(at))
        .finalize(&keys(author))
        .unwrap()
}

fn follow_list(author: u8, at: u64, followed: &[u8]) -> Event {
    let tags: Vec<[String; 2]> = followed
        .iter()
        .map(|number| ["p".to_owned(), hex::encode(&key(*number))])
        .collect();
    event(author, 3, at, &tags)
}

struct World {
    folder: TempDir,
    ingest: Ingest,
    clock: Clock,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let monotonic = clock.clone();
        let options =
            constellation_eventstore::Options::new(Arc::new(move || monotonic.monotonic()));
        let (store, writer) =
            constellation_eventstore::open(&folder.path().join("events"), options).unwrap();
        let parts = Parts {
            store,
            writer,
            break_even: Box::new(BreakEven::default),
            clock: clock.clone(),
            random: Random::system(),
        };
        Self {
            ingest: Ingest::start(parts, Mode::Inline).unwrap(),
            folder,
            clock,
        }
    }

    fn keeper(&self, options: GraphOptions) -> GraphKeeper {
        let kept = self.folder.path().join("graph.json");
        GraphKeeper::new(self.ingest.clone(), self.clock.clone(), kept, options)
    }

    async fn store(&self, events: &[Event]) {
        let events = events.iter().map(UnverifiedEvent::from_event).collect();
        let source = self.ingest.source(Lane::Prompt);
        self.ingest
            .submit(&source, Origin::Import, events)
            .await
            .unwrap();
    }
}

fn of_members(members: &[u8]) -> GraphOptions {
    GraphOptions {
        members: members.iter().map(|number| key(*number)).collect(),
        ..GraphOptions::default()
    }
}

fn holds(graph: &Graph, numbers: &[u8]) -> bool {
    *graph.authors == numbers.iter().map(|number| key(*number)).collect()
}

#[tokio::test]
async fn whoever_asks_sees_what_was_stored_before() {
    let world = World::new();
    let keeper = world.keeper(of_members(&[1]));
    assert!(holds(&keeper.refreshed().await.unwrap(), &[1]));
    world
        .store(&[follow_list(1, AT, &[2]), follow_list(2, AT, &[3])])
        .await;
    assert!(holds(&keeper.refreshed().await.unwrap(), &[1, 2, 3]));
    let list = follow_list(2, AT + 1, &[4]);
    world.store(&[list.clone(), follow_list(4, AT, &[5])]).await;
    assert!(holds(&keeper.refreshed().await.unwrap(), &[1, 2, 4]));
    // A list that its author deletes is one of nobody, until an older one comes back from somewhere.
    let tags = [["e".to_owned(), list.id.to_hex()]];
    world.store(&[event(2, 5, AT + 2, &tags)]).await;
    assert!(holds(&keeper.refreshed().await.unwrap(), &[1, 2]));
    world.store(&[follow_list(2, AT, &[3])]).await;
    assert!(holds(&keeper.refreshed().await.unwrap(), &[1, 2, 3]));
    // Unless all of its lists are deleted.
    let author = follow_list(2, AT, &[3]).pubkey;
    let tags = [["a".to_owned(), format!("3:{author}:")]];
    world
        .store(&[event(2, 5, AT + 2, &tags), follow_list(2, AT + 1, &[4])])
        .await;
    assert!(holds(&keeper.refreshed().await.unwrap(), &[1, 2]));
    world.store(&[follow_list(2, AT + 3, &[3, 4])]).await;
    assert!(holds(&keeper.refreshed().await.unwrap(), &[1, 2, 3, 4]));
    let relays = [["relay".to_owned(), "ALL_RELAYS".to_owned()]];
    world.store(&[event(2, 62, AT + 4, &relays)]).await;
    assert!(holds(&keeper.refreshed().await.unwrap(), &[1, 2]));
    keeper.configure(of_members(&[1, 4]));
    assert!(holds(&keeper.refreshed().await.unwrap(), &[1, 2, 4, 5]));
}

/// Whom a blocked author follows stayed in the graph until that author, of all people, published something.
#[tokio::test]
async fn what_the_captain_blocks_and_shows_again_counts_at_once() {
    use constellation_eventstore::{Block, BlockTarget};

    use crate::ingest::ListChange;
    let world = World::new();
    let keeper = world.keeper(of_members(&[1]));
    let list = follow_list(2, AT, &[3]);
    world.store(&[follow_list(1, AT, &[2]), list.clone()]).await;
    assert!(holds(&keeper.refreshed().await.unwrap(), &[1, 2, 3]));
    for target in [
        BlockTarget::Author(key(2)),
        BlockTarget::Event(list.id.to_bytes()),
    ] {
        let block = ListChange::Block(Block {
            target,
            purged: false,
            since: AT,
            reason: String::new(),
        });
        world.ingest.change_list(block).await.unwrap();
        assert!(holds(&keeper.refreshed().await.unwrap(), &[1, 2]));
        let unblock = ListChange::Unblock(target);
        world.ingest.change_list(unblock).await.unwrap();
        assert!(holds(&keeper.refreshed().await.unwrap(), &[1, 2, 3]));
    }
}

#[tokio::test]
async fn who_watches_is_told_of_lists_cards_and_options() {
    let world = World::new();
    let keeper = world.keeper(GraphOptions {
        cards: true,
        ..GraphOptions::default()
    });
    let mut graph = keeper.graph();
    let tasks = TaskGroup::new(1);
    tasks.spawn(keeper.clone().keep_current()).unwrap();
    let mut told = async |numbers: &'static [u8]| {
        let seen = graph.wait_for(|graph| holds(graph, numbers));
        let seen = tokio::time::timeout(PATIENCE, seen).await;
        assert!(seen.is_ok_and(|seen| seen.is_ok()), "{numbers:?}");
    };
    keeper.set_card_keys([key(1)].into());
    told(&[1]).await;
    world.store(&[follow_list(1, AT, &[2])]).await;
    told(&[1, 2]).await;
    keeper.configure(of_members(&[3]));
    told(&[3]).await;
    tasks.end().await;
}

#[tokio::test]
async fn the_graph_is_merged_into_a_file_and_taken_back_from_it() {
    let world = World::new();
    let path = world.folder.path().join("amisOfAmis.txt");
    let line = |number: u8| format!("{}\n", hex::encode(&key(number)));
    std::fs::write(&path, line(8)).unwrap();
    let keeper = world.keeper(GraphOptions {
        merge_into: Some(path.clone()),
        friend_files: vec![path.display().to_string().try_into().unwrap()],
        ..of_members(&[1])
    });
    world.store(&[follow_list(1, AT, &[2])]).await;
    assert!(holds(&keeper.refreshed().await.unwrap(), &[1, 2, 8]));
    let text = || std::fs::read_to_string(&path).unwrap();
    assert_eq!(text(), line(8) + &line(2));
    // It is emptied every evening.
    std::fs::remove_file(&path).unwrap();
    assert!(holds(&keeper.refreshed().await.unwrap(), &[1, 2, 8]));
    assert_eq!(text(), line(2));
    world.store(&[follow_list(1, AT + 1, &[3])]).await;
    keeper.refreshed().await.unwrap();
    assert_eq!(text(), line(3));
}

#[tokio::test]
async fn names_come_from_profiles() {
    let world = World::new();
    let profile = EventBuilder::new(Kind::Metadata, r#"{"name":"ana","display_name":"Ana"}"#)
        .custom_created_at(Timestamp::from_secs(AT))
        .finalize(&keys(2))
        .unwrap();
    world.store(&[profile, follow_list(1, AT, &[2])]).await;
    let keeper = world.keeper(of_members(&[1]));
    let members = keeper.report(false).await.unwrap();
    assert_eq!(
        (members.members, members.n1, members.authors.len()),
        (1, 1, 1)
    );
    assert_eq!(members.authors[0].name, None);
    let all = keeper.report(true).await.unwrap();
    let ana = &all.authors[1];
    assert_eq!(
        (ana.name.as_deref(), ana.display_name.as_deref()),
        (Some("ana"), Some("Ana"))
    );
    assert_eq!((ana.level, ana.followers), (Level::N1, 1));
}
