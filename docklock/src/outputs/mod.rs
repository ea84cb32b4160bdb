//! The digest of the files a container leaves behind.
//!
//! SHA-256 over a listing with one line for each entry, in byte order of the paths, where a directory's path ends with `/`:
//!
//! ```text
//! f0644 6 5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03 "/out/hello.txt"
//! ```
//!
//! Letter: f file, d directory, o directory that hides the layer below, l link, c b devices, p pipe, s socket, w whiteout (a name
//! removed from the layer below). Then permission bits, and size and SHA-256 of a file's bytes or a link's target, `-` for the rest.
//! The path is a JSON string; a byte that is not UTF-8 becomes `\udc80` … `\udcff`, as Python's surrogateescape has it.
//!
//! Always true: no link is followed out of the tree, and memory is bounded by depth × largest directory, whatever the sizes.

mod walk;

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::run::Outputs;

/// Bounds of one measurement, since a guest decides how much there is to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most entries.
    pub entries_max: u64,
    /// Most bytes of files in all; a sparse file counts its holes, for they are hashed too.
    pub bytes_max: u64,
    /// Deepest nesting of directories. Each level holds one descriptor.
    pub depth_max: usize,
}

impl Default for Limits {
    /// Ten million entries; 256 GiB, which take about two minutes at 2 GB/s; 256 levels, a quarter of the usual 1024 descriptors.
    fn default() -> Self {
        Self { entries_max: 10_000_000, bytes_max: 256 << 30, depth_max: 256 }
    }
}

/// Why there is no digest. Paths are those of the container.
#[derive(Debug, thiserror::Error)]
pub enum OutputsError {
    /// A system call failed.
    #[error("could not {deed} the output {path:?}: {source}")]
    Io {
        /// What was tried.
        deed: &'static str,
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A declared path that names no one place.
    #[error("the declared output {path:?} is refused: it has to be absolute, without . and ..")]
    Declared {
        /// The path.
        path: PathBuf,
    },
    /// More than can be measured.
    #[error("the outputs have more than {limit} entries")]
    TooManyEntries {
        /// The limit.
        limit: u64,
    },
    /// More than can be measured.
    #[error("the outputs hold more than {limit} bytes")]
    TooManyBytes {
        /// The limit.
        limit: u64,
    },
    /// Deeper than can be measured.
    #[error("the outputs nest more than {limit} directories at {path:?}")]
    TooDeep {
        /// The limit.
        limit: usize,
        /// Where.
        path: PathBuf,
    },
    /// The overlay keeps part of an entry in a lower layer, so the upper one does not say what the container wrote.
    #[error(
        "the output {path:?} keeps its content in a lower layer ({attribute}); mount the overlay with metacopy=off,redirect_dir=off"
    )]
    Incomplete {
        /// The path.
        path: PathBuf,
        /// The attribute that says so.
        attribute: &'static str,
    },
}

impl OutputsError {
    /// The code under which docs/errors.md explains it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "DL0601",
            Self::Declared { .. } => "DL0602",
            Self::TooManyEntries { .. } => "DL0603",
            Self::TooManyBytes { .. } => "DL0604",
            Self::TooDeep { .. } => "DL0605",
            Self::Incomplete { .. } => "DL0606",
        }
    }
}

/// Nothing was measured.
pub fn nothing() -> Outputs {
    Outputs { scope: "none".to_owned(), digest: Sha256Digest::EMPTY, entries: 0 }
}

/// Measures a container's writable layer: `upperdir` of its overlay, which itself is not an entry.
///
/// # Errors
/// Any [`OutputsError`] but [`OutputsError::Declared`].
pub fn digest_layer(upperdir: &Path, limits: &Limits) -> Result<Outputs, OutputsError> {
    let mut walk = walk::Walk::new(limits, walk::Overlay::Upper);
    walk.layer(upperdir)?;
    Ok(walk.finish("layer"))
}

/// As [`digest_layer`], and writes the listing, of which the result is the digest.
///
/// # Errors
/// As [`digest_layer`]; [`OutputsError::Io`] as well when the listing cannot be written.
pub fn list_layer(upperdir: &Path, limits: &Limits, listing: &mut dyn Write) -> Result<Outputs, OutputsError> {
    let mut walk = walk::Walk::new(limits, walk::Overlay::Upper).into_listing(listing);
    walk.layer(upperdir)?;
    Ok(walk.finish("layer"))
}

/// Measures a root file system that a run starts from and nothing writes to meanwhile. Each line has owner, group, time of last change and
/// device number as well, which a program can see.
///
/// # Errors
/// As [`digest_layer`].
pub fn digest_image(root: &Path, limits: &Limits) -> Result<Sha256Digest, OutputsError> {
    let mut walk = walk::Walk::new(limits, walk::Overlay::Image);
    walk.layer(root)?;
    Ok(walk.finish("layer").digest)
}

/// Measures the paths that a plan declared, resolved inside `rootfs`. One that does not exist is not an entry; one inside another is
/// counted once. Links on the way are followed inside `rootfs`, a link at the end is an entry itself.
///
/// # Errors
/// Any [`OutputsError`].
pub fn digest_paths(rootfs: &Path, declared: &[PathBuf], limits: &Limits) -> Result<Outputs, OutputsError> {
    let mut walk = walk::Walk::new(limits, walk::Overlay::None);
    walk.paths(rootfs, declared)?;
    Ok(walk.finish("paths"))
}
