//! Failures to connect, in words for captains.
//!
//! Takes libp2p's errors; gives a short text that names at most [`ADDRESSES_NAMED`] addresses.

use std::error::Error;

use libp2p::swarm::DialError;

/// Addresses in one message; the rest is counted.
const ADDRESSES_NAMED: usize = 4;

/// What came of dialling.
pub(super) fn dial_error(error: &DialError) -> String {
    match error {
        DialError::Transport(tried) => {
            let named = tried.iter().take(ADDRESSES_NAMED).map(|(address, why)| {
                let why = innermost(why);
                format!("{address}: {why}")
            });
            let mut text = named.collect::<Vec<_>>().join("; ");
            if tried.len() > ADDRESSES_NAMED {
                text.push_str(&format!("; and {} more", tried.len() - ADDRESSES_NAMED));
            }
            text
        }
        DialError::WrongPeerId { obtained, address } => {
            format!("{address}: another station answers there, {obtained}")
        }
        DialError::LocalPeerId { address } => format!("{address}: that is this station itself"),
        DialError::Denied { cause } => innermost(cause),
        DialError::NoAddresses => "no address is known".to_owned(),
        DialError::Aborted | DialError::DialPeerConditionFalse(_) => "given up".to_owned(),
    }
}

/// The last of the causes: those above it only say in which layer it happened.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
