//! The table of a pinner in RocksDB: the only module that knows it.
//!
//! Memory is bounded by [`WRITE_BUFFER_BYTES`] and [`CACHE_BYTES`]. A write is synced before it returns; after one that failed, none is done any more.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBRecoveryMode, Direction, IteratorMode, LogLevel, Options, WriteBatch, WriteOptions,
};

use crate::table::{Row, Table, TableError, Write};

/// A table of some 4 000 batches; two of them at most are in memory.
const WRITE_BUFFER_BYTES: usize = 4 << 20;
/// Blocks that were read: probes ask for any batch, and a record is read for each.
const CACHE_BYTES: usize = 16 << 20;
/// Descriptors of tables.
const OPEN_FILES_MAX: i32 = 64;

/// The table.
pub struct Index {
    store: DB,
    path: PathBuf,
    failed: AtomicBool,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Index {
    /// Opens the table in a folder, made when it is not there. One process has it at a time.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn open(path: &Path) -> Result<Self, TableError> {
        Self::opened(path, DB::open(&options(true), path))
    }

    /// Opens it to read, beside a process that has it: what that has written by now.
    ///
    /// # Errors
    /// [`TableError`], also when it is not there.
    pub fn open_to_read(path: &Path) -> Result<Self, TableError> {
        Self::opened(path, DB::open_for_read_only(&options(false), path, false))
    }

    fn opened(path: &Path, opened: Result<DB, rocksdb::Error>) -> Result<Self, TableError> {
        let store = opened.map_err(|error| refused("open", path)(error))?;
        Ok(Self { store, path: path.to_path_buf(), failed: AtomicBool::new(false) })
    }
}

fn refused(deed: &'static str, path: &Path) -> impl Fn(rocksdb::Error) -> TableError {
    move |error| TableError::Store { deed, path: path.to_path_buf(), reason: error.into_string() }
}

impl Table for Index {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        self.store.get(key).map_err(refused("read", &self.path))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], count_max: usize) -> Result<Vec<Row>, TableError> {
        let begin = from.max(prefix);
        let rows = self.store.iterator(IteratorMode::From(begin, Direction::Forward)).take(count_max);
        let rows = rows.map(|row| row.map_err(refused("read", &self.path)));
        let within = rows.take_while(|row| row.as_ref().map_or(true, |(key, _)| key.starts_with(prefix)));
        within.map(|row| row.map(|(key, value)| (key.into_vec(), value.into_vec()))).collect()
    }

    fn write(&self, writes: &[Write]) -> Result<(), TableError> {
        if self.failed.load(Ordering::Acquire) {
            return Err(TableError::Failed { path: self.path.clone() });
        }
        let mut batch = WriteBatch::default();
        for (key, value) in writes {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        self.store.write_opt(batch, &synced).map_err(|error| {
            self.failed.store(true, Ordering::Release);
            refused("write to", &self.path)(error)
        })
    }
}

fn options(create: bool) -> Options {
    let mut tables = BlockBasedOptions::default();
    tables.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
    // Indices count towards the cache instead of staying in memory for each open table.
    tables.set_cache_index_and_filter_blocks(true);
    tables.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.create_if_missing(create);
    options.set_block_based_table_factory(&tables);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_db_write_buffer_size(2 * WRITE_BUFFER_BYTES);
    options.set_arena_block_size(64 * 1024);
    options.set_max_write_buffer_number(2);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_background_jobs(2);
    options.set_max_total_wal_size(4 * WRITE_BUFFER_BYTES as u64);
    options.set_paranoid_checks(true);
    // A write-ahead log may end in a torn write, and may have no other damage: the default would drop what follows it in silence.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_log_level(LogLevel::Fatal);
    options.set_keep_log_file_num(1);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_there_in_order_and_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let index = Index::open(folder.path()).unwrap();
        let row = |key: &[u8]| (key.to_vec(), Some(vec![key[1]]));
        index.write(&[row(b"a2"), row(b"a1"), row(b"b1"), row(b"a3")]).unwrap();
        index.write(&[(b"a2".to_vec(), None)]).unwrap();
        drop(index);
        let index = Index::open(folder.path()).unwrap();
        let keys = |rows: Vec<Row>| rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(index.scan(b"a", b"", 9).unwrap()), [b"a1", b"a3"]);
        assert_eq!(keys(index.scan(b"a", b"a2", 9).unwrap()), [b"a3"]);
        assert_eq!(keys(index.scan(b"a", b"", 1).unwrap()), [b"a1"]);
        assert_eq!((index.get(b"a2").unwrap(), index.get(b"b1").unwrap()), (None, Some(vec![b'1'])));
    }
}
