//! EVENT: from a client's message to ingest, and from the verdict to the OK.
//!
//! Takes raw events; gives `(id, accepted, reason)` for each, as verdicts come. Who may write follows from the party
//! and the options of the moment. Many are in flight at a time; above the bound the connection is not read from.
//! A write policy plugin, where there is one, is asked before (see `plugin_asked`).
//! Reasons: `duplicate:` and no reason at all mean that we have it; a superseded event is `blocked:`, for it is not
//! stored here, and whoever pushes must not count it as delivered. Cancelling loses verdicts, never events.

use std::collections::{BTreeSet, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use constellation_event::{Rejection, UnverifiedEvent};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nostr::key::PublicKey;
use serde::Deserialize;

use super::bounds::{EVENT_BYTES_IN_FLIGHT, EVENTS_IN_FLIGHT};
use super::context::{RelayContext, RemoteParty};
use super::options::WritePolicy;
use super::plugin_asked::PluginAsked;
use crate::ingest::{Ingest, IngestError, Lane, Origin, Source, Verdict, Writers};
use crate::protocol::{ReasonPrefix, hex};

/// NIP-42's kind: for AUTH only, and never passed on.
pub(super) const AUTHENTICATION_KIND: u16 = 22_242;

/// What is said about an event that was offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) id: [u8; 32],
    pub(super) accepted: bool,
    pub(super) reason: String,
}

impl Answer {
    /// Not taken.
    pub(super) fn refused(id: [u8; 32], prefix: ReasonPrefix, text: &str) -> Self {
        Self {
            id,
            accepted: false,
            reason: prefix.with(text),
        }
    }
}

/// What becomes of an EVENT before ingest sees it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// The event with this id is on its way; the answer comes from [`Publishing::next`].
    Submitted([u8; 32]),
    /// Answered at once.
    Answered(Answer),
    /// No event, and without an id that an answer could name.
    Unreadable(Rejection),
}

type Pending = Pin<Box<dyn Future<Output = (Answer, usize)> + Send>>;

/// The events of one connection whose verdict has not come.
pub(super) struct Publishing {
    source: Source,
    in_flight: FuturesUnordered<Pending>,
    bytes: usize,
    rate: Rate,
}

impl std::fmt::Debug for Publishing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publishing")
            .field("in_flight", &self.in_flight.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Publishing {
    /// For one connection.
    pub(super) fn new(ingest: &Ingest) -> Self {
        Self {
            source: ingest.source(Lane::Prompt),
            in_flight: FuturesUnordered::new(),
            bytes: 0,
            rate: Rate::default(),
        }
    }

    /// Whether another event may be taken.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight.len() < EVENTS_IN_FLIGHT && self.bytes < EVENT_BYTES_IN_FLIGHT
    }

    /// Whether no verdict is due.
    pub(super) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The next answer; never if none is due. Cancel safe.
    pub(super) async fn next(&mut self) -> Answer {
        match self.in_flight.next().await {
            Some((answer, bytes)) => {
                self.bytes -= bytes;
                answer
            }
            None => std::future::pending().await,
        }
    }

    /// Takes an event's JSON.
    pub(super) fn offer(
        &mut self,
        json: &str,
        party: &RemoteParty,
        authenticated: &Arc<BTreeSet<PublicKey>>,
        context: &Arc<RelayContext>,
    ) -> Offer {
        let options = context.options();
        let event = match UnverifiedEvent::parse(json.as_bytes(), &options.event_limits()) {
            Ok(event) => event,
            Err(rejection) => {
                return claimed_id(json).map_or(Offer::Unreadable(rejection), |id| {
                    Offer::Answered(explain(id, rejection, &Terms::default()))
                });
            }
        };
        let (id, bytes) = (event.id(), event.bytes());
        let kind = event.kind();
        let refused = |prefix, text| Offer::Answered(Answer::refused(id, prefix, text));
        if kind == AUTHENTICATION_KIND {
            return refused(ReasonPrefix::Invalid, "this kind belongs into AUTH");
        }
        let now = context.clock.monotonic();
        if !party.is_trusted() && !self.rate.takes_one(options.events_per_minute, now) {
            return refused(ReasonPrefix::RateLimited, "slow down");
        }
        let (origin, terms) = origin(party, &options.write, authenticated, context);
        if terms.only_scope_kinds && !context.scope().kinds.contains(kind) {
            return refused(ReasonPrefix::Restricted, "not a kind that is kept here");
        }
        self.bytes += bytes;
        let (ingest, source) = (context.ingest.clone(), self.source.clone());
        let asking = PluginAsked::about(party, context);
        self.in_flight.push(Box::pin(async move {
            if let Some(asking) = asking
                && let Some(answer) = asking.ask(&source, &origin, &event).await
            {
                return (answer, bytes);
            }
            let verdicts = ingest.submit(&source, origin, vec![event]).await;
            (answer(id, verdicts, &terms), bytes)
        }));
        Offer::Submitted(id)
    }
}

/// What a refusal depends on besides the event.
#[derive(Debug, Clone, Copy, Default)]
struct Terms {
    is_station: bool,
    is_authenticated: bool,
    only_scope_kinds: bool,
}

/// By which door an event of this party comes in.
fn origin(
    party: &RemoteParty,
    policy: &WritePolicy,
    authenticated: &Arc<BTreeSet<PublicKey>>,
    context: &RelayContext,
) -> (Origin, Terms) {
    if party.admitted_station.is_some() {
        let origin = Origin::Peer {
            scope: context.scope(),
        };
        let terms = Terms {
            is_station: true,
            ..Terms::default()
        };
        return (origin, terms);
    }
    let writers = match policy {
        _ if party.loopback => Writers::Anyone,
        WritePolicy::Anyone => Writers::Anyone,
        WritePolicy::Loopback => Writers::Authors(Arc::new(HashSet::new())),
        WritePolicy::Authors(authors) => Writers::Authors(Arc::clone(authors)),
        WritePolicy::Scope => match &context.scope().authors {
            Some(authors) => Writers::Authors(Arc::clone(authors)),
            None => Writers::Anyone,
        },
    };
    let terms = Terms {
        is_station: false,
        is_authenticated: !authenticated.is_empty(),
        only_scope_kinds: !party.loopback && *policy == WritePolicy::Scope,
    };
    let origin = Origin::Client {
        writers,
        authenticated: Arc::clone(authenticated),
    };
    (origin, terms)
}

fn answer(id: [u8; 32], verdicts: Result<Vec<Verdict>, IngestError>, terms: &Terms) -> Answer {
    let accepted = |reason: String| Answer {
        id,
        accepted: true,
        reason,
    };
    match verdicts.as_deref() {
        Ok([Verdict::Stored | Verdict::Ephemeral]) => accepted(String::new()),
        Ok([Verdict::Duplicate]) => {
            accepted(ReasonPrefix::Duplicate.with("already have this event"))
        }
        Ok([Verdict::Rejected(rejection)]) => explain(id, *rejection, terms),
        Ok(_) => Answer::refused(id, ReasonPrefix::Error, "no verdict"),
        Err(error) => Answer::refused(id, ReasonPrefix::Error, &error.to_string()),
    }
}

fn explain(id: [u8; 32], rejection: Rejection, terms: &Terms) -> Answer {
    let (prefix, text) = match rejection {
        Rejection::BadId => (ReasonPrefix::Invalid, "the id is not the event's hash"),
        Rejection::BadSignature => (ReasonPrefix::Invalid, "bad signature"),
        Rejection::Malformed => (ReasonPrefix::Invalid, "not an event of NIP-01"),
        Rejection::TooLarge => (ReasonPrefix::Invalid, "too large"),
        Rejection::Expired => (ReasonPrefix::Invalid, "expired"),
        Rejection::Future => (ReasonPrefix::Invalid, "created_at is too far in the future"),
        Rejection::OutsideFilter => (ReasonPrefix::Invalid, "not asked for"),
        Rejection::Superseded => (ReasonPrefix::Blocked, "a newer version is stored"),
        Rejection::Deleted => (ReasonPrefix::Blocked, "deleted by its author"),
        Rejection::OutOfScope => (ReasonPrefix::Blocked, "outside what this station shares"),
        Rejection::MayNotWrite => (ReasonPrefix::Restricted, "its author may not write here"),
        Rejection::Blocked => (ReasonPrefix::Blocked, "by the operator of this relay"),
        Rejection::WritePolicy => (ReasonPrefix::Blocked, "by the policy of this relay"),
        Rejection::Protected if terms.is_station || terms.is_authenticated => {
            (ReasonPrefix::Restricted, "only its author may publish it")
        }
        Rejection::Protected => (ReasonPrefix::AuthRequired, "only its author may publish it"),
    };
    Answer::refused(id, prefix, text)
}

/// The id that something which is no event claims.
fn claimed_id(json: &str) -> Option<[u8; 32]> {
    #[derive(Deserialize)]
    struct Claim<'a> {
        #[serde(borrow)]
        id: std::borrow::Cow<'a, str>,
    }
    let claim: Claim<'_> = serde_json::from_str(json).ok()?;
    hex::decode_array(&claim.id)
}

/// A bucket that holds one minute's events and fills up evenly.
#[derive(Debug, Default)]
struct Rate {
    /// When the bucket will be full again.
    full_at: Duration,
}

impl Rate {
    fn takes_one(&mut self, per_minute: u32, now: Duration) -> bool {
        const MINUTE: Duration = Duration::from_secs(60);
        let Some(each) = MINUTE.checked_div(per_minute) else {
            return false;
        };
        let full_at = self.full_at.max(now) + each;
        let takes = full_at <= now + MINUTE;
        if takes {
            self.full_at = full_at;
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minutes_events_may_come_at_once_and_then_evenly() {
        let mut rate = Rate::default();
        let start = Duration::from_secs(1_000);
        let taken = (0..100).filter(|_| rate.takes_one(60, start)).count();
        assert_eq!(taken, 60);
        assert!(!rate.takes_one(60, start + Duration::from_millis(900)));
        assert!(rate.takes_one(60, start + Duration::from_secs(1)));
        assert!(!rate.takes_one(60, start + Duration::from_secs(1)));
        assert!(!Rate::default().takes_one(0, start), "none at all");
    }
}
