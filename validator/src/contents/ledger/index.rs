//! Where in the log a leaf is: hash tables on disk, each twice as large as the one before.
//!
//! ```text
//! index/mark      "bpi.index.v1" 12 | salt 16 | leaves that are in the tables, durably 8 | first 16 bytes of the SHA-256 of these
//! index/00        leaves 0 up to 65 536, in 131 072 slots of 16 bytes: fingerprint 8 | place + 1 8, or zeros
//! index/01, 02 …  the next 65 536 in as many slots; the next 131 072 in twice as many; …
//! ```
//!
//! A table is made at its full size, sparse, and half full at most, so nothing is ever moved and no append waits for a rebuild; n leaves are
//! in log2(n / 65 536) tables, and asking for a leaf costs one read for each: some 5 µs at a million, and no memory. A window of recent
//! leaves in memory would be exact only about the window, and a receipt that is in the log twice may be charged twice.
//!
//! The fingerprint is salted, so that nobody who chooses receipts chooses the slots where they gather.
//!
//! Always true: a leaf is found if it was inserted. A slot is written in place, never cleared, and does not cross a sector, so a crash loses
//! insertions after the mark alone, and these are done again at the next start; a slot that names a place of a cut tail is told by the hash
//! at that place. Without a good mark the tables are made anew. Absent on purpose: anything that the leaves do not tell again.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bpi_protocol::consensus::bytes::{BytesError, Reader, Writer};
use sha2::{Digest as _, Sha256};

use super::{LedgerError, failed, sync_folder};
use crate::contents::leaf::LeafHash;

const MAGIC: &[u8; 12] = b"bpi.index.v1";
const SUM_BYTES: usize = 16;
const MARK_BYTES: usize = 12 + 16 + 8 + SUM_BYTES;
/// Leaves of the first table, as a power of two.
const FIRST_BITS: u32 = 16;
const SLOT_BYTES: u64 = 16;
/// Slots that are read at once.
const PROBE: u64 = 16;
/// Leaves between two marks: what is inserted again after a crash, in some 10 ms, and pages that are synced at once, 16 MiB.
const MARK_EVERY: u64 = 4_096;

/// The tables.
#[derive(Debug)]
pub(super) struct Index {
    folder: PathBuf,
    mark: File,
    salt: [u8; 16],
    tables: Vec<File>,
    through: u64,
    /// Tables with insertions since the mark, and how many these are.
    dirty: BTreeMap<usize, u64>,
}

/// What is looked for: where to begin, and the fingerprint.
struct Key {
    start: u64,
    fingerprint: u64,
}

impl Index {
    /// Opens the tables of a folder, or makes them.
    pub(super) fn open(folder: &Path) -> Result<Self, LedgerError> {
        let mark_path = folder.join("mark");
        let read = match std::fs::read(&mark_path) {
            Ok(bytes) => read_mark(&bytes),
            Err(source) if source.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(failed("read", &mark_path)(source)),
        };
        let Some((salt, through)) = read else { return Self::create(folder) };
        let mark = OpenOptions::new().write(true).open(&mark_path).map_err(failed("open", &mark_path))?;
        let mut tables = Vec::new();
        let count = if through == 0 { 0 } else { table_of(through - 1) + 1 };
        for number in 0..count {
            let path = table_path(folder, number);
            let table = OpenOptions::new().read(true).write(true).open(&path);
            let length = table.as_ref().ok().and_then(|table| table.metadata().ok()).map(|found| found.len());
            match table {
                Ok(table) if length == Some(slots_of(number) * SLOT_BYTES) => tables.push(table),
                Ok(_) => return Self::create(folder),
                Err(source) if source.kind() == io::ErrorKind::NotFound => return Self::create(folder),
                Err(source) => return Err(failed("open", &path)(source)),
            }
        }
        Ok(Self { folder: folder.to_path_buf(), mark, salt, tables, through, dirty: BTreeMap::new() })
    }

    /// Makes empty tables, with a salt of their own, in the place of any others.
    fn create(folder: &Path) -> Result<Self, LedgerError> {
        match std::fs::remove_dir_all(folder) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed("clear", folder)(source)),
            _ => std::fs::create_dir(folder).map_err(failed("create", folder))?,
        }
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(|error| failed("get entropy for", folder)(io::Error::other(error)))?;
        let path = folder.join("mark");
        let mark = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mark = mark.map_err(failed("create", &path))?;
        let index =
            Self { folder: folder.to_path_buf(), mark, salt, tables: Vec::new(), through: 0, dirty: BTreeMap::new() };
        index.write_mark(0)?;
        sync_folder(folder)?;
        Ok(index)
    }

    /// The log has lost its tail: what comes in its place is not in the tables yet.
    pub(super) fn cut(&mut self, size: u64) -> Result<(), LedgerError> {
        if self.through > size {
            self.write_mark(size)?;
            self.through = size;
        }
        Ok(())
    }

    /// Leaves that a crash cannot take from the tables.
    pub(super) fn through(&self) -> u64 {
        self.through
    }

    /// Puts a leaf in, by its place in the log. Again is well.
    pub(super) fn insert(&mut self, hash: &LeafHash, at: u64) -> Result<(), LedgerError> {
        let number = table_of(at);
        while self.tables.len() <= number {
            let table = self.make_table(self.tables.len())?;
            self.tables.push(table);
        }
        let key = self.key(hash);
        let slot = self.probe(number, &key, |fingerprint, place| {
            Ok(place == 0 || (fingerprint, place) == (key.fingerprint, at + 1))
        })?;
        let (slot, _) = slot.ok_or_else(|| LedgerError::Damaged { path: self.folder.clone(), leaf: at })?;
        let mut out = Writer::new();
        out.u64(key.fingerprint).u64(at + 1);
        let written = self.tables[number].write_all_at(&out.done(), slot * SLOT_BYTES);
        written.map_err(failed("write", &table_path(&self.folder, number)))?;
        *self.dirty.entry(number).or_default() += 1;
        if self.dirty.values().sum::<u64>() >= MARK_EVERY {
            self.sync(at + 1)?;
        }
        Ok(())
    }

    /// The place of a leaf, among those where its fingerprint stands, that `is_it` knows to be its own.
    pub(super) fn find(
        &self,
        hash: &LeafHash,
        is_it: impl Fn(u64) -> Result<bool, LedgerError>,
    ) -> Result<Option<u64>, LedgerError> {
        let key = self.key(hash);
        // The latest table has half of all leaves.
        for number in (0..self.tables.len()).rev() {
            let found = self.probe(number, &key, |fingerprint, place| {
                Ok(place == 0 || fingerprint == key.fingerprint && is_it(place - 1)?)
            })?;
            if let Some((_, place)) = found
                && place > 0
            {
                return Ok(Some(place - 1));
            }
        }
        Ok(None)
    }

    /// The first slot from a key's start on that `is_end` accepts, and the place in it, plus one.
    fn probe(
        &self,
        number: usize,
        key: &Key,
        is_end: impl Fn(u64, u64) -> Result<bool, LedgerError>,
    ) -> Result<Option<(u64, u64)>, LedgerError> {
        let slots = slots_of(number);
        let first = key.start % slots / PROBE * PROBE;
        let skipped = key.start % slots - first;
        let mut bytes = [0; (PROBE * SLOT_BYTES) as usize];
        // Once around, and the slots before the start in the end.
        for step in 0..=slots / PROBE {
            let block = (first + step * PROBE) % slots;
            let read = self.tables[number].read_exact_at(&mut bytes, block * SLOT_BYTES);
            read.map_err(failed("read", &table_path(&self.folder, number)))?;
            let from = if step == 0 { skipped as usize } else { 0 };
            for (at, slot) in bytes.as_chunks::<{ SLOT_BYTES as usize }>().0.iter().enumerate().skip(from) {
                let (fingerprint, place) = read_slot(slot);
                if is_end(fingerprint, place)? {
                    return Ok(Some((block + at as u64, place)));
                }
            }
        }
        Ok(None)
    }

    fn key(&self, hash: &LeafHash) -> Key {
        let salted: [u8; 32] = Sha256::new().chain_update(self.salt).chain_update(hash.0).finalize().into();
        let words = salted.as_chunks::<8>().0;
        Key { start: u64::from_be_bytes(words[0]), fingerprint: u64::from_be_bytes(words[1]) }
    }

    fn make_table(&self, number: usize) -> Result<File, LedgerError> {
        let path = table_path(&self.folder, number);
        // One that is there is of a start before the mark: its slots are as good as any.
        let made = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let table = made.map_err(failed("create", &path))?;
        table.set_len(slots_of(number) * SLOT_BYTES).map_err(failed("create", &path))?;
        sync_folder(&self.folder)?;
        Ok(table)
    }

    /// Makes all insertions durable, and then says so.
    fn sync(&mut self, through: u64) -> Result<(), LedgerError> {
        for number in std::mem::take(&mut self.dirty).into_keys() {
            self.tables[number].sync_all().map_err(failed("sync", &table_path(&self.folder, number)))?;
        }
        self.write_mark(through)?;
        self.through = through;
        Ok(())
    }

    fn write_mark(&self, through: u64) -> Result<(), LedgerError> {
        let mut out = Writer::new();
        out.bytes(MAGIC).bytes(&self.salt).u64(through);
        let bytes = out.done();
        let bytes = [&bytes[..], &Sha256::digest(&bytes)[..SUM_BYTES]].concat();
        let written = self.mark.write_all_at(&bytes, 0).and_then(|()| self.mark.sync_all());
        written.map_err(failed("write", &self.folder.join("mark")))
    }
}

/// Salt and leaves of a mark. `None` for what is none.
fn read_mark(bytes: &[u8]) -> Option<([u8; 16], u64)> {
    let (content, sum) = bytes.split_at_checked(MARK_BYTES - SUM_BYTES)?;
    if sum != &Sha256::digest(content)[..SUM_BYTES] {
        return None;
    }
    let read = || -> Result<_, BytesError> {
        let mut reader = Reader::new(content);
        Ok((reader.array::<12>()?, reader.array()?, reader.u64()?))
    };
    read().ok().filter(|(magic, ..)| magic == MAGIC).map(|(_, salt, through)| (salt, through))
}

fn read_slot(slot: &[u8; SLOT_BYTES as usize]) -> (u64, u64) {
    let both = u128::from_be_bytes(*slot);
    ((both >> 64) as u64, both as u64)
}

/// Which table a place of the log is in: 0 for the first 65 536, then one more for each doubling.
fn table_of(at: u64) -> usize {
    (u64::BITS - (at >> FIRST_BITS).leading_zeros()) as usize
}

/// Twice as many slots as the table has leaves.
fn slots_of(number: usize) -> u64 {
    2 << (FIRST_BITS as usize + number.saturating_sub(1))
}

fn table_path(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("{number:02}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> LeafHash {
        LeafHash(Sha256::digest(number.to_be_bytes()).into())
    }

    #[test]
    fn each_table_begins_where_the_one_before_ends_and_is_half_full_at_most() {
        let mut begin = 0;
        for number in 0..30 {
            let leaves = slots_of(number) / 2;
            assert_eq!((table_of(begin), table_of(begin + leaves - 1)), (number, number));
            begin += leaves;
        }
    }

    #[test]
    fn what_was_inserted_is_found_over_tables_and_starts_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        let leaves = (1 << FIRST_BITS) + 10_000;
        let mut index = Index::open(&path).unwrap();
        (0..leaves).for_each(|at| index.insert(&hash(at), at).unwrap());
        assert_eq!((index.tables.len(), index.through()), (2, leaves / MARK_EVERY * MARK_EVERY));
        let index = Index::open(&path).unwrap();
        for at in (0..leaves).step_by(97) {
            assert_eq!(index.find(&hash(at), |place| Ok(place == at)).unwrap(), Some(at));
            assert_eq!(index.find(&hash(leaves + at), |_| Ok(true)).unwrap(), None);
        }
    }

    #[test]
    fn tables_without_a_good_mark_or_with_one_missing_are_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        let fill = || {
            let mut index = Index::open(&path).unwrap();
            (0..MARK_EVERY).for_each(|at| index.insert(&hash(at), at).unwrap());
            assert_eq!(Index::open(&path).unwrap().through(), MARK_EVERY);
        };
        fill();
        let mut mark = std::fs::read(path.join("mark")).unwrap();
        mark[30] ^= 1;
        std::fs::write(path.join("mark"), mark).unwrap();
        assert_eq!(Index::open(&path).unwrap().through(), 0);
        assert_eq!(Index::open(&path).unwrap().find(&hash(1), |_| Ok(true)).unwrap(), None);
        fill();
        std::fs::remove_file(table_path(&path, 0)).unwrap();
        assert_eq!(Index::open(&path).unwrap().through(), 0);
    }

    #[test]
    fn a_place_that_another_leaf_has_now_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = Index::open(&folder.path().join("index")).unwrap();
        index.insert(&hash(1), 5).unwrap();
        index.insert(&hash(1), 7).unwrap();
        index.insert(&hash(1), 7).unwrap();
        assert_eq!(index.find(&hash(1), |place| Ok(place == 7)).unwrap(), Some(7));
        assert_eq!(index.find(&hash(1), |_| Ok(false)).unwrap(), None);
    }
}
