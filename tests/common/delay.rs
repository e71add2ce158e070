//! A relay at a distance: the library's delaying proxy on a runtime of its own. It ends when it is dropped.

use std::time::Duration;

use constellation::distance::DelayingProxy;

/// A proxy on a free port of loopback.
#[derive(Debug)]
pub(crate) struct Distance {
    address: String,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Distance {
    /// Puts a round trip of `round_trip` between whoever dials [`Self::address`] and the relay at `relay`
    /// (`ws://127.0.0.1:…`).
    pub(crate) fn to(relay: &str, round_trip: Duration) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let target = relay.trim_start_matches("ws://");
        let proxy = runtime
            .block_on(DelayingProxy::start(target, round_trip / 2))
            .expect("a free port");
        Self {
            address: proxy.address(),
            runtime: Some(runtime),
        }
    }

    /// `ws://127.0.0.1:…`
    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
