//! A visit at a relay: whether it answers, what it says of itself, which date it gives, and whether it compares sets.

use std::time::Duration;

use nostr::filter::Filter;
use nostr::types::Timestamp;
use url::Url;

use crate::protocol::RelayInformation;
use crate::relay_client::information::fetch_dated_information_over;
use crate::relay_client::{
    ConnectOptions, Conversation, ConversationLimits, NegReply, connect, dial,
};
use crate::tasks::TaskGroup;
use crate::time::Clock;

/// For each step of a visit.
const STEP_DEADLINE: Duration = Duration::from_secs(5);
/// The first message of a set without events: version, the whole range, a list of no ids.
const EMPTY_SET: [u8; 5] = [0x61, 0, 0, 2, 0];

/// What a visit showed.
#[derive(Debug)]
pub(super) struct Visit {
    /// What it says of itself (NIP-11).
    pub(super) information: Option<RelayInformation>,
    /// How many seconds it is ahead of us.
    pub(super) ahead: Option<i64>,
}

/// Asks a relay who it is.
///
/// # Errors
/// In words: why it is not reached.
pub(super) async fn visit(url: &Url, clock: &Clock) -> Result<Visit, String> {
    let stream = dial(url, STEP_DEADLINE)
        .await
        .map_err(|error| error.to_string())?;
    let answer = fetch_dated_information_over(stream, url, STEP_DEADLINE).await;
    let now = i64::try_from(clock.unix_seconds()).unwrap_or(i64::MAX);
    let date = answer.as_ref().and_then(|answer| answer.date);
    Ok(Visit {
        ahead: date.map(|date| date.saturating_sub(now)),
        information: answer.map(|answer| answer.information),
    })
}

/// Whether a relay compares sets (NIP-77): it is asked about what is newest, and nothing is moved.
///
/// # Errors
/// In words: why it does not.
pub(super) async fn compares(url: &Url, clock: &Clock) -> Result<(), String> {
    let options = ConnectOptions {
        deadline: STEP_DEADLINE,
        as_station: false,
        ..ConnectOptions::default()
    };
    let socket = connect(url, &options)
        .await
        .map_err(|error| error.to_string())?;
    let tasks = TaskGroup::new(1);
    let conversation = Conversation::start(socket, ConversationLimits::default(), &tasks)
        .map_err(|error| error.to_string())?;
    let filter = Filter::new().since(Timestamp::from(clock.unix_seconds()));
    let mut negotiation = conversation
        .negotiation()
        .map_err(|error| error.to_string())?;
    let asked = tokio::time::timeout(STEP_DEADLINE, negotiation.open(&filter, &EMPTY_SET)).await;
    drop(negotiation);
    drop(conversation);
    tasks.end().await;
    match asked {
        Ok(Ok(NegReply::Message(_))) => Ok(()),
        Ok(Ok(NegReply::Error { text, .. } | NegReply::Notice(text))) => Err(text),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it says nothing".to_owned()),
    }
}
