//! What a relay without NIP-77 has of a slice: its windows, read to the end, of which only ids and times are kept.
//!
//! Takes a line and a slice; gives a set and the ranges that the relay could not be made to list. What is asked next is
//! decided by `transfer::windows` (D6). An event is believed to exist where it is listed; it is verified when it is
//! moved. Bounded: ids kept, pauses. Worst case: the whole slice is sent to us once.

use std::collections::HashSet;

use constellation_event::{EventLimits, UnverifiedEvent};
use constellation_reconcile::{Item, VecSet};
use nostr::filter::Filter;

use super::pace::Pace;
use crate::limits::{ANSWER_EVENTS_MAX, LISTED_AT_A_TIME, NOTICED_PATIENCE};
use crate::protocol::ReasonPrefix;
use crate::relay_client::RequestEnd;
use crate::transfer::windows::{Answer, Enumeration, Listed, Question};
use crate::transfer::{Complaint, Gap, Line, Slice, TransferError};

/// Events taken from a request at a time.
const EVENTS_PER_BATCH: usize = 512;

/// Reads a slice; refuses, in words, what has more than `ids_max` events.
///
/// Cancel safe: nothing is kept.
///
/// # Errors
/// [`TransferError`].
pub(super) async fn list(
    line: Line<'_>,
    slice: &Slice,
    ids_max: usize,
) -> Result<(VecSet, Vec<Gap>), TransferError> {
    let mut enumeration = Enumeration::new(slice.clone());
    let mut items: Vec<Item> = Vec::new();
    let mut pace = Pace::default();
    while let Some(question) = enumeration.question() {
        match ask(line, &question).await? {
            Ended::Whole(answer) => {
                pace.went_well();
                if matches!(question, Question::Of(_)) {
                    let seen = enumeration.seen();
                    let new = answer.listed.iter().filter(|one| !seen.contains(&one.id));
                    items.extend(new.map(|one| Item {
                        timestamp: one.created_at,
                        id: one.id,
                    }));
                }
                if items.len() > ids_max {
                    return Err(TransferError::Refused(format!(
                        "it has no NIP-77 and lists more than {ids_max} events: name a window, kinds or authors"
                    )));
                }
                enumeration.take(&answer);
            }
            Ended::Refused(why) => enumeration.give_up(&why),
            Ended::Later => {
                pace.slow_down();
                if pace.gives_up() {
                    enumeration.give_up("the peer limits the rate");
                } else {
                    pace.over().await;
                }
            }
        }
    }
    Ok((VecSet::from_unsorted(items), enumeration.take_gaps()))
}

/// How the answer to a question ended.
enum Ended {
    Whole(Answer),
    /// Refused for good.
    Refused(String),
    /// Refused for the moment.
    Later,
}

async fn ask(line: Line<'_>, question: &Question) -> Result<Ended, TransferError> {
    let limit = line.limits.events_per_request;
    let limit = limit.map_or(LISTED_AT_A_TIME, |stated| stated.min(LISTED_AT_A_TIME));
    let matching = match question {
        Question::Of(slice) => slice.filter(),
        Question::Anything => Filter::new(),
    };
    let filter = matching.clone().limit(limit);
    let notices_before = *line.conversation.notices_heard().borrow();
    let mut notices = line.conversation.notices_heard();
    let mut introduced = false;
    'asked: loop {
        let asked = line.conversation.request(std::slice::from_ref(&filter));
        let mut request = line.in_time(asked).await?;
        let mut answer = Answer::default();
        let mut batch = Vec::new();
        let mut listed = HashSet::new();
        loop {
            let noticed = *notices.borrow_and_update() > notices_before && answer.count == 0;
            let complained = noticed
                && line
                    .conversation
                    .notices()
                    .last()
                    .is_some_and(|text| Complaint::may_be(text));
            let end = tokio::select! {
                biased;
                end = line.answered(request.next_batch(&mut batch, EVENTS_PER_BATCH)) => match end {
                    // Whatever its words mean: it said something, and then no more.
                    Err(TransferError::Timeout) if noticed => return Ok(by_notice(line)),
                    end => end?,
                },
                Ok(()) = notices.changed() => continue,
                () = tokio::time::sleep(NOTICED_PATIENCE), if complained => {
                    return Ok(by_notice(line));
                }
            };
            for json in std::mem::take(&mut batch) {
                answer.count += 1;
                if answer.count > ANSWER_EVENTS_MAX {
                    return Err(TransferError::Refused(format!(
                        "it sent more than {ANSWER_EVENTS_MAX} events where at most {limit} were asked for"
                    )));
                }
                if let Ok(event) = UnverifiedEvent::parse(&json, &EventLimits::default())
                    && event.matches(&matching)
                    && listed.insert(event.id())
                {
                    answer.listed.push(Listed {
                        id: event.id(),
                        created_at: event.created_at(),
                        kind: event.kind(),
                        author: *event.author(),
                    });
                }
            }
            match end {
                None => {}
                Some(RequestEnd::EndOfStored) => return Ok(Ended::Whole(answer)),
                Some(RequestEnd::Closed { prefix, .. })
                    if prefix == ReasonPrefix::AuthRequired
                        && !introduced
                        && line.authenticate().await? =>
                {
                    introduced = true;
                    continue 'asked;
                }
                Some(RequestEnd::Closed { prefix, text }) => return Ok(refusal(prefix, &text)),
            }
        }
    }
}

/// The last notice, taken for the answer.
fn by_notice(line: Line<'_>) -> Ended {
    let text = line.conversation.notices().pop().unwrap_or_default();
    refusal(ReasonPrefix::parse(&text), &text)
}

fn refusal(prefix: ReasonPrefix, text: &str) -> Ended {
    match Complaint::read(prefix, text) {
        Some(Complaint::Pace | Complaint::Number) => Ended::Later,
        _ => Ended::Refused(format!("refused by the peer: {text}")),
    }
}
