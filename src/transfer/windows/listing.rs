//! One answer after the other, until a slice is read: events that are new here go through ingest as they come.
//!
//! Takes slices; gives a [`Reading`] that knows what the peer has. Invariants: only an answer that came to its end
//! (EOSE) counts as one, so that reading goes on after a broken connection where it stood; an event that does not match
//! the question says nothing about what the peer has. Bounded: bytes that are not stored yet (reading waits), pauses
//! after refusals for the moment. Worst case: a peer that trickles is left by the exchange's deadline.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use constellation_event::{CanonicalKey, EventLimits, Rejection, UnverifiedEvent};
use constellation_eventstore::{
    KindSet, NewOverlayEntry, OverlayReason, Progress, Query, Readership,
};
use constellation_reconcile::Item;
use nostr::filter::Filter;
use tokio::time::Instant;

use super::enumeration::{Answer, Enumeration, Listed, Question, Seen, gap};
use super::probing::probe;
use crate::limits::{
    ANSWER_EVENTS_MAX, DIFFERENCE_IDS_MAX, LISTED_AT_A_TIME, NOTICED_PATIENCE, PAUSE_FIRST,
    PAUSE_MAX, PAUSES_MAX, POLICY_REMEMBERED,
};
use crate::protocol::ReasonPrefix;
use crate::relay_client::{Conversation, RequestEnd};
use crate::transfer::arrivals::Claimed;
use crate::transfer::asking::Complaint;
use crate::transfer::intake::Intake;
use crate::transfer::known::sort_known;
use crate::transfer::own::read_own;
use crate::transfer::slice::{Author, Slice};
use crate::transfer::{Findings, Tally, Transfer, TransferError, off_runtime};

/// Events taken from a request at a time.
const EVENTS_PER_BATCH: usize = 512;

/// How much is read before the rest is left to another time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// Everything.
    Whole,
    /// Until so many events were listed; what is left is told by [`Read::BackTo`].
    Events(usize),
}

/// Whether a slice was read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// All of it, gaps aside.
    Whole,
    /// Back to this second; what is older is left.
    BackTo(u64),
    /// What is older than this second (everything, where there is none) the peer refused to list, so it is a gap. Told of
    /// slices that have no beginning.
    Refused(Option<u64>),
}

/// What is known of what the peer has. Survives the connection: give it to the next one.
#[derive(Debug)]
pub struct Reading {
    enumeration: Enumeration,
    /// Events that were new here, and known.
    counted: usize,
}

impl Reading {
    /// Begins to read `slice`.
    pub fn of(slice: Slice) -> Self {
        Self {
            enumeration: Enumeration::new(slice),
            counted: 0,
        }
    }

    /// Goes on with another slice.
    pub fn go_on_with(&mut self, slice: Slice) {
        self.enumeration.add(slice);
        self.counted = 0;
    }

    /// Reads on, to the end or the budget.
    ///
    /// Cancel safety: what was handed to ingest is stored; the answer that was being read is asked for again.
    ///
    /// # Errors
    /// [`TransferError`]; what came before is stored and counted.
    pub async fn read(
        &mut self,
        transfer: &Transfer,
        tally: &mut Tally,
        budget: Budget,
    ) -> Result<Read, TransferError> {
        let reasons = transfer.overlay_reasons().await?;
        let tally = Mutex::new(tally);
        let mut listing = Listing {
            transfer,
            intake: Intake::new(transfer, &tally),
            reasons,
            pauses: 0,
        };
        let read = listing.read(self, budget).await;
        let settled = listing.intake.settle_all().await;
        let mut refused = None;
        for gap in self.enumeration.take_gaps() {
            // Not a second that cannot be listed, but all that is left.
            if gap.since.is_none() {
                refused = Some(gap.until);
            }
            listing.intake.tally().leave_gap(gap);
        }
        settled?;
        Ok(match (read?, refused) {
            (Read::Whole, Some(second)) => Read::Refused(second),
            (read, _) => read,
        })
    }

    /// What of the slice at hand is not read yet.
    pub fn unread(&self) -> impl Iterator<Item = &Slice> {
        self.enumeration.unread()
    }

    /// What is not read yet is left to another time.
    pub fn leave_rest(&mut self) {
        self.enumeration.leave_rest();
    }

    /// Finds what of ours in `slice` the peer did not list, and does not refuse. Says whether that is all.
    ///
    /// # Errors
    /// Our own store's.
    pub async fn lacking(
        &self,
        transfer: &Transfer,
        slice: &Slice,
        findings: &Findings,
    ) -> Result<bool, TransferError> {
        let reasons = transfer.overlay_reasons().await?;
        let seen: &Seen = self.enumeration.seen();
        let mut found = findings.found().have;
        read_own(transfer, slice, &mut |items| {
            let mut have: Vec<_> = items
                .iter()
                .filter(|item| !seen.contains(&item.id) && is_offered(&reasons, item))
                .copied()
                .collect();
            findings.keep_new(&mut Vec::new(), &mut have);
            found += have.len();
            findings.add(&[], &have);
            if found > DIFFERENCE_IDS_MAX {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .await?;
        Ok(found <= DIFFERENCE_IDS_MAX)
    }
}

/// Finds what of ours in `slice` the peer lacks, by asking for each event. Says whether that is all.
///
/// # Errors
/// [`TransferError`].
pub async fn lacking_by_id(
    transfer: &Transfer,
    slice: &Slice,
    findings: &Findings,
) -> Result<bool, TransferError> {
    let reasons = transfer.overlay_reasons().await?;
    let mut ours: Vec<Item> = Vec::new();
    read_own(transfer, slice, &mut |items| {
        ours.extend(
            items
                .iter()
                .filter(|item| is_offered(&reasons, item))
                .copied(),
        );
        if ours.len() > DIFFERENCE_IDS_MAX {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .await?;
    let ids: Vec<[u8; 32]> = ours.iter().map(|item| item.id).collect();
    let there = probe(transfer, &ids).await?;
    let is_all = ours.len() <= DIFFERENCE_IDS_MAX;
    ours.retain(|item| !there.contains(&item.id));
    findings.keep_new(&mut Vec::new(), &mut ours);
    findings.add(&[], &ours);
    Ok(is_all)
}

/// Whether the peer does not refuse it.
fn is_offered(reasons: &HashMap<[u8; 32], OverlayReason>, item: &Item) -> bool {
    !matches!(reasons.get(&item.id), Some(OverlayReason::RefusedBy(_)))
}

struct Listing<'t, 'c> {
    transfer: &'t Transfer,
    intake: Intake<'t, 'c>,
    /// What is remembered of the peer's events.
    reasons: HashMap<[u8; 32], OverlayReason>,
    /// In a row.
    pauses: u32,
}

/// How the answer to a question ended.
enum Ended {
    Whole(Answer),
    /// Refused for good.
    Refused(String),
    /// Refused for the moment.
    Later,
    /// Refused before the peer knew who we are.
    Again,
}

impl Listing<'_, '_> {
    async fn read(&mut self, reading: &mut Reading, budget: Budget) -> Result<Read, TransferError> {
        let mut introduced = false;
        while let Some(question) = reading.enumeration.question() {
            match self.ask(&question, reading.enumeration.seen()).await? {
                Ended::Whole(answer) => {
                    self.pauses = 0;
                    reading.counted += reading.enumeration.take(&answer);
                }
                Ended::Again if !std::mem::replace(&mut introduced, true) => continue,
                Ended::Again => reading
                    .enumeration
                    .give_up("the peer does not take who we are"),
                Ended::Refused(why) => reading.enumeration.give_up(&why),
                Ended::Later if self.pauses > PAUSES_MAX => {
                    reading.enumeration.give_up("the peer limits the rate");
                }
                Ended::Later => self.pause().await,
            }
            if let Budget::Events(events) = budget
                && reading.counted >= events
                && let Some(second) = reading.enumeration.reached()
            {
                return Ok(Read::BackTo(second));
            }
        }
        Ok(Read::Whole)
    }

    async fn pause(&mut self) {
        let pause = PAUSE_FIRST * (1 << self.pauses.min(8));
        self.pauses += 1;
        tokio::time::sleep(pause.min(PAUSE_MAX)).await;
    }

    async fn ask(&mut self, question: &Question, seen: &Seen) -> Result<Ended, TransferError> {
        let limit = self.transfer.limits.events_per_request;
        let limit = limit.map_or(LISTED_AT_A_TIME, |stated| stated.min(LISTED_AT_A_TIME));
        let filter = match question {
            Question::Of(slice) => slice.filter(),
            Question::Anything => Filter::new(),
        }
        .limit(limit);
        let conversation = &self.transfer.conversation;
        let notices_before = *conversation.notices_heard().borrow();
        let asked = conversation.request(std::slice::from_ref(&filter));
        let mut request = self.transfer.in_time(asked).await?;
        let matching = Filter {
            limit: None,
            ..filter
        };
        let takes = matches!(question, Question::Of(_));
        let mut answer = Answer::default();
        let mut notices = conversation.notices_heard();
        let mut batch = Vec::new();
        let mut listed = HashSet::new();
        loop {
            let noticed = *notices.borrow_and_update() > notices_before && answer.count == 0;
            let complained = noticed
                && conversation
                    .notices()
                    .last()
                    .is_some_and(|text| Complaint::may_be(text));
            let next = async {
                Ok::<_, TransferError>(request.next_batch(&mut batch, EVENTS_PER_BATCH).await?)
            };
            let end = tokio::select! {
                biased;
                settled = self.intake.progress() => {
                    settled?;
                    continue;
                }
                end = self.transfer.answered(next), if !self.intake.is_flooded() => match end {
                    // Whatever its words mean: it said something, and then no more.
                    Err(TransferError::Timeout) if noticed => return Ok(by_notice(conversation)),
                    end => end?,
                },
                Ok(()) = notices.changed() => continue,
                () = tokio::time::sleep(NOTICED_PATIENCE), if complained => {
                    return Ok(by_notice(conversation));
                }
            };
            let events = std::mem::take(&mut batch);
            answer.count += events.len();
            if answer.count > ANSWER_EVENTS_MAX {
                return Err(TransferError::Refused(format!(
                    "it sent more than {ANSWER_EVENTS_MAX} events where at most {limit} were asked for"
                )));
            }
            let mut events = self.matching(events, &matching, takes);
            // Each once, however often it is sent.
            events.retain(|event| listed.insert(event.id()));
            answer.listed.extend(events.iter().map(listed_of));
            self.intake.tally().listed += events.len() as u64;
            if takes {
                events.retain(|event| !seen.contains(&event.id()));
                self.offer(events).await?;
            }
            self.intake.mind_forgeries()?;
            match end {
                None => {}
                Some(RequestEnd::EndOfStored) => return Ok(Ended::Whole(answer)),
                Some(RequestEnd::Closed { prefix, .. })
                    if prefix == ReasonPrefix::AuthRequired
                        && self.transfer.authenticate().await? =>
                {
                    return Ok(Ended::Again);
                }
                Some(RequestEnd::Closed { prefix, text }) => return Ok(refusal(prefix, &text)),
            }
        }
    }

    /// Those that match the question; where it is about events, the others are counted as wrong.
    fn matching(&self, events: Vec<Bytes>, filter: &Filter, takes: bool) -> Vec<UnverifiedEvent> {
        let mut matching = Vec::with_capacity(events.len());
        for json in events {
            match UnverifiedEvent::parse(&json, &EventLimits::default()) {
                Ok(event) if event.matches(filter) => matching.push(event),
                _ if !takes => {}
                Ok(_) => self.intake.tally().reject(Rejection::OutsideFilter),
                Err(reason) => self.intake.tally().reject(reason),
            }
        }
        matching
    }

    /// Hands over what is new here.
    async fn offer(&mut self, mut events: Vec<UnverifiedEvent>) -> Result<(), TransferError> {
        events.retain(|event| {
            !matches!(
                self.reasons.get(&event.id()),
                Some(OverlayReason::Refused(_))
            )
        });
        let ids: Vec<[u8; 32]> = events.iter().map(UnverifiedEvent::id).collect();
        let store = self.transfer.ingest.store().clone();
        let scope = Arc::clone(&self.transfer.scope);
        let now = self.transfer.clock.unix_seconds();
        let sorted = off_runtime(move || sort_known(&store, &scope, now, &ids)).await?;
        let missing: HashSet<[u8; 32]> = sorted.missing.into_iter().collect();
        if !sorted.leave.is_empty() {
            let left = sorted.leave.into_iter();
            let left: Vec<_> = left
                .filter(|key| self.reasons.contains_key(&key.id))
                .collect();
            let (ingest, peer) = (&self.transfer.ingest, &self.transfer.peer);
            ingest.change_overlay(peer, Vec::new(), left).await?;
        }
        let needed = missing.len() as u64;
        {
            let mut tally = self.intake.tally();
            tally.listed_needed += needed;
            tally.duplicates += events.len() as u64 - needed;
            if self.transfer.fetches {
                tally.downloaded += needed;
            }
        }
        self.transfer.progress.send_modify(|progress| {
            progress.need += needed;
            if self.transfer.fetches {
                progress.downloaded += needed;
            }
        });
        for event in events {
            if self.transfer.fetches && missing.contains(&event.id()) {
                let claimed = Claimed::by(&event);
                self.intake.offer(event, claimed);
            }
        }
        self.intake.submit(true, Instant::now());
        Ok(())
    }
}

fn listed_of(event: &UnverifiedEvent) -> Listed {
    Listed {
        id: event.id(),
        created_at: event.created_at(),
        kind: event.kind(),
        author: *event.author(),
    }
}

/// The last notice, taken for the answer.
fn by_notice(conversation: &Conversation) -> Ended {
    let text = conversation.notices().pop().unwrap_or_default();
    refusal(ReasonPrefix::parse(&text), &text)
}

fn refusal(prefix: ReasonPrefix, text: &str) -> Ended {
    match Complaint::read(prefix, text) {
        Some(Complaint::Pace | Complaint::Number) => Ended::Later,
        _ => Ended::Refused(format!("refused by the peer: {text}")),
    }
}

impl Transfer {
    /// Remembers for a day that the peer said to have taken these events, and did not.
    ///
    /// # Errors
    /// Our own store's.
    pub async fn remember_shadowed(
        &self,
        events: impl IntoIterator<Item = CanonicalKey>,
    ) -> Result<(), TransferError> {
        let expires_at = self.clock.unix_seconds() + POLICY_REMEMBERED.as_secs();
        let entries = events.into_iter().map(|key| NewOverlayEntry {
            key,
            reason: OverlayReason::RefusedBy(ReasonPrefix::Shadow.code()),
            kind: None,
            expires_at: Some(expires_at),
            author: None,
        });
        let entered = self
            .ingest
            .change_overlay(&self.peer, entries.collect(), Vec::new());
        Ok(entered.await?)
    }

    /// Those of `authors` of whom we have no profile.
    ///
    /// # Errors
    /// Our own store's.
    pub async fn without_profile(
        &self,
        mut authors: Vec<Author>,
    ) -> Result<Vec<Author>, TransferError> {
        if authors.is_empty() {
            return Ok(authors);
        }
        authors.sort_unstable();
        let store = self.ingest.store().clone();
        let now = self.clock.unix_seconds();
        off_runtime(move || {
            let profiles = Slice {
                authors: Some(Arc::from(&authors[..])),
                ..Slice::of_kinds(KindSet::Only([0].into()))
            };
            let mut known = HashSet::new();
            let mut query =
                Query::new(profiles.filter(), Readership::Full, &store.snapshot()?, now);
            loop {
                let snapshot = store.snapshot()?;
                let mut failed = None;
                let progress =
                    query.advance(&snapshot, &mut |record| match snapshot.author_of(record) {
                        Ok(author) => {
                            known.insert(author);
                            ControlFlow::Continue(())
                        }
                        Err(error) => {
                            failed = Some(error);
                            ControlFlow::Break(())
                        }
                    })?;
                if let Some(error) = failed {
                    return Err(error.into());
                }
                if progress == Progress::Done {
                    break;
                }
            }
            authors.retain(|author| !known.contains(author));
            Ok(authors)
        })
        .await
    }

    /// Names `slice` as something that the peer could not be made to list.
    pub fn leave_slice(&self, slice: &Slice, why: &str, tally: &mut Tally) {
        tally.leave_gap(gap(slice, why));
    }
}
