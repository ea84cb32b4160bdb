//! A sorted table of bytes whose writes are durable and whole: what the catalogue needs of RocksDB, so that tests can do without it and cut its power.

use std::path::PathBuf;

/// What a table has refused.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// RocksDB failed.
    #[error("could not {deed} the index in {}: {reason}; the process ends, because what is kept is only known by it", path.display())]
    Store {
        /// What was tried.
        deed: &'static str,
        /// The folder.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// A write failed before.
    #[error("an earlier write to the index in {} failed; start this process again", path.display())]
    Failed {
        /// The folder.
        path: PathBuf,
    },
}

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);
/// A key and its new value. `None`: it goes.
pub type Write = (Vec<u8>, Option<Vec<u8>>);

/// A sorted table.
pub trait Table: Send + Sync + std::fmt::Debug {
    /// The value of a key.
    ///
    /// # Errors
    /// [`TableError`].
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError>;
    /// Keys from one on that begin with a prefix, in ascending order, at most so many.
    ///
    /// # Errors
    /// [`TableError`].
    fn scan(&self, prefix: &[u8], from: &[u8], count_max: usize) -> Result<Vec<Row>, TableError>;
    /// Does all of it, or nothing; durable when this returns.
    ///
    /// # Errors
    /// [`TableError`]: nothing may be written after.
    fn write(&self, writes: &[Write]) -> Result<(), TableError>;
}
