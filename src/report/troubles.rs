//! What could not be achieved, and why, in words that a captain understands.
//!
//! Takes a peer's report; gives sentences. Pure. What peers said is cut and shown plain, and never alone: what it means
//! stands before it. Worst case: [`SENTENCES_MAX`] for each peer; the rest is counted.

use super::numbers::{counted, moment, shown};
use crate::sync::{PeerReport, Step};
use crate::time::rfc3339;
use crate::transfer::Unresolved;

/// Sentences about one peer.
const SENTENCES_MAX: usize = 8;
/// Characters of a reason that a peer or the system gave.
const REASON_CHARS_MAX: usize = 240;

/// What went wrong with a peer; nothing where all is well.
pub(super) fn sentences(peer: &PeerReport) -> Vec<String> {
    let mut sentences: Vec<String> = failure(peer).into_iter().collect();
    sentences.extend(peer.unresolved.iter().map(left_over));
    let beyond = sentences.len().saturating_sub(SENTENCES_MAX);
    if beyond > 0 {
        sentences.truncate(SENTENCES_MAX - 1);
        let more = counted(beyond as u64 + 1, "more reason", "more reasons");
        sentences.push(format!("{more}: constellation report --json names them."));
    }
    sentences
}

fn failure(peer: &PeerReport) -> Option<String> {
    let error = peer.error.as_ref()?;
    let detail = shown(&error.detail, REASON_CHARS_MAX);
    let what = match (error.reason.as_str(), error.step) {
        ("quiet_hours" | "rests", _) => return Some(format!("It was {detail}.")),
        ("deadline", Step::Connect) => "It was not reached before the time was up".to_owned(),
        ("deadline", step) => format!(
            "The time was up while {}; the next run goes on",
            doing(step)
        ),
        ("disk_full", _) => {
            return Some(
                "Our own disk is full: nothing more can be stored until there is room.".to_owned(),
            );
        }
        ("forgeries", _) => {
            format!("It sent too many events with false signatures and was not read on: {detail}")
        }
        (_, Step::Connect) => format!("It could not be reached: {detail}"),
        (_, step) => format!("It broke off while {}: {detail}", doing(step)),
    };
    Some(format!("{}.", what.trim_end_matches('.')))
}

const fn doing(step: Step) -> &'static str {
    match step {
        Step::Connect => "connecting",
        Step::Reconcile => "comparing what it has with what we have",
        Step::Download => "fetching events",
        Step::Upload => "offering events",
        Step::Confirm => "checking that both sides are equal",
    }
}

fn left_over(left: &Unresolved) -> String {
    match left {
        Unresolved::Events { count, why, .. } => {
            let events = counted(*count, "event was", "events were");
            format!("{events} left over: {}.", meaning(why))
        }
        Unresolved::Range(gap) => {
            let time = |time: Option<u64>, open: &str| {
                time.map_or_else(|| open.to_owned(), |time| moment(&rfc3339(time)))
            };
            format!(
                "It could not be made to list all it has from {} to {}: {}.",
                time(gap.since, "the beginning"),
                time(gap.until, "now"),
                meaning(&gap.why)
            )
        }
    }
}

/// A reason's stable name in words; what is no such name is shown as it is.
fn meaning(why: &str) -> String {
    let known = match why {
        "undelivered" => "it lists them and does not hand them out",
        "bad_signature" | "bad_id" => "they are forged or damaged",
        "malformed" => "they are no valid events",
        "too_large" => "they are too large for it",
        "policy" => "it does not take them, and does not say why",
        "shadow" => "it said that it took them, and does not show them",
        "rate-limited" | "rate_limited" => {
            "it said that we were too fast; the next run tries again"
        }
        "auth-required" | "auth_required" => "it wants to know who we are before it takes them",
        "blocked" | "restricted" => "it does not want them",
        "error" => "it had a failure of its own",
        "pow" => "it wants proof of work",
        "claimed" => "another peer was bringing them; the next run looks again",
        other => return shown(other, REASON_CHARS_MAX),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{Failure, Outcome};
    use crate::transfer::Gap;

    fn events(count: u64, why: &str) -> Unresolved {
        Unresolved::Events {
            ids: Vec::new(),
            count,
            why: why.to_owned(),
        }
    }

    #[test]
    fn reasons_become_sentences_and_what_others_wrote_obeys_nobody() {
        let mut peer = PeerReport::new("ws://a/");
        assert!(sentences(&peer).is_empty());
        peer.outcome = Outcome::Failed;
        peer.error = Some(Failure {
            step: Step::Connect,
            reason: "refused".to_owned(),
            detail: "connection\u{1b}[2J refused.".to_owned(),
        });
        peer.unresolved = vec![
            events(1, "undelivered"),
            events(1_200, &"x".repeat(1_000)),
            Unresolved::Range(Gap {
                since: None,
                until: Some(0),
                kinds: None,
                authors: None,
                why: "its cap".to_owned(),
            }),
        ];
        let told = sentences(&peer);
        assert_eq!(told[0], "It could not be reached: connection[2J refused.");
        assert_eq!(
            told[1],
            "1 event was left over: it lists them and does not hand them out."
        );
        assert!(told[2].starts_with("1,200 events were left over: xxx") && told[2].len() < 300);
        assert!(told[3].contains("from the beginning to 1970-01-01 00:00 UTC: its cap"));
        peer.unresolved = (0..20).map(|n| events(n, "policy")).collect();
        let told = sentences(&peer);
        assert_eq!(told.len(), SENTENCES_MAX);
        assert!(told[7].starts_with("14 more reasons"), "{told:?}");
    }
}
