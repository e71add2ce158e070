//! What runs are made with: the store, the options in force, and the state folder. One for each station.
//!
//! Whoever wants a run (the captain, the schedule) asks here. Options are read anew for each run, so a reload takes
//! effect with the next one. While a full run is in progress a captain is told `skipped`; the schedule waits its turn.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use super::attendant::Attendant;
use super::history::History;
use super::options::{Deadlines, PeerOptions, ScopeOptions, SyncRequest};
use super::outcome::RunReport;
use super::plan::{ExchangePlan, PlanError, RunPlan, plan};
use super::run::{RunContext, RunError, RunProgress, run};
use super::turn::Turns;
use crate::graph::{Graph, GraphError, GraphKeeper};
use crate::home::HomeOptions;
use crate::peer::{PeerAddress, PeerId};

/// The part of the configuration that runs depend on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SyncOptions {
    /// The configured peers.
    pub peers: Vec<PeerOptions>,
    /// The home relay: a peer of every run.
    pub home: Option<HomeOptions>,
    /// What is shared.
    pub scope: ScopeOptions,
    /// How long things may take.
    pub deadlines: Deadlines,
}

/// Whom discovery knows of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Neighbours {
    /// Peers that were found or added by a command; a configured one keeps what is configured of it.
    pub found: Vec<PeerAddress>,
    /// Who is revoked: nobody exchanges with them, though they are configured, and no live link is kept with them.
    pub out: BTreeSet<PeerId>,
}

impl Neighbours {
    /// These, but for whom is out, and then those that were found.
    fn besides(&self, configured: Vec<PeerOptions>) -> Vec<PeerOptions> {
        let is_out = |peer: &PeerOptions| {
            let station = peer.address.peer_id();
            station.is_some_and(|station| self.out.contains(&station))
        };
        let mut peers = configured;
        peers.retain(|peer| !is_out(peer));
        for address in &self.found {
            if !peers.iter().any(|peer| peer.address == *address) {
                peers.push(PeerOptions::of(address.clone()));
            }
        }
        peers
    }
}

/// What a run finds around it besides what is configured. Follows discovery.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Who there is besides those that are configured, and who of these is out.
    pub neighbours: watch::Receiver<Arc<Neighbours>>,
    /// Why nothing may be shared at present (D16): this is no longer the constellation that the events are of.
    pub halted: watch::Receiver<Option<String>>,
    /// Whose events are shared under `n2`; `None`: nobody is known.
    pub graph: Option<GraphKeeper>,
}

impl Surroundings {
    /// Of a station that finds nobody.
    pub fn none() -> Self {
        Self {
            neighbours: watch::Sender::default().subscribe(),
            halted: watch::Sender::default().subscribe(),
            graph: None,
        }
    }
}

/// Why a run that was asked for did not take place.
#[derive(Debug, thiserror::Error)]
pub enum TriggerError {
    /// It makes no sense as asked.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Whose events are to be shared cannot be found out.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The lock or the history cannot be used.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Makes runs for one station. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Runner {
    context: RunContext,
    options: watch::Receiver<Arc<SyncOptions>>,
    surroundings: Surroundings,
    /// Has a say in whether runs begin, if there is anybody.
    attendant: Option<Arc<dyn Attendant>>,
    /// Runs of this process, one at a time; the file lock says the same to other processes.
    turns: Turns,
    /// Runs that have ended.
    ended: watch::Sender<u64>,
}

impl Runner {
    /// A runner over a station's parts, with the options in force.
    pub fn new(
        context: RunContext,
        options: watch::Receiver<Arc<SyncOptions>>,
        surroundings: Surroundings,
    ) -> Self {
        Self {
            context,
            options,
            surroundings,
            attendant: None,
            turns: Turns::new(),
            ended: watch::Sender::new(0),
        }
    }

    /// The same runner, whose runs ask this one first.
    pub fn attended_by(mut self, attendant: Option<Arc<dyn Attendant>>) -> Self {
        self.attendant = attendant;
        self
    }

    /// Waits for a run in progress to end, then makes one.
    ///
    /// Cancel safety: as [`Self::trigger`].
    ///
    /// # Errors
    /// [`TriggerError`].
    pub async fn trigger_in_turn(&self, request: &SyncRequest) -> Result<RunReport, TriggerError> {
        let _turn = self.turns.in_turn(request.brief).await;
        let plan = self.plan(request).await?;
        self.carry_out(plan, |_| {}).await
    }

    /// Makes a run, if whoever has a say in it lets it begin.
    async fn carry_out(
        &self,
        plan: RunPlan,
        announce: impl FnOnce(RunProgress),
    ) -> Result<RunReport, TriggerError> {
        let asks = !plan.is_brief && !plan.dry_run;
        let attended = match self.attendant.as_ref().filter(|_| asks) {
            None => None,
            Some(attendant) => match attendant.begin(&plan).await {
                Ok(attended) => Some(attended),
                Err(why) => {
                    tracing::info!(why, "the run is left out");
                    return Ok(RunReport::skipped(&self.context, plan.dry_run));
                }
            },
        };
        let halted = self.surroundings.halted.clone();
        let report = Box::pin(run(&self.context, plan, halted, announce)).await?;
        self.ended.send_modify(|ended| *ended += 1);
        if let Some(attended) = attended {
            attended.end(&report).await;
        }
        Ok(report)
    }

    /// Plans and carries out a run; `announce` gets what follows it before it starts. Waits for a brief run in progress;
    /// gives a report that says `skipped` if a full one is.
    ///
    /// Cancel safety: what was stored stays stored; there is no report.
    ///
    /// # Errors
    /// [`TriggerError`].
    pub async fn trigger(
        &self,
        request: &SyncRequest,
        announce: impl FnOnce(RunProgress),
    ) -> Result<RunReport, TriggerError> {
        let plan = self.plan(request).await?;
        match self.turns.unless_taken().await {
            Some(_turn) => self.carry_out(plan, announce).await,
            None => Ok(RunReport::skipped(&self.context, plan.dry_run)),
        }
    }

    /// Changes whenever a run has ended; its report is in the history by then.
    pub fn ended(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    async fn plan(&self, request: &SyncRequest) -> Result<RunPlan, TriggerError> {
        // What the last run brought counts in this one.
        let graph = match &self.surroundings.graph {
            Some(keeper) => keeper.refreshed().await?,
            None => Arc::default(),
        };
        Ok(self.plan_with(request, &graph)?)
    }

    fn plan_with(&self, request: &SyncRequest, graph: &Graph) -> Result<RunPlan, PlanError> {
        if let Some(why) = self.surroundings.halted.borrow().clone() {
            return Err(PlanError::Halted(why));
        }
        let options = self.options.borrow().clone();
        let mut request = request.clone();
        let peers = self.peers();
        if !request.peers.is_empty() {
            if request.scheduled || request.brief {
                // Nobody's hand named them now.
                request.peers = still_there(request.peers, &peers)?;
            }
            if let Some(home) = &options.home {
                // Whoever else is named: what came from them is to be there too.
                request.peers.push(home.relay.clone());
            }
        }
        let plan = plan(
            &request,
            &peers,
            &options.scope,
            graph,
            options.deadlines,
            self.context.clock.unix_seconds(),
        )?;
        Ok(match &options.home {
            Some(home) => plan.with_home(home.clone()),
            None => plan,
        })
    }

    /// What a run would do with this peer now, by the graph as it was last computed.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn plan_for(&self, peer: &PeerAddress) -> Result<ExchangePlan, PlanError> {
        let request = SyncRequest {
            peers: vec![peer.clone()],
            ..SyncRequest::default()
        };
        let graph = match &self.surroundings.graph {
            Some(keeper) => keeper.graph().borrow().clone(),
            None => Arc::default(),
        };
        let mut exchanges = self.plan_with(&request, &graph)?.exchanges.into_iter();
        exchanges
            .find(|exchange| exchange.address == *peer)
            .ok_or(PlanError::NoPeers)
    }

    /// Whether a run is in progress. Looks without touching the file lock: a run that begins meanwhile must not
    /// find it held.
    pub fn is_running(&self) -> bool {
        self.turns.is_taken()
    }

    /// The home relay, the configured peers that are not revoked, then those that were found.
    pub fn peers(&self) -> Vec<PeerOptions> {
        let options = self.options.borrow().clone();
        let mut configured = options.peers.clone();
        if let Some(home) = &options.home {
            let is_home = |peer: &PeerOptions| peer.address == home.relay;
            if !configured.iter().any(is_home) {
                configured.insert(0, PeerOptions::of(home.relay.clone()));
            }
            for peer in configured.iter_mut().filter(|peer| is_home(peer)) {
                peer.is_home = true;
            }
        }
        self.surroundings.neighbours.borrow().besides(configured)
    }

    /// What past runs achieved.
    pub fn history(&self) -> History {
        History::in_folder(&self.context.state)
    }
}

/// Who was taken out of the configuration, or revoked, since a run with them became due is left alone.
fn still_there(
    mut named: Vec<PeerAddress>,
    peers: &[PeerOptions],
) -> Result<Vec<PeerAddress>, PlanError> {
    named.retain(|named| peers.iter().any(|peer| peer.address == *named));
    if named.is_empty() {
        // An empty list would mean everybody.
        return Err(PlanError::NoPeers);
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_gone_when_a_run_for_their_sake_begins_is_left_alone() {
        let [gone, there] = [(); 2].map(|()| PeerAddress::of_station(PeerId::random()));
        let peers = [PeerOptions::of(there.clone())];
        let named = still_there(vec![gone.clone(), there.clone()], &peers).expect("one is left");
        assert_eq!(named, [there]);
        let nobody = still_there(vec![gone], &peers);
        assert!(matches!(nobody, Err(PlanError::NoPeers)));
    }

    #[test]
    fn a_configured_peer_that_is_revoked_is_left_out_of_runs() {
        let [out, known, found] = [(); 3].map(|()| PeerId::random());
        let address = |peer: &PeerId| PeerAddress::of_station(*peer);
        let neighbours = Neighbours {
            found: vec![address(&known), address(&found)],
            out: [out].into(),
        };
        let configured = [out, known].map(|peer| PeerOptions::of(address(&peer)));
        let peers = neighbours.besides(configured.to_vec());
        let peers: Vec<PeerAddress> = peers.into_iter().map(|peer| peer.address).collect();
        assert_eq!(peers, [address(&known), address(&found)]);
    }
}
