//! The graph kept current: over the store, the files and the cards, for whoever plans runs or lets events in.
//!
//! [`GraphKeeper::refreshed`] brings it up to date and gives it; whoever plans a run asks so. [`GraphKeeper::keep_current`]
//! does the same whenever something is stored or configured, a moment later, and looks at files every minute. Only one
//! works at a time; all of it runs off the runtime. Invariant: what is published follows from one state of the store, or a
//! later one. A store that cannot be read leaves the last graph in force. Worst case: the bounds of its parts, and one look
//! at each record that was stored since the last time.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use constellation_eventstore::{Sequence, StoreError};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::following::{Newest, changed_since};
use super::keys::AuthorKey;
use super::merging;
use super::options::GraphOptions;
use super::ranked::{Graph, Level, Why};
use super::ranking::{Follows, Roots};
use super::report::{self, MembersReport};
use super::sources::Sources;
use crate::ingest::Ingest;
use crate::limits::{GRAPH_GATHERS_FOR, GRAPH_LOOK_EVERY};
use crate::time::Clock;

/// Why there is no current graph.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// The store cannot be read.
    #[error("cannot read whom members follow: {0}")]
    Store(#[from] StoreError),
    /// The station is shutting down.
    #[error("the station is shutting down")]
    Closing,
}

/// Keeps one station's graph. Cheap to clone.
#[derive(Debug, Clone)]
pub struct GraphKeeper {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ingest: Ingest,
    clock: Clock,
    options: watch::Sender<Arc<GraphOptions>>,
    /// Keys of all cards; `None` while nobody has told any.
    cards: watch::Sender<Option<Arc<BTreeSet<AuthorKey>>>>,
    work: Mutex<Work>,
    graph: watch::Sender<Arc<Graph>>,
}

/// Where it is looked for changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looks {
    /// In the store, for follow lists.
    AtStore,
    /// There, and at files and cards.
    Everywhere,
}

/// What it is computed from.
#[derive(Debug)]
struct Work {
    sources: Sources,
    follows: Follows,
    /// Where the store was when it was last looked at; `None`: not yet.
    read_up_to: Option<Sequence>,
    /// What sweeping had done when the lists were read.
    swept: u64,
    /// By the last look at files and cards; `None`: not yet.
    roots: Option<Roots>,
    authors_max: usize,
    /// Whether the graph in force follows from all that is known.
    is_computed: bool,
}

impl GraphKeeper {
    /// Over a station's store; `kept` is the file in which what outlives others' files is kept. Blocks for a moment.
    pub fn new(ingest: Ingest, clock: Clock, kept: PathBuf, options: GraphOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                ingest,
                clock,
                options: watch::Sender::new(Arc::new(options)),
                cards: watch::Sender::new(None),
                work: Mutex::new(Work {
                    sources: Sources::new(kept),
                    follows: Follows::default(),
                    read_up_to: None,
                    swept: 0,
                    roots: None,
                    authors_max: 0,
                    is_computed: false,
                }),
                graph: watch::Sender::default(),
            }),
        }
    }

    /// Other options from now on.
    pub fn configure(&self, options: GraphOptions) {
        let options = Arc::new(options);
        self.shared.options.send_if_modified(|current| {
            let is_new = *current != options;
            *current = options;
            is_new
        });
    }

    /// The station and captain keys of all cards that are known.
    pub fn set_card_keys(&self, keys: BTreeSet<AuthorKey>) {
        let keys = Some(Arc::new(keys));
        self.shared.cards.send_if_modified(|current| {
            let is_new = *current != keys;
            *current = keys;
            is_new
        });
    }

    /// Changes whenever the graph does. It holds nobody before the first [`Self::refreshed`].
    pub fn graph(&self) -> watch::Receiver<Arc<Graph>> {
        self.shared.graph.subscribe()
    }

    /// The graph as it is now: files are looked at, and what was stored since is read.
    ///
    /// Cancel safety: the work goes on, and is there for the next who asks.
    ///
    /// # Errors
    /// [`GraphError`]; the last graph then stays in force.
    pub async fn refreshed(&self) -> Result<Arc<Graph>, GraphError> {
        let shared = Arc::clone(&self.shared);
        off_runtime(move || shared.refresh(Looks::Everywhere)).await
    }

    /// Keeps it current until it is dropped.
    pub async fn keep_current(self) {
        let mut published = self.shared.ingest.published();
        let mut options = self.shared.options.subscribe();
        let mut cards = self.shared.cards.subscribe();
        let mut files = interval(GRAPH_LOOK_EVERY);
        files.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let looks = tokio::select! {
                _ = files.tick() => Looks::Everywhere,
                _ = options.changed() => Looks::Everywhere,
                _ = cards.changed() => Looks::Everywhere,
                _ = published.changed() => {
                    sleep(GRAPH_GATHERS_FOR).await;
                    Looks::AtStore
                }
            };
            published.mark_unchanged();
            let shared = Arc::clone(&self.shared);
            if let Err(error) = off_runtime(move || shared.refresh(looks)).await {
                tracing::error!(%error, "the last graph stays in force");
            }
        }
    }

    /// Who is in the graph, with names: members, or `all`.
    ///
    /// # Errors
    /// [`GraphError`].
    pub async fn report(&self, all: bool) -> Result<MembersReport, GraphError> {
        let shared = Arc::clone(&self.shared);
        off_runtime(move || {
            let graph = shared.refresh(Looks::Everywhere)?;
            let now = shared.clock.unix_seconds();
            let mut newest = Newest::new(shared.ingest.store(), now);
            Ok(report::report(&graph, all, &mut newest)?)
        })
        .await
    }
}

async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, GraphError> + Send + 'static,
) -> Result<T, GraphError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failure) if failure.is_panic() => std::panic::resume_unwind(failure.into_panic()),
        Err(_) => Err(GraphError::Closing),
    }
}

impl Shared {
    fn refresh(&self, looks: Looks) -> Result<Arc<Graph>, GraphError> {
        // Its parts are whole after every step: what a panic left behind is computed again.
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        let options = Arc::clone(&self.options.borrow());
        let now = self.clock.unix_seconds();
        if looks == Looks::Everywhere || work.roots.is_none() {
            let cards = self.cards.borrow().clone();
            work.look_at_sources(&options, cards.as_deref(), now);
        }
        work.look_at_store(&self.ingest)?;
        let is_new = !work.is_computed;
        if is_new {
            let graph = work.compute(&self.ingest, now)?;
            self.publish(graph);
        }
        let graph = Arc::clone(&self.graph.borrow());
        if let Some(path) = &options.merge_into
            && (is_new || looks == Looks::Everywhere)
            && let Err(error) = work.merge(path, &graph)
        {
            tracing::warn!(path = %path.display(), %error, "the graph cannot be merged into this file");
        }
        Ok(graph)
    }

    fn publish(&self, graph: Graph) {
        self.graph.send_if_modified(|current| {
            let is_new = **current != graph;
            if is_new {
                tracing::info!(
                    members = graph.members, n1 = graph.n1, n2 = graph.n2, "the graph has changed"
                );
                if !graph.cut.is_nothing() && graph.cut != current.cut {
                    tracing::warn!(cut = ?graph.cut, "the graph is larger than its bounds: the least followed are left out");
                }
                *current = Arc::new(graph);
            }
            is_new
        });
    }
}

impl Work {
    fn look_at_sources(
        &mut self,
        options: &GraphOptions,
        cards: Option<&BTreeSet<AuthorKey>>,
        now: u64,
    ) {
        self.sources.look(options, cards, now);
        self.sources.keep();
        let roots = Some(self.sources.roots(options));
        self.is_computed &= self.roots == roots && self.authors_max == options.authors_max;
        self.roots = roots;
        self.authors_max = options.authors_max;
    }

    /// Forgets the follow lists that may have changed.
    fn look_at_store(&mut self, ingest: &Ingest) -> Result<(), StoreError> {
        let store = ingest.store();
        // Lists may have gone, be hidden, or be shown again, and nobody says whose: all are read anew.
        let swept = ingest.published().borrow().swept;
        if std::mem::replace(&mut self.swept, swept) != swept {
            self.follows = Follows::default();
            self.is_computed = false;
        }
        let after = match self.read_up_to {
            Some(after) if !self.follows.is_empty() => after,
            // No list is held: all that are needed are read anew.
            _ => {
                self.read_up_to = Some(store.snapshot()?.last_sequence());
                return Ok(());
            }
        };
        let follows = &self.follows;
        let (reached, changed) = changed_since(store, after, |author| follows.is_held(author))?;
        for author in &changed {
            self.follows.forget(author);
            self.is_computed = false;
        }
        self.read_up_to = Some(reached);
        Ok(())
    }

    fn compute(&mut self, ingest: &Ingest, now: u64) -> Result<Graph, StoreError> {
        let roots = self.roots.take().unwrap_or_default();
        let mut newest = Newest::new(ingest.store(), now);
        let ranked = self.follows.rank(&roots, self.authors_max, &mut |author| {
            newest.follows(author)
        });
        self.roots = Some(roots);
        self.is_computed = ranked.is_ok();
        ranked
    }

    /// Merges N1 and N2, as far as follow lists bring them in, into a file.
    fn merge(&mut self, path: &Path, graph: &Graph) -> std::io::Result<()> {
        let is_ours = |why: &[Why]| why.contains(&Why::Followed);
        let authors = graph.ranked.iter();
        let keys: BTreeSet<AuthorKey> = authors
            .filter(|author| author.level != Level::Member && is_ours(&author.why.list()))
            .map(|author| author.key)
            .collect();
        let text = merging::read(path)?;
        let merged = merging::merge(&text, &keys, self.sources.merged());
        if merged.is_new {
            self.sources.set_merged(merged.ours)?;
            merging::write(path, &merged.text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
