//! Events on their way from a peer into the store, past the plugin, where the captain has it asked about them.
//!
//! Takes what would be submitted to ingest; gives the same verdicts, in the same order. What the plugin refuses is
//! [`Rejection::WritePolicy`], which the peer's overlay keeps for a day, so that it is not fetched again and again. What it
//! does not rule on is let in or [`Verdict::Undecided`], as the stated policy says. As at the relay it is asked only about
//! events that are new, genuine and may enter from there. Worst case: a few questions are under way at a time, each
//! waits for the configured time, and after a few in vain the others that came with them are not asked about any more: a plugin
//! that hangs holds up a submission once. Cancel safe in that nothing is lost; the plugin may have been asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use constellation_event::{Rejection, UnverifiedEvent};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{AskedAbout, Plugin, PluginOptions, Question, Ruling, SourceType};
use crate::ingest::{Ingest, IngestError, Origin, Source, Verdict};
use crate::limits::PLUGIN_SCREENED_AT_ONCE;
use crate::time::Clock;

/// The plugin's place on one way into the store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Screen {
    plugin: Plugin,
    about: AskedAbout,
    source_info: Arc<str>,
    clock: Clock,
}

impl Screen {
    /// Before what comes that way from the peer with this name.
    pub fn before(plugin: &Plugin, about: AskedAbout, peer: &str, clock: &Clock) -> Self {
        Self {
            plugin: plugin.clone(),
            about,
            source_info: peer.into(),
            clock: clock.clone(),
        }
    }

    /// Submits events, those that the plugin lets pass; one verdict for each, in order.
    ///
    /// # Errors
    /// [`IngestError`].
    pub async fn submit(
        &self,
        ingest: &Ingest,
        source: &Source,
        origin: Origin,
        events: Vec<UnverifiedEvent>,
    ) -> Result<Vec<Verdict>, IngestError> {
        let Some(options) = self.plugin.is_asked_about(self.about) else {
            return ingest.submit(source, origin, events).await;
        };
        let in_vain = AtomicUsize::new(0);
        // Boxed one by one: what borrows through a stream of them is more than the compiler can follow.
        let asking = events.iter().cloned().map(|event| {
            let asked = self.ask(&options, ingest, source, &origin, event, &in_vain);
            Box::pin(asked) as futures_util::future::BoxFuture<'_, _>
        });
        let asking: Vec<_> = asking.collect();
        let rulings: Vec<Option<Verdict>> = stream::iter(asking)
            .buffered(PLUGIN_SCREENED_AT_ONCE)
            .try_collect()
            .await?;
        let passing = events.into_iter().zip(&rulings);
        let passing = passing.filter_map(|(event, ruling)| ruling.is_none().then_some(event));
        let verdicts = ingest.submit(source, origin, passing.collect()).await?;
        let mut verdicts = verdicts.into_iter();
        let merged = rulings.into_iter().map(|ruling| {
            // One for each that passed.
            ruling
                .or_else(|| verdicts.next())
                .ok_or(IngestError::Closed)
        });
        merged.collect()
    }

    /// The verdict, if the event is not to go on.
    async fn ask(
        &self,
        options: &PluginOptions,
        ingest: &Ingest,
        source: &Source,
        origin: &Origin,
        event: UnverifiedEvent,
        in_vain: &AtomicUsize,
    ) -> Result<Option<Verdict>, IngestError> {
        let now = self.clock.unix_seconds();
        let (door, source, origin) = (ingest.clone(), source.clone(), origin.clone());
        let foreseen =
            tokio::task::spawn_blocking(move || door.foresee(&source, &origin, event, now)).await;
        let Some(verified) = foreseen.map_err(|_| IngestError::Closed)?? else {
            return Ok(None);
        };
        let question = Question {
            id: verified.id(),
            event: verified.json(),
            received_at: now,
            source_type: match self.about {
                AskedAbout::Runs => SourceType::Sync,
                AskedAbout::Live | AskedAbout::Stations | AskedAbout::Clients => SourceType::Stream,
            },
            source_info: self.source_info.as_ref().to_owned(),
        };
        let answer = if in_vain.load(Ordering::Relaxed) < PLUGIN_SCREENED_AT_ONCE {
            self.plugin.answer(options, &question).await
        } else {
            None
        };
        let ruling = answer.unwrap_or_else(|| {
            in_vain.fetch_add(1, Ordering::Relaxed);
            options.on_failure.ruling()
        });
        Ok(match ruling {
            Ruling::Accept => None,
            Ruling::Reject(_) | Ruling::ShadowReject => {
                Some(Verdict::Rejected(Rejection::WritePolicy))
            }
            Ruling::Unanswered => Some(Verdict::Undecided),
        })
    }
}
