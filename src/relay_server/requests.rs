//! What a client's requests start, and what is done with what was read for them.
//!
//! Takes REQ, COUNT, CLOSE and the NEG messages; gives jobs, and frames when slices come back. Checks rights and
//! bounds before anything is started. Invariant: an outcome counts only while the subscription or session that it
//! was read for is the one that is open, so nothing is sent after CLOSE or for what was replaced.

use std::sync::Arc;

use constellation_reconcile::FrameLimit;
use nostr::filter::Filter;

use super::addresses::Owner;
use super::connection::{Connection, SessionSlot};
use super::context::ReadError;
use super::counting::{CountRequest, CountTicket};
use super::filter_memory::{FilterHold, FiltersRefused};
use super::jobs::{Job, Outcome, Task};
use super::links::{LinkGuard, LinksFull};
use super::live::{LiveScan, LiveSlice};
use super::matching::asks_only_private;
use super::negotiation::{Session, SessionError};
use super::stored::{StoredRequest, StoredSlice};
use super::subscriptions::Subscription;
use crate::limits::{FRAME_BYTES_OTHER, FRAME_BYTES_STATION};
use crate::protocol::ReasonPrefix;
use crate::protocol::relay_message::{
    encode_closed, encode_count, encode_end_of_stored, encode_neg_error, encode_neg_message,
};

impl Connection {
    /// REQ
    pub(super) fn request(&mut self, name: String, filters: Vec<Filter>, bytes: usize) {
        self.end_subscription(&name);
        let open = self.subscriptions.len();
        let has_room = open < self.context.options().subscriptions_max;
        let asked = self.may_ask(&filters, bytes).and_then(|held| {
            let full = || ReasonPrefix::Blocked.with("too many subscriptions");
            has_room.then_some(held).ok_or_else(full)
        });
        let held = match asked {
            Ok(held) => held,
            Err(reason) => return self.say(encode_closed(&name, &reason)),
        };
        let guard = match self.enter_as_live_link(&filters) {
            Ok(guard) => guard,
            Err(LinksFull) => {
                let reason = ReasonPrefix::Blocked.with("as many live links as there may be");
                return self.say(encode_closed(&name, &reason));
            }
        };
        let subscription = Arc::new(Subscription {
            serial: self.serial(),
            name,
            filters,
            _held: held,
            link: guard.as_ref().map(|guard| Arc::clone(&guard.link)),
        });
        if let Some(guard) = guard {
            self.live_link = Some((Arc::clone(&subscription), guard));
        }
        self.subscriptions.insert(Arc::clone(&subscription));
        let readership = self.authentication.readership().clone();
        let request = StoredRequest::new(subscription, readership);
        self.jobs.push(Job::Stored(Box::new(request)));
    }

    /// A place among the live links, if a station asks for nothing but what is new; a connection is one at most.
    fn enter_as_live_link(&self, filters: &[Filter]) -> Result<Option<LinkGuard>, LinksFull> {
        let only_new = !filters.is_empty() && filters.iter().all(|filter| filter.limit == Some(0));
        if !only_new || self.live_link.is_some() || !self.visitor.is_trusted_station() {
            return Ok(None);
        }
        let now = self.context.clock.unix_seconds();
        let station = self.visitor.station;
        self.context.links.enter(station, now).map(Some)
    }

    /// The live link has to go: whoever opened it finds another, or comes again.
    pub(super) fn close_live_link(&mut self) {
        if let Some((subscription, _)) = self.live_link.take() {
            self.end_subscription(&subscription.name);
            let reason = ReasonPrefix::Blocked.with("this live link is not kept any more");
            self.say(encode_closed(&subscription.name, &reason));
        }
    }

    /// COUNT
    pub(super) fn count(&mut self, name: String, filters: Vec<Filter>, bytes: usize) {
        let has_room = self.counts < self.context.options().subscriptions_max;
        let asked = self.may_ask(&filters, bytes).and_then(|held| {
            let full = || ReasonPrefix::Blocked.with("too many counts at a time");
            has_room.then_some(held).ok_or_else(full)
        });
        let held = match asked {
            Ok(held) => Arc::new(held),
            Err(reason) => return self.say(encode_closed(&name, &reason)),
        };
        self.counts += 1;
        let readership = self.authentication.readership().clone();
        let request = CountRequest::new(CountTicket { name, _held: held }, filters, readership);
        self.jobs.push(Job::Count(Box::new(request)));
    }

    /// Rights and bounds of anything that has filters; counts them.
    fn may_ask(&self, filters: &[Filter], bytes: usize) -> Result<FilterHold, String> {
        if filters.iter().any(|filter| filter.search.is_some()) {
            return Err(ReasonPrefix::Unsupported.with("search"));
        }
        if filters.iter().any(asks_only_private) && !self.authentication.may_ask_for_private() {
            return Err(ReasonPrefix::AuthRequired.with("direct messages are for those involved"));
        }
        self.filters
            .hold(filters, bytes)
            .map_err(FiltersRefused::reason)
    }

    /// CLOSE, or a REQ of the same name.
    pub(super) fn end_subscription(&mut self, name: &str) {
        if let Some(serial) = self.subscriptions.remove(name) {
            self.jobs.forget(serial);
            self.live_link.take_if(|(link, _)| link.serial == serial);
        }
    }

    /// NEG-OPEN
    pub(super) fn open_session(
        &mut self,
        name: String,
        filter: Filter,
        message: Vec<u8>,
        bytes: usize,
    ) {
        self.end_session(&name);
        let asked = if self.sessions.len() >= self.context.options().negentropy_sessions_max {
            Err(ReasonPrefix::Blocked.with("too many negentropy sessions"))
        } else {
            // What is in the message besides the filter is not kept.
            let bytes = bytes.saturating_sub(2 * message.len());
            self.may_ask(std::slice::from_ref(&filter), bytes)
        };
        let held = match asked {
            Ok(held) => held,
            Err(reason) => return self.say(encode_neg_error(&name, &reason, None)),
        };
        let frame_bytes = if self.visitor.is_station {
            FRAME_BYTES_STATION
        } else {
            FRAME_BYTES_OTHER
        };
        if self.visit.is_none() && self.visitor.party.admitted_station.is_some() {
            let visitors = &self.context.visitors;
            self.visit = self.visitor.station.map(|station| visitors.enter(station));
        }
        let limit = FrameLimit::new(frame_bytes).expect("both are far above the minimum");
        let serial = self.serial();
        let session = Session::open(
            serial,
            (filter, held),
            (name.clone(), message),
            (limit, self.turns.clone(), Owner::of(&self.visitor.party)),
            self.authentication.readership().clone(),
            &self.context,
        );
        self.sessions.insert(name, SessionSlot::Busy(serial));
        self.jobs.push(Job::Negotiate(Box::new(session)));
    }

    /// NEG-MSG
    pub(super) fn continue_session(&mut self, name: String, message: Vec<u8>) {
        match self.sessions.remove(&name) {
            None => {
                let reason = ReasonPrefix::Closed.with("unknown subscription handle");
                self.say(encode_neg_error(&name, &reason, None));
            }
            Some(SessionSlot::Busy(serial)) => {
                self.jobs.forget(serial);
                let reason = ReasonPrefix::Invalid.with("a message before the answer to the last");
                self.say(encode_neg_error(&name, &reason, None));
            }
            Some(SessionSlot::Idle(mut session)) => {
                session.receive(message);
                self.sessions
                    .insert(name, SessionSlot::Busy(session.serial));
                self.jobs.push(Job::Negotiate(session));
            }
        }
    }

    /// NEG-CLOSE, or a NEG-OPEN of the same name.
    pub(super) fn end_session(&mut self, name: &str) {
        if let Some(SessionSlot::Busy(serial)) = self.sessions.remove(name) {
            self.jobs.forget(serial);
        }
    }

    /// Something may be new for those that listen.
    pub(super) fn look_for_news(&mut self) {
        if self.subscriptions.is_anyone_listening() {
            self.jobs.push(Job::Live);
        }
    }

    /// What to read next, if there is anything.
    pub(super) fn next_task(&mut self) -> Option<super::connection::Reading> {
        let task = match self.jobs.pop()? {
            Job::Stored(request) => Task::Stored(request),
            Job::Count(request) => Task::Count(request),
            Job::Negotiate(session) => Task::Negotiate(session),
            Job::Live => Task::Live(LiveScan {
                listeners: self.subscriptions.listeners(),
                readership: self.authentication.readership().clone(),
            }),
        };
        Some(Box::pin(task.advance(Arc::clone(&self.context))))
    }

    /// Sends what a slice brought, and puts what is not done back into the line.
    pub(super) fn take_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Stored(request, slice) => self.take_stored(request, slice),
            Outcome::StoredFailed(subscription, error) => self.fail(&subscription, &error),
            Outcome::Counted(request, None) => self.jobs.push(Job::Count(request)),
            Outcome::Counted(request, Some(count)) => {
                self.counts -= 1;
                self.say(encode_count(&request.ticket.name, count));
            }
            Outcome::CountFailed(ticket, error) => {
                self.counts -= 1;
                self.say(encode_closed(&ticket.name, &unreadable(&error)));
            }
            Outcome::Negotiated(session, answer) => self.take_negotiated(session, answer),
            Outcome::Live(scan, slice) => self.take_live(&scan, slice),
            Outcome::LiveFailed(listeners, error) => {
                for subscription in listeners {
                    self.fail(&subscription, &error);
                }
            }
        }
    }

    fn take_stored(&mut self, request: Box<StoredRequest>, slice: StoredSlice) {
        if !self.subscriptions.is_open(&request.subscription) {
            return;
        }
        for frame in slice.frames {
            self.outbox.push(frame);
        }
        if slice.done {
            self.say(encode_end_of_stored(&request.subscription.name));
            self.subscriptions
                .listen(&request.subscription, request.position());
            self.look_for_news();
        } else {
            self.jobs.push(Job::Stored(request));
        }
    }

    fn take_live(&mut self, scan: &LiveScan, slice: LiveSlice) {
        for (index, frame) in slice.frames {
            if self.subscriptions.is_open(&scan.listeners[index].0) {
                self.outbox.push(frame);
            }
        }
        for (subscription, _) in &scan.listeners {
            self.subscriptions.told(subscription, slice.reached);
        }
        for index in slice.behind {
            let (subscription, _) = &scan.listeners[index];
            if self.subscriptions.is_open(subscription) {
                self.end_subscription(&subscription.name);
                let reason = ReasonPrefix::RateLimited
                    .with("more is new than a live link carries: reconcile");
                self.say(encode_closed(&subscription.name, &reason));
            }
        }
        if !slice.finished {
            self.look_for_news();
        }
    }

    fn take_negotiated(
        &mut self,
        session: Box<Session>,
        answer: Result<Option<Vec<u8>>, SessionError>,
    ) {
        let current = matches!(
            self.sessions.get(&session.name),
            Some(SessionSlot::Busy(serial)) if *serial == session.serial
        );
        if !current {
            return;
        }
        match answer {
            Ok(None) => self.jobs.push(Job::Negotiate(session)),
            Ok(Some(message)) => {
                self.say(encode_neg_message(&session.name, &message));
                self.sessions
                    .insert(session.name.clone(), SessionSlot::Idle(session));
            }
            Err(error) => {
                self.sessions.remove(&session.name);
                self.say(encode_neg_error(&session.name, &error.reason, error.cap));
            }
        }
    }

    /// A subscription that cannot be answered is closed rather than left with a gap.
    fn fail(&mut self, subscription: &Subscription, error: &ReadError) {
        if self.subscriptions.is_open(subscription) {
            self.end_subscription(&subscription.name);
            self.say(encode_closed(&subscription.name, &unreadable(error)));
        }
    }
}

fn unreadable(error: &ReadError) -> String {
    tracing::warn!(%error, "cannot answer a request");
    ReasonPrefix::Error.with("the store cannot be read")
}
