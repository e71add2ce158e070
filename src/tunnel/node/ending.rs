//! That a node has ended is seen, however it ended.
//!
//! Takes the driver's work and where the state is published; when the work is over (the node was dropped, its task
//! group ended, or the driver panicked) nobody is shown as connected any more, and the state says so. Deliberately
//! absent: starting it again, which would need what went wrong to be known. Worst case: none.

use std::sync::Arc;

use tokio::sync::watch;

use crate::tunnel::CarrierState;

/// What an ended node says, also to those who want a stream.
pub(super) const ENDED: &str = "the libp2p node has ended";

/// Does the work, and says when it is over.
pub(super) async fn to_the_end(
    work: impl Future<Output = ()>,
    state: watch::Sender<Arc<CarrierState>>,
) {
    let _farewell = Farewell(state);
    work.await;
}

/// Says so when dropped: a panic passes here too, and so does being cancelled.
struct Farewell(watch::Sender<Arc<CarrierState>>);

impl Drop for Farewell {
    fn drop(&mut self) {
        let mut problem = ENDED.to_owned();
        if std::thread::panicking() {
            problem.push_str(" by a fault of its own; restart the station");
            tracing::error!("{problem}");
        } else {
            tracing::debug!("{problem}");
        }
        self.0.send_modify(|state| {
            let state = Arc::make_mut(state);
            state.links.clear();
            state.problem = Some(problem);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::TaskGroup;
    use crate::tunnel::CarrierKind;

    async fn problem_after(work: impl Future<Output = ()> + Send + 'static) -> String {
        let tasks = TaskGroup::new(1);
        let (publish, mut state) = watch::channel(Arc::new(CarrierState::new(CarrierKind::Libp2p)));
        drop(tasks.spawn(to_the_end(work, publish)).expect("room"));
        let ended = state.wait_for(|state| state.problem.is_some()).await;
        ended.expect("said").problem.clone().expect("a problem")
    }

    #[tokio::test]
    async fn a_node_that_fails_or_ends_says_so() {
        let fails = problem_after(async { panic!("a fault") }).await;
        assert!(
            fails.contains(ENDED) && fails.contains("restart"),
            "{fails}"
        );
        assert_eq!(problem_after(async {}).await, ENDED);
    }
}
