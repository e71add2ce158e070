//! Reading work of one connection: one job at a time, a slice each in turn.
//!
//! Takes requests, counts, negentropy messages and the wish to look for what is new; gives what a slice brought.
//! A job that is not done goes to the end of the line, so that none of a client's requests waits for another to be
//! complete. Ending a subscription or session takes its job out of the line. Bounded by the connection's bounds on
//! what may be open, each of which has at most one job.

use std::collections::VecDeque;
use std::sync::Arc;

use super::context::{ReadError, RelayContext};
use super::counting::{CountRequest, CountTicket};
use super::live::{LiveScan, LiveSlice};
use super::negotiation::{Session, SessionError};
use super::stored::{StoredRequest, StoredSlice};
use super::subscriptions::{Serial, Subscription};

/// Something to read.
#[derive(Debug)]
pub(super) enum Job {
    /// Stored events of a REQ.
    Stored(Box<StoredRequest>),
    /// A COUNT.
    Count(Box<CountRequest>),
    /// A negentropy message.
    Negotiate(Box<Session>),
    /// What is new, for all that listen at the time.
    Live,
}

/// What is being worked on.
#[derive(Debug)]
pub(super) enum Task {
    Stored(Box<StoredRequest>),
    Count(Box<CountRequest>),
    Negotiate(Box<Session>),
    Live(LiveScan),
}

/// What a slice brought, with what is needed to go on.
#[derive(Debug)]
pub(super) enum Outcome {
    Stored(Box<StoredRequest>, StoredSlice),
    StoredFailed(Arc<Subscription>, ReadError),
    Counted(Box<CountRequest>, Option<u64>),
    CountFailed(CountTicket, ReadError),
    Negotiated(Box<Session>, Result<Option<Vec<u8>>, SessionError>),
    Live(LiveScan, LiveSlice),
    LiveFailed(Vec<Arc<Subscription>>, ReadError),
}

impl Task {
    /// Works on one slice.
    pub(super) async fn advance(self, context: Arc<RelayContext>) -> Outcome {
        let now = context.clock.unix_seconds();
        match self {
            Self::Stored(mut request) => {
                let subscription = Arc::clone(&request.subscription);
                let read = context.read(move |store| {
                    let slice = request.advance(store, now)?;
                    Ok((request, slice))
                });
                match read.await {
                    Ok((request, slice)) => Outcome::Stored(request, slice),
                    Err(error) => Outcome::StoredFailed(subscription, error),
                }
            }
            Self::Count(mut request) => {
                let ticket = request.ticket.clone();
                let read = context.read(move |store| {
                    let count = request.advance(store, now)?;
                    Ok((request, count))
                });
                match read.await {
                    Ok((request, count)) => Outcome::Counted(request, count),
                    Err(error) => Outcome::CountFailed(ticket, error),
                }
            }
            Self::Negotiate(mut session) => {
                let answer = session.advance(&context).await;
                Outcome::Negotiated(session, answer)
            }
            Self::Live(scan) => {
                let listeners = scan.listeners.iter();
                let listeners = listeners
                    .map(|(listener, _)| Arc::clone(listener))
                    .collect();
                let read = context.read(move |store| {
                    let slice = scan.advance(store, now)?;
                    Ok((scan, slice))
                });
                match read.await {
                    Ok((scan, slice)) => Outcome::Live(scan, slice),
                    Err(error) => Outcome::LiveFailed(listeners, error),
                }
            }
        }
    }
}

/// The jobs that wait.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    line: VecDeque<Job>,
    live_waits: bool,
}

impl Jobs {
    /// Puts a job at the end of the line. Looking for what is new stands there once at most.
    pub(super) fn push(&mut self, job: Job) {
        if matches!(job, Job::Live) && std::mem::replace(&mut self.live_waits, true) {
            return;
        }
        self.line.push_back(job);
    }

    /// The next job.
    pub(super) fn pop(&mut self) -> Option<Job> {
        let job = self.line.pop_front()?;
        if matches!(job, Job::Live) {
            self.live_waits = false;
        }
        Some(job)
    }

    /// Drops what waits for a subscription or session that has ended.
    pub(super) fn forget(&mut self, serial: Serial) {
        self.line.retain(|job| match job {
            Job::Stored(request) => request.subscription.serial != serial,
            Job::Negotiate(session) => session.serial != serial,
            Job::Count(_) | Job::Live => true,
        });
    }
}
