//! How bytes get to other stations: TCP or QUIC, through relays, and in memory for tests.
//!
//! TCP, circuits and memory: the pre-shared key (if any) on the raw socket, then TLS or Noise, then Yamux. kubo wraps
//! circuits in the key as well, so we do. With a key there is no QUIC. Invariant: no connection is handed on before its PeerID is
//! proved. Worst case: whoever connects and says nothing is gone after [`CONNECT_DEADLINE`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::transport::{Boxed, MemoryTransport};
use libp2p::core::upgrade::Version;
use libp2p::futures::future::Either;
use libp2p::futures::io::BufReader;
use libp2p::futures::{AsyncRead, AsyncWrite};
use libp2p::identity::Keypair;
use libp2p::pnet::PnetConfig;
use libp2p::{Transport, dns, quic, relay, tcp, yamux};

use super::security::{NoSecurity, Security};
use super::streams::Door;
use crate::tunnel::PeerId;

/// How long connecting may take, all handshakes included. Less than whoever wants a stream waits (ten seconds): a reason
/// that comes when they have given up is told to nobody.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(8);
/// Streams of one Yamux connection, both directions together: beyond them the whole connection closes. Room for what
/// the door allows each way and the node's own; 256 KiB of the connection's 1 GiB are set aside for each, so that many
/// more would leave no room for windows to grow, which is what makes distant transfers fast.
const STREAMS_WIDE: usize = 2_304;
/// The same for whoever is neither admitted nor wanted: 8 MiB of unread bytes at most.
const STREAMS_NARROW: usize = 32;
/// Streams of one QUIC connection that the peer may have open at a time: also a stranger, since they are allowed before
/// it is known who it is. How many strangers may have one is for the gate.
const QUIC_STREAMS: u32 = 1_152;
/// Taken from a socket at once. TLS asks for 4 KiB at a time and Noise for 8: asking the system so often costs a fifth of
/// all processor time.
const READ_AHEAD_BYTES: usize = 64 << 10;

type Secured = Boxed<(PeerId, StreamMuxerBox)>;

/// All ways, and the relay client's behaviour, which belongs to one of them.
pub(super) fn build(
    keypair: &Keypair,
    key: Option<PnetConfig>,
    memory: bool,
    door: &Arc<Door>,
) -> Result<(Secured, relay::client::Behaviour), NoSecurity> {
    let local = keypair.public().to_peer_id();
    let security = Security::new(keypair)?;
    let base = || {
        let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
        let tcp = secured(tcp, key, security.clone(), door);
        if key.is_some() {
            return tcp;
        }
        let mut config = quic::Config::new(keypair);
        config.max_concurrent_stream_limit = QUIC_STREAMS;
        let quic = quic::tokio::Transport::new(config)
            .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
        quic.or_transport(tcp)
            .map(|either, _| either.into_inner())
            .boxed()
    };
    // A machine without resolv.conf reaches addresses all the same.
    let named = dns::tokio::Transport::system(base()).unwrap_or_else(|error| {
        tracing::warn!(%error, "the system does not say how to resolve names");
        let config = dns::ResolverConfig::default();
        dns::tokio::Transport::custom(base(), config, dns::ResolverOpts::default())
    });
    let (circuits, relay_client) = relay::client::new(local);
    let circuits = secured(circuits, key, security.clone(), door);
    let outward = circuits
        .or_transport(named)
        .map(|either, _| either.into_inner());
    let all = if memory {
        let memory = secured(MemoryTransport::new(), key, security, door);
        memory
            .or_transport(outward)
            .map(|either, _| either.into_inner())
            .boxed()
    } else {
        outward.boxed()
    };
    let all = TransportTimeout::new(all, CONNECT_DEADLINE).boxed();
    Ok((all, relay_client))
}

/// Proves identities and divides the connection into streams.
fn secured<T, C>(
    transport: T,
    key: Option<PnetConfig>,
    security: Security,
    door: &Arc<Door>,
) -> Secured
where
    T: Transport<Output = C> + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let door = Arc::clone(door);
    let yamux = move |peer: &PeerId, _: &libp2p::core::ConnectedPoint| {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(if door.is_trusted(peer) {
            STREAMS_WIDE
        } else {
            STREAMS_NARROW
        });
        config
    };
    transport
        .and_then(move |socket, _| async move {
            let socket = BufReader::with_capacity(READ_AHEAD_BYTES, socket);
            Ok::<_, io::Error>(match key {
                Some(key) => {
                    let agreed = key.handshake(socket).await.map_err(io::Error::other)?;
                    Either::Left(agreed)
                }
                None => Either::Right(socket),
            })
        })
        .upgrade(Version::V1Lazy)
        .authenticate(security)
        .multiplex_ext(yamux)
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .boxed()
}
