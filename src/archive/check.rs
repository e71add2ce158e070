//! The store's check, off the runtime.

use constellation_eventstore::{CheckReport, Store};

use super::export::ArchiveError;

/// Whether indexes and segments equal a rebuild from the records, and every stored event verifies.
///
/// # Errors
/// The store's.
pub async fn check(store: &Store) -> Result<CheckReport, ArchiveError> {
    let store = store.clone();
    super::export::off_runtime(move || Ok(constellation_eventstore::check(&store, true)?)).await
}
