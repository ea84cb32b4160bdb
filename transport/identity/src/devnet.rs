//! An authority for devnets and tests: one folder, no service.
//!
//! Keys are ECDSA over P-256: ring, OpenSSL, aioquic and SPIRE (whose default it is) all take it, while Ed25519 certificates are refused by
//! some HTTP/3 peers and by every browser. Chain and key of an SVID are one file, replaced by a rename, so a reader that opens it once has
//! both of one issue. A new root joins the bundle before it signs anything. Always true: what is written would be taken by a peer. Absent
//! on purpose: any protection of the authority's key but its mode; production has SPIRE.
//!
//! ```text
//! ca.pem             0600   key and certificate of the root that signs
//! bundle.pem         0644   all roots, the one that signs first
//! directory.key      0600   Ed25519 key that signs directories; directory.pub is its public half
//! <role>/<name>.pem  0600   key and certificate of an SVID
//! lock               0600   held by whoever changes the folder
//! ```

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::key::PublicKey;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::{LineEnding, encode_string};
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};
use rustix::fs::{FlockOperation, flock};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::bundle::{Bundle, BundleError, ROOTS_MAX};
use crate::directory::{Directory, DirectoryError, Document};
use crate::pem::{self, PemError, Secrecy};
use crate::spiffe::{SpiffeError, SpiffeId, TrustDomain};
use crate::svid::{Leaf, Svid, SvidError, parse, uris, validity};

/// How long a root lives, unless said otherwise.
pub const ROOT_LIFE_S: u64 = 10 * 365 * 86_400;
/// How long an SVID lives, unless said otherwise.
pub const SVID_LIFE_S: u64 = 86_400;
/// Validity begins a tenth of its length, at most this much, before now: clocks differ.
const EARLY_S_MAX: u64 = 60;
/// Longest life, so that sums of seconds stay dates before the year 10000.
const LIFE_S_MAX: u64 = 100 * 366 * 86_400;

/// Why the authority does not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DevnetError {
    /// The folder is in use already.
    #[error("{path} is there already; an authority is not made twice", path = path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A life that cannot be.
    #[error("a life of {life_s} seconds is not between 1 and {max}", max = LIFE_S_MAX)]
    Life {
        /// The refused length.
        life_s: u64,
    },
    /// The root ends before the SVID would.
    #[error("the SVID would live until {not_after_s}, and its root only until {root_s}; rotate the root first")]
    Outlives {
        /// End of the SVID.
        not_after_s: u64,
        /// End of the root.
        root_s: u64,
    },
    /// Another trust domain.
    #[error("{id} is not of {domain}, whose authority this is")]
    Domain {
        /// The refused id.
        id: SpiffeId,
        /// The authority's domain.
        domain: TrustDomain,
    },
    /// The authority's certificate bears no trust domain.
    #[error("{path} bears no trust domain", path = path.display())]
    NoDomain {
        /// The file.
        path: PathBuf,
    },
    /// The authority's own files do not belong together.
    #[error("{path} holds a key and a certificate that do not belong together", path = path.display())]
    Torn {
        /// The file.
        path: PathBuf,
    },
    /// A DNS name that no certificate can hold.
    #[error("{found:?} is no DNS name")]
    Dns {
        /// The refused name.
        found: String,
    },
    /// All places in the bundle are taken by roots that are still valid.
    #[error("the bundle has {ROOTS_MAX} valid roots already")]
    Full,
    /// A certificate or a key was not made.
    #[error("a certificate was not made: {reason}")]
    Make {
        /// What the library said.
        reason: String,
    },
    /// The system has no randomness.
    #[error("the system has no randomness: {reason}")]
    Random {
        /// What it said.
        reason: String,
    },
    /// A file was not written.
    #[error("{path} cannot be written: {reason}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A key of directories that is none.
    #[error("{path} is no Ed25519 key in PKCS#8 PEM", path = path.display())]
    DirectoryKey {
        /// The file.
        path: PathBuf,
    },
    /// A file was not read.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// A certificate is refused.
    #[error(transparent)]
    Svid(#[from] SvidError),
    /// The bundle is refused.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// An id is none.
    #[error(transparent)]
    Spiffe(#[from] SpiffeError),
    /// A directory is refused.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

impl From<rcgen::Error> for DevnetError {
    fn from(error: rcgen::Error) -> Self {
        Self::Make { reason: error.to_string() }
    }
}

/// What an SVID is to be.
#[derive(Debug, Clone)]
pub struct Order {
    /// Begin, unix seconds.
    pub not_before_s: u64,
    /// End, unix seconds.
    pub not_after_s: u64,
    /// DNS names for clients that know nothing of SPIFFE. Nobody of the mesh looks at them.
    pub dns: Vec<String>,
}

impl Order {
    /// Valid for `life_s` from `now_s` on, both in seconds, and from a little before.
    pub fn of_life(now_s: u64, life_s: u64) -> Self {
        let early_s = (life_s / 10).min(EARLY_S_MAX);
        let (not_before_s, not_after_s) = (now_s.saturating_sub(early_s), now_s.saturating_add(life_s));
        Self { not_before_s, not_after_s, dns: Vec::new() }
    }
}

/// A certificate and its key.
pub struct Made {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Made {
    /// The certificate.
    pub fn der(&self) -> &CertificateDer<'static> {
        self.certificate.der()
    }

    /// The key, PKCS#8 in DER.
    pub fn key_der(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.key.serialize_der())
    }

    /// Both as PEM, the key first.
    pub fn pem(&self) -> Zeroizing<String> {
        let key = Zeroizing::new(self.key.serialize_pem());
        Zeroizing::new([key.as_str(), &self.certificate.pem()].concat())
    }

    /// As an SVID.
    ///
    /// # Errors
    ///
    /// When it was bent out of the rules.
    pub fn svid(&self) -> Result<Svid, SvidError> {
        Svid::from_der(vec![self.der().clone()], self.key_der())
    }
}

/// An authority in memory.
pub struct Ca {
    domain: TrustDomain,
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    not_after_s: u64,
}

impl Ca {
    /// A new root that is valid for `life_s` from `now_s` on, both in seconds.
    ///
    /// # Errors
    ///
    /// When the life cannot be, or the library fails.
    pub fn generate(domain: &TrustDomain, now_s: u64, life_s: u64) -> Result<Self, DevnetError> {
        check_life(life_s)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let order = Order::of_life(now_s, life_s);
        let not_after_s = order.not_after_s;
        let mut params = root_params(domain, &key)?;
        set_life(&mut params, &order);
        let certificate = params.self_signed(&key)?;
        let root = certificate.der().clone();
        Ok(Self { domain: domain.clone(), issuer: Issuer::new(params, key), root, not_after_s })
    }

    fn read(path: &Path) -> Result<Self, DevnetError> {
        let (certificates, key) = pem::chain_and_key(path, None)?;
        let torn = || DevnetError::Torn { path: path.to_owned() };
        let [root] = <[_; 1]>::try_from(certificates).map_err(|_| torn())?;
        let (domain, not_after_s) = {
            let certificate = parse(&root)?;
            let domain = uris(&certificate)?.first().and_then(|uri| uri.strip_prefix("spiffe://")).map(str::to_owned);
            let domain = domain.ok_or_else(|| DevnetError::NoDomain { path: path.to_owned() })?;
            (domain.parse::<TrustDomain>()?, validity(&certificate)?.1)
        };
        let key = PrivatePkcs8KeyDer::from(key.as_slice());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256)?;
        if !parse(&root)?.public_key().raw.ends_with(key.public_key_raw()) {
            return Err(torn());
        }
        let params = root_params(&domain, &key)?;
        Ok(Self { domain, issuer: Issuer::new(params, key), root, not_after_s })
    }

    fn to_pem(&self) -> Result<Zeroizing<String>, DevnetError> {
        let key = Zeroizing::new(self.issuer.key().serialize_pem());
        Ok(Zeroizing::new([key.as_str(), &certificate_pem(&self.root)?].concat()))
    }

    /// Whose authority it is.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The root.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The bundle of this root alone.
    ///
    /// # Errors
    ///
    /// As [`Bundle::from_der`].
    pub fn bundle(&self) -> Result<Bundle, BundleError> {
        Bundle::from_der(self.domain.clone(), vec![self.root.clone()])
    }

    /// Issues an SVID.
    ///
    /// # Errors
    ///
    /// When the id is of another domain, the root would end first, or the library fails.
    pub fn issue(&self, id: &SpiffeId, order: &Order) -> Result<Made, DevnetError> {
        let &Order { not_after_s, .. } = order;
        if id.domain() != &self.domain {
            return Err(DevnetError::Domain { id: id.clone(), domain: self.domain.clone() });
        }
        if not_after_s > self.not_after_s {
            return Err(DevnetError::Outlives { not_after_s, root_s: self.not_after_s });
        }
        self.issue_bent(id, order, |_| {})
    }

    /// Issues what `bend` makes of an SVID, whether or not it still is one: for tests of what peers refuse.
    ///
    /// # Errors
    ///
    /// When the library fails.
    pub fn issue_bent(
        &self,
        id: &SpiffeId,
        order: &Order,
        bend: impl FnOnce(&mut CertificateParams),
    ) -> Result<Made, DevnetError> {
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, "BPI devnet");
        name.push(DnType::CommonName, id.role().as_str());
        params.distinguished_name = name;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        set_life(&mut params, order);
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(id.to_string())?)];
        for found in &order.dns {
            let name = Ia5String::try_from(found.as_str()).ok().filter(|name| is_dns_name(name.as_str()));
            let name = name.ok_or_else(|| DevnetError::Dns { found: found.clone() })?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        bend(&mut params);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Made { certificate, key })
    }
}

fn is_dns_name(text: &str) -> bool {
    rustls::pki_types::DnsName::try_from(text).is_ok()
}

fn check_life(life_s: u64) -> Result<(), DevnetError> {
    if (1..=LIFE_S_MAX).contains(&life_s) { Ok(()) } else { Err(DevnetError::Life { life_s }) }
}

/// What a root of this key and domain is. A function of both alone, so that an issuer read back has the same name and key identifier.
fn root_params(domain: &TrustDomain, key: &KeyPair) -> Result<CertificateParams, DevnetError> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "BPI devnet");
    // Roots of one domain have names of their own, so that every verifier finds the right one at once.
    let digest = Sha256Digest::of(key.public_key_raw());
    name.push(DnType::CommonName, format!("root {}", hex::encode(&digest.as_bytes()[..8])));
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(domain.id())?)];
    Ok(params)
}

fn set_life(params: &mut CertificateParams, order: &Order) {
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(order.not_before_s);
    params.not_after = epoch + Duration::from_secs(order.not_after_s);
}

/// A certificate as PEM (RFC 7468).
fn certificate_pem(der: &[u8]) -> Result<String, DevnetError> {
    let failed = |error: ed25519_dalek::pkcs8::spki::der::pem::Error| DevnetError::Make { reason: error.to_string() };
    encode_string("CERTIFICATE", LineEnding::LF, der).map_err(failed)
}

/// What an SVID was written as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The file with key and certificate.
    pub path: PathBuf,
    /// What it says.
    pub leaf: Leaf,
}

/// An authority that lives in a folder.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder at `path`. Nothing is read yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where the bundle is.
    pub fn bundle_path(&self) -> PathBuf {
        self.0.join("bundle.pem")
    }

    /// Where the public key of directories is.
    pub fn directory_key_path(&self) -> PathBuf {
        self.0.join("directory.pub")
    }

    /// Where the SVID of `id` is, unless it was issued elsewhere.
    pub fn svid_path(&self, id: &SpiffeId) -> PathBuf {
        self.0.join(id.role().as_str()).join(format!("{}.pem", id.name()))
    }

    fn ca_path(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    /// Makes the folder, a root that lives `life_s` seconds from `now_s` on, and a key for directories.
    ///
    /// # Errors
    ///
    /// When there is an authority already, or something cannot be written.
    pub fn init(&self, domain: &TrustDomain, now_s: u64, life_s: u64) -> Result<(), DevnetError> {
        make_folder(&self.0)?;
        let _lock = self.lock()?;
        if self.ca_path().exists() {
            return Err(DevnetError::Exists { path: self.ca_path() });
        }
        let ca = Ca::generate(domain, now_s, life_s)?;
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(|error| DevnetError::Random { reason: error.to_string() })?;
        let key = SigningKey::from_bytes(&seed);
        let path = self.0.join("directory.key");
        let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|_| DevnetError::DirectoryKey { path: path.clone() })?;
        replace_file(&path, pem.as_bytes(), 0o600)?;
        let public = PublicKey::from_verifying_key(key.verifying_key()).to_spki_pem();
        replace_file(&self.directory_key_path(), public.as_bytes(), 0o644)?;
        replace_file(&self.bundle_path(), certificate_pem(ca.root())?.as_bytes(), 0o644)?;
        // Last: with it the authority exists.
        replace_file(&self.ca_path(), ca.to_pem()?.as_bytes(), 0o600)
    }

    /// The root that signs now.
    ///
    /// # Errors
    ///
    /// When its file is refused.
    pub fn ca(&self) -> Result<Ca, DevnetError> {
        Ca::read(&self.ca_path())
    }

    /// The bundle.
    ///
    /// # Errors
    ///
    /// When its file is refused.
    pub fn bundle(&self) -> Result<Bundle, DevnetError> {
        Ok(Bundle::from_pem_file(self.ca()?.domain().clone(), &self.bundle_path())?)
    }

    /// Issues an SVID into `to`, or into [`Folder::svid_path`]. One that is there is replaced as a whole.
    ///
    /// # Errors
    ///
    /// When it cannot be issued or written, or would not hold at `now_s`, unix seconds.
    pub fn issue(&self, id: &SpiffeId, order: &Order, now_s: u64, to: Option<&Path>) -> Result<Issued, DevnetError> {
        let _lock = self.lock()?;
        check_life(order.not_after_s.saturating_sub(now_s))?;
        let made = self.ca()?.issue(id, order)?;
        let algorithms = ring::default_provider().signature_verification_algorithms;
        let leaf = self.bundle()?.verify(made.der(), &[], now_s, &algorithms)?;
        let path = match to {
            Some(path) => path.to_owned(),
            None => {
                make_folder(&self.0.join(id.role().as_str()))?;
                self.svid_path(id)
            }
        };
        replace_file(&path, made.pem().as_bytes(), 0o600)?;
        Ok(Issued { path, leaf })
    }

    /// Makes a new root that lives `life_s` seconds from `now_s` on and signs from now on. The older ones stay in the bundle while they are
    /// valid, so SVIDs issued before hold as long as they would have.
    ///
    /// # Errors
    ///
    /// When the bundle is full or something cannot be written.
    pub fn rotate(&self, now_s: u64, life_s: u64) -> Result<(), DevnetError> {
        let _lock = self.lock()?;
        let old = self.ca()?;
        let new = Ca::generate(old.domain(), now_s, life_s)?;
        let mut roots = vec![new.root().clone()];
        for root in self.bundle()?.roots() {
            if validity(&parse(root)?)?.1 >= now_s {
                roots.push(root.clone());
            }
        }
        if roots.len() > ROOTS_MAX {
            return Err(DevnetError::Full);
        }
        let pem = roots.iter().map(|root| certificate_pem(root)).collect::<Result<String, _>>()?;
        // The bundle first: whoever reads between the two writes knows a root that has signed nothing yet.
        replace_file(&self.bundle_path(), pem.as_bytes(), 0o644)?;
        replace_file(&self.ca_path(), new.to_pem()?.as_bytes(), 0o600)
    }

    /// Signs a directory into `to`.
    ///
    /// # Errors
    ///
    /// When a reader would refuse the document at `now_s`, unix seconds, or the file cannot be written.
    pub fn sign_directory(&self, document: &Document, now_s: u64, to: &Path) -> Result<Directory, DevnetError> {
        let path = self.0.join("directory.key");
        let text = pem::read_file(&path, Secrecy::Secret, pem::FILE_BYTES_MAX)?;
        let key = std::str::from_utf8(&text).ok().and_then(|text| SigningKey::from_pkcs8_pem(text).ok());
        let key = key.ok_or(DevnetError::DirectoryKey { path })?;
        let json = document.sign(&key)?;
        let public = PublicKey::from_verifying_key(key.verifying_key());
        let directory = Directory::open(&json, &[public], self.ca()?.domain(), now_s)?;
        replace_file(to, &json, 0o644)?;
        Ok(directory)
    }

    fn lock(&self) -> Result<File, DevnetError> {
        let path = self.0.join("lock");
        let failed = |reason: String| DevnetError::Write { path: path.clone(), reason };
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(|error| failed(error.to_string()))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|error| failed(error.to_string()))?;
        Ok(file)
    }
}

fn make_folder(path: &Path) -> Result<(), DevnetError> {
    let failed = |error: std::io::Error| DevnetError::Write { path: path.to_owned(), reason: error.to_string() };
    DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(failed)
}

/// Puts a file in the place of another in one step, so that a reader sees the old one or the new one.
fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DevnetError> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let failed = |error: std::io::Error| DevnetError::Write { path: path.to_owned(), reason: error.to_string() };
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = folder.join(format!(".new.{}.{number}", std::process::id()));
    let written = (|| {
        // The mode is there from the first byte on.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    })();
    written.map_err(|error| {
        // Perhaps it was never made; there is nothing to add to the first error.
        let _ = std::fs::remove_file(&temporary);
        failed(error)
    })
}

/// What a certificate says, whether or not it is an SVID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// URI names.
    pub uris: Vec<String>,
    /// Name of the issuer.
    pub issuer: String,
    /// Serial number in hexadecimal.
    pub serial: String,
    /// CA:TRUE.
    pub is_authority: bool,
    /// Begin of the validity, unix seconds.
    pub not_before_s: u64,
    /// End of the validity, unix seconds.
    pub not_after_s: u64,
    /// SHA-256 of the DER in hexadecimal.
    pub sha256: String,
}

/// Reads what a certificate says.
///
/// # Errors
///
/// When it is no certificate.
pub fn facts(der: &[u8]) -> Result<Facts, DevnetError> {
    let certificate = parse(der)?;
    let (not_before_s, not_after_s) = validity(&certificate)?;
    Ok(Facts {
        uris: uris(&certificate)?.into_iter().map(str::to_owned).collect(),
        issuer: certificate.issuer().to_string(),
        serial: hex::encode(certificate.raw_serial()),
        is_authority: certificate.is_ca(),
        not_before_s,
        not_after_s,
        sha256: hex::encode(Sha256Digest::of(der).as_bytes()),
    })
}
