//! A small society: profiles, contacts, notes and answers, reactions, reposts, articles, and second thoughts.

use nostr::event::Event;
use nostr::key::Keys;
use rand::{Rng, RngExt};

use super::{keys, sign, tag};

const AUTHORS: usize = 60;
const DAY: u64 = 24 * 3600;
/// The events lie within this many days before now.
const DAYS: u64 = 60;

const WORDS: [&str; 48] = [
    "relay", "river", "garden", "signal", "morning", "captain", "bread", "harbour", "lantern",
    "winter", "street", "music", "letter", "market", "orchard", "mountain", "kitchen", "window",
    "together", "quiet", "bright", "slowly", "again", "never", "always", "maybe", "today",
    "tomorrow", "build", "carry", "listen", "write", "plant", "repair", "share", "sail", "keep",
    "the", "a", "of", "and", "with", "our", "their", "from", "under", "over", "to",
];

/// Events by where they are to be at first.
#[derive(Debug, Clone, Default)]
pub struct SocialSample {
    /// To be spread over the stations.
    pub spread: Vec<Event>,
    /// Known to every station.
    pub common: Vec<Event>,
    /// An older version and the newer one that supersedes it: for different stations.
    pub replaced: Vec<(Event, Event)>,
    /// An event and its author's deletion: for different stations.
    pub deleted: Vec<(Event, Event)>,
}

/// Makes about `notes` notes and what belongs to them, the newest at `now` (Unix seconds).
pub fn social(random: &mut impl Rng, now: u64, notes: usize) -> SocialSample {
    let authors: Vec<Keys> = (0..AUTHORS).map(|_| keys(random)).collect();
    let mut sample = SocialSample::default();
    for author in &authors {
        let at = now - DAYS * DAY + random.random_range(0..DAY);
        sample.common.push(profile(random, author, at));
        sample
            .spread
            .push(contacts(random, author, &authors, at + 60));
    }
    let mut written: Vec<Event> = Vec::with_capacity(notes);
    for _ in 0..notes {
        let author = pick(random, &authors);
        let at = now - random.random_range(0..DAYS * DAY);
        let note = note(random, author, &written, at);
        written.push(note);
    }
    for note in &written {
        for _ in 0..random.random_range(0..3) {
            let author = pick(random, &authors);
            sample.spread.push(reaction(random, author, note, now));
        }
        if random.random_ratio(1, 12) {
            sample
                .spread
                .push(repost(pick(random, &authors), note, now));
        }
    }
    for (number, author) in authors.iter().enumerate().take(AUTHORS / 3) {
        let identifier = format!("{}-{number}", pick(random, &WORDS));
        let at = now - random.random_range(DAY..DAYS * DAY);
        let draft = article(random, author, &identifier, at);
        let revised = article(random, author, &identifier, at + 3_600);
        sample.replaced.push((draft, revised));
        let lately = now - random.random_range(0..DAY);
        let new_profile = profile(random, author, lately);
        sample.spread.push(new_profile);
    }
    for _ in 0..AUTHORS / 2 {
        let author = pick(random, &authors);
        let at = now - random.random_range(DAY..DAYS * DAY);
        let regretted = note(random, author, &[], at);
        let deletion = sign(
            author,
            5,
            regretted.created_at.as_secs() + 600,
            vec![tag(&["e", &regretted.id.to_hex()]), tag(&["k", "1"])],
            "on second thought".into(),
        );
        sample.deleted.push((regretted, deletion));
    }
    sample.spread.extend(written);
    sample
}

fn pick<'c, T>(random: &mut impl Rng, choices: &'c [T]) -> &'c T {
    &choices[random.random_range(0..choices.len())]
}

fn words(random: &mut impl Rng, count: usize) -> String {
    let words: Vec<&str> = (0..count).map(|_| *pick(random, &WORDS)).collect();
    words.join(" ")
}

fn profile(random: &mut impl Rng, author: &Keys, at: u64) -> Event {
    let name = format!("{}{}", pick(random, &WORDS), random.random_range(1..1_000));
    let content = serde_json::json!({
        "name": name,
        "about": words(random, 20),
        "picture": format!("https://pictures.example/{name}.webp"),
        "nip05": format!("{name}@names.example"),
    });
    sign(author, 0, at, Vec::new(), content.to_string())
}

fn contacts(random: &mut impl Rng, author: &Keys, authors: &[Keys], at: u64) -> Event {
    let follows = random.random_range(5..40);
    let tags = (0..follows)
        .map(|_| tag(&["p", &pick(random, authors).public_key().to_hex()]))
        .collect();
    sign(author, 3, at, tags, String::new())
}

fn note(random: &mut impl Rng, author: &Keys, written: &[Event], at: u64) -> Event {
    let mut tags = Vec::new();
    if !written.is_empty() && random.random_ratio(1, 2) {
        let answered = pick(random, written);
        tags.push(tag(&["e", &answered.id.to_hex(), "", "root"]));
        tags.push(tag(&["p", &answered.pubkey.to_hex()]));
    }
    if random.random_ratio(1, 3) {
        let topic = *pick::<&str>(random, &WORDS);
        tags.push(tag(&["t", topic]));
    }
    let length = random.random_range(5..60);
    let content = words(random, length);
    sign(author, 1, at, tags, content)
}

fn reaction(random: &mut impl Rng, author: &Keys, to: &Event, now: u64) -> Event {
    let at = (to.created_at.as_secs() + random.random_range(5..DAY)).min(now);
    let tags = vec![
        tag(&["e", &to.id.to_hex()]),
        tag(&["p", &to.pubkey.to_hex()]),
    ];
    sign(
        author,
        7,
        at,
        tags,
        (*pick(random, &["+", "🤙", "❤️", "🔥"])).to_owned(),
    )
}

fn repost(author: &Keys, of: &Event, now: u64) -> Event {
    let at = (of.created_at.as_secs() + 300).min(now);
    let tags = vec![
        tag(&["e", &of.id.to_hex(), ""]),
        tag(&["p", &of.pubkey.to_hex()]),
    ];
    sign(author, 6, at, tags, of.as_json())
}

fn article(random: &mut impl Rng, author: &Keys, identifier: &str, at: u64) -> Event {
    let title = words(random, 5);
    let tags = vec![
        tag(&["d", identifier]),
        tag(&["title", &title]),
        tag(&["published_at", &at.to_string()]),
    ];
    let content = format!("# {title}\n\n{}", words(random, 300));
    sign(author, 30_023, at, tags, content)
}
