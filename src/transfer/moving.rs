//! Looking and moving side by side: rounds of reconciling and what they lead to, over one conversation.
//!
//! Takes a transfer; gives what the reconciliation found, and counts what was moved. Fetching begins with the first
//! ids, so that neither the rounds nor the peer's answers are waited for in turn. **Nothing is offered before
//! everything was found, fetched and stored** (or the peer does not have it, or will never give it): a deletion may be
//! among it, and a relay that keeps no tombstones would take back what its author deleted. Else offering waits for a
//! later pass. Where one part fails the others end: reconciling and offering at once, fetching when what has come is
//! stored and counted. The failure told is that of the first part to fail; of several at once (a connection that
//! breaks), of the first in the order of the steps. It does not decide what comes next: see `sync::passes`.

use std::sync::{Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::download::{Fetched, download};
use super::importing::import;
use super::offering::Offering;
use super::upload::upload;
use super::{Findings, Reconciled, Tally, Transfer, TransferError, reconcile};

/// One of what goes on side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Comparing the sets.
    Reconcile,
    /// Fetching.
    Download,
    /// Offering.
    Upload,
}

/// Which part broke off, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Which.
    pub part: Part,
    /// Why.
    pub error: TransferError,
}

/// Reconciles, and moves what is found while it is found.
///
/// Cancel safety: what was moved is moved; the tally may miss the last batches.
///
/// # Errors
/// [`Failed`]; what was moved before is counted.
pub async fn look_and_move(
    transfer: &Transfer,
    findings: &Findings,
    tally: &mut Tally,
) -> Result<Reconciled, Failed> {
    let side_by_side = SideBySide::default();
    let looking = side_by_side.part(Part::Reconcile, reconcile(transfer, findings));
    let moving = move_parts(transfer, findings, tally, &side_by_side);
    let (reconciled, ()) = Box::pin(async { tokio::join!(biased; looking, moving) }).await;
    side_by_side.end()?;
    Ok(reconciled.expect("a part that neither failed nor was stopped has ended"))
}

/// Moves what was found.
///
/// Cancel safety: what was moved is moved; the tally may miss the last batches.
///
/// # Errors
/// [`Failed`]; what was moved before is counted.
pub async fn move_found(
    transfer: &Transfer,
    findings: &Findings,
    tally: &mut Tally,
) -> Result<(), Failed> {
    let side_by_side = SideBySide::default();
    Box::pin(move_parts(transfer, findings, tally, &side_by_side)).await;
    side_by_side.end()
}

async fn move_parts(
    transfer: &Transfer,
    findings: &Findings,
    tally: &mut Tally,
    side_by_side: &SideBySide,
) {
    // Both count as they go: what came before one of them fails is told like everything else.
    let tally = Mutex::new(tally);
    let fetching = async {
        if transfer.fetches {
            // It ends by itself when told, after it has settled what has come.
            let fetched = download(transfer, findings, &tally, &side_by_side.stop).await;
            side_by_side.note(Part::Download, fetched) == Some(Fetched::Whole)
                && findings.found().complete
        } else {
            true
        }
    };
    let offering = async {
        if transfer.offers {
            let offered = async {
                match &transfer.offering {
                    Offering::Events => upload(transfer, findings, &tally).await,
                    Offering::Import(writer) => {
                        import(transfer, writer.as_ref(), findings, &tally).await
                    }
                }
            };
            Box::pin(side_by_side.part(Part::Upload, offered)).await;
        }
    };
    let may_offer = fetching.await;
    // Counting does not panic.
    tally
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .offering_waited = !may_offer;
    if may_offer {
        offering.await;
    }
}

/// What ends the other parts when one fails.
#[derive(Debug, Default)]
struct SideBySide {
    stop: CancellationToken,
    failed: Mutex<Option<Failed>>,
}

impl SideBySide {
    /// Carries out a part; nothing if it failed or was stopped.
    async fn part<T>(
        &self,
        part: Part,
        work: impl Future<Output = Result<T, TransferError>>,
    ) -> Option<T> {
        let ended = self.stop.run_until_cancelled(work).await?;
        self.note(part, ended)
    }

    fn note<T>(&self, part: Part, ended: Result<T, TransferError>) -> Option<T> {
        match ended {
            Ok(value) => Some(value),
            Err(error) => {
                let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert(Failed { part, error });
                self.stop.cancel();
                None
            }
        }
    }

    fn end(self) -> Result<(), Failed> {
        let failed = self.failed.into_inner();
        failed
            .unwrap_or_else(PoisonError::into_inner)
            .map_or(Ok(()), Err)
    }
}
