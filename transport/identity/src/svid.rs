//! X.509-SVIDs: what a leaf must be, and one's own with its key.
//!
//! [`read_leaf`] judges a certificate by the SPIFFE rules, [`judge_leaf`] also by domain and time; who signed it is the bundle's
//! question. Always true: a [`Leaf`] has one URI name, cannot sign certificates and may be used at both ends of TLS. Names of other
//! kinds (DNS, IP) are allowed and never looked at. Absent on purpose: revocation, since an SVID lives for hours.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use zeroize::Zeroizing;

use crate::pem::{self, PemError};
use crate::spiffe::{Role, SpiffeError, SpiffeId, TrustDomain};

/// Longest certificate that is read; one of P-256 with a few names takes below 1 KiB, one of RSA-4096 below 3.
pub const CERTIFICATE_BYTES_MAX: usize = 8 * 1024;
/// Most certificates that a peer may show: its own and three authorities between it and a root.
pub const CHAIN_MAX: usize = 4;
/// Longest PKCS#8 key; RSA-4096 takes 2.4 KiB.
pub const KEY_BYTES_MAX: usize = 8 * 1024;

/// Tag of a uniformResourceIdentifier in a GeneralName (RFC 5280, section 4.2.1.6).
const URI_TAG: u32 = 6;

/// Why a certificate or a chain is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SvidError {
    /// Nothing was shown.
    #[error("no certificate")]
    NoCertificate,
    /// Too many were shown.
    #[error("a chain of {found} certificates is longer than the limit of {max}", max = CHAIN_MAX)]
    ChainTooLong {
        /// How many.
        found: usize,
    },
    /// Too long.
    #[error("a certificate of {bytes} bytes is longer than the limit of {max}", max = CERTIFICATE_BYTES_MAX)]
    TooLong {
        /// Length found.
        bytes: usize,
    },
    /// No certificate in DER.
    #[error("not an X.509 certificate: {reason}")]
    NotCertificate {
        /// What the parser said.
        reason: String,
    },
    /// An extension that is broken or there twice.
    #[error("the extension {name} cannot be read: {reason}")]
    Extension {
        /// Its name in RFC 5280.
        name: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// No URI among the names.
    #[error("the certificate has no URI name, so it is no SVID")]
    NoUri,
    /// More than one URI.
    #[error("the certificate has {found} URI names; an SVID has exactly one")]
    SeveralUris {
        /// How many.
        found: usize,
    },
    /// The URI is not an id of this mesh.
    #[error("the URI name is no id: {0}")]
    Id(SpiffeError),
    /// The certificate is an authority's.
    #[error("the certificate is an authority's (CA:TRUE), not a leaf")]
    Authority,
    /// No key usage.
    #[error("the certificate has no keyUsage")]
    NoKeyUsage,
    /// May not sign handshakes.
    #[error("keyUsage lacks digitalSignature")]
    NoDigitalSignature,
    /// May sign certificates.
    #[error("keyUsage has keyCertSign, which only an authority may have")]
    SignsCertificates,
    /// May sign revocation lists.
    #[error("keyUsage has cRLSign, which only an authority may have")]
    SignsRevocations,
    /// For one end of TLS only, or for something else.
    #[error("extKeyUsage is there and lacks serverAuth or clientAuth; an SVID has both")]
    Purpose,
    /// Validity beyond what can be counted.
    #[error("the validity begins or ends before 1970")]
    Validity,
    /// Too early.
    #[error("not valid before {not_before_s}, and it is {now_s} (unix seconds)")]
    NotYetValid {
        /// Begin of the validity.
        not_before_s: u64,
        /// The time of judgement.
        now_s: u64,
    },
    /// Too late.
    #[error("expired at {not_after_s}, and it is {now_s} (unix seconds)")]
    Expired {
        /// End of the validity.
        not_after_s: u64,
        /// The time of judgement.
        now_s: u64,
    },
    /// Another trust domain.
    #[error("{found} is of another trust domain than {wanted}")]
    Domain {
        /// The refused id.
        found: SpiffeId,
        /// The domain in force.
        wanted: TrustDomain,
    },
    /// A role that may not stand at this end.
    #[error("{found} has the role {role}, and only {allowed} may be at the other end", role = found.role())]
    Role {
        /// The refused id.
        found: SpiffeId,
        /// The roles in force, joined.
        allowed: String,
    },
    /// An issuer that may not issue.
    #[error("an issuer in the chain is no authority with keyCertSign")]
    Issuer,
    /// No root of the bundle stands above the chain.
    #[error("no root of the trust bundle stands above the chain of {id}")]
    UnknownRoot {
        /// The id that the leaf claims.
        id: SpiffeId,
    },
    /// The chain does not hold for another reason.
    #[error("the chain of {id} does not hold: {reason}")]
    Chain {
        /// The id that the leaf claims.
        id: SpiffeId,
        /// What the verifier said.
        reason: String,
    },
    /// The own key is of no known kind.
    #[error("the private key cannot be used: {reason}")]
    Key {
        /// What the TLS library said.
        reason: String,
    },
    /// The own key belongs to another certificate.
    #[error("the private key is not the one of the certificate")]
    KeyMismatch,
    /// The clock says nothing.
    #[error("the clock cannot be read")]
    Clock,
    /// The file was not read.
    #[error(transparent)]
    Pem(#[from] PemError),
}

/// What a leaf says of its bearer. Proven only when a bundle has verified the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Who it is.
    pub id: SpiffeId,
    /// Begin of the validity, unix seconds.
    pub not_before_s: u64,
    /// End of the validity, unix seconds. TLS never looks again: the transport closes the connection then. What a bundle has verified ends
    /// with the first of the certificates that were shown.
    pub not_after_s: u64,
}

impl Leaf {
    /// How long it still holds at `now_s`, unix seconds: until the last second of its validity is over.
    pub fn remaining(&self, now_s: u64) -> Duration {
        Duration::from_secs(self.not_after_s.saturating_add(1).saturating_sub(now_s))
    }

    /// Checks domain and time.
    pub(crate) fn check(&self, domain: &TrustDomain, now_s: u64) -> Result<(), SvidError> {
        let &Self { not_before_s, not_after_s, .. } = self;
        if self.id.domain() != domain {
            return Err(SvidError::Domain { found: self.id.clone(), wanted: domain.clone() });
        }
        if now_s < not_before_s {
            return Err(SvidError::NotYetValid { not_before_s, now_s });
        }
        if now_s > not_after_s {
            return Err(SvidError::Expired { not_after_s, now_s });
        }
        Ok(())
    }

    /// Checks that the bearer plays one of these roles.
    ///
    /// # Errors
    ///
    /// [`SvidError::Role`].
    pub fn check_role(&self, allowed: &[Role]) -> Result<(), SvidError> {
        if allowed.contains(&self.id.role()) {
            return Ok(());
        }
        let allowed = allowed.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" or ");
        Err(SvidError::Role { found: self.id.clone(), allowed })
    }
}

/// A certificate, and nothing after it.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, SvidError> {
    if der.len() > CERTIFICATE_BYTES_MAX {
        return Err(SvidError::TooLong { bytes: der.len() });
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok((rest, _)) => Err(SvidError::NotCertificate { reason: format!("{} bytes follow it", rest.len()) }),
        Err(error) => Err(SvidError::NotCertificate { reason: error.to_string() }),
    }
}

pub(crate) fn extension<T>(name: &'static str, found: Result<Option<T>, X509Error>) -> Result<Option<T>, SvidError> {
    found.map_err(|error| SvidError::Extension { name, reason: error.to_string() })
}

/// The URI names of a certificate.
pub(crate) fn uris<'a>(certificate: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, SvidError> {
    let names = extension("subjectAltName", certificate.subject_alternative_name())?;
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let mut found = Vec::new();
    for name in names {
        match name {
            GeneralName::URI(uri) => found.push(*uri),
            GeneralName::Invalid(tag, _) if tag.0 == URI_TAG => {
                return Err(SvidError::Extension { name: "subjectAltName", reason: "a URI is not ASCII".to_owned() });
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Validity in unix seconds.
pub(crate) fn validity(certificate: &X509Certificate<'_>) -> Result<(u64, u64), SvidError> {
    let validity = certificate.validity();
    match (u64::try_from(validity.not_before.timestamp()), u64::try_from(validity.not_after.timestamp())) {
        (Ok(not_before_s), Ok(not_after_s)) => Ok((not_before_s, not_after_s)),
        _ => Err(SvidError::Validity),
    }
}

/// Reads a leaf by the rules of X509-SVID, sections 2 to 5, whatever its domain and the time.
///
/// # Errors
///
/// [`SvidError`] names the rule that is broken. Nothing is said about who signed the certificate.
pub fn read_leaf(der: &[u8]) -> Result<Leaf, SvidError> {
    let certificate = parse(der)?;
    let id = match uris(&certificate)?[..] {
        [] => return Err(SvidError::NoUri),
        [uri] => uri.parse().map_err(SvidError::Id)?,
        ref several => return Err(SvidError::SeveralUris { found: several.len() }),
    };
    if extension("basicConstraints", certificate.basic_constraints())?.is_some_and(|found| found.value.ca) {
        return Err(SvidError::Authority);
    }
    let usage = extension("keyUsage", certificate.key_usage())?.ok_or(SvidError::NoKeyUsage)?.value;
    if !usage.digital_signature() {
        return Err(SvidError::NoDigitalSignature);
    }
    if usage.key_cert_sign() {
        return Err(SvidError::SignsCertificates);
    }
    if usage.crl_sign() {
        return Err(SvidError::SignsRevocations);
    }
    let purpose = extension("extKeyUsage", certificate.extended_key_usage())?;
    if purpose.is_some_and(|found| !(found.value.server_auth && found.value.client_auth)) {
        return Err(SvidError::Purpose);
    }
    let (not_before_s, not_after_s) = validity(&certificate)?;
    Ok(Leaf { id, not_before_s, not_after_s })
}

/// Reads a leaf that must be of `domain` and valid at `now_s`, unix seconds.
///
/// # Errors
///
/// [`SvidError`] names the rule that is broken. Nothing is said about who signed the certificate.
pub fn judge_leaf(der: &[u8], domain: &TrustDomain, now_s: u64) -> Result<Leaf, SvidError> {
    let leaf = read_leaf(der)?;
    leaf.check(domain, now_s)?;
    Ok(leaf)
}

/// One's own SVID: chain, leaf first, and PKCS#8 key.
#[derive(Clone)]
pub struct Svid {
    leaf: Leaf,
    chain: Vec<CertificateDer<'static>>,
    key: Zeroizing<Vec<u8>>,
}

impl Svid {
    /// Of a chain, leaf first, and a PKCS#8 key in DER. Whether they match is checked when an identity takes them.
    ///
    /// # Errors
    ///
    /// When the leaf breaks a rule, or something is too long.
    pub fn from_der(chain: Vec<CertificateDer<'static>>, key: Zeroizing<Vec<u8>>) -> Result<Self, SvidError> {
        if chain.len() > CHAIN_MAX {
            return Err(SvidError::ChainTooLong { found: chain.len() });
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(SvidError::Key { reason: format!("{} bytes are more than {KEY_BYTES_MAX}", key.len()) });
        }
        let leaf = read_leaf(chain.first().ok_or(SvidError::NoCertificate)?)?;
        Ok(Self { leaf, chain, key })
    }

    /// From one PEM file with chain and key, or from a chain and a key of its own file. The file of the key must be this user's alone.
    ///
    /// # Errors
    ///
    /// When a file is refused or the leaf breaks a rule.
    pub fn from_pem_files(chain: &Path, key: Option<&Path>) -> Result<Self, SvidError> {
        let (chain, key) = pem::chain_and_key(chain, key)?;
        Self::from_der(chain, key)
    }

    /// Who it makes one.
    pub fn id(&self) -> &SpiffeId {
        &self.leaf.id
    }

    /// Id and validity.
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// The chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Begin of the validity, unix seconds.
    pub fn not_before_s(&self) -> u64 {
        self.leaf.not_before_s
    }

    /// End of the validity, unix seconds.
    pub fn not_after_s(&self) -> u64 {
        self.leaf.not_after_s
    }

    /// When a new one should be had: half of the validity is over, unix seconds.
    pub fn half_life_s(&self) -> u64 {
        self.not_before_s() + self.not_after_s().saturating_sub(self.not_before_s()) / 2
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid").field("leaf", &self.leaf).field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}
