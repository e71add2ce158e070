//! Negentropy sessions (NIP-77), as responder.
//!
//! Takes a filter and messages; gives the answer to each, in slices. A filter of kinds and times is answered from the
//! store's own sums and keeps nothing between messages; any other is queried once and its ids are held (`adhoc`).
//! What the reader may see is frozen at NEG-OPEN. The set is what a REQ would give, less what stations do not share
//! and, for readers without full rights, less private kinds unless the filter names them. What has expired is swept
//! first. Worst case of an answer: five seconds in one snapshot; for those whom we know it then goes on without one, until
//! `NEG_ANSWER_DEADLINE`, while a stranger is told to ask for less. Strangers' messages have turns (`stranger_turns`).

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use constellation_eventstore::{
    KindSet, PRIVATE_KINDS, Progress, Query, Readership, SetScope, Snapshot, Store, StoreError,
    StoredSet,
};
use constellation_reconcile::{
    Bound, FrameLimit, Item, ReconcileError, SortedSet, Summary, respond,
};
use nostr::filter::Filter;
use tokio::time::timeout;

use super::addresses::Owner;
use super::adhoc::{Evicted, HoldError, Holding};
use super::context::{ReadError, RelayContext};
use super::filter_memory::FilterHold;
use super::matching::names_private;
use super::stranger_turns::Turns;
use super::subscriptions::Serial;
use crate::limits::{NEG_ANSWER_DEADLINE, STEP_DEADLINE};
use crate::protocol::ReasonPrefix;
use crate::time::Clock;

/// Ids that one slice collects before they are counted against the bounds.
const IDS_PER_SLICE: usize = 20_000;

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) serial: Serial,
    pub(super) name: String,
    limit: FrameLimit,
    turns: Turns,
    basis: Basis,
    /// What is to be answered.
    message: Vec<u8>,
    /// What has expired is still to be swept.
    opening: bool,
    /// What its filter takes of memory.
    _held: FilterHold,
}

#[derive(Debug)]
enum Basis {
    /// The store's own sums.
    Stored(SetScope),
    /// A filter whose ids are being collected.
    Collecting(Box<Collecting>),
    /// The ids of a filter.
    Held(Arc<Holding>),
}

#[derive(Debug)]
struct Collecting {
    /// Absent only while a slice is being read.
    stage: Option<Stage>,
    holding: Arc<Holding>,
}

#[derive(Debug)]
enum Stage {
    New(Filter, Readership),
    Begun(Query),
}

/// Why a session ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SessionError {
    pub(super) reason: String,
    pub(super) cap: Option<u64>,
}

impl SessionError {
    fn new(prefix: ReasonPrefix, text: &str) -> Self {
        Self {
            reason: prefix.with(text),
            cap: None,
        }
    }

    /// A set in pieces is compared in less time: what a client does that is told `blocked:`.
    fn takes_too_long() -> Self {
        Self::new(
            ReasonPrefix::Blocked,
            "too big to be compared in time: ask for less at once",
        )
    }
}

impl From<HoldError> for SessionError {
    fn from(error: HoldError) -> Self {
        match error {
            HoldError::TooMany { ids_max } => Self {
                reason: ReasonPrefix::Blocked.with("too many query results"),
                cap: u64::try_from(ids_max).ok(),
            },
            HoldError::Evicted => {
                Self::new(ReasonPrefix::Closed, "given up to make room for others")
            }
        }
    }
}

impl From<Evicted> for SessionError {
    fn from(evicted: Evicted) -> Self {
        HoldError::from(evicted).into()
    }
}

impl From<ReadError> for SessionError {
    fn from(error: ReadError) -> Self {
        tracing::warn!(%error, "cannot answer a negentropy message");
        Self::new(ReasonPrefix::Error, "the store cannot be read")
    }
}

impl<E> From<ReconcileError<E>> for SessionError {
    fn from(error: ReconcileError<E>) -> Self {
        match error {
            ReconcileError::Malformed(what) => Self::new(ReasonPrefix::Invalid, &what.to_string()),
            _ => Self::new(ReasonPrefix::Error, "the set cannot be read"),
        }
    }
}

impl Session {
    /// A session for `filter`, with its name and first message.
    pub(super) fn open(
        serial: Serial,
        (filter, held): (Filter, FilterHold),
        (name, message): (String, Vec<u8>),
        (limit, turns, owner): (FrameLimit, Turns, Owner),
        readership: Readership,
        context: &RelayContext,
    ) -> Self {
        let basis = match stored_scope(&filter, &readership) {
            Some(scope) => Basis::Stored(scope),
            None => Basis::Collecting(Box::new(Collecting {
                stage: Some(Stage::New(filter, readership)),
                holding: Arc::new(context.hoard.open(owner)),
            })),
        };
        Self {
            serial,
            name,
            limit,
            turns,
            basis,
            message,
            opening: true,
            _held: held,
        }
    }

    /// The next message of the client.
    pub(super) fn receive(&mut self, message: Vec<u8>) {
        self.message = message;
    }

    /// Works on the message; gives the answer when there is one.
    pub(super) async fn advance(
        &mut self,
        context: &RelayContext,
    ) -> Result<Option<Vec<u8>>, SessionError> {
        if std::mem::take(&mut self.opening) {
            sweep(context).await?;
        }
        let limit = self.limit;
        let turn = self.turns.wait().await?;
        match &mut self.basis {
            Basis::Stored(scope) => {
                let (scope, message) = (scope.clone(), std::mem::take(&mut self.message));
                let patience = Patience::of(&self.turns, &context.clock);
                let read = move |store: &Store| {
                    let _turn = turn;
                    Ok(respond_stored(store, &scope, &message, limit, &patience))
                };
                context.read(read).await?.map(Some)
            }
            Basis::Held(holding) => {
                let (holding, message) = (Arc::clone(holding), std::mem::take(&mut self.message));
                let read = move |_: &Store| {
                    let _turn = turn;
                    Ok(holding
                        .set()
                        .map_err(SessionError::from)
                        .and_then(|set| Ok(respond(set.as_ref(), &message, limit)?)))
                };
                context.read(read).await?.map(Some)
            }
            Basis::Collecting(collecting) => {
                let holding = Arc::clone(&collecting.holding);
                if collecting.advance(context).await? {
                    self.basis = Basis::Held(holding);
                }
                Ok(None)
            }
        }
    }
}

/// The scope that a filter stands for, if the store keeps sums for it.
fn stored_scope(filter: &Filter, readership: &Readership) -> Option<SetScope> {
    let plain = filter.ids.is_none()
        && filter.authors.is_none()
        && filter.generic_tags.is_empty()
        && filter.limit.is_none();
    let kinds = match &filter.kinds {
        None => KindSet::all(),
        Some(kinds) => KindSet::Only(kinds.iter().map(|kind| kind.as_u16()).collect()),
    };
    let kinds = match readership {
        Readership::Full => kinds,
        // Some of them are theirs to read: only a query knows which.
        Readership::Keys(keys) if !keys.is_empty() && names_private(filter) => return None,
        Readership::Keys(_) => kinds.without(&PRIVATE_KINDS),
    };
    plain.then(|| SetScope {
        kinds,
        since: filter.since.map(|since| since.as_secs()),
        until: filter.until.map(|until| until.as_secs()),
    })
}

async fn sweep(context: &RelayContext) -> Result<(), SessionError> {
    let now = context.clock.unix_seconds();
    if !context
        .read(move |store| store.snapshot()?.needs_sweep(now))
        .await?
    {
        return Ok(());
    }
    match timeout(STEP_DEADLINE, context.ingest.sweep()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(SessionError::new(ReasonPrefix::Error, &error.to_string())),
        Err(_) => Err(SessionError::new(ReasonPrefix::Error, "the store is busy")),
    }
}

impl Collecting {
    /// Collects one slice; says whether the ids are complete and sealed.
    async fn advance(&mut self, context: &RelayContext) -> Result<bool, SessionError> {
        let now = context.clock.unix_seconds();
        // A slice that was broken off takes the query with it.
        let stage = self.stage.take().ok_or(ReadError::BrokenOff)?;
        let holding = Arc::clone(&self.holding);
        let (query, sealed) = context
            .read(move |store| {
                let snapshot = store.snapshot()?;
                let mut query = match stage {
                    Stage::New(filter, readership) => {
                        Query::new(filter, readership, &snapshot, now)
                    }
                    Stage::Begun(query) => query,
                };
                let mut items = Vec::new();
                let progress = query.advance(&snapshot, &mut |record| {
                    if record.is_shared() {
                        items.push(Item {
                            timestamp: record.created_at(),
                            id: *record.id(),
                        });
                    }
                    if items.len() < IDS_PER_SLICE {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    }
                })?;
                drop(snapshot);
                Ok((query, keep(&holding, items, progress)))
            })
            .await?;
        self.stage = Some(Stage::Begun(query));
        sealed
    }
}

fn keep(holding: &Holding, items: Vec<Item>, progress: Progress) -> Result<bool, SessionError> {
    holding.add(items)?;
    if progress == Progress::Done {
        holding.seal()?;
    }
    Ok(progress == Progress::Done)
}

/// How long an answer may be worked on.
#[derive(Debug)]
pub(super) enum Patience {
    /// For as long as one snapshot may live.
    OneSnapshot,
    /// Until then, by this clock.
    Until(Clock, Duration),
}

impl Patience {
    fn of(turns: &Turns, clock: &Clock) -> Self {
        if turns.is_of_stranger() {
            Self::OneSnapshot
        } else {
            Self::Until(clock.clone(), clock.monotonic() + NEG_ANSWER_DEADLINE)
        }
    }
}

pub(super) fn respond_stored(
    store: &Store,
    scope: &SetScope,
    message: &[u8],
    limit: FrameLimit,
    patience: &Patience,
) -> Result<Vec<u8>, SessionError> {
    let at_once = store
        .snapshot()
        .map_err(ReadError::from)
        .map(|snapshot| respond(&StoredSet::new(&snapshot, scope), message, limit))?;
    match at_once {
        Err(ReconcileError::Set(StoreError::SnapshotExpired)) => match patience {
            Patience::OneSnapshot => Err(SessionError::takes_too_long()),
            Patience::Until(clock, until) => {
                let set = RenewedSet {
                    store,
                    scope,
                    clock,
                    until: *until,
                };
                match respond(&set, message, limit) {
                    // A single look that takes seconds is too much as well.
                    Err(ReconcileError::Set(StoreError::SnapshotExpired)) => {
                        Err(SessionError::takes_too_long())
                    }
                    answered => Ok(answered?),
                }
            }
        },
        answered => Ok(answered?),
    }
}

/// The set as each single look finds it, for an answer that takes longer than one snapshot may live.
///
/// Sums of neighbouring ranges may then be of different instants; that shows as a difference that the next message
/// settles, never as equality.
struct RenewedSet<'s> {
    store: &'s Store,
    scope: &'s SetScope,
    clock: &'s Clock,
    until: Duration,
}

impl RenewedSet<'_> {
    /// A snapshot to look at, while there is time.
    fn snapshot(&self) -> Result<Snapshot<'_>, StoreError> {
        if self.clock.monotonic() >= self.until {
            return Err(StoreError::SnapshotExpired);
        }
        self.store.snapshot()
    }
}

impl SortedSet for RenewedSet<'_> {
    type Error = StoreError;

    fn summary(&self, lower: &Bound, upper: &Bound) -> Result<Summary, StoreError> {
        StoredSet::new(&self.snapshot()?, self.scope).summary(lower, upper)
    }

    fn scan(
        &self,
        lower: &Bound,
        upper: &Bound,
        visit: &mut dyn FnMut(Item) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        StoredSet::new(&self.snapshot()?, self.scope).scan(lower, upper, visit)
    }

    fn select(
        &self,
        lower: &Bound,
        upper: &Bound,
        offsets: &[u64],
    ) -> Result<Vec<Item>, StoreError> {
        StoredSet::new(&self.snapshot()?, self.scope).select(lower, upper, offsets)
    }
}
