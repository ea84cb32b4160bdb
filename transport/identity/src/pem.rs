//! PEM files: certificates and one PKCS#8 key, read once through one descriptor.
//!
//! Mode, owner, length and content are those of the same open file, so a swap under the reader shows either the old file or the new
//! one. Links are followed, since that is how whole folders are swapped. Bounds: bytes of a file, certificates in it. Absent on
//! purpose: older key forms (PKCS#1, SEC1) and encrypted keys.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{SectionKind, SliceIter};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// Longest PEM file: 16 certificates of 8 KiB as base64 and a key are below 192 KiB.
pub const FILE_BYTES_MAX: usize = 192 * 1024;
/// Most certificates in a file.
pub const CERTIFICATES_MAX: usize = 16;

/// Why a file was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// The system refused.
    #[error("{path} cannot be read: {reason}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Not a regular file.
    #[error("{path} is not a regular file", path = path.display())]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// Longer than the limit.
    #[error("{path} has more than {max} bytes", path = path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Limit in force.
        max: usize,
    },
    /// Others may read a file that holds a key.
    #[error("{path} holds a private key and has mode {mode:04o}; it must be 0600 or less", path = path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Permission bits found.
        mode: u32,
    },
    /// Somebody else's key.
    #[error("{path} holds a private key and belongs to user {owner}, not to {user}, who runs this", path = path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The user of this process.
        user: u32,
    },
    /// Broken PEM.
    #[error("{path} is not PEM: {reason}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        reason: String,
    },
    /// Too many certificates.
    #[error("{path} has more than {max} certificates", path = path.display(), max = CERTIFICATES_MAX)]
    TooMany {
        /// The file.
        path: PathBuf,
    },
    /// No certificate.
    #[error("{path} has no certificate", path = path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// No key, or two.
    #[error("{path} has {found} PKCS#8 private keys; exactly one is wanted", path = path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// How many.
        found: usize,
    },
    /// A key in a file that everybody reads.
    #[error("{path} holds a private key; only certificates belong there", path = path.display())]
    UnwantedKey {
        /// The file.
        path: PathBuf,
    },
    /// A section that has no business here.
    #[error("{path} has a section of the kind {kind}, which is not read here", path = path.display())]
    Section {
        /// The file.
        path: PathBuf,
        /// Its kind.
        kind: String,
    },
}

/// What a file held.
pub(crate) struct Sections {
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    pub(crate) keys: Vec<Zeroizing<Vec<u8>>>,
}

/// Whether a file may hold a key; then it must be this user's alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrecy {
    Public,
    Secret,
}

/// The bytes of a regular file, at most `bytes_max`.
pub(crate) fn read_file(path: &Path, secrecy: Secrecy, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, PemError> {
    let refused = |error: std::io::Error| PemError::Read { path: path.to_owned(), reason: error.to_string() };
    let file = File::open(path).map_err(refused)?;
    let meta = file.metadata().map_err(refused)?;
    if !meta.is_file() {
        return Err(PemError::Kind { path: path.to_owned() });
    }
    if secrecy == Secrecy::Secret {
        let (mode, user) = (meta.mode() & 0o7777, rustix::process::geteuid().as_raw());
        if mode & 0o7077 != 0 {
            return Err(PemError::Mode { path: path.to_owned(), mode });
        }
        if meta.uid() != user {
            return Err(PemError::Owner { path: path.to_owned(), owner: meta.uid(), user });
        }
    }
    // All at once: a vector that grows would leave copies of a key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(bytes_max + 1));
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(refused)?;
    if bytes.len() > bytes_max {
        return Err(PemError::TooLong { path: path.to_owned(), max: bytes_max });
    }
    Ok(bytes)
}

/// Certificates and keys of PEM text; `path` is for errors.
pub(crate) fn sections(path: &Path, text: &[u8]) -> Result<Sections, PemError> {
    let mut found = Sections { certificates: Vec::new(), keys: Vec::new() };
    for section in SliceIter::<(SectionKind, Vec<u8>)>::new(text) {
        let (kind, der) =
            section.map_err(|error| PemError::Syntax { path: path.to_owned(), reason: error.to_string() })?;
        match kind {
            SectionKind::Certificate if found.certificates.len() == CERTIFICATES_MAX => {
                return Err(PemError::TooMany { path: path.to_owned() });
            }
            SectionKind::Certificate => found.certificates.push(CertificateDer::from(der)),
            SectionKind::PrivateKey => found.keys.push(Zeroizing::new(der)),
            kind => {
                drop(Zeroizing::new(der));
                return Err(PemError::Section { path: path.to_owned(), kind: format!("{kind:?}") });
            }
        }
    }
    Ok(found)
}

/// The certificates of a file without keys, at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let found = sections(path, &read_file(path, Secrecy::Public, FILE_BYTES_MAX)?)?;
    if !found.keys.is_empty() {
        return Err(PemError::UnwantedKey { path: path.to_owned() });
    }
    if found.certificates.is_empty() {
        return Err(PemError::NoCertificate { path: path.to_owned() });
    }
    Ok(found.certificates)
}

/// A key and its chain in one file, or the key in a file of its own.
pub(crate) fn chain_and_key(
    path: &Path,
    key_path: Option<&Path>,
) -> Result<(Vec<CertificateDer<'static>>, Zeroizing<Vec<u8>>), PemError> {
    let (certificates, keys, key_path) = match key_path {
        Some(key_path) => {
            let chain = certificates(path)?;
            let found = sections(key_path, &read_file(key_path, Secrecy::Secret, FILE_BYTES_MAX)?)?;
            (chain, found.keys, key_path)
        }
        None => {
            let found = sections(path, &read_file(path, Secrecy::Secret, FILE_BYTES_MAX)?)?;
            (found.certificates, found.keys, path)
        }
    };
    if certificates.is_empty() {
        return Err(PemError::NoCertificate { path: path.to_owned() });
    }
    match <[_; 1]>::try_from(keys) {
        Ok([key]) => Ok((certificates, key)),
        Err(keys) => Err(PemError::Keys { path: key_path.to_owned(), found: keys.len() }),
    }
}

/// The key as the TLS library takes it.
pub(crate) fn private_key(pkcs8: &[u8]) -> PrivatePkcs8KeyDer<'_> {
    PrivatePkcs8KeyDer::from(pkcs8)
}
