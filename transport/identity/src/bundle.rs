//! The trust bundle: the roots of one trust domain, several while an authority is replaced.
//!
//! Signatures are the TLS library's business (webpki); here stand the rules that it leaves out: a root that has expired stands above
//! nothing, every issuer has keyCertSign, and a root that bears an id bears the domain's. Absent on purpose: federation.

use std::path::Path;
use std::sync::Arc;

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};

use crate::pem::{self, PemError};
use crate::spiffe::TrustDomain;
use crate::svid::{CHAIN_MAX, Leaf, SvidError, extension, parse, read_leaf, uris, validity};

/// Most roots in a bundle: a new one a month for a year, and some room.
pub const ROOTS_MAX: usize = 16;

/// Why roots are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// None.
    #[error("the trust bundle of {domain} has no root")]
    Empty {
        /// The domain.
        domain: TrustDomain,
    },
    /// Too many.
    #[error("the trust bundle has {found} roots, more than the limit of {max}", max = ROOTS_MAX)]
    TooMany {
        /// How many.
        found: usize,
    },
    /// Not readable as a certificate.
    #[error("root {index} of the trust bundle: {reason}")]
    Root {
        /// Its place, from 0.
        index: usize,
        /// What is wrong.
        reason: SvidError,
    },
    /// Not an authority.
    #[error("root {index} of the trust bundle is no authority (CA:TRUE, keyCertSign)")]
    NoAuthority {
        /// Its place, from 0.
        index: usize,
    },
    /// Another domain's.
    #[error("root {index} of the trust bundle bears {found:?}, not {wanted:?}")]
    Domain {
        /// Its place, from 0.
        index: usize,
        /// The URI names that it bears, joined.
        found: String,
        /// The id of the domain.
        wanted: String,
    },
    /// The TLS library cannot use it.
    #[error("root {index} of the trust bundle cannot be used: {reason}")]
    Unusable {
        /// Its place, from 0.
        index: usize,
        /// What the library said.
        reason: String,
    },
    /// The file was not read.
    #[error(transparent)]
    Pem(#[from] PemError),
}

#[derive(Clone, PartialEq, Eq)]
struct Root {
    der: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
    not_before_s: u64,
    not_after_s: u64,
}

impl Root {
    fn read(index: usize, der: CertificateDer<'static>, domain: &TrustDomain) -> Result<Self, BundleError> {
        let broken = |reason| BundleError::Root { index, reason };
        let certificate = parse(&der).map_err(broken)?;
        if !is_authority(&certificate).map_err(broken)? {
            return Err(BundleError::NoAuthority { index });
        }
        let (found, wanted) = (uris(&certificate).map_err(broken)?, domain.id());
        if !found.is_empty() && found != [wanted.as_str()] {
            let found = found.join(" ").chars().take(200).collect();
            return Err(BundleError::Domain { index, found, wanted });
        }
        let (not_before_s, not_after_s) = validity(&certificate).map_err(broken)?;
        let mut store = RootCertStore::empty();
        let unusable = |reason: String| BundleError::Unusable { index, reason };
        store.add(der.clone()).map_err(|error| unusable(error.to_string()))?;
        let anchor = store.roots.pop().ok_or_else(|| unusable("it is no trust anchor".to_owned()))?;
        Ok(Self { der, anchor, not_before_s, not_after_s })
    }

    fn is_valid_at(&self, now_s: u64) -> bool {
        (self.not_before_s..=self.not_after_s).contains(&now_s)
    }
}

/// Whether a certificate is one that may sign others (X509-SVID, section 4). webpki looks at the first half of it only.
fn is_authority(certificate: &x509_parser::certificate::X509Certificate<'_>) -> Result<bool, SvidError> {
    let is_ca = extension("basicConstraints", certificate.basic_constraints())?.is_some_and(|found| found.value.ca);
    let signs = extension("keyUsage", certificate.key_usage())?.is_some_and(|found| found.value.key_cert_sign());
    Ok(is_ca && signs)
}

/// The roots of a trust domain.
#[derive(Clone)]
pub struct Bundle {
    domain: TrustDomain,
    roots: Vec<Root>,
    /// All of them, for the common case that all are valid.
    store: Arc<RootCertStore>,
}

impl PartialEq for Bundle {
    fn eq(&self, other: &Self) -> bool {
        self.domain == other.domain && self.roots == other.roots
    }
}

impl Eq for Bundle {}

impl Bundle {
    /// Of these roots.
    ///
    /// # Errors
    ///
    /// When there are none or too many, or one is no authority of `domain`.
    pub fn from_der(domain: TrustDomain, roots: Vec<CertificateDer<'static>>) -> Result<Self, BundleError> {
        if roots.is_empty() {
            return Err(BundleError::Empty { domain });
        }
        if roots.len() > ROOTS_MAX {
            return Err(BundleError::TooMany { found: roots.len() });
        }
        let read = |(index, der)| Root::read(index, der, &domain);
        let roots = roots.into_iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
        let store = RootCertStore { roots: roots.iter().map(|root| root.anchor.clone()).collect() };
        Ok(Self { domain, roots, store: Arc::new(store) })
    }

    /// From a PEM file of certificates.
    ///
    /// # Errors
    ///
    /// As [`Bundle::from_der`], and when the file is refused.
    pub fn from_pem_file(domain: TrustDomain, path: &Path) -> Result<Self, BundleError> {
        Self::from_der(domain, pem::certificates(path)?)
    }

    /// Whose roots they are.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The roots.
    pub fn roots(&self) -> impl ExactSizeIterator<Item = &CertificateDer<'static>> {
        self.roots.iter().map(|root| &root.der)
    }

    /// Judges what a peer has shown, leaf first, at `now_s`, unix seconds: the rules of a leaf, domain, time, and the chain up to a root.
    ///
    /// # Errors
    ///
    /// [`SvidError`] names the first rule that is broken.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        now_s: u64,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<Leaf, SvidError> {
        if issuers.len() >= CHAIN_MAX {
            return Err(SvidError::ChainTooLong { found: issuers.len() + 1 });
        }
        let mut judged = read_leaf(leaf)?;
        judged.check(&self.domain, now_s)?;
        let mut not_after_s = judged.not_after_s;
        for issuer in issuers {
            let issuer = parse(issuer)?;
            if !is_authority(&issuer)? {
                return Err(SvidError::Issuer);
            }
            not_after_s = not_after_s.min(validity(&issuer)?.1);
        }
        let broken = |error: Error| match error {
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                SvidError::UnknownRoot { id: judged.id.clone() }
            }
            error => SvidError::Chain { id: judged.id.clone(), reason: error.to_string() },
        };
        let parsed = ParsedCertificate::try_from(leaf).map_err(broken)?;
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now_s));
        // The purposes are settled above for both ends, so the path for servers is the path for all.
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.store_at(now_s), issuers, now, algorithms.all)
            .map_err(broken)?;
        judged.not_after_s = not_after_s;
        Ok(judged)
    }

    /// The roots that are valid; webpki never asks how old a root is.
    fn store_at(&self, now_s: u64) -> Arc<RootCertStore> {
        if self.roots.iter().all(|root| root.is_valid_at(now_s)) {
            return Arc::clone(&self.store);
        }
        let valid = self.roots.iter().filter(|root| root.is_valid_at(now_s));
        Arc::new(RootCertStore { roots: valid.map(|root| root.anchor.clone()).collect() })
    }
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundle").field("domain", &self.domain).field("roots", &self.roots.len()).finish()
    }
}
