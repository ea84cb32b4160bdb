//! TLS 1.3 between SVIDs, for quinn and for TCP.
//!
//! One configuration lasts as long as the process: its resolvers read the SVID, and its verifiers the bundle, that the identity holds
//! at each handshake. Always true: TLS 1.3 alone, no early data, no tickets and no resumption, since a resumed session would outlive
//! the bundle that let its peer in. A peer is known by chain, id and role; the DNS name of a connection is sent and never judged. The
//! reason of a refusal is logged on this side; the other side sees `access_denied` and no more (RFC 8446, section 6.2), because QUIC
//! sends the text of an error along. Absent on purpose: a second look at expiry, which is the transport's (`Leaf::not_after_s`).

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    version,
};

use crate::identity::Identity;
use crate::spiffe::Role;
use crate::svid::{Leaf, SvidError};

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// Nobody would be let in.
    #[error("no role is allowed at the other end, so nobody could connect")]
    NoRole,
    /// A protocol name that cannot be sent.
    #[error("a protocol name of {bytes} bytes is not between 1 and 255 (RFC 7301)")]
    Protocol {
        /// Length found.
        bytes: usize,
    },
    /// The provider lacks TLS 1.3.
    #[error("the cryptographic provider cannot speak TLS 1.3: {reason}")]
    Version {
        /// What the library said.
        reason: String,
    },
    /// The provider lacks the suite of QUIC's first packets.
    #[error("the cryptographic provider lacks AES-128-GCM for the first packets of QUIC")]
    InitialSuite,
}

/// Whether a server lets in clients without an SVID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// Only with one.
    Required,
    /// Also without; one that is shown must hold all the same.
    Optional,
}

/// TLS for connections that are made to peers of these roles.
///
/// # Errors
///
/// When no role is given or a protocol name cannot be sent.
pub fn client_config(identity: &Identity, roles: &[Role], alpn: &[&[u8]]) -> Result<ClientConfig, TlsError> {
    let verifier = Arc::new(Verifier::new(identity, roles, "client", true)?);
    let provider = Arc::clone(identity.provider());
    let mut config = ClientConfig::builder_with_details(provider, Arc::clone(identity.time()))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|error| TlsError::Version { reason: error.to_string() })?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(Shown(identity.clone())));
    config.alpn_protocols = protocols(alpn)?;
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// TLS for connections that are taken from peers of these roles.
///
/// # Errors
///
/// When no role is given or a protocol name cannot be sent.
pub fn server_config(
    identity: &Identity,
    roles: &[Role],
    alpn: &[&[u8]],
    client_auth: ClientAuth,
) -> Result<ServerConfig, TlsError> {
    let verifier = Arc::new(Verifier::new(identity, roles, "server", client_auth == ClientAuth::Required)?);
    let provider = Arc::clone(identity.provider());
    let mut config = ServerConfig::builder_with_details(provider, Arc::clone(identity.time()))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|error| TlsError::Version { reason: error.to_string() })?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Shown(identity.clone())));
    config.alpn_protocols = protocols(alpn)?;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    Ok(config)
}

/// [`client_config`] as quinn takes it.
///
/// # Errors
///
/// As [`client_config`].
pub fn quic_client(identity: &Identity, roles: &[Role], alpn: &[&[u8]]) -> Result<QuicClientConfig, TlsError> {
    client_config(identity, roles, alpn)?.try_into().map_err(|_| TlsError::InitialSuite)
}

/// [`server_config`] as quinn takes it.
///
/// # Errors
///
/// As [`server_config`].
pub fn quic_server(
    identity: &Identity,
    roles: &[Role],
    alpn: &[&[u8]],
    client_auth: ClientAuth,
) -> Result<QuicServerConfig, TlsError> {
    server_config(identity, roles, alpn, client_auth)?.try_into().map_err(|_| TlsError::InitialSuite)
}

/// What a quinn connection's peer has shown. Empty: nothing, or TLS is not what it spoke.
pub fn shown_by(connection: &quinn::Connection) -> Vec<CertificateDer<'static>> {
    let shown = connection.peer_identity().and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok());
    shown.map(|shown| *shown).unwrap_or_default()
}

fn protocols(alpn: &[&[u8]]) -> Result<Vec<Vec<u8>>, TlsError> {
    match alpn.iter().find(|name| !(1..=255).contains(&name.len())) {
        Some(name) => Err(TlsError::Protocol { bytes: name.len() }),
        None => Ok(alpn.iter().map(|name| name.to_vec()).collect()),
    }
}

/// Shows the SVID held at the moment of the handshake.
#[derive(Debug)]
struct Shown(Identity);

impl Shown {
    /// `None` after its end: the peer would refuse it, and only this side can say why.
    fn current(&self) -> Option<Arc<CertifiedKey>> {
        let current = self.0.current();
        let not_after_s = current.svid().not_after_s();
        if self.0.now_s().is_ok_and(|now_s| now_s <= not_after_s) {
            return Some(Arc::clone(current.certified()));
        }
        tracing::warn!(id = %current.svid().id(), not_after_s, "no SVID is shown: the own one has expired");
        None
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current()
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.current()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Lets in whom the bundle held at the moment of the handshake vouches for.
#[derive(Debug)]
struct Verifier {
    identity: Identity,
    roles: Vec<Role>,
    side: &'static str,
    is_mandatory: bool,
}

impl Verifier {
    fn new(identity: &Identity, roles: &[Role], side: &'static str, is_mandatory: bool) -> Result<Self, TlsError> {
        if roles.is_empty() {
            return Err(TlsError::NoRole);
        }
        Ok(Self { identity: identity.clone(), roles: roles.to_vec(), side, is_mandatory })
    }

    fn judge(&self, leaf: &CertificateDer<'_>, issuers: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        let judged = self.identity.judge(leaf, issuers, now.as_secs());
        let judged = judged.and_then(|leaf| leaf.check_role(&self.roles).map(|()| leaf));
        match judged {
            Ok(Leaf { id, not_after_s, .. }) => {
                tracing::debug!(side = self.side, peer = %id, not_after_s, "a peer's SVID holds");
                Ok(())
            }
            Err(reason) => Err(self.refuse(&reason)),
        }
    }

    fn refuse(&self, reason: &SvidError) -> Error {
        tracing::info!(side = self.side, %reason, "a peer's SVID is refused");
        denied()
    }

    fn check(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.identity.provider().signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signed, algorithms).map_err(|error| {
            tracing::info!(side = self.side, reason = %error, "a peer does not hold the key of the SVID it shows");
            denied()
        })
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.identity.provider().signature_verification_algorithms.supported_schemes()
    }
}

/// The one answer to every refusal.
fn denied() -> Error {
    Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
}

/// Only TLS 1.3 is offered, so nothing older is ever signed.
fn too_old() -> Error {
    Error::General("TLS 1.2 is not spoken here".to_owned())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(leaf, issuers, now).map(|()| ServerCertVerified::assertion())
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
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    /// No hints: the names of authorities are not a stranger's business.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(leaf, issuers, now).map(|()| ClientCertVerified::assertion())
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
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
