//! Keys in files: who may read them, and the Ed25519 key that a member of the mesh is known by.
//!
//! Always true: a private file is a regular one of mode 0600 that this process's user owns, or it is refused; it is never overwritten, and it is durable
//! when it was made. What was read is wiped when it goes out of use. Absent on purpose: passphrases (nobody is there to type one), and remote signers.

mod peer_key;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

pub use peer_key::PeerKey;

/// Longest key file in bytes; comments may be added.
pub const FILE_BYTES_MAX: u64 = 4096;

/// Why there is no key. Each names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is no such file.
    #[error("there is no key at {}; the program's `keygen` makes one", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("could not {deed} the key {}: {source}", path.display())]
    Io {
        /// What was tried.
        deed: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A folder, link, pipe or device.
    #[error("the key {} is not a regular file; name the file itself", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Somebody else owns it.
    #[error("the key {} belongs to user {owner}, but this process runs as user {user}; run `chown {user} {}`", path.display(), path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// Somebody else could have read or replaced it.
    #[error("the key {} has mode {mode:04o}, not 0600; run `chmod 600 {}`, and replace the key if anyone may have copied it", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// No key file.
    #[error("{} is not the key that belongs there: {reason}; restore it from a copy", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong. It never quotes the file.
        reason: &'static str,
    },
    /// A key is never replaced.
    #[error("{} exists already and is not overwritten: who loses a key loses its place; move it away first", path.display())]
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

/// Writes a new file that only its owner reaches (mode 0600), durable when this returns.
///
/// # Errors
/// [`KeyFileError::Exists`] when something has that name; then nothing is changed.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), KeyFileError> {
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
            return Err(KeyFileError::Exists { path: path.to_path_buf() });
        }
        Err(source) => return Err(failed("create", path)(source)),
    };
    if let Err(source) = file.write_all(bytes).and_then(|()| file.sync_all()) {
        std::fs::remove_file(path).map_err(failed("remove the half-written file of", path))?;
        return Err(failed("write", path)(source));
    }
    File::open(folder_of(path)).and_then(|folder| folder.sync_all()).map_err(failed("sync the folder of", path))
}

fn failed(deed: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyFileError {
    move |source| KeyFileError::Io { deed, path: path.to_path_buf(), source }
}

/// Reads a file that only its owner reaches, of at most [`FILE_BYTES_MAX`].
///
/// # Errors
/// [`KeyFileError`] for any doubt about who could have read it, or about what it holds.
pub fn read_private(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    read_private_up_to(path, FILE_BYTES_MAX)
}

/// Reads a private file of at most `bytes_max`.
///
/// # Errors
/// As [`read_private`].
pub fn read_private_up_to(path: &Path, bytes_max: u64) -> Result<Zeroizing<String>, KeyFileError> {
    // O_NONBLOCK: opening a pipe must not wait for its writer; it is refused below.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            return Err(KeyFileError::Missing { path: path.to_path_buf() });
        }
        Err(source) if source.raw_os_error() == Some(libc::ELOOP) => {
            return Err(KeyFileError::NotAFile { path: path.to_path_buf() });
        }
        Err(source) => return Err(failed("open", path)(source)),
    };
    // Asked of the open descriptor, so the answer is about the bytes that are read below.
    let facts = file.metadata().map_err(failed("stat", path))?;
    let user = rustix::process::geteuid().as_raw();
    if !facts.is_file() {
        return Err(KeyFileError::NotAFile { path: path.to_path_buf() });
    }
    if facts.uid() != user {
        return Err(KeyFileError::Owner { path: path.to_path_buf(), owner: facts.uid(), user });
    }
    if facts.mode() & 0o7777 != 0o600 {
        return Err(KeyFileError::Exposed { path: path.to_path_buf(), mode: facts.mode() & 0o7777 });
    }
    let malformed = |reason| KeyFileError::Malformed { path: path.to_path_buf(), reason };
    let mut text = Zeroizing::new(String::with_capacity(bytes_max as usize + 1));
    match file.take(bytes_max + 1).read_to_string(&mut text) {
        Ok(length) if length as u64 <= bytes_max => Ok(text),
        Ok(_) => Err(malformed("it is longer than such a file is")),
        Err(source) if source.kind() == io::ErrorKind::InvalidData => Err(malformed("it is not text")),
        Err(source) => Err(failed("read", path)(source)),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
