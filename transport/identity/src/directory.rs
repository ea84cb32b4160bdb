//! The signed directory: what the mesh knows of a member that its SVID does not prove.
//!
//! Operator, network and region decide which relays count as different, so no peer may say its own. One document, signed by keys that
//! the configuration names, as a DSSE envelope over canonical JSON:
//!
//! ```json
//! {"domain":"bpi.devnet","members":{"spiffe://bpi.devnet/relay/r1":{"address":"192.0.2.1:443","asn":64500,
//!  "key":"<64 hex>","operator":"acme","region":"eu-1"}},"validUntil":1795000000,"version":7}
//! ```
//!
//! Always true: a [`Directory`] was signed by a key that is trusted, and a [`LiveDirectory`] never goes back to an older version, nor from one
//! document to another of the same version. After `validUntil` it answers nothing. Absent on purpose: where documents come from.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bpi_protocol::canonical::{self, CanonicalError};
use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::envelope::{ENVELOPE_BYTES_MAX, Envelope, EnvelopeError, PAYLOAD_BYTES_MAX};
use bpi_protocol::key::PublicKey;
use ed25519_dalek::{Signer as _, SigningKey};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::pem::{self, PemError, Secrecy};
use crate::spiffe::{Role, SpiffeId, TrustDomain};

/// DSSE payload type.
pub const PAYLOAD_TYPE: &str = "application/vnd.bpi.directory.v1+json";
/// Most members. The payload's 512 KiB (`bpi_protocol::envelope`) are the tighter limit when members take more than 128 bytes each; as an
/// envelope that is below 700 KiB.
pub const MEMBERS_MAX: usize = 4096;
/// Most keys that may sign: one in force, one that comes, and room.
pub const KEYS_MAX: usize = 4;
/// Longest operator or region.
pub const LABEL_BYTES_MAX: usize = 64;
/// Longest address: a DNS name, a colon and a port.
pub const ADDRESS_BYTES_MAX: usize = 253 + 1 + 5;

/// Why a directory is refused, or does not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The file was not read.
    #[error(transparent)]
    File(#[from] PemError),
    /// Not an envelope.
    #[error("the directory: {0}")]
    Envelope(#[from] EnvelopeError),
    /// An envelope of something else.
    #[error("the envelope holds {found:?}, not a directory ({PAYLOAD_TYPE})")]
    Type {
        /// The refused type, cut.
        found: String,
    },
    /// No key, or too many.
    #[error("{found} keys are trusted for directories; 1 to {max} may be", max = KEYS_MAX)]
    Keys {
        /// How many.
        found: usize,
    },
    /// Nobody who is trusted has signed.
    #[error("none of the {keys} trusted keys has signed this directory")]
    Signature {
        /// How many were tried.
        keys: usize,
    },
    /// Signed, but not canonical or with other members.
    #[error("the directory is not read: {0}")]
    Form(#[from] CanonicalError),
    /// Another trust domain.
    #[error("the directory is that of {found}, not of {wanted}")]
    Domain {
        /// The refused domain.
        found: TrustDomain,
        /// The domain in force.
        wanted: TrustDomain,
    },
    /// Too many members.
    #[error("the directory has {found} members, more than the limit of {max}", max = MEMBERS_MAX)]
    TooMany {
        /// How many.
        found: usize,
    },
    /// A member of another domain.
    #[error("{id} is no member of {domain}")]
    Foreign {
        /// The member.
        id: SpiffeId,
        /// The directory's domain.
        domain: TrustDomain,
    },
    /// A member with a wrong field.
    #[error("{id}: {field} {found:?} is refused: {reason}")]
    Field {
        /// The member.
        id: SpiffeId,
        /// The field.
        field: &'static str,
        /// The refused value, cut.
        found: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Too old.
    #[error("the directory was valid until {valid_until_s}, and it is {now_s} (unix seconds)")]
    Expired {
        /// End of the validity.
        valid_until_s: u64,
        /// The time of judgement.
        now_s: u64,
    },
    /// An older one.
    #[error("version {found} of the directory is older than {held}")]
    Older {
        /// The refused version.
        found: u64,
        /// The version in force.
        held: u64,
    },
    /// Two documents of one version: its signer has erred, or its key is somebody else's.
    #[error("version {version} of the directory is there twice with different content: {found} is not {held}")]
    Twice {
        /// The version.
        version: u64,
        /// Digest of the refused one.
        found: Sha256Digest,
        /// Digest of the one in force.
        held: Sha256Digest,
    },
    /// Nobody of this id.
    #[error("{id} is not in version {version} of the directory")]
    Unknown {
        /// Who was looked for.
        id: SpiffeId,
        /// The version in force.
        version: u64,
    },
}

/// What is known of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Where to reach it, `host:port`. Every relay has one; agents and validators open no port and have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Number of the autonomous system that it is in (RFC 6793), not 0.
    pub asn: u32,
    /// Ed25519 key of its end-to-end identity, 32 bytes as lower-case hex.
    pub key: String,
    /// Who runs it.
    pub operator: String,
    /// Where it stands.
    pub region: String,
}

impl Member {
    /// The key of its end-to-end identity.
    pub fn identity_key(&self) -> Option<PublicKey> {
        let mut raw = [0; 32];
        hex::decode_to_slice(&self.key, &mut raw).ok()?;
        PublicKey::from_raw(&raw).ok().filter(|_| hex::encode(raw) == self.key)
    }

    fn check(&self, id: &SpiffeId) -> Result<(), DirectoryError> {
        let refused = |field, found: &str, reason| {
            Err(DirectoryError::Field { id: id.clone(), field, found: found.chars().take(80).collect(), reason })
        };
        if self.asn == 0 {
            return refused("asn", "0", "AS 0 is nobody's (RFC 7607)");
        }
        if self.identity_key().is_none() {
            return refused("key", &self.key, "not a sound Ed25519 key as 64 lower-case hex digits");
        }
        for (field, label) in [("operator", &self.operator), ("region", &self.region)] {
            let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.' | b'_');
            if !(1..=LABEL_BYTES_MAX).contains(&label.len()) || !label.bytes().all(fits) {
                return refused(field, label, "1 to 64 of a-z, 0-9, '-', '.' and '_' are wanted");
            }
        }
        match (&self.address, id.role()) {
            (None, Role::Relay) => refused("address", "", "a relay must be reachable"),
            (Some(address), Role::Agent | Role::Validator) => {
                refused("address", address, "agents and validators open no port")
            }
            (Some(address), _) if !is_address(address) => refused("address", address, "not host:port"),
            _ => Ok(()),
        }
    }
}

/// `host:port`, the host an IP address or a DNS name, the port not 0.
fn is_address(text: &str) -> bool {
    if text.len() > ADDRESS_BYTES_MAX {
        return false;
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return address.port() != 0;
    }
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_port = port.parse::<u16>().is_ok_and(|number| number != 0 && number.to_string() == port);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
    };
    // A name whose last label is a number would be read as an IPv4 address by some (WHATWG URL, 3.5).
    let ends_in_number = host.rsplit('.').next().is_some_and(|last| last.bytes().all(|c| c.is_ascii_digit()));
    is_port && host.parse::<Ipv4Addr>().is_err() && !ends_in_number && host.split('.').all(is_label)
}

/// The document before it is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document {
    /// Whose members these are.
    pub domain: TrustDomain,
    /// The members.
    pub members: BTreeMap<SpiffeId, Member>,
    /// Until when it answers, unix seconds.
    #[serde(rename = "validUntil")]
    pub valid_until_s: u64,
    /// Which one it is; a newer one has a higher number.
    pub version: u64,
}

impl Document {
    fn check(&self) -> Result<(), DirectoryError> {
        if self.members.len() > MEMBERS_MAX {
            return Err(DirectoryError::TooMany { found: self.members.len() });
        }
        for (id, member) in &self.members {
            if *id.domain() != self.domain {
                return Err(DirectoryError::Foreign { id: id.clone(), domain: self.domain.clone() });
            }
            member.check(id)?;
        }
        Ok(())
    }

    /// Signs the document, as JSON of an envelope.
    ///
    /// # Errors
    ///
    /// When a reader would refuse it.
    pub fn sign(&self, key: &SigningKey) -> Result<Vec<u8>, DirectoryError> {
        self.check()?;
        let payload = canonical::to_bytes(self)?;
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(CanonicalError::TooLong { bytes: payload.len(), max: PAYLOAD_BYTES_MAX }.into());
        }
        let keyid = PublicKey::from_verifying_key(key.verifying_key()).keyid();
        let signature = |pae: &[u8]| Ok::<_, DirectoryError>(key.sign(pae).to_bytes());
        Ok(Envelope::sign_as(PAYLOAD_TYPE, payload, &keyid, signature)?.to_json())
    }
}

/// A document that a trusted key has signed.
#[derive(Clone)]
pub struct Directory {
    document: Document,
    digest: Sha256Digest,
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Document { domain, members, valid_until_s, version } = &self.document;
        write!(f, "Directory({domain}, version {version}, {} members, until {valid_until_s})", members.len())
    }
}

impl Directory {
    /// Reads a signed document that must be of `domain`, signed by one of `keys` and valid at `now_s`, unix seconds.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`] names what is wrong. Nothing but the envelope is read before its signature holds.
    pub fn open(json: &[u8], keys: &[PublicKey], domain: &TrustDomain, now_s: u64) -> Result<Self, DirectoryError> {
        if !(1..=KEYS_MAX).contains(&keys.len()) {
            return Err(DirectoryError::Keys { found: keys.len() });
        }
        let envelope = Envelope::from_json(json)?;
        if envelope.payload_type() != PAYLOAD_TYPE {
            return Err(DirectoryError::Type { found: envelope.payload_type().chars().take(80).collect() });
        }
        if !keys.iter().any(|key| envelope.verify(key).is_ok()) {
            return Err(DirectoryError::Signature { keys: keys.len() });
        }
        let document: Document = canonical::from_bytes(envelope.payload(), PAYLOAD_BYTES_MAX)?;
        if document.domain != *domain {
            return Err(DirectoryError::Domain { found: document.domain, wanted: domain.clone() });
        }
        document.check()?;
        let directory = Self { document, digest: envelope.pae_digest() };
        directory.check_time(now_s)?;
        Ok(directory)
    }

    /// The same from a file.
    ///
    /// # Errors
    ///
    /// As [`Directory::open`], and when the file cannot be read.
    pub fn open_file(
        path: &Path,
        keys: &[PublicKey],
        domain: &TrustDomain,
        now_s: u64,
    ) -> Result<Self, DirectoryError> {
        Self::open(&pem::read_file(path, Secrecy::Public, ENVELOPE_BYTES_MAX)?, keys, domain, now_s)
    }

    fn check_time(&self, now_s: u64) -> Result<(), DirectoryError> {
        let valid_until_s = self.document.valid_until_s;
        if now_s > valid_until_s { Err(DirectoryError::Expired { valid_until_s, now_s }) } else { Ok(()) }
    }

    /// What is known of `id` at `now_s`, unix seconds.
    ///
    /// # Errors
    ///
    /// When the directory has expired or does not know it.
    pub fn lookup(&self, id: &SpiffeId, now_s: u64) -> Result<&Member, DirectoryError> {
        self.check_time(now_s)?;
        let unknown = || DirectoryError::Unknown { id: id.clone(), version: self.document.version };
        self.document.members.get(id).ok_or_else(unknown)
    }

    /// All members of a role at `now_s`, unix seconds, in order of their ids.
    ///
    /// # Errors
    ///
    /// When the directory has expired.
    pub fn members(
        &self,
        role: Role,
        now_s: u64,
    ) -> Result<impl Iterator<Item = (&SpiffeId, &Member)>, DirectoryError> {
        self.check_time(now_s)?;
        Ok(self.document.members.iter().filter(move |(id, _)| id.role() == role))
    }

    /// The document.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Its version.
    pub fn version(&self) -> u64 {
        self.document.version
    }

    /// SHA-256 of what was signed.
    pub fn digest(&self) -> Sha256Digest {
        self.digest
    }
}

/// The directory in force. Clones are cheap and change together.
#[derive(Clone)]
pub struct LiveDirectory {
    current: Arc<watch::Sender<Arc<Directory>>>,
    /// One replacement at a time: versions are compared with the one that is replaced.
    turn: Arc<Mutex<()>>,
}

impl fmt::Debug for LiveDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LiveDirectory").field(&*self.current()).finish()
    }
}

impl LiveDirectory {
    /// Begins with a directory that is not older than `version_min`, the last one that this process has seen before it was started.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Older`].
    pub fn new(first: Directory, version_min: u64) -> Result<Self, DirectoryError> {
        if first.version() < version_min {
            return Err(DirectoryError::Older { found: first.version(), held: version_min });
        }
        Ok(Self { current: Arc::new(watch::Sender::new(Arc::new(first))), turn: Arc::new(Mutex::new(())) })
    }

    /// Takes a newer directory. Returns whether anything changed.
    ///
    /// # Errors
    ///
    /// When it is older than the one in force, or another one of the same version. Nothing changes then.
    pub fn replace(&self, new: Directory) -> Result<bool, DirectoryError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.current();
        if new.version() < held.version() {
            return Err(DirectoryError::Older { found: new.version(), held: held.version() });
        }
        if new.version() == held.version() {
            if new.digest == held.digest {
                return Ok(false);
            }
            return Err(DirectoryError::Twice { version: new.version(), found: new.digest, held: held.digest });
        }
        self.current.send_replace(Arc::new(new));
        Ok(true)
    }

    /// What is in force. It may have expired: [`Directory::lookup`] asks for the time.
    pub fn current(&self) -> Arc<Directory> {
        Arc::clone(&self.current.borrow())
    }

    /// Tells of every replacement.
    pub fn changed(&self) -> watch::Receiver<Arc<Directory>> {
        self.current.subscribe()
    }
}
