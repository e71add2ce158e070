//! What stations may push to us: the scope that is configured, with the graph as it is at the moment.
//!
//! Takes the options in force and the graph, both watched; gives the scope, watched. A change of either is in force a
//! moment later. Decides nothing about runs: these have plans of their own (`sync`).

use std::sync::Arc;

use tokio::sync::watch;

use super::station::{Station, StationError};
use crate::graph::Graph;
use crate::ingest::Scope;
use crate::sync::{AuthorsSpec, SyncOptions};

impl Station {
    /// Reads the graph and keeps it current for as long as the station is open.
    ///
    /// # Errors
    /// [`StationError::Start`].
    pub async fn start_graph(&self) -> Result<(), StationError> {
        let start =
            |error: &dyn std::fmt::Display| StationError::Start(format!("the graph: {error}"));
        let graph = self
            .graph()
            .refreshed()
            .await
            .map_err(|error| start(&error))?;
        let shares_n2 = self.sync_options().borrow().scope.authors == Some(AuthorsSpec::N2);
        if shares_n2 && graph.members == 0 {
            tracing::warn!(
                "n2 is shared, but no member is known: nothing is taken from anybody until there is one ([scope] members)"
            );
        }
        let keeping = self.graph().clone().keep_current();
        self.tasks().spawn(keeping).map_err(|error| start(&error))?;
        Ok(())
    }

    /// The scope, followed.
    ///
    /// # Errors
    /// [`StationError::Start`].
    pub(super) fn follow_scope(&self) -> Result<watch::Receiver<Arc<Scope>>, StationError> {
        let (options, graph) = (self.sync_options(), self.graph().graph());
        let scope = watch::Sender::new(shared(&options, &graph));
        let told = scope.subscribe();
        self.tasks()
            .spawn(follow(options, graph, scope))
            .map_err(|error| StationError::Start(error.to_string()))?;
        Ok(told)
    }
}

fn shared(
    options: &watch::Receiver<Arc<SyncOptions>>,
    graph: &watch::Receiver<Arc<Graph>>,
) -> Arc<Scope> {
    Arc::new(options.borrow().scope.shared(&graph.borrow()))
}

async fn follow(
    mut options: watch::Receiver<Arc<SyncOptions>>,
    mut graph: watch::Receiver<Arc<Graph>>,
    scope: watch::Sender<Arc<Scope>>,
) {
    loop {
        options.mark_unchanged();
        graph.mark_unchanged();
        scope.send_replace(shared(&options, &graph));
        tokio::select! {
            changed = options.changed() => if changed.is_err() { return },
            changed = graph.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::ScopeOptions;
    use crate::tasks::TaskGroup;

    #[tokio::test]
    async fn the_scope_follows_the_options_and_the_graph() {
        let sharing = |authors| {
            Arc::new(SyncOptions {
                scope: ScopeOptions {
                    authors,
                    ..ScopeOptions::default()
                },
                ..SyncOptions::default()
            })
        };
        let of = |key: u8| {
            Arc::new(Graph {
                authors: Arc::new([[key; 32]].into()),
                members: 1,
                ..Graph::default()
            })
        };
        let (options, graph) = (watch::Sender::new(sharing(None)), watch::Sender::new(of(1)));
        let scope = watch::Sender::new(shared(&options.subscribe(), &graph.subscribe()));
        let mut told = scope.subscribe();
        let tasks = TaskGroup::new(1);
        tasks
            .spawn(follow(options.subscribe(), graph.subscribe(), scope))
            .unwrap();
        assert_eq!(told.borrow_and_update().authors, None);
        options.send_replace(sharing(Some(AuthorsSpec::N2)));
        let covers = |key: u8| {
            move |scope: &Arc<Scope>| scope.authors.is_some() && scope.covers(1, &[key; 32])
        };
        told.wait_for(covers(1)).await.unwrap();
        graph.send_replace(of(2));
        told.wait_for(covers(2)).await.unwrap();
        assert!(!told.borrow().covers(1, &[1; 32]));
        tasks.end().await;
    }
}
