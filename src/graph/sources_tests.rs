//! Files in a temporary folder, looked at over hours that do not pass.

use std::path::Path;

use super::*;
use crate::protocol::hex;

const NOW: u64 = 1_700_000_000;
const HOUR: u64 = 3600;

fn key(number: u8) -> AuthorKey {
    [number; 32]
}

fn lines(numbers: &[u8]) -> String {
    let lines = numbers.iter().map(|number| hex::encode(&key(*number)));
    lines.collect::<Vec<_>>().join("\n")
}

fn patterns_of(folder: &Path, patterns: &[&str]) -> Vec<FilePattern> {
    let read = |pattern: &&str| {
        let path = folder.join(pattern).display().to_string();
        FilePattern::try_from(path).expect("a pattern")
    };
    patterns.iter().map(read).collect()
}

fn members(sources: &Sources, options: &GraphOptions) -> Vec<u8> {
    let roots = sources.roots(options);
    roots.members.keys().map(|key| key[0]).collect()
}

#[test]
fn keys_come_from_all_files_of_a_pattern_and_outlive_them_for_two_days() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, keys) in [
        ("a@b/HEX", lines(&[1])),
        ("c@d/HEX", format!("{}\n", lines(&[2]))),
    ] {
        std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        std::fs::write(at(name), keys).unwrap();
    }
    let more = format!("# by hand\n\n{}\nno key\n", lines(&[3, 4]));
    std::fs::write(at("members.txt"), more).unwrap();
    let options = GraphOptions {
        members: [key(9)].into(),
        member_files: patterns_of(folder.path(), &["*/HEX", "members.txt", "nobody.txt"]),
        ..GraphOptions::default()
    };
    let kept = at("graph.json");
    let mut sources = Sources::new(kept.clone());
    sources.look(&options, None, NOW);
    sources.keep();
    assert_eq!(members(&sources, &options), [1, 2, 3, 4, 9]);
    std::fs::remove_dir_all(at("c@d")).unwrap();
    std::fs::write(at("members.txt"), lines(&[4, 5, 6])).unwrap();
    // Also over a restart.
    let mut sources = Sources::new(kept);
    sources.look(&options, None, NOW + 47 * HOUR);
    assert_eq!(members(&sources, &options), [1, 2, 4, 5, 6, 9]);
    sources.look(&options, None, NOW + 49 * HOUR);
    assert_eq!(members(&sources, &options), [1, 4, 5, 6, 9]);
    // What is no longer configured goes at once.
    let fewer = GraphOptions {
        member_files: patterns_of(folder.path(), &["*/HEX"]),
        ..options
    };
    sources.look(&fewer, None, NOW + 49 * HOUR);
    assert_eq!(members(&sources, &fewer), [1, 9]);
}

#[test]
fn the_keys_of_cards_outlive_them_too_and_count_only_where_cards_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("graph.json");
    let with_cards = GraphOptions {
        cards: true,
        ..GraphOptions::default()
    };
    let mut sources = Sources::new(kept.clone());
    sources.look(&with_cards, Some(&[key(1), key(2)].into()), NOW);
    sources.keep();
    assert_eq!(members(&sources, &with_cards), [1, 2]);
    let mut sources = Sources::new(kept.clone());
    sources.look(&with_cards, None, NOW + 47 * HOUR);
    assert_eq!(members(&sources, &with_cards), [1, 2]);
    assert!(members(&sources, &GraphOptions::default()).is_empty());
    sources.look(&with_cards, None, NOW + 49 * HOUR);
    assert!(members(&sources, &with_cards).is_empty());
}

#[test]
fn what_we_merged_into_a_file_brings_nobody_in() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("amisOfAmis.txt");
    std::fs::write(&path, lines(&[1, 2, 3])).unwrap();
    let options = GraphOptions {
        friend_files: patterns_of(folder.path(), &["*.txt"]),
        merge_into: Some(path),
        ..GraphOptions::default()
    };
    let mut sources = Sources::new(folder.path().join("graph.json"));
    sources.set_merged([key(2), key(7)].into()).unwrap();
    sources.look(&options, None, NOW);
    assert_eq!(sources.roots(&options).friends, [key(1), key(3)].into());
}
