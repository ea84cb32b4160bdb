//! Who is at the other end: TLS 1.3 with raw public keys (RFC 7250), each side's the Ed25519 key that the genesis or the configuration names.
//! There are no certificates and no authorities. The protocol name (RFC 7301) carries the chain, so nodes of two chains never talk.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bpi_protocol::consensus::ids::ChainId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    version,
};

use crate::core::Peer;
use crate::peer_key::PeerKey;

/// SubjectPublicKeyInfo of an Ed25519 key without the key (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The peers that are let in, by their keys.
#[derive(Debug)]
struct Known {
    peers: BTreeMap<[u8; 32], Peer>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Both ends of TLS for one node.
#[derive(Clone)]
pub struct Identity {
    known: Arc<Known>,
    /// For connections that are made.
    pub client: Arc<ClientConfig>,
    /// For connections that are taken.
    pub server: Arc<ServerConfig>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("known", &self.known).finish_non_exhaustive()
    }
}

impl Identity {
    /// Of a node with `key` that lets in `peers`.
    ///
    /// # Errors
    /// When the TLS library refuses the key.
    pub fn new(key: &PeerKey, chain: ChainId, peers: BTreeMap<[u8; 32], Peer>) -> Result<Self, Error> {
        let provider = Arc::new(ring::default_provider());
        let refused = || Error::General("the peer key has no PKCS#8 form".to_owned());
        let der = key.to_der().ok_or_else(refused)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.as_slice()));
        let signer = provider.key_provider.load_private_key(private.clone_key())?;
        let spki = [SPKI_PREFIX.as_slice(), &key.public()].concat();
        let certified = Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signer));
        let known = Arc::new(Known { peers, algorithms: provider.signature_verification_algorithms });
        let protocol = format!("bpi-validator/1/{chain}").into_bytes();

        let mut client = ClientConfig::builder_with_provider(Arc::<CryptoProvider>::clone(&provider))
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Known>::clone(&known))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&certified))));
        client.alpn_protocols = vec![protocol.clone()];
        // A resumed session would outlive the set that let its peer in.
        client.resumption = Resumption::disabled();
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])?
            .with_client_cert_verifier(Arc::<Known>::clone(&known))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified)));
        server.alpn_protocols = vec![protocol];
        server.send_tls13_tickets = 0;
        Ok(Self { known, client: Arc::new(client), server: Arc::new(server) })
    }

    /// Who has shown this key in a handshake. `None`: nobody who is known.
    pub fn peer_of(&self, shown: Option<&[CertificateDer<'_>]>) -> Option<Peer> {
        match shown {
            Some([key]) => self.known.find(key),
            _ => None,
        }
    }
}

impl Known {
    fn find(&self, spki: &CertificateDer<'_>) -> Option<Peer> {
        let key: [u8; 32] = spki.as_ref().strip_prefix(&SPKI_PREFIX)?.try_into().ok()?;
        self.peers.get(&key).copied()
    }

    fn judge(&self, spki: &CertificateDer<'_>) -> Result<(), Error> {
        let stranger = Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        self.find(spki).map(|_| ()).ok_or(stranger)
    }

    fn check(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(spki.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
    }
}

/// Only TLS 1.3 is offered, so nothing older is ever signed.
fn too_old() -> Error {
    Error::General("TLS 1.2 is not spoken here".to_owned())
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(key).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Known {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(key).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
