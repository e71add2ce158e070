//! The real binary's tunnels with programs that others wrote: kubo at the other end or as the carrier, and js-libp2p.
//!
//! `tests/interop/install.sh` builds and installs them. Where one is missing, its tests say so and pass; with `CI=true`
//! they fail.

#[path = "interop/astroport_scripts.rs"]
mod astroport_scripts;
#[path = "interop/beside_kubo.rs"]
mod beside_kubo;
#[path = "interop/bursts.rs"]
mod bursts;
mod common;
#[path = "interop/js_libp2p.rs"]
mod js_libp2p;
#[path = "interop/kubo.rs"]
mod kubo;
#[path = "interop/tunnels.rs"]
mod tunnels;
