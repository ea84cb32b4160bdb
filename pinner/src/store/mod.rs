//! Where shards are: in a folder of this host ([`local`]), or in a bucket ([`objects`]).
//!
//! Either way a shard is one file, assembled in a folder of this host, and put whole ([`layout`] says what is in it). Always true: what [`Shards::put`] and
//! then [`Shards::settle`] have returned for survives a loss of power. Absent on purpose: which shards there should be, which the catalogue knows.

pub mod layout;
pub mod local;
pub mod objects;

use std::path::{Path, PathBuf};

use bpi_protocol::log::Hash;

use crate::disk::{DiskError, Span};

/// Names a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardKey {
    /// Of which batch.
    pub da_root: Hash,
    /// Which.
    pub shard: u8,
}

/// Why shards cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system of this host.
    #[error("{source}{}", if source.is_fatal() { "; it is not tried again, because what was written before may be gone without another word: the process ends, and what was acknowledged is on the medium" } else { "" })]
    Disk {
        /// What it said.
        #[from]
        source: DiskError,
    },
    /// The bucket.
    #[error("could not {deed} {object} of {place}: {reason}")]
    Object {
        /// What was tried.
        deed: &'static str,
        /// With which object.
        object: String,
        /// Where.
        place: String,
        /// What was answered.
        reason: String,
    },
}

impl StoreError {
    /// True when trying again may do: the bucket is elsewhere.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Object { .. })
    }
}

/// Keeps shards.
pub trait Shards: Send + Sync + std::fmt::Debug {
    /// Puts a file that is whole under a shard's name, in place of what has it. `staged` may be gone after.
    ///
    /// # Errors
    /// [`StoreError`].
    fn put(&self, key: &ShardKey, staged: &Path) -> Result<(), StoreError>;
    /// Makes all that was put durable.
    ///
    /// # Errors
    /// [`StoreError`], which is fatal.
    fn settle(&self) -> Result<(), StoreError>;
    /// The bytes of some spans. `None`: there is no such file, it ends before, or the medium cannot read it.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be known.
    fn read(&self, key: &ShardKey, spans: &[Span]) -> Result<Option<Vec<Vec<u8>>>, StoreError>;
    /// Takes a shard away. One that is not there is no error.
    ///
    /// # Errors
    /// [`StoreError`].
    fn remove(&self, key: &ShardKey) -> Result<(), StoreError>;
    /// All whose `da_root` begins with a byte.
    ///
    /// # Errors
    /// [`StoreError`].
    fn list(&self, first: u8) -> Result<Vec<ShardKey>, StoreError>;
    /// Bytes that are free. `None`: nobody says.
    ///
    /// # Errors
    /// [`StoreError`].
    fn free_bytes(&self) -> Result<Option<u64>, StoreError>;
}

/// The name of a shard's file: `<da_root>.<shard>`, in hex and decimal.
pub fn name_of(key: &ShardKey) -> String {
    format!("{}.{}", hex::encode(key.da_root), key.shard)
}

/// Reads such a name. `None`: it is none.
pub fn parse_name(name: &str) -> Option<ShardKey> {
    let (root, shard) = name.split_once('.')?;
    let mut da_root = [0; 32];
    hex::decode_to_slice(root, &mut da_root).ok()?;
    let key = ShardKey { da_root, shard: shard.parse().ok()? };
    (name_of(&key) == name).then_some(key)
}

/// The folder of a first byte.
fn folder_of(folder: &Path, first: u8) -> PathBuf {
    folder.join(hex::encode([first]))
}
