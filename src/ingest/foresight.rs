//! Whether an event would reach the writer, asked before it is submitted.
//!
//! For those who must know before an event is stored that it is genuine and wanted: a write policy plugin is asked about
//! nothing else. Blocks: it is called off the runtime's threads. It decides nothing; whoever gets no event submits as
//! ever, and gets the verdict.

use constellation_event::{UnverifiedEvent, VerifiedEvent};
use constellation_eventstore::StoreError;

use super::origin::Origin;
use super::pipeline::Ingest;
use super::source::Source;
use super::stages;

impl Ingest {
    /// The event, verified, if it is neither known nor forged and may enter from there at `now` (Unix seconds).
    ///
    /// # Errors
    /// The store's.
    pub fn foresee(
        &self,
        source: &Source,
        origin: &Origin,
        event: UnverifiedEvent,
        now: u64,
    ) -> Result<Option<VerifiedEvent>, StoreError> {
        let submitted = stages::Submitted {
            events: vec![event.clone()],
            origin: origin.clone(),
            source: source.clone(),
        };
        if stages::is_decided(self.store(), submitted, now)? {
            return Ok(None);
        }
        let genuine = event.verify().ok();
        Ok(genuine.filter(|event| origin.check(event, now).is_ok()))
    }
}
