//! Live links: connections that stay open between stations, so that what is new anywhere is everywhere at once (D14).
//!
//! ```text
//! peers of runs ─► keeper ─► choice (ring, pure) ─► link ─┬► arriving ─► ingest (prompt lane)
//!                    ▲                                    └► pushing  ◄─ scan of the store
//!                    │ links that others opened (relay_server)
//!                    └─► exchanges: a short one with that peer after each connecting ─► sync::Runner
//! ```
//!
//! A link is one connection, dialled by one side: over it the dialler subscribes to what is new at the other end and offers
//! what is new here. Whom a station dials follows from a ring of all it knows, so that the graph of links is connected, also
//! after any one station has gone. Invariants: nothing goes over a link that is not stored; nothing goes over it to the
//! peer that it came from, by whichever way; a relay that is no station is asked by author where that fits; at most [`LIVE_LINKS_MAX`](crate::limits::LIVE_LINKS_MAX) links with stations, dialled and accepted
//! together; a gap is closed by an exchange that is made after the link stands. Deliberately absent: comparing sets
//! (runs do), guaranteed delivery (an exchange finds what a link lost), links of commands that run alone.

mod arriving;
mod asking;
mod board;
mod by_author;
mod candidates;
mod choice;
mod exchanges;
mod happenings;
mod home_bridge;
mod keeper;
mod link;
mod listening;
mod options;
mod pushing;
mod ring;

use std::sync::Arc;

pub use board::{LinkReport, LiveBoard, LiveReport, Opened};
pub use keeper::LiveContext;
pub use options::LiveOptions;

use crate::tasks::GroupFull;

/// Tasks of live links: the keeper, the exchanges, links and their conversations, some of which are just ending.
pub const LIVE_TASKS_MAX: usize = 64;

/// Keeps live links until the context's tasks are ended.
///
/// # Errors
/// [`GroupFull`].
pub fn start(context: LiveContext) -> Result<(), GroupFull> {
    let exchanges = Arc::<exchanges::Exchanges>::default();
    let tasks = context.tasks.clone();
    let making = exchanges::make_wanted(
        Arc::clone(&exchanges),
        context.runner.clone(),
        Arc::clone(&context.board),
    );
    tasks.spawn(making)?;
    tasks.spawn(home_bridge::bridge(
        context.ingest.clone(),
        Arc::clone(&exchanges),
        context.sync_options.clone(),
        context.options.clone(),
    ))?;
    tasks.spawn(Box::pin(keeper::Keeper::new(context, exchanges).run()))?;
    Ok(())
}
