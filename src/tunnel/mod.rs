//! Reaching other stations. So far only the station's identity lives here: the one module that names libp2p.

mod identity;

pub use identity::{Identity, IdentityError};
