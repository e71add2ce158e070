//! From a plan to an open conversation: the connection, and what the peer says of itself meanwhile.
//!
//! Worst case: the connect deadline. What the peer says of itself is a hint: it is asked for at the same time, and never
//! waited for longer.

use std::time::Duration;

use super::exchange::ExchangeContext;
use super::outcome::{Failure, Step};
use super::peer_memory::Remembered;
use super::plan::ExchangePlan;
use crate::peer::{Bandwidth, PeerAddress, PeerId};
use crate::protocol::TextSocket;
use crate::relay_client::information::fetch_information_over;
use crate::relay_client::{
    ConnectError, ConnectOptions, Conversation, ConversationLimits, Dial, Dialling, connect_over,
};
use crate::tasks::TaskGroup;
use crate::transfer::PeerLimits;

/// A peer that was reached.
pub(crate) struct Opened {
    pub(crate) conversation: Conversation,
    pub(crate) limits: PeerLimits,
    /// Which station it is: proved by the tunnel, or as it says of itself.
    pub(crate) station: Option<PeerId>,
}

impl Opened {
    /// With what it was found to take, if anything was.
    fn with_learnt(self, message_bytes: Option<usize>) -> Self {
        let Some(bytes) = message_bytes else {
            return self;
        };
        Self {
            limits: self.limits.with_learnt(bytes),
            ..self
        }
    }
}

/// Why it was not reached, and whether another attempt may help.
pub(crate) struct NotOpened {
    pub(crate) failure: Failure,
    pub(crate) is_transient: bool,
}

pub(super) async fn open(
    context: &ExchangeContext,
    plan: &ExchangePlan,
    remembered: &Remembered,
) -> Result<Opened, NotOpened> {
    let deadline = context.deadlines.connect;
    let learnt = remembered.message_bytes_at(context.clock.unix_seconds());
    let Some(bandwidth) = plan.bandwidth else {
        let opened = open_peer(&*context.dialer, &plan.address, deadline, &context.tasks).await?;
        return Ok(opened.with_learnt(learnt));
    };
    let dialer = Throttled {
        dialer: &*context.dialer,
        bandwidth,
    };
    // A message that takes longer than an answer may would look like silence.
    let in_time = bandwidth.bytes_in(context.deadlines.step / 4);
    let opened = open_peer(&dialer, &plan.address, deadline, &context.tasks).await?;
    let opened = opened.with_learnt(learnt);
    Ok(Opened {
        limits: opened.limits.with_messages_of(in_time),
        ..opened
    })
}

/// Opens a conversation with whoever is at `address`.
///
/// Cancel safe.
///
/// # Errors
/// [`NotOpened`].
pub(crate) async fn open_peer(
    dialer: &dyn Dial,
    address: &PeerAddress,
    deadline: Duration,
    tasks: &TaskGroup,
) -> Result<Opened, NotOpened> {
    let options = ConnectOptions {
        deadline,
        ..ConnectOptions::default()
    };
    let url = address.url();
    let socket = async {
        let stream = dialer.dial(address, deadline).await?;
        connect_over(stream, url, &options).await
    };
    let information = async {
        let stream = dialer.dial(address, deadline).await.ok()?;
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
    let says = information.and_then(|document| document.constellation?.peer_id);
    let station = address
        .peer_id()
        .or_else(|| says.and_then(|says| says.parse().ok()));
    let bounds = ConversationLimits {
        requests_max: limits.requests_max,
        ..ConversationLimits::default()
    };
    let conversation = Conversation::start(socket, bounds, tasks).map_err(|error| {
        let failure = failure("busy", error.to_string());
        NotOpened {
            failure,
            is_transient: true,
        }
    })?;
    Ok(Opened {
        conversation,
        limits,
        station,
    })
}

/// Dials, and holds what it dialled to a bandwidth.
#[derive(Debug)]
struct Throttled<'d> {
    dialer: &'d dyn Dial,
    bandwidth: Bandwidth,
}

impl Dial for Throttled<'_> {
    fn dial<'d>(&'d self, address: &'d PeerAddress, deadline: Duration) -> Dialling<'d> {
        Box::pin(async move {
            let stream = self.dialer.dial(address, deadline).await?;
            Ok(self.bandwidth.throttle(stream))
        })
    }
}

async fn within(
    deadline: Duration,
    socket: impl Future<Output = Result<TextSocket, ConnectError>>,
) -> Result<TextSocket, ConnectError> {
    tokio::time::timeout(deadline, Box::pin(socket))
        .await
        .map_err(|_| ConnectError::Timeout)?
}
