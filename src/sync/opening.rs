//! From a plan to an open conversation: the connection, and what the peer says of itself meanwhile.
//!
//! Worst case: the connect deadline. What the peer says of itself is a hint: it is asked for at the same time, and never
//! waited for longer.

use std::time::Duration;

use super::exchange::ExchangeContext;
use super::outcome::{Failure, Step};
use super::peer_memory::Remembered;
use super::plan::ExchangePlan;
use crate::protocol::TextSocket;
use crate::relay_client::information::fetch_information_over;
use crate::relay_client::{
    ConnectError, ConnectOptions, Conversation, ConversationLimits, connect_over,
};
use crate::transfer::PeerLimits;

/// A peer that was reached.
pub(super) struct Opened {
    pub(super) conversation: Conversation,
    pub(super) limits: PeerLimits,
}

/// Why it was not reached, and whether another attempt may help.
pub(super) struct NotOpened {
    pub(super) failure: Failure,
    pub(super) is_transient: bool,
}

pub(super) async fn open(
    context: &ExchangeContext,
    plan: &ExchangePlan,
    remembered: &Remembered,
) -> Result<Opened, NotOpened> {
    let options = ConnectOptions {
        deadline: context.deadlines.connect,
        ..ConnectOptions::default()
    };
    let (url, deadline) = (plan.address.url(), context.deadlines.connect);
    let socket = async {
        let stream = context.dialer.dial(&plan.address, deadline).await?;
        let stream = match plan.bandwidth {
            Some(bandwidth) => bandwidth.throttle(stream),
            None => stream,
        };
        connect_over(stream, url, &options).await
    };
    let information = async {
        let stream = context.dialer.dial(&plan.address, deadline).await.ok()?;
        fetch_information_over(stream, url, deadline).await
    };
    let information = tokio::time::timeout(deadline, Box::pin(information));
    let (socket, information) = tokio::join!(within(deadline, socket), information);
    let information = information.ok().flatten();
    let failure = |reason: &str, detail: String| Failure {
        step: Step::Connect,
        reason: reason.to_owned(),
        detail,
    };
    let socket = socket.map_err(|error| NotOpened {
        failure: failure(error.label(), error.to_string()),
        is_transient: matches!(error, ConnectError::Refused | ConnectError::Network(_)),
    })?;
    let limits = PeerLimits::of(information.as_ref());
    let limits = match remembered.message_bytes_max {
        Some(bytes) => limits.with_messages_of(bytes),
        None => limits,
    };
    let limits = match plan.bandwidth {
        // A message that takes longer than an answer may would look like silence.
        Some(bandwidth) => limits.with_messages_of(bandwidth.bytes_in(context.deadlines.step / 4)),
        None => limits,
    };
    let bounds = ConversationLimits {
        requests_max: limits.requests_max,
        ..ConversationLimits::default()
    };
    let conversation = Conversation::start(socket, bounds, &context.tasks).map_err(|error| {
        let failure = failure("busy", error.to_string());
        NotOpened {
            failure,
            is_transient: true,
        }
    })?;
    Ok(Opened {
        conversation,
        limits,
    })
}

async fn within(
    deadline: Duration,
    socket: impl Future<Output = Result<TextSocket, ConnectError>>,
) -> Result<TextSocket, ConnectError> {
    tokio::time::timeout(deadline, Box::pin(socket))
        .await
        .map_err(|_| ConnectError::Timeout)?
}
