//! The few things a pinner asks of a file system, so that tests can cut the power between any two of them.
//!
//! [`HostDisk`] is the real one. Bytes survive a loss of power after [`Disk::sync_file`], a name after [`Disk::sync_folder`] on its folder. What cannot be
//! synced may be lost without the kernel ever saying so again, so such an error is never tried again: it ends the process ([`DiskError::is_fatal`]).

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What was tried of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Reading, listing, asking for the length.
    Read,
    /// Writing bytes.
    Write,
    /// Making bytes durable.
    SyncFile,
    /// Making names durable.
    SyncFolder,
    /// Giving another name.
    Rename,
    /// Taking a name away.
    Remove,
    /// Making a folder.
    MakeFolder,
}

impl Deed {
    fn says(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::SyncFile => "make durable the file",
            Self::SyncFolder => "make durable the names in",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::MakeFolder => "make the folder",
        }
    }
}

/// What the file system has refused.
#[derive(Debug, thiserror::Error)]
#[error("could not {} {}: {source}", deed.says(), path.display())]
pub struct DiskError {
    /// What was tried.
    pub deed: Deed,
    /// Of which file or folder.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

impl DiskError {
    pub(crate) fn new(deed: Deed, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { deed, path: path.to_path_buf(), source }
    }

    /// True when what was written before may be gone: nothing may be acknowledged by this process any more.
    pub fn is_fatal(&self) -> bool {
        matches!(self.deed, Deed::SyncFile | Deed::SyncFolder)
    }

    /// True when there was no room for bytes that nobody relies on yet.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        self.deed == Deed::Write && matches!(self.source.kind(), StorageFull | QuotaExceeded)
    }
}

/// Bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where they begin.
    pub offset: u64,
    /// How many there are.
    pub length: usize,
}

/// What a pinner does to files.
pub trait Disk: Send + Sync + std::fmt::Debug {
    /// The bytes of some spans of a file. `None`: there is no such file, it ends before, or the medium cannot read it any more (EIO).
    ///
    /// # Errors
    /// [`DiskError`] for anything else.
    fn read_at(&self, path: &Path, spans: &[Span]) -> Result<Option<Vec<Vec<u8>>>, DiskError>;
    /// All bytes of a file of this process.
    ///
    /// # Errors
    /// [`DiskError`].
    fn read_whole(&self, path: &Path) -> Result<Vec<u8>, DiskError>;
    /// The names in a folder, in no order.
    ///
    /// # Errors
    /// [`DiskError`].
    fn names(&self, folder: &Path) -> Result<Vec<String>, DiskError>;
    /// Writes bytes at a place, in a file that is made when it is not there. They may be lost with the power.
    ///
    /// # Errors
    /// [`DiskError`].
    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;
    /// The bytes of a file are on the medium when this returns.
    ///
    /// # Errors
    /// [`DiskError`], which is fatal.
    fn sync_file(&self, path: &Path) -> Result<(), DiskError>;
    /// The names in a folder are on the medium when this returns.
    ///
    /// # Errors
    /// [`DiskError`], which is fatal.
    fn sync_folder(&self, folder: &Path) -> Result<(), DiskError>;
    /// Gives a file another name, replacing what had it.
    ///
    /// # Errors
    /// [`DiskError`].
    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError>;
    /// Takes a name away. One that is not there is no error.
    ///
    /// # Errors
    /// [`DiskError`].
    fn remove(&self, path: &Path) -> Result<(), DiskError>;
    /// Makes a folder and those above it, for this user alone. One that exists is left as it is.
    ///
    /// # Errors
    /// [`DiskError`].
    fn make_folder(&self, folder: &Path) -> Result<(), DiskError>;
    /// Bytes that are free where a folder is.
    ///
    /// # Errors
    /// [`DiskError`].
    fn free_bytes(&self, folder: &Path) -> Result<u64, DiskError>;
}

/// The file system of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostDisk;

impl Disk for HostDisk {
    fn read_at(&self, path: &Path, spans: &[Span]) -> Result<Option<Vec<Vec<u8>>>, DiskError> {
        let read = || {
            let file = File::open(path)?;
            let span = |span: &Span| {
                let mut bytes = vec![0; span.length];
                file.read_exact_at(&mut bytes, span.offset).map(|()| bytes)
            };
            spans.iter().map(span).collect::<io::Result<Vec<_>>>()
        };
        match read() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => Ok(None),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => Ok(None),
            Err(error) => Err(DiskError::new(Deed::Read, path)(error)),
        }
    }

    fn read_whole(&self, path: &Path) -> Result<Vec<u8>, DiskError> {
        std::fs::read(path).map_err(DiskError::new(Deed::Read, path))
    }

    fn names(&self, folder: &Path) -> Result<Vec<String>, DiskError> {
        let names = || {
            let entries = std::fs::read_dir(folder)?;
            entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<std::io::Result<Vec<_>>>()
        };
        names().map_err(DiskError::new(Deed::Read, folder))
    }

    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
        opened.and_then(|file| file.write_all_at(bytes, offset)).map_err(DiskError::new(Deed::Write, path))
    }

    fn sync_file(&self, path: &Path) -> Result<(), DiskError> {
        // The error of a write-back is told to a descriptor that is opened later as well, as long as nobody was told before (errseq_t, Linux 4.13).
        File::open(path).and_then(|file| file.sync_all()).map_err(DiskError::new(Deed::SyncFile, path))
    }

    fn sync_folder(&self, folder: &Path) -> Result<(), DiskError> {
        File::open(folder).and_then(|file| file.sync_all()).map_err(DiskError::new(Deed::SyncFolder, folder))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        std::fs::rename(from, to).map_err(DiskError::new(Deed::Rename, from))
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DiskError::new(Deed::Remove, path)(error)),
            _ => Ok(()),
        }
    }

    fn make_folder(&self, folder: &Path) -> Result<(), DiskError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(DiskError::new(Deed::MakeFolder, folder))
    }

    fn free_bytes(&self, folder: &Path) -> Result<u64, DiskError> {
        let found = rustix::fs::statvfs(folder).map_err(|error| DiskError::new(Deed::Read, folder)(error.into()))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}
