//! What `constellation members` shows.
//!
//! Names are what authors say of themselves: cut, and without characters that a terminal would obey.

use constellation_eventstore::StoreError;
use serde::{Deserialize, Serialize};

use super::following::Newest;
use super::ranked::{Cut, Graph, Level, RankedAuthor, Why};
use crate::limits::GRAPH_NAME_CHARS_MAX;
use crate::protocol::hex;

/// Who is in the graph. The shape of `members --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersReport {
    /// How many members.
    pub members: usize,
    /// How many whom members follow.
    pub n1: usize,
    /// How many whom those follow.
    pub n2: usize,
    /// All of them.
    pub authors_in_scope: usize,
    /// What bounds left out.
    pub cut: Cut,
    /// Members, or everybody: members first, each level the most followed first.
    pub authors: Vec<AuthorReport>,
}

/// One author.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorReport {
    /// 64 hex digits.
    pub pubkey: String,
    /// How near.
    pub level: Level,
    /// Why.
    pub why: Vec<Why>,
    /// Follow lists, of members and N1, that name the author.
    pub followers: u32,
    /// `name` of the profile.
    pub name: Option<String>,
    /// `display_name` of the profile.
    pub display_name: Option<String>,
}

/// Reads names for members, or `all`. Blocks.
pub(super) fn report(
    graph: &Graph,
    all: bool,
    newest: &mut Newest<'_>,
) -> Result<MembersReport, StoreError> {
    let shown = graph
        .ranked
        .iter()
        .filter(|author| all || author.level == Level::Member);
    let authors = shown.map(|author| describe(author, newest));
    Ok(MembersReport {
        members: graph.members,
        n1: graph.n1,
        n2: graph.n2,
        authors_in_scope: graph.ranked.len(),
        cut: graph.cut,
        authors: authors.collect::<Result<_, _>>()?,
    })
}

fn describe(author: &RankedAuthor, newest: &mut Newest<'_>) -> Result<AuthorReport, StoreError> {
    let names = newest.event(&author.key, 0)?.map(|json| names_in(&json));
    let names = names.unwrap_or_default();
    Ok(AuthorReport {
        pubkey: hex::encode(&author.key),
        level: author.level,
        why: author.why.list(),
        followers: author.followers,
        name: names.name.as_deref().and_then(shown),
        display_name: names.display_name.as_deref().and_then(shown),
    })
}

/// The name by which the author of a kind 0 is shown; `None` if it gives none.
pub(crate) fn name_in_profile(event: &str) -> Option<String> {
    let names = names_in(event);
    let display_name = names.display_name.as_deref().and_then(shown);
    display_name.or_else(|| names.name.as_deref().and_then(shown))
}

#[derive(Debug, Default)]
struct Names {
    name: Option<String>,
    display_name: Option<String>,
}

/// The names in a kind 0; none, where it is not what it should be.
fn names_in(event: &str) -> Names {
    #[derive(Deserialize)]
    struct Profile {
        content: String,
    }
    let read = || {
        let event: Profile = serde_json::from_str(event).ok()?;
        serde_json::from_str::<serde_json::Value>(&event.content).ok()
    };
    let profile = read().unwrap_or_default();
    let text = |key: &str| profile.get(key)?.as_str().map(str::to_owned);
    Names {
        name: text("name"),
        display_name: text("display_name"),
    }
}

fn shown(name: &str) -> Option<String> {
    let plain = name.chars().filter(|letter| !is_obeyed(*letter));
    let cut: String = plain.take(GRAPH_NAME_CHARS_MAX).collect();
    let cut = cut.trim();
    (!cut.is_empty()).then(|| cut.to_owned())
}

/// Control characters, and those that change the direction of what follows.
fn is_obeyed(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_and_obey_nobody() {
        let event = serde_json::json!({
            "content": serde_json::json!({
                "name": "a\u{1b}[31mb\u{202e}c\n",
                "display_name": "x".repeat(1_000),
            })
            .to_string(),
        });
        let names = names_in(&event.to_string());
        assert_eq!(shown(&names.name.unwrap()).as_deref(), Some("a[31mbc"));
        let long = shown(&names.display_name.unwrap()).unwrap();
        assert_eq!(long.chars().count(), GRAPH_NAME_CHARS_MAX);
        for nonsense in [
            "{}",
            "[]",
            "{\"content\":\"no JSON\"}",
            "{\"content\":\"{\\\"name\\\":7}\"}",
        ] {
            assert!(names_in(nonsense).name.is_none(), "{nonsense}");
        }
        assert_eq!(shown(" \t "), None);
    }
}
