//! Who this process is now: SVID and trust bundle, behind one pointer that is swapped as a whole.
//!
//! Whoever reads the pointer sees an SVID and a bundle that belong together. Always true: the SVID held was valid under the bundle
//! held when both were taken, its key is its own, and its id is the id of the first one: a process does not become
//! somebody else. A bad replacement changes nothing. Absent on purpose: where replacements come from (`source`).

use std::fmt;
use std::sync::Arc;

use rustls::CipherSuite;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{Error, InconsistentKeys};
use tokio::sync::watch;

use crate::bundle::Bundle;
use crate::pem;
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::svid::{Leaf, Svid, SvidError};

/// Why an SVID and a bundle are not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The SVID is refused, by the same rules that a peer would judge it by.
    #[error("the own SVID is refused: {0}")]
    Svid(#[from] SvidError),
    /// Somebody else's SVID.
    #[error("the new SVID is that of {found}; this process is {held} until it is started again")]
    Renamed {
        /// The refused id.
        found: SpiffeId,
        /// The id in force.
        held: SpiffeId,
    },
}

/// An SVID, its bundle, and the key as the TLS library holds it.
pub struct Current {
    svid: Svid,
    bundle: Bundle,
    certified: Arc<CertifiedKey>,
}

impl Current {
    /// The SVID.
    pub fn svid(&self) -> &Svid {
        &self.svid
    }

    /// The trust bundle.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    fn is(&self, svid: &Svid, bundle: &Bundle) -> bool {
        self.svid.chain() == svid.chain() && self.bundle == *bundle
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current").field("svid", &self.svid).field("bundle", &self.bundle).finish_non_exhaustive()
    }
}

struct Shared {
    current: watch::Sender<Arc<Current>>,
    provider: Arc<CryptoProvider>,
    time: Arc<dyn TimeProvider>,
}

/// Who this process is. Clones are cheap and change together.
#[derive(Clone)]
pub struct Identity(Arc<Shared>);

impl Identity {
    /// With the system's clock.
    ///
    /// # Errors
    ///
    /// As [`Identity::replace`].
    pub fn new(svid: Svid, bundle: Bundle) -> Result<Self, IdentityError> {
        Self::with_time(svid, bundle, Arc::new(DefaultTimeProvider))
    }

    /// With another clock, which handshakes then use too.
    ///
    /// # Errors
    ///
    /// As [`Identity::replace`].
    pub fn with_time(svid: Svid, bundle: Bundle, time: Arc<dyn TimeProvider>) -> Result<Self, IdentityError> {
        let provider = Arc::new(provider());
        let current = prepare(svid, bundle, &provider, read_clock(&*time)?)?;
        Ok(Self(Arc::new(Shared { current: watch::Sender::new(Arc::new(current)), provider, time })))
    }

    /// Takes a new SVID and bundle for all handshakes from now on. Connections stay as they are. Returns whether anything changed.
    ///
    /// # Errors
    ///
    /// When the SVID is of another id, breaks a rule, does not hold under `bundle` now, or does not match its key. Nothing changes then.
    pub fn replace(&self, svid: Svid, bundle: Bundle) -> Result<bool, IdentityError> {
        let held = self.current();
        if svid.id() != held.svid.id() {
            return Err(IdentityError::Renamed { found: svid.id().clone(), held: held.svid.id().clone() });
        }
        if held.is(&svid, &bundle) {
            return Ok(false);
        }
        let current = prepare(svid, bundle, &self.0.provider, self.now_s()?)?;
        self.0.current.send_replace(Arc::new(current));
        Ok(true)
    }

    /// What is held now.
    pub fn current(&self) -> Arc<Current> {
        Arc::clone(&self.0.current.borrow())
    }

    /// Tells of every replacement. The receiver also reads what is held.
    pub fn changed(&self) -> watch::Receiver<Arc<Current>> {
        self.0.current.subscribe()
    }

    /// Who this process is.
    pub fn id(&self) -> SpiffeId {
        self.0.current.borrow().svid.id().clone()
    }

    /// Its trust domain, and so that of its peers.
    pub fn domain(&self) -> TrustDomain {
        self.0.current.borrow().svid.id().domain().clone()
    }

    /// Judges what a peer has shown, leaf first, by the bundle held now. Roles are the caller's question ([`Leaf::check_role`]).
    ///
    /// # Errors
    ///
    /// [`SvidError`] names the first rule that is broken.
    pub fn peer_of(&self, shown: &[CertificateDer<'_>]) -> Result<Leaf, SvidError> {
        let (leaf, issuers) = shown.split_first().ok_or(SvidError::NoCertificate)?;
        self.judge(leaf, issuers, self.now_s()?)
    }

    /// The time by this identity's clock, unix seconds.
    ///
    /// # Errors
    ///
    /// [`SvidError::Clock`] when there is none.
    pub fn now_s(&self) -> Result<u64, SvidError> {
        read_clock(&*self.0.time)
    }

    pub(crate) fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        now_s: u64,
    ) -> Result<Leaf, SvidError> {
        let algorithms = &self.0.provider.signature_verification_algorithms;
        self.current().bundle.verify(leaf, issuers, now_s, algorithms)
    }

    pub(crate) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.0.provider
    }

    pub(crate) fn time(&self) -> &Arc<dyn TimeProvider> {
        &self.0.time
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&*self.current()).finish()
    }
}

fn read_clock(time: &dyn TimeProvider) -> Result<u64, SvidError> {
    time.current_time().map(|now| now.as_secs()).ok_or(SvidError::Clock)
}

/// Checks the own SVID as a peer would, so that what peers will refuse is refused here, where somebody reads the reason.
/// ring, with the suite first that this hop is fastest with: AES-128 takes less for each packet, and SHA-256 has instructions that SHA-384 has not.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

fn prepare(svid: Svid, bundle: Bundle, provider: &CryptoProvider, now_s: u64) -> Result<Current, SvidError> {
    let (leaf, issuers) = svid.chain().split_first().ok_or(SvidError::NoCertificate)?;
    bundle.verify(leaf, issuers, now_s, &provider.signature_verification_algorithms)?;
    let key = PrivateKeyDer::Pkcs8(pem::private_key(svid.key()).clone_key());
    let unusable = |error: Error| SvidError::Key { reason: error.to_string() };
    let signer = provider.key_provider.load_private_key(key).map_err(unusable)?;
    let certified = CertifiedKey::new(svid.chain().to_vec(), signer);
    certified.keys_match().map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => SvidError::KeyMismatch,
        error => unusable(error),
    })?;
    Ok(Current { svid, bundle, certified: Arc::new(certified) })
}
