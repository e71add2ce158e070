//! permessage-deflate (RFC 7692): whether a socket of ours compresses, and how.
//!
//! Takes what a client offers; gives options for `yawc`. No context is kept from one message to the next, in either
//! direction, so that a connection at rest holds nothing: what a message needs (300 KB to compress, 50 KB to expand) is
//! taken from a pool. The price, measured with real events: 37 % of the bytes are saved, not 50 %, and 42 µs are taken
//! for each, not 15. Small messages go as they are. Our own clients offer nothing: towards stations an event would take longer to
//! compress than to verify and store. What a message may expand to is bounded by the socket's limit, which the
//! library asks while it expands.

use std::sync::LazyLock;

use http::header::{HeaderMap, SEC_WEBSOCKET_EXTENSIONS};
use yawc::{DeflatePool, Options};

/// Whether a server compresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Whatever is offered.
    Never,
    /// If the client offers it.
    IfOffered,
}

/// Messages below this many bytes gain next to nothing: `OK`, `EOSE`, `AUTH`.
const COMPRESSED_BYTES_MIN: usize = 256;
/// States kept for the next message; one is in use for each of the runtime's threads at most. 3 MB at most.
const STATES_KEPT: usize = 8;

static STATES: LazyLock<DeflatePool> = LazyLock::new(|| DeflatePool::new(STATES_KEPT));

impl Compression {
    /// The options with compression as it is to be offered in answer to these headers.
    pub(super) fn options(self, options: Options, headers: &HeaderMap) -> Options {
        if self == Self::Never || demands_smaller_window(headers) {
            return options.without_compression();
        }
        options
            .with_low_latency_compression()
            .server_no_context_takeover()
            .client_no_context_takeover()
            .with_compression_threshold(COMPRESSED_BYTES_MIN)
            .with_deflate_pool(STATES.clone())
    }
}

/// A client that names the window we may use must be answered in kind, and our library's window is always whole.
fn demands_smaller_window(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter();
    offers
        .filter_map(|offer| offer.to_str().ok())
        .any(|offer| offer.contains("server_max_window_bits"))
}
