//! The host's signing key behind one trait.
//!
//! [`FileKey`] keeps an Ed25519 key as PKCS#8 PEM in a file that only its owner can read; every doubt about who could have read
//! it is a refusal, because a receipt signed by a key that others hold proves nothing. The private bytes are wiped when they go
//! out of use. Absent on purpose: passphrases (nobody is there to type one), TPM and KMS (further implementations of the trait).

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bpi_protocol::key::PublicKey;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, spki::der::pem::LineEnding};
use ed25519_dalek::{Signer as _, SigningKey};
use zeroize::Zeroizing;

/// Longest key file in bytes: a PKCS#8 Ed25519 key takes 119 (RFC 8410, section 10.3), with its public half 164.
const KEY_BYTES_MAX: u64 = 4096;

/// Signs records in the name of this host.
pub trait Signer: Send + Sync {
    /// The key that checks what [`Signer::sign`] makes.
    fn public_key(&self) -> PublicKey;

    /// Ed25519 signature (RFC 8032, section 5.1.6) over `message`.
    ///
    /// # Errors
    /// When the key is out of reach; never for a key in memory.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignerError>;
}

/// Why there is no key, or no signature.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// There is no such file.
    #[error("there is no host key at {}; create one with `docklock keygen --key-file {}`", path.display(), path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A system call on the key file failed.
    #[error("could not {deed} the host key {}: {source}", path.display())]
    Io {
        /// What was tried.
        deed: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A folder, link, pipe or device.
    #[error("the host key {} is not a regular file; name the file itself", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Somebody else owns it.
    #[error("the host key {} belongs to user {owner}, but this process runs as user {user}; run `chown {user} {}`", path.display(), path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// Somebody else could have read or replaced it.
    #[error("the host key {} has mode {mode:04o}, so others can reach it; run `chmod 600 {}`, and replace the key if anyone may have copied it", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a key.
    #[error("the host key {} is not an Ed25519 private key in PKCS#8 PEM ({reason}); create one with `docklock keygen`", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// [`FileKey::generate`] never replaces a key.
    #[error("{} exists already and is not overwritten: records signed by it would lose their key; move it away first", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The kernel gave no randomness.
    #[error("the kernel gave no random bytes for a new key: {reason}")]
    Entropy {
        /// What it said.
        reason: String,
    },
}

impl SignerError {
    /// The code under which docs/errors.md explains it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "DL0201",
            Self::Io { .. } => "DL0202",
            Self::NotAFile { .. } => "DL0203",
            Self::Owner { .. } => "DL0204",
            Self::Exposed { .. } => "DL0205",
            Self::Malformed { .. } => "DL0206",
            Self::Exists { .. } => "DL0207",
            Self::Entropy { .. } => "DL0208",
        }
    }
}

/// An Ed25519 key that was read from a file.
pub struct FileKey {
    key: SigningKey,
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileKey").field("keyid", &self.public_key().keyid()).finish_non_exhaustive()
    }
}

impl FileKey {
    /// Reads the key from `path`: a regular file (not a link to one) that this process's user owns and nobody else can reach.
    ///
    /// # Errors
    /// Each [`SignerError`] names the file and the remedy.
    pub fn load(path: &Path) -> Result<Self, SignerError> {
        let text = read_private(path)?;
        let key = SigningKey::from_pkcs8_pem(&text)
            .map_err(|error| SignerError::Malformed { path: path.to_path_buf(), reason: error.to_string() })?;
        Ok(Self { key })
    }

    /// Makes a new key at `path` (mode 0600, durable when this returns) and its public half at `<path>.pub.pem` (mode 0644).
    ///
    /// # Errors
    /// [`SignerError::Exists`] when either file is already there; then nothing is changed.
    pub fn generate(path: &Path) -> Result<Self, SignerError> {
        let public_path = public_key_path(path);
        if public_path.symlink_metadata().is_ok() {
            return Err(SignerError::Exists { path: public_path });
        }
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(|error| SignerError::Entropy { reason: error.to_string() })?;
        let made = Self { key: SigningKey::from_bytes(&seed) };
        let text = made
            .key
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|error| SignerError::Malformed { path: path.to_path_buf(), reason: error.to_string() })?;
        write_new(path, text.as_bytes(), 0o600)?;
        if let Err(error) = write_new(&public_path, made.public_key().to_spki_pem().as_bytes(), 0o644) {
            // Without its public half the key would be half made; it has signed nothing yet.
            std::fs::remove_file(path).map_err(io_error("remove", path))?;
            return Err(error);
        }
        sync_folder_of(path)?;
        Ok(made)
    }
}

impl Signer for FileKey {
    fn public_key(&self) -> PublicKey {
        PublicKey::from_verifying_key(self.key.verifying_key())
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignerError> {
        Ok(self.key.sign(message).to_bytes())
    }
}

/// Where [`FileKey::generate`] puts the public half of `path`.
pub fn public_key_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub.pem");
    name.into()
}

fn io_error(deed: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SignerError {
    move |source| SignerError::Io { deed, path: path.to_path_buf(), source }
}

fn read_private(path: &Path) -> Result<Zeroizing<String>, SignerError> {
    // O_NONBLOCK: opening a pipe must not wait for its writer; it is refused below.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            return Err(SignerError::Missing { path: path.to_path_buf() });
        }
        Err(source) if source.raw_os_error() == Some(libc::ELOOP) => {
            return Err(SignerError::NotAFile { path: path.to_path_buf() });
        }
        Err(source) => return Err(io_error("open", path)(source)),
    };
    // Asked of the open descriptor, so the answer is about the bytes that are read below.
    let facts = file.metadata().map_err(io_error("stat", path))?;
    let user = nix::unistd::geteuid().as_raw();
    if !facts.is_file() {
        return Err(SignerError::NotAFile { path: path.to_path_buf() });
    }
    if facts.uid() != user {
        return Err(SignerError::Owner { path: path.to_path_buf(), owner: facts.uid(), user });
    }
    if facts.mode() & 0o077 != 0 {
        return Err(SignerError::Exposed { path: path.to_path_buf(), mode: facts.mode() & 0o7777 });
    }
    // Reserved up front: growing would leave unwiped copies of the key behind.
    let mut text = Zeroizing::new(String::with_capacity(KEY_BYTES_MAX as usize + 1));
    match file.take(KEY_BYTES_MAX + 1).read_to_string(&mut text) {
        Ok(length) if length as u64 <= KEY_BYTES_MAX => Ok(text),
        Ok(_) => Err(SignerError::Malformed {
            path: path.to_path_buf(),
            reason: format!("longer than {KEY_BYTES_MAX} bytes"),
        }),
        Err(source) if source.kind() == io::ErrorKind::InvalidData => {
            Err(SignerError::Malformed { path: path.to_path_buf(), reason: "not text".to_owned() })
        }
        Err(source) => Err(io_error("read", path)(source)),
    }
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), SignerError> {
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Ok(file) => file,
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
            return Err(SignerError::Exists { path: path.to_path_buf() });
        }
        Err(source) => return Err(io_error("create", path)(source)),
    };
    if let Err(source) = file.write_all(bytes).and_then(|()| file.sync_all()) {
        std::fs::remove_file(path).map_err(io_error("remove", path))?;
        return Err(io_error("write", path)(source));
    }
    Ok(())
}

fn sync_folder_of(path: &Path) -> Result<(), SignerError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("make durable the folder of", path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_generated_key_loads_and_is_the_same_key() {
        let folder = folder();
        let path = folder.path().join("host.key");
        let made = FileKey::generate(&path).unwrap();
        let loaded = FileKey::load(&path).unwrap();
        assert_eq!(made.public_key().keyid(), loaded.public_key().keyid());
        assert_eq!(made.sign(b"x").unwrap(), loaded.sign(b"x").unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let public = std::fs::read_to_string(public_key_path(&path)).unwrap();
        assert_eq!(PublicKey::from_spki_pem(&public).unwrap().keyid(), made.public_key().keyid());
    }

    #[test]
    fn a_key_that_exists_is_never_replaced() {
        let folder = folder();
        let path = folder.path().join("host.key");
        FileKey::generate(&path).unwrap();
        let before = std::fs::read(&path).unwrap();
        assert_eq!(FileKey::generate(&path).unwrap_err().code(), "DL0207");
        std::fs::remove_file(public_key_path(&path)).unwrap();
        assert_eq!(FileKey::generate(&path).unwrap_err().code(), "DL0207");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_stray_public_half_stops_generation_before_anything_is_written() {
        let folder = folder();
        let path = folder.path().join("host.key");
        std::fs::write(public_key_path(&path), "x").unwrap();
        assert_eq!(FileKey::generate(&path).unwrap_err().code(), "DL0207");
        assert!(!path.exists());
    }

    #[test]
    fn a_key_that_others_can_reach_is_refused() {
        let folder = folder();
        let path = folder.path().join("host.key");
        FileKey::generate(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o610, 0o601] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = FileKey::load(&path).unwrap_err();
            assert_eq!(error.code(), "DL0205");
            assert!(error.to_string().contains(&format!("{mode:04o}")), "{error}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        FileKey::load(&path).unwrap();
    }

    #[test]
    fn links_folders_pipes_and_absence_have_each_their_own_refusal() {
        let folder = folder();
        let key = folder.path().join("host.key");
        FileKey::generate(&key).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&key, &link).unwrap();
        assert_eq!(FileKey::load(&link).unwrap_err().code(), "DL0203");
        assert_eq!(FileKey::load(folder.path()).unwrap_err().code(), "DL0203");
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(FileKey::load(&pipe).unwrap_err().code(), "DL0203");
        assert_eq!(FileKey::load(&folder.path().join("none")).unwrap_err().code(), "DL0201");
    }

    #[test]
    fn what_is_no_key_is_refused_whatever_it_is() {
        let folder = folder();
        let path = folder.path().join("host.key");
        for bytes in [&b""[..], b"-----BEGIN PRIVATE KEY-----\n", b"\xff\xfe", &[b'a'; 5000]] {
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(FileKey::load(&path).unwrap_err().code(), "DL0206");
        }
    }

    #[test]
    fn its_debug_text_holds_no_private_byte() {
        let folder = folder();
        let key = FileKey::generate(&folder.path().join("host.key")).unwrap();
        let text = format!("{key:?}");
        assert!(text.contains("SHA256:") && !text.contains("SigningKey"), "{text}");
    }
}
