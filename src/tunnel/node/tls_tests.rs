//! Handshakes between two that know each other, and with those that are not who they say.

use libp2p::futures::{AsyncReadExt, AsyncWriteExt};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::version::TLS12;
use rustls::{CipherSuite, HandshakeKind};
use tokio::io::{DuplexStream, duplex};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::*;

/// Where libp2p's certificates say whose they are, and what its key signs before the certificate's.
const EXTENSION: [u64; 9] = [1, 3, 6, 1, 4, 1, 53_594, 1, 1];
const SIGNED_BEFORE: &[u8] = b"libp2p-tls-handshake:";

type Outcome = Result<(PeerId, TlsStream<Compat<DuplexStream>>), TlsError>;

/// What the caller and the called have of a handshake; the caller also reads a byte, since it ends first.
async fn handshake(caller: Tls, called: Tls) -> (Outcome, Outcome) {
    let (near, far) = duplex(64 << 10);
    let calling = async move {
        let (peer, mut stream) = caller.connect(near.compat()).await?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        Ok((peer, stream))
    };
    let answering = async move {
        let (peer, mut stream) = called.accept(far.compat()).await?;
        stream.write_all(b"x").await?;
        stream.flush().await?;
        Ok((peer, stream))
    };
    tokio::join!(calling, answering)
}

fn identity() -> Keypair {
    Keypair::generate_ed25519()
}

fn suite(outcome: &Outcome) -> CipherSuite {
    let (_, stream) = outcome.as_ref().expect("a connection");
    let suite = stream.get_ref().get_ref().1.negotiated_cipher_suite();
    suite.expect("negotiated").suite()
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is_and_agree_on_what_both_do_fast() {
    let (near, far) = (identity(), identity());
    for near_has_aes in [true, false] {
        for far_has_aes in [true, false] {
            let caller = Tls::preferring(&near, near_has_aes).expect("set up");
            let called = Tls::preferring(&far, far_has_aes).expect("set up");
            let (ours, theirs) = handshake(caller, called).await;
            let expected = if near_has_aes && far_has_aes {
                CipherSuite::TLS13_AES_128_GCM_SHA256
            } else {
                CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
            };
            assert_eq!([suite(&ours), suite(&theirs)], [expected, expected]);
            assert_eq!(ours.expect("connected").0, far.public().to_peer_id());
            assert_eq!(theirs.expect("connected").0, near.public().to_peer_id());
        }
    }
}

#[tokio::test]
async fn each_connection_proves_its_station_anew() {
    let caller = Tls::new(&identity()).expect("set up");
    let called = Tls::new(&identity()).expect("set up");
    for _ in 0..2 {
        let (ours, theirs) = handshake(caller.clone(), called.clone()).await;
        for side in [ours, theirs] {
            let stream = side.expect("connected").1;
            let kind = stream.get_ref().get_ref().1.handshake_kind();
            assert!(
                matches!(
                    kind,
                    Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest)
                ),
                "{kind:?}"
            );
        }
    }
}

/// A certificate like libp2p's, but for what is said about the station.
fn certificate(
    extension: impl FnOnce(&KeyPair) -> Option<Vec<u8>>,
    change: impl FnOnce(&mut CertificateParams),
) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    if let Some(content) = extension(&key) {
        let mut extension = CustomExtension::from_oid_content(&EXTENSION, content);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    }
    change(&mut params);
    let certificate = params.self_signed(&key).expect("signed").into();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    (certificate, key)
}

/// That `named` vouches for this key, signed by `signer`.
fn vouched(named: &Keypair, signer: &Keypair, key: &KeyPair) -> Vec<u8> {
    let signed = [SIGNED_BEFORE, &key.public_key_der()].concat();
    let parts = [
        named.public().encode_protobuf(),
        signer.sign(&signed).expect("signed"),
    ];
    // ASN.1: a sequence of two strings of bytes, all shorter than 128.
    let string =
        |part: &Vec<u8>| [&[4, u8::try_from(part.len()).expect("short")], &part[..]].concat();
    let strings = parts.iter().flat_map(string).collect::<Vec<u8>>();
    [
        &[0x30, u8::try_from(strings.len()).expect("short")],
        &strings[..],
    ]
    .concat()
}

/// Neither who calls nor who is called gets a connection with whoever shows this.
async fn is_refused(what: &str, shown: (CertificateDer<'static>, PrivateKeyDer<'static>)) {
    let honest = Tls::new(&identity()).expect("set up");
    let wrong = Tls::showing(shown.0, shown.1, true).expect("set up");
    let (ours, _) = handshake(honest.clone(), wrong.clone()).await;
    assert!(
        matches!(ours, Err(TlsError::Handshake(_))),
        "{what}: {ours:?}"
    );
    let (_, ours) = handshake(wrong, honest).await;
    assert!(
        matches!(ours, Err(TlsError::Handshake(_))),
        "{what}: {ours:?}"
    );
}

#[tokio::test]
async fn whoever_does_not_prove_its_station_gets_no_connection() {
    let (named, other) = (identity(), identity());
    // What the others are like: this one is in order.
    let right = certificate(|key| Some(vouched(&named, &named, key)), |_| {});
    let right = Tls::showing(right.0, right.1, true).expect("set up");
    let (seen, _) = handshake(Tls::new(&other).expect("set up"), right).await;
    assert_eq!(seen.expect("in order").0, named.public().to_peer_id());

    is_refused("no extension", certificate(|_| None, |_| {})).await;
    is_refused(
        "an extension without a meaning",
        certificate(|_| Some(vec![0x30, 0]), |_| {}),
    )
    .await;
    is_refused(
        "signed by another station than it names",
        certificate(|key| Some(vouched(&named, &other, key)), |_| {}),
    )
    .await;
    let elsewhere = KeyPair::generate().expect("a key");
    is_refused(
        "what the station signed for another certificate",
        certificate(|_| Some(vouched(&named, &named, &elsewhere)), |_| {}),
    )
    .await;
    is_refused(
        "not valid any more",
        certificate(
            |key| Some(vouched(&named, &named, key)),
            |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1),
        ),
    )
    .await;
    let (copied, _) = certificate::generate(&named).expect("made");
    let (_, own_key) = certificate::generate(&other).expect("made");
    is_refused("a copied certificate", (copied, own_key)).await;
    let (good, key) = certificate::generate(&named).expect("made");
    let mut changed = good.to_vec();
    *changed.last_mut().expect("not empty") ^= 1;
    is_refused("not signed by itself", (changed.into(), key)).await;
}

/// With the verifier and the certificate that are ours, so that only the version is wrong.
#[tokio::test]
async fn tls_before_1_3_is_not_spoken() {
    let ours = Tls::new(&identity()).expect("set up");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let (certificate, key) = certificate::generate(&identity()).expect("made");
    let key = provider.key_provider.load_private_key(key).expect("a key");
    let shown = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key));
    let shown = Arc::new(shown);
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS12])
        .expect("known")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Libp2pCertificates))
        .with_client_cert_resolver(Arc::clone(&shown) as _);
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS12])
        .expect("known")
        .with_client_cert_verifier(Arc::new(Libp2pCertificates))
        .with_cert_resolver(shown);
    let old = Tls {
        client: Arc::new(client),
        server: Arc::new(server),
    };
    for (caller, called) in [(ours.clone(), old.clone()), (old, ours)] {
        let (calling, answering) = handshake(caller, called).await;
        let why = [calling.err(), answering.err()].map(|error| format!("{error:?}"));
        // They never come to the certificates, which would be refused too.
        let is_version =
            |why: &String| why.contains("ProtocolVersion") || why.contains("PeerIncompatible");
        assert!(why.iter().all(is_version), "{why:?}");
    }
}

#[tokio::test]
async fn a_caller_that_shows_nothing_gets_no_connection() {
    let ours = Tls::new(&identity()).expect("set up");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("known")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Libp2pCertificates))
        .with_no_client_auth();
    let nobody = Tls {
        client: Arc::new(client),
        server: Arc::clone(&ours.server),
    };
    let (calling, answering) = handshake(nobody, ours).await;
    assert!(calling.is_err() && answering.is_err());
}
