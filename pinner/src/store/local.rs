//! Shards as files of this host: a folder for each first byte of `da_root`, so that no folder grows beyond measure.
//!
//! Write, fsync, rename, fsync of the folder: the last once for all shards of a batch that came together.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{ShardKey, Shards, StoreError, folder_of, name_of, parse_name};
use crate::disk::{Disk, Span};

/// A folder of shards.
#[derive(Debug)]
pub struct Local {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    unsettled: Mutex<BTreeSet<u8>>,
}

impl Local {
    /// Opens the folder, made when it is not there. Files that are put have to be on the same file system.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(disk: Arc<dyn Disk>, folder: &Path) -> Result<Self, StoreError> {
        disk.make_folder(folder)?;
        for first in 0..=255 {
            disk.make_folder(&folder_of(folder, first))?;
        }
        disk.sync_folder(folder)?;
        if let Some(above) = folder.parent() {
            disk.sync_folder(above)?;
        }
        Ok(Self { disk, folder: folder.to_path_buf(), unsettled: Mutex::default() })
    }

    fn path_of(&self, key: &ShardKey) -> PathBuf {
        folder_of(&self.folder, key.da_root[0]).join(name_of(key))
    }
}

impl Shards for Local {
    fn put(&self, key: &ShardKey, staged: &Path) -> Result<(), StoreError> {
        self.disk.sync_file(staged)?;
        self.disk.rename(staged, &self.path_of(key))?;
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner).insert(key.da_root[0]);
        Ok(())
    }

    fn settle(&self) -> Result<(), StoreError> {
        let folders = std::mem::take(&mut *self.unsettled.lock().unwrap_or_else(PoisonError::into_inner));
        folders.into_iter().try_for_each(|first| Ok(self.disk.sync_folder(&folder_of(&self.folder, first))?))
    }

    fn read(&self, key: &ShardKey, spans: &[Span]) -> Result<Option<Vec<Vec<u8>>>, StoreError> {
        Ok(self.disk.read_at(&self.path_of(key), spans)?)
    }

    fn remove(&self, key: &ShardKey) -> Result<(), StoreError> {
        Ok(self.disk.remove(&self.path_of(key))?)
    }

    fn list(&self, first: u8) -> Result<Vec<ShardKey>, StoreError> {
        let names = self.disk.names(&folder_of(&self.folder, first))?;
        Ok(names.iter().filter_map(|name| parse_name(name)).filter(|key| key.da_root[0] == first).collect())
    }

    fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        Ok(Some(self.disk.free_bytes(&self.folder)?))
    }
}
