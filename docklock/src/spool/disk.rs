//! The few things the spool asks of a file system, so that tests can put a crash between any two of them.
//!
//! [`HostDisk`] is the real one. A write is atomic for readers only by [`Disk::rename`]; it survives a loss of power only after
//! [`Disk::write_durable`] on the file and [`Disk::sync_folder`] on its folder.

use std::any::Any;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

/// Held while it lives.
pub(crate) type Held = Box<dyn Any>;

/// What the spool does to files. Every path is absolute or relative to the process, as the caller gave the spool's folder.
pub(crate) trait Disk: Send + Sync + std::fmt::Debug {
    /// All bytes of a file of at most `limit` bytes; a longer one is `FileTooLarge`.
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>>;
    /// Whether something has this name.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// The names in a folder, in no order.
    fn names(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Writes a file from its start, replacing what was there. It may be lost with the power.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Writes a file from its start; its bytes are on the medium when this returns.
    fn write_durable(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Gives a file another name in the same folder, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a name away.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names in a folder are on the medium when this returns.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Makes a folder and those above it, for this user alone. One that exists is left as it is.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;
    /// Waits until no other process or thread holds the lock file.
    fn lock(&self, path: &Path) -> io::Result<Held>;
}

/// The file system of this host.
#[derive(Debug)]
pub(crate) struct HostDisk;

impl HostDisk {
    fn written(path: &Path, bytes: &[u8]) -> io::Result<File> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        Ok(file)
    }
}

impl Disk for HostDisk {
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        if length > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut bytes = Vec::with_capacity(length as usize);
        file.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match path.symlink_metadata() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        Self::written(path, bytes).map(drop)
    }

    fn write_durable(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        Self::written(path, bytes)?.sync_data()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)
    }

    fn lock(&self, path: &Path) -> io::Result<Held> {
        // A description of its own for each call, so that threads of one process exclude each other as well.
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusive) {
                Ok(lock) => return Ok(Box::new(lock)),
                Err((again, nix::errno::Errno::EINTR)) => file = again,
                Err((_, errno)) => return Err(errno.into()),
            }
        }
    }
}
