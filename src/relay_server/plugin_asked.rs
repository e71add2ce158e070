//! The write policy plugin's part in an EVENT.
//!
//! Takes an event that is about to be submitted; gives an answer if it is not to be, nothing if it goes on. The plugin is
//! asked only about events that are new, genuine and may enter from there: it may have side effects that money depends on.
//! So they are verified twice, once for it and once at the door, which the plugin's own time dwarfs. (What only the writer
//! finds out, that its author deleted or superseded it, it finds out afterwards, as in strfry.) Those about which it is
//! not asked go on, and get their verdict at the door.

use std::sync::Arc;

use constellation_event::UnverifiedEvent;

use super::context::{RelayContext, RemoteParty};
use super::publish::Answer;
use crate::ingest::{Origin, Source};
use crate::plugin::{AskedAbout, Plugin, PluginOptions, Question, Ruling, SourceType};
use crate::protocol::ReasonPrefix;

/// The plugin, about to be asked about an event of one party.
pub(super) struct PluginAsked {
    plugin: Plugin,
    options: Arc<PluginOptions>,
    context: Arc<RelayContext>,
    source_type: SourceType,
    source_info: String,
}

impl PluginAsked {
    /// If there is a plugin, and it is to be asked about events of this party.
    pub(super) fn about(party: &RemoteParty, context: &Arc<RelayContext>) -> Option<Self> {
        let plugin = context.plugin.as_ref()?;
        let about = match party.admitted_station {
            Some(_) => AskedAbout::Stations,
            None => AskedAbout::Clients,
        };
        let options = plugin.is_asked_about(about)?;
        let address = party.address.map(|address| address.ip().to_canonical());
        let (source_type, source_info) = match (&party.admitted_station, address) {
            (Some(station), _) => (SourceType::Stream, station.clone()),
            (None, Some(address)) if address.is_ipv6() => (SourceType::Ip6, address.to_string()),
            (None, Some(address)) => (SourceType::Ip4, address.to_string()),
            (None, None) => (SourceType::Ip4, String::new()),
        };
        Some(Self {
            plugin: plugin.clone(),
            options,
            context: Arc::clone(context),
            source_type,
            source_info,
        })
    }

    /// Asks. Cancel safe in that nothing is stored; the plugin may have been asked.
    pub(super) async fn ask(
        self,
        source: &Source,
        origin: &Origin,
        event: &UnverifiedEvent,
    ) -> Option<Answer> {
        let now = self.context.clock.unix_seconds();
        let (ingest, id) = (self.context.ingest.clone(), event.id());
        let (source, origin, event) = (source.clone(), origin.clone(), event.clone());
        let foreseen = self
            .context
            .read(move |_| ingest.foresee(&source, &origin, event, now))
            .await;
        let verified = match foreseen {
            Ok(verified) => verified?,
            Err(error) => {
                let why = error.to_string();
                return Some(Answer::refused(id, ReasonPrefix::Error, &why));
            }
        };
        let question = Question {
            id,
            event: verified.json(),
            received_at: now,
            source_type: self.source_type,
            source_info: self.source_info,
        };
        match self.plugin.ask(&self.options, &question).await {
            Ruling::Accept => None,
            Ruling::Reject(message) => {
                // strfry's plugins bring the prefix themselves, as a rule.
                let known = ReasonPrefix::parse(&message);
                let has_prefix = !matches!(known, ReasonPrefix::Other | ReasonPrefix::Policy);
                let reason = if has_prefix {
                    message
                } else {
                    ReasonPrefix::Blocked.with(&message)
                };
                Some(Answer {
                    id,
                    accepted: false,
                    reason,
                })
            }
            Ruling::ShadowReject => Some(Answer {
                id,
                accepted: true,
                reason: String::new(),
            }),
            Ruling::Unanswered => Some(Answer::refused(
                id,
                ReasonPrefix::Error,
                "the write policy does not answer; try again later",
            )),
        }
    }
}
