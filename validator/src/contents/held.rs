//! Contents that a validator has voted for, on disk until the log has their leaves.
//!
//! ```text
//! length 4 (of the contents) | height 8 | header digest 32 | contents | SHA-256 of all before 32        one after another
//! ```
//!
//! **Contents are kept before PREPARE is said to their header.** A header that is prepared may become final whatever crashes; it was looked into
//! by a quorum, and if they all forgot what it commits to, its leaves would be lost to everybody and the chain would stand still (a storm of
//! kills found this). So those who have prepared it, less the faulty, can give it to all others, or log it themselves.
//!
//! Always true: what [`Held::keep`] has returned for outlives the process and the power. A torn end is what was not returned for, and is cut.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bpi_protocol::consensus::bytes::{BytesError, Reader, Writer};
use bpi_protocol::consensus::ids::{HeaderDigest, Height};
use sha2::{Digest as _, Sha256};

use super::body::{CONTENTS_BYTES_MAX, Contents};

const SUM_BYTES: usize = 32;
/// The file begins anew when nothing in it is needed and it is longer than this.
const RENEW_BYTES: u64 = 1 << 20;
/// Heights that are remembered after the log has them, for peers that are a little behind.
const HEIGHTS_REMEMBERED: u64 = 4;

/// Why contents were not kept.
#[derive(Debug, thiserror::Error)]
pub enum HeldError {
    /// A system call failed.
    #[error("could not {deed} the contents in {}: {source}", path.display())]
    Io {
        /// What was tried.
        deed: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A write failed before: what the medium holds is not known until the file is opened again.
    #[error("an earlier write of {} failed; start this process again", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
    },
}

/// The file, and what is in it.
#[derive(Debug)]
pub struct Held {
    file: File,
    path: PathBuf,
    end: u64,
    failed: bool,
    contents: BTreeMap<HeaderDigest, (Height, Arc<Contents>)>,
}

impl Held {
    /// Opens the file, or makes it, held against every other process. What is of heights that the log has is passed over.
    /// How many bytes an unfinished write left behind, which were cut: to be told, not to be feared.
    ///
    /// # Errors
    /// [`HeldError::Io`].
    pub fn open(path: &Path, logged: Height) -> Result<(Self, usize), HeldError> {
        let failed = |deed| move |source| HeldError::Io { deed, path: path.to_path_buf(), source };
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).to_owned();
        let mut file = options.open(path).map_err(failed("open"))?;
        file.try_lock().map_err(|error| failed("lock")(error.into()))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed("read"))?;
        let mut contents = BTreeMap::new();
        let mut end = 0;
        while let Some((height, digest, found)) = bytes.get(end..).and_then(|rest| read_record(rest, &mut end)) {
            if height > logged {
                contents.insert(digest, (height, Arc::new(found)));
            }
        }
        file.set_len(end as u64).and_then(|()| file.sync_all()).map_err(failed("cut"))?;
        let folder = crate::durable::folder_of(path);
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync the folder of"))?;
        let held = Self { file, path: path.to_path_buf(), end: end as u64, failed: false, contents };
        Ok((held, bytes.len() - end))
    }

    /// Keeps contents, durably. What is held already is held.
    ///
    /// # Errors
    /// [`HeldError`]: then their header is not to be voted for. After one nothing is kept any more.
    pub fn keep(&mut self, height: Height, digest: HeaderDigest, contents: &Arc<Contents>) -> Result<(), HeldError> {
        if self.contents.contains_key(&digest) {
            return Ok(());
        }
        if self.failed {
            return Err(HeldError::Failed { path: self.path.clone() });
        }
        let record = record(height, digest, contents);
        let written = self.file.write_all_at(&record, self.end).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            self.failed = true;
            return Err(HeldError::Io { deed: "write", path: self.path.clone(), source });
        }
        self.end += record.len() as u64;
        self.contents.insert(digest, (height, Arc::clone(contents)));
        Ok(())
    }

    /// The contents of a header.
    pub fn get(&self, digest: &HeaderDigest) -> Option<&Arc<Contents>> {
        self.contents.get(digest).map(|(_, contents)| contents)
    }

    /// The log has, durably, the leaves of the header of this height: what is older is forgotten.
    ///
    /// # Errors
    /// [`HeldError::Io`]; nothing that is needed is lost.
    pub fn forget(&mut self, logged: Height) -> Result<(), HeldError> {
        let oldest = logged.0.saturating_sub(HEIGHTS_REMEMBERED);
        self.contents.retain(|_, (height, _)| height.0 >= oldest);
        let is_needed = self.contents.values().any(|(height, _)| *height > logged);
        if self.end > RENEW_BYTES && !is_needed && !self.failed {
            let renewed = self.file.set_len(0);
            renewed.map_err(|source| HeldError::Io { deed: "cut", path: self.path.clone(), source })?;
            self.end = 0;
        }
        Ok(())
    }
}

fn record(height: Height, digest: HeaderDigest, contents: &Contents) -> Vec<u8> {
    let contents = contents.to_bytes();
    let mut out = Writer::new();
    out.u32(contents.len() as u32).u64(height.0).bytes(&digest.0).bytes(&contents);
    let mut record = out.done();
    let sum = Sha256::digest(&record);
    record.extend_from_slice(&sum);
    record
}

/// The first record of some bytes; `end` is moved by its length.
fn read_record(bytes: &[u8], end: &mut usize) -> Option<(Height, HeaderDigest, Contents)> {
    let (height, digest, contents, length) = parse(bytes).ok()?;
    let (record, sum) = bytes.get(..length + SUM_BYTES)?.split_at(length);
    if Sha256::digest(record).as_slice() != sum {
        return None;
    }
    *end += length + SUM_BYTES;
    Some((height, digest, contents))
}

fn parse(bytes: &[u8]) -> Result<(Height, HeaderDigest, Contents, usize), BytesError> {
    let mut reader = Reader::new(bytes);
    let count = reader.u32()? as usize;
    if count > CONTENTS_BYTES_MAX {
        return Err(BytesError::Count { field: "held contents", count, max: CONTENTS_BYTES_MAX });
    }
    let (height, digest) = (Height(reader.u64()?), HeaderDigest(reader.array()?));
    let contents = Contents::from_bytes(reader.take(count)?)?;
    Ok((height, digest, contents, 4 + 8 + 32 + count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(number: u8) -> Arc<Contents> {
        Arc::new(Contents { segments: vec![[number; 32]; 3], ..Contents::default() })
    }

    fn digest(number: u8) -> HeaderDigest {
        HeaderDigest([number; 32])
    }

    #[test]
    fn what_was_kept_is_there_again_whatever_is_torn_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contents.log");
        let mut held = Held::open(&path, Height(0)).unwrap().0;
        for number in 1..=3 {
            held.keep(Height(number.into()), digest(number), &contents(number)).unwrap();
            held.keep(Height(number.into()), digest(number), &contents(number)).unwrap();
        }
        assert!(Held::open(&path, Height(0)).is_err(), "one process at a time");
        drop(held);
        let whole = std::fs::read(&path).unwrap();
        let each = whole.len() / 3;
        for cut in 0..=each {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let held = Held::open(&path, Height(1)).unwrap().0;
            assert_eq!(held.get(&digest(1)), None, "the log has it");
            assert_eq!(held.get(&digest(2)), Some(&contents(2)));
            assert_eq!(held.get(&digest(3)), (cut == 0).then(|| contents(3)).as_ref());
        }
        // A flipped bit ends what is believed, and what comes then takes its place.
        for at in (2 * each..3 * each).step_by(7) {
            let mut flipped = whole.clone();
            flipped[at] ^= 4;
            std::fs::write(&path, &flipped).unwrap();
            let mut held = Held::open(&path, Height(0)).unwrap().0;
            assert_eq!((held.get(&digest(2)), held.get(&digest(3))), (Some(&contents(2)), None));
            held.keep(Height(4), digest(4), &contents(4)).unwrap();
            drop(held);
            let held = Held::open(&path, Height(0)).unwrap().0;
            assert!(held.get(&digest(2)).is_some() && held.get(&digest(4)).is_some());
        }
    }

    #[test]
    fn what_the_log_has_is_forgotten_and_the_file_does_not_grow_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contents.log");
        let mut held = Held::open(&path, Height(0)).unwrap().0;
        let large = Arc::new(Contents { logs: vec![vec![7; 50 * 1024]], ..Contents::default() });
        let mut longest = 0;
        for number in 1..=100 {
            held.keep(Height(number.into()), digest(number), &large).unwrap();
            longest = longest.max(std::fs::metadata(&path).unwrap().len());
            // One behind: what is newer is needed.
            held.forget(Height(u64::from(number) - u64::from(number % 9 != 0))).unwrap();
            assert!(held.get(&digest(number)).is_some() && held.contents.len() < 8);
        }
        assert!(longest < 2 * RENEW_BYTES, "{longest}");
        drop(held);
        let held = Held::open(&path, Height(98)).unwrap().0;
        assert!(held.get(&digest(99)).is_none() || held.get(&digest(100)).is_some());
    }
}
