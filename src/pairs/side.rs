//! One of the two relays: an open conversation with it, and how it is asked.
//!
//! Takes an address; gives answers to negentropy messages over one slice at a time. A relay that turns out to have no
//! NIP-77 is read by windows instead, and answers from what was read. Worst case of one answer: the step deadline; by
//! windows: all that the slice holds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use constellation_reconcile::{FrameLimit, VecSet, respond};
use serde::Serialize;

use super::listing::list;
use crate::limits::RECONCILE_ROUNDS_MAX;
use crate::peer::PeerAddress;
use crate::relay_client::{Conversation, Dial, Negotiation, NostrKey};
use crate::sync::{Failure, Opened, Step, open_peer};
use crate::tasks::TaskGroup;
use crate::time::Clock;
use crate::transfer::{
    Gap, Introduction, Line, PeerLimits, Pulse, Slice, TransferError, answer_of, off_runtime,
    wants_to_know_us,
};

/// How a relay is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// By NIP-77.
    Negentropy,
    /// It lists its events, one window after the other.
    Windows,
}

/// What passed between us and one relay, over all conversations.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) rounds: AtomicU64,
    method: Mutex<Option<Method>>,
}

impl Traffic {
    /// How it is compared; `None` before that is known.
    pub(super) fn method(&self) -> Option<Method> {
        *self.method.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, method: Method) {
        *self.method.lock().unwrap_or_else(PoisonError::into_inner) = Some(method);
    }
}

/// A relay that was reached.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) address: PeerAddress,
    pub(super) limits: PeerLimits,
    conversation: Conversation,
    introduction: Introduction,
    pulse: Pulse,
    step_deadline: Duration,
    clock: Clock,
    traffic: Arc<Traffic>,
}

/// What reaching a relay takes.
#[derive(Debug, Clone)]
pub(super) struct Reaching<'r> {
    pub(super) dialer: &'r dyn Dial,
    pub(super) nostr_key: &'r NostrKey,
    pub(super) clock: &'r Clock,
    pub(super) tasks: &'r TaskGroup,
    pub(super) connect_deadline: Duration,
    pub(super) step_deadline: Duration,
}

/// Why something with one relay failed, and whether a new connection may get further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) failure: Failure,
    pub(super) is_transient: bool,
}

impl Broken {
    pub(super) fn at(step: Step, error: &TransferError) -> Self {
        Self {
            failure: Failure {
                step,
                reason: error.label().to_owned(),
                detail: error.to_string(),
            },
            is_transient: crate::sync::is_transient(error),
        }
    }
}

impl Side {
    /// Connects.
    pub(super) async fn open(
        reaching: &Reaching<'_>,
        address: &PeerAddress,
        traffic: &Arc<Traffic>,
    ) -> Result<Self, Broken> {
        let deadline = reaching.connect_deadline;
        let opened = open_peer(reaching.dialer, address, deadline, reaching.tasks).await;
        let Opened {
            conversation,
            limits,
            ..
        } = opened.map_err(|failed| Broken {
            failure: failed.failure,
            is_transient: failed.is_transient,
        })?;
        Ok(Self {
            address: address.clone(),
            limits,
            conversation,
            introduction: Introduction::new(reaching.nostr_key.clone(), address.url().clone()),
            pulse: Pulse::default(),
            step_deadline: reaching.step_deadline,
            clock: reaching.clock.clone(),
            traffic: Arc::clone(traffic),
        })
    }

    /// The way to it.
    pub(super) fn line(&self) -> Line<'_> {
        Line {
            conversation: &self.conversation,
            pulse: &self.pulse,
            introduction: &self.introduction,
            limits: &self.limits,
            step_deadline: self.step_deadline,
            clock: &self.clock,
            peer: self.address.as_str(),
        }
    }

    /// Unix seconds.
    pub(super) fn now(&self) -> u64 {
        self.clock.unix_seconds()
    }

    pub(super) fn is_read_by_windows(&self) -> bool {
        self.traffic.method() == Some(Method::Windows)
    }

    /// It has no NIP-77.
    pub(super) fn read_by_windows(&self) {
        self.traffic.learn(Method::Windows);
    }

    /// The largest negentropy message that it is sent.
    pub(super) fn frame_limit(&self) -> Result<FrameLimit, TransferError> {
        FrameLimit::new(self.limits.frame_bytes)
            .map_err(|error| TransferError::Malformed(error.to_string()))
    }

    /// Begins to ask about a slice.
    pub(super) fn about(&self, slice: Slice, ids_max: usize) -> Asking<'_> {
        Asking {
            side: self,
            slice,
            ids_max,
            session: None,
            rounds: 0,
            gaps: Vec::new(),
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let counters = self.conversation.counters();
        let Traffic {
            bytes_in,
            bytes_out,
            ..
        } = &*self.traffic;
        bytes_in.fetch_add(counters.bytes_in, Ordering::Relaxed);
        bytes_out.fetch_add(counters.bytes_out, Ordering::Relaxed);
    }
}

/// One slice of one relay, asked about by negentropy messages.
pub(super) struct Asking<'s> {
    side: &'s Side,
    slice: Slice,
    /// The most ids that may be listed by windows.
    ids_max: usize,
    session: Option<Session>,
    rounds: u64,
    /// What it could not be made to list.
    gaps: Vec<Gap>,
}

enum Session {
    Remote(Negotiation),
    /// What it listed answers in its place.
    Read(Arc<VecSet>),
}

impl Asking<'_> {
    /// The answer to a message.
    ///
    /// Cancel safety: the session is closed by dropping this.
    pub(super) async fn answer(&mut self, message: Vec<u8>) -> Result<Vec<u8>, TransferError> {
        let side = self.side;
        if self.rounds >= RECONCILE_ROUNDS_MAX {
            return Err(TransferError::TooManyRounds(self.rounds));
        }
        if self.session.is_none() && side.is_read_by_windows() {
            let (read, gaps) = list(side.line(), &self.slice, self.ids_max).await?;
            self.gaps = gaps;
            self.session = Some(Session::Read(Arc::new(read)));
        }
        let answer = match &mut self.session {
            Some(Session::Read(set)) => {
                let set = Arc::clone(set);
                off_runtime(move || {
                    respond(&*set, &message, FrameLimit::NONE)
                        .map_err(|error| TransferError::Malformed(error.to_string()))
                })
                .await?
            }
            Some(Session::Remote(negotiation)) => {
                let reply = side.line().answered(negotiation.message(&message)).await?;
                answer_of(reply, self.rounds)?
            }
            None => {
                let mut negotiation = side
                    .conversation
                    .negotiation()
                    .map_err(|busy| TransferError::Refused(busy.to_string()))?;
                let (line, filter) = (side.line(), self.slice.filter());
                let mut reply = line.answered(negotiation.open(&filter, &message)).await?;
                if wants_to_know_us(&reply) && line.authenticate().await? {
                    reply = line.answered(negotiation.open(&filter, &message)).await?;
                }
                let answer = answer_of(reply, 0)?;
                side.traffic.learn(Method::Negentropy);
                self.session = Some(Session::Remote(negotiation));
                answer
            }
        };
        self.rounds += 1;
        side.traffic.rounds.fetch_add(1, Ordering::Relaxed);
        Ok(answer)
    }

    /// Whether this is how a relay without NIP-77 answers: an error, a notice, silence or another version.
    pub(super) fn shows_no_nip77(&self, error: &TransferError) -> bool {
        match error {
            TransferError::NoNip77(_) => true,
            TransferError::Refused(_)
            | TransferError::Timeout
            | TransferError::UnknownVersion(_) => {
                self.rounds == 0 && !self.side.is_read_by_windows()
            }
            _ => false,
        }
    }

    /// What it could not be made to list of the slice.
    pub(super) fn take_gaps(&mut self) -> Vec<Gap> {
        std::mem::take(&mut self.gaps)
    }
}
