//! TLS 1.3 as libp2p has it: both sides show a self-signed certificate in which the station's key vouches for the
//! certificate's. AES where both processors have it in hardware, else ChaCha20.
//!
//! Takes a connection; gives the encrypted one and the PeerID that the other side has proved. Certificates are made,
//! parsed and verified by `libp2p-tls` (its own upgrade would always choose ChaCha20). Invariant: each handshake proves
//! the PeerID anew: sessions are never resumed, and nothing is sent before the end of the handshake. Deliberately absent:
//! TLS 1.2, certificate authorities, host names, which libp2p does without.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use futures_rustls::{TlsAcceptor, TlsConnector};
use libp2p::futures::io::BufWriter;
use libp2p::futures::{AsyncRead, AsyncWrite};
use libp2p::identity::Keypair;
use libp2p_tls::certificate;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, ServerConfig,
    SignatureScheme, SupportedCipherSuite,
};

use crate::tunnel::PeerId;

/// What libp2p calls itself in the handshake.
const APPLICATION: &[u8] = b"libp2p";
/// Bytes that are encrypted and sent together: Yamux writes its headers of twelve bytes by themselves.
const WRITE_BEHIND_BYTES: usize = 64 << 10;
/// What a certificate's key may sign with, preferred first; as `libp2p-tls` has it.
const SCHEMES: [SignatureScheme; 9] = [
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA256,
];

/// An encrypted connection.
pub(super) type TlsStream<C> = BufWriter<futures_rustls::TlsStream<C>>;

/// There is no connection by TLS.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("no certificate can be made: {0}")]
    Certificate(#[from] certificate::GenError),
    #[error("TLS is not set up: {0}")]
    Setup(#[from] rustls::Error),
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[from] io::Error),
    #[error("the other side shows no certificate of libp2p")]
    NoPeer,
}

/// Whether the processor encrypts by AES itself: then it is faster than ChaCha20, else far slower.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let has = std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has = false;
    has
}

/// What encrypts, preferred first.
fn suites(has_aes: bool) -> Vec<SupportedCipherSuite> {
    let aes = [
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
    ];
    let chacha = [cipher_suite::TLS13_CHACHA20_POLY1305_SHA256];
    if has_aes {
        [&aes[..], &chacha].concat()
    } else {
        [&chacha[..], &aes].concat()
    }
}

/// Both sides of the handshake, for one identity.
#[derive(Clone)]
pub(super) struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Tls {
    /// # Errors
    /// [`TlsError`].
    pub(super) fn new(keypair: &Keypair) -> Result<Self, TlsError> {
        Self::preferring(keypair, has_aes())
    }

    fn preferring(keypair: &Keypair, has_aes: bool) -> Result<Self, TlsError> {
        let (certificate, key) = certificate::generate(keypair)?;
        Self::showing(certificate, key, has_aes)
    }

    /// With this certificate, and the private key to it.
    fn showing(
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
        has_aes: bool,
    ) -> Result<Self, TlsError> {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites = suites(has_aes);
        let provider = Arc::new(provider);
        let key = provider.key_provider.load_private_key(key)?;
        let shown = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key));
        let shown = Arc::new(shown);

        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous() // is what rustls calls whatever does not trust authorities
            .with_custom_certificate_verifier(Arc::new(Libp2pCertificates))
            .with_client_cert_resolver(Arc::clone(&shown) as _);
        client.alpn_protocols = vec![APPLICATION.to_vec()];
        client.resumption = Resumption::disabled();

        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(Libp2pCertificates))
            .with_cert_resolver(shown);
        server.alpn_protocols = vec![APPLICATION.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        // Whoever has AES says so by preferring it. Without it here, the caller's wish does not count.
        server.ignore_client_order = !has_aes;

        Ok(Self {
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }

    /// As the one that was called.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(super) async fn accept<C>(self, socket: C) -> Result<(PeerId, TlsStream<C>), TlsError>
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = TlsAcceptor::from(self.server).accept(socket).await?;
        let peer = proved(stream.get_ref().1)?;
        Ok((peer, buffered(stream.into())))
    }

    /// As the one that calls.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(super) async fn connect<C>(self, socket: C) -> Result<(PeerId, TlsStream<C>), TlsError>
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        // An address is never sent as a name; libp2p wants none to be.
        let nobody = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
        let connecting = TlsConnector::from(self.client).connect(nobody, socket);
        let stream = connecting.await?;
        let peer = proved(stream.get_ref().1)?;
        Ok((peer, buffered(stream.into())))
    }
}

fn buffered<C: AsyncRead + AsyncWrite + Unpin>(
    stream: futures_rustls::TlsStream<C>,
) -> TlsStream<C> {
    BufWriter::with_capacity(WRITE_BEHIND_BYTES, stream)
}

/// Who the other side has proved to be.
fn proved(state: &CommonState) -> Result<PeerId, TlsError> {
    match state.peer_certificates() {
        Some([one]) => peer_of(one).map_err(TlsError::Setup),
        _ => Err(TlsError::NoPeer),
    }
}

/// Whose certificate it is: it must be valid now and self-signed, and the station's key must have signed its key.
fn peer_of(certificate: &CertificateDer<'_>) -> Result<PeerId, rustls::Error> {
    Ok(certificate::parse(certificate)?.peer_id())
}

/// Believes certificates of libp2p, of whatever PeerID, and none else.
#[derive(Debug)]
struct Libp2pCertificates;

impl Libp2pCertificates {
    fn check(one: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        if !more.is_empty() {
            let why = "libp2p shows exactly one certificate".to_owned();
            return Err(rustls::Error::General(why));
        }
        peer_of(one).map(drop)
    }

    fn check_signature(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let certificate = certificate::parse(certificate)?;
        certificate.verify_signature(signed.scheme, message, signed.signature())?;
        Ok(HandshakeSignatureValid::assertion())
    }
}

/// Never asked for: TLS 1.2 is not spoken.
fn too_old() -> rustls::Error {
    rustls::Error::General("TLS 1.2 is not spoken".to_owned())
}

impl ServerCertVerifier for Libp2pCertificates {
    fn verify_server_cert(
        &self,
        one: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Self::check(one, more)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

impl ClientCertVerifier for Libp2pCertificates {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        one: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Self::check(one, more)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
