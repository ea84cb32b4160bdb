//! How far a key has spoken: one record in a file beside the key, so that no data directory put back from a backup can make it speak twice.
//!
//! ```text
//! 0     slot 0: the values of even generations        each slot: the value at 0 and once more at 2048, the rest zero
//! 4096  slot 1: the values of odd generations
//!
//! a value, 133 bytes: "bpi.watermark.v1" 16 | key 32 | generation 8 | height 8 | round 4 | step 1 | SHA-256 of the message 32 |
//!                     SHA-256 of the 101 bytes before 32
//! ```
//!
//! A new value goes into the slot of the value before the last, by one write and one fdatasync (0.16 ms here; a temporary file, a rename and
//! two fsyncs take 1.4 ms), so a torn write leaves the other slot alone, and of its own slot one of the two copies. Therefore:
//! - a slot with one good copy is read, whatever happened to the other: no single flipped bit changes or lowers the watermark;
//! - a slot without any is no torn write but a damaged file, and is refused: the lost value may have been the greater one.
//!
//! Absent on purpose: a file that makes itself. A missing watermark means that nobody knows how far the key has spoken.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bpi_protocol::consensus::bytes::{BytesError, Reader, Writer};
use bpi_protocol::consensus::equivocation::Step;
use bpi_protocol::consensus::ids::{Height, Round};
use bpi_protocol::consensus::message::Message;
use sha2::{Digest as _, Sha256};

use super::folder_of;
use super::record::{read_position, write_position};
use crate::core::Position;
use crate::keys::KeyFingerprint;

/// Bytes of the file, always.
pub const WATERMARK_BYTES: usize = 2 * SLOT_BYTES;
/// A page: the kernel writes no other page when one is changed.
const SLOT_BYTES: usize = 4096;
/// The second copy is some sectors after the first, so that a disk that tears a write at a sector spares one of them.
const COPY_OFFSETS: [usize; 2] = [0, 2048];
const MAGIC: &[u8; 16] = b"bpi.watermark.v1";
const VALUE_BYTES: usize = 16 + 32 + 8 + 13 + 32;
const COPY_BYTES: usize = VALUE_BYTES + 32;

/// SHA-256 of a message's canonical bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageDigest(pub [u8; 32]);

impl MessageDigest {
    /// Of a message.
    pub fn of(message: &Message) -> Self {
        Self(Sha256::digest(message.to_bytes()).into())
    }
}

impl fmt::Debug for MessageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageDigest({})", &hex::encode(&self.0[..4]))
    }
}

/// The last thing that a key has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Where.
    pub position: Position,
    /// What. All zero for a floor.
    pub digest: MessageDigest,
}

impl Mark {
    /// Everything up to the end of a height counts as said.
    pub fn floor(height: Height) -> Self {
        let position = Position { height, round: Round(u32::MAX), step: Step::Commit };
        Self { position, digest: MessageDigest([0; 32]) }
    }
}

/// What a file of a watermark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// Whose.
    pub key: KeyFingerprint,
    /// Counts the writes.
    pub generation: u64,
    /// The last vote.
    pub mark: Mark,
}

/// Why bytes are no watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Not [`WATERMARK_BYTES`].
    #[error("it has {length} bytes, not {WATERMARK_BYTES}")]
    Length {
        /// How many.
        length: u64,
    },
    /// Neither copy of a slot is good: a write tears one of them at most.
    #[error("both copies in slot {slot} are damaged")]
    Slot {
        /// Which.
        slot: usize,
    },
    /// Both slots are good and do not belong together.
    #[error("its two slots do not follow one another (generations {generations:?})")]
    Order {
        /// Of either slot.
        generations: [u64; 2],
    },
}

/// Why the key may not speak.
#[derive(Debug, thiserror::Error)]
pub enum WatermarkError {
    /// There is none.
    #[error(
        "there is no watermark at {}, so nobody knows what this key has signed; put the file back, or, if it is lost, create one whose floor is a height that the chain has not reached yet",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// [`Watermark::create`] never replaces one.
    #[error("{} exists already; a watermark is never replaced", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Another process runs with this key.
    #[error("{} is held by another process: a key signs in one process at a time; stop the other one", path.display())]
    Held {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be believed.
    #[error(
        "the watermark {} is damaged: {damage}; nothing is signed: move it away and create one whose floor is a height that the chain has not reached yet",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },
    /// The file belongs to another key.
    #[error("the watermark {} is of key {found}, not of {wanted}; name the one that lies beside the key", path.display())]
    OtherKey {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: KeyFingerprint,
        /// Whose it should be.
        wanted: KeyFingerprint,
    },
    /// The key has spoken at this position, or beyond it.
    #[error("{asked:?} is not greater than {last:?}, which this key has signed last")]
    NotGreater {
        /// What was to be signed.
        asked: Position,
        /// What was signed.
        last: Position,
    },
    /// A write failed before: what the medium holds is not known until the file is opened again.
    #[error("an earlier write of {} failed; nothing is signed until this process is started again", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("could not {deed} the watermark {}: {source}", path.display())]
    Io {
        /// What was tried.
        deed: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The watermark of one key, held against every other process while it lives.
#[derive(Debug)]
pub struct Watermark {
    file: File,
    path: PathBuf,
    value: Value,
    failed: bool,
}

impl Watermark {
    /// Where the watermark of a key file is: `<key>.watermark`.
    pub fn path_beside(key_file: &Path) -> PathBuf {
        let mut name = key_file.as_os_str().to_owned();
        name.push(".watermark");
        name.into()
    }

    /// Makes the watermark of a key that has said nothing above `floor`: height 0, the genesis, for a new key. Durable when this returns.
    ///
    /// # Errors
    /// [`WatermarkError::Exists`] when something has that name; then nothing is changed.
    pub fn create(path: &Path, key: KeyFingerprint, floor: Height) -> Result<(), WatermarkError> {
        let mark = Mark::floor(floor);
        let values = [Value { key, generation: 0, mark }, Value { key, generation: 1, mark }];
        let bytes: Vec<u8> = values.iter().flat_map(slot_bytes).collect();
        // Made under another name, so that a crash on the way leaves no damaged watermark behind.
        let aside = path.with_extension("watermark-new");
        match std::fs::remove_file(&aside) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(failed("clear away", &aside)(source));
            }
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside);
        let file = file.map_err(failed("create", &aside))?;
        file.write_all_at(&bytes, 0).and_then(|()| file.sync_all()).map_err(failed("write", &aside))?;
        // A link, unlike a rename, does not replace what has the name.
        let linked = std::fs::hard_link(&aside, path);
        std::fs::remove_file(&aside).map_err(failed("clear away", &aside))?;
        match linked {
            Ok(()) => {}
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                return Err(WatermarkError::Exists { path: path.to_path_buf() });
            }
            Err(source) => return Err(failed("name", path)(source)),
        }
        File::open(folder_of(path)).and_then(|folder| folder.sync_all()).map_err(failed("sync the folder of", path))
    }

    /// Opens the watermark of a key and holds it.
    ///
    /// # Errors
    /// [`WatermarkError`] when it is missing, held, damaged, or another key's.
    pub fn open(path: &Path, key: KeyFingerprint) -> Result<Self, WatermarkError> {
        let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path);
        let mut file = match opened {
            Ok(file) => file,
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                return Err(WatermarkError::Missing { path: path.to_path_buf() });
            }
            Err(source) => return Err(failed("open", path)(source)),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(WatermarkError::Held { path: path.to_path_buf() }),
            Err(TryLockError::Error(source)) => return Err(failed("lock", path)(source)),
        }
        // A killed process may have left in the page cache what is not on the medium yet. It counts from here on, so it is synced first.
        file.sync_all().map_err(failed("sync", path))?;
        let length = file.metadata().map_err(failed("stat", path))?.len();
        let damaged = |damage| WatermarkError::Damaged { path: path.to_path_buf(), damage };
        if length != WATERMARK_BYTES as u64 {
            return Err(damaged(Damage::Length { length }));
        }
        let mut bytes = [0; WATERMARK_BYTES];
        file.read_exact(&mut bytes).map_err(failed("read", path))?;
        let value = parse(&bytes).map_err(damaged)?;
        if value.key != key {
            return Err(WatermarkError::OtherKey { path: path.to_path_buf(), found: value.key, wanted: key });
        }
        Ok(Self { file, path: path.to_path_buf(), value, failed: false })
    }

    /// The last vote.
    pub fn mark(&self) -> Mark {
        self.value.mark
    }

    /// Whether the vote may be said: `Ok(true)` when it is new, `Ok(false)` when it is the last one again.
    ///
    /// # Errors
    /// [`WatermarkError::NotGreater`], or [`WatermarkError::Failed`].
    pub fn allows(&self, mark: Mark) -> Result<bool, WatermarkError> {
        if self.failed {
            return Err(WatermarkError::Failed { path: self.path.clone() });
        }
        let last = self.value.mark;
        match mark.position > last.position {
            true => Ok(true),
            false if mark == last => Ok(false),
            false => Err(WatermarkError::NotGreater { asked: mark.position, last: last.position }),
        }
    }

    /// Notes that the key says this. Only when this has returned may the vote leave. The last vote may be said again.
    ///
    /// # Errors
    /// [`WatermarkError::NotGreater`] for anything else that is not greater. After [`WatermarkError::Io`] nothing is allowed any more.
    pub fn advance(&mut self, position: Position, digest: MessageDigest) -> Result<(), WatermarkError> {
        let mark = Mark { position, digest };
        if !self.allows(mark)? {
            return Ok(());
        }
        let value = Value { generation: self.value.generation.saturating_add(1), mark, ..self.value };
        let offset = slot_of(value.generation) * SLOT_BYTES;
        let written = self.file.write_all_at(&slot_bytes(&value), offset as u64).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // After a failed sync the kernel may forget the page and tell the next sync that all is well (fsync(2), BUGS of old).
            self.failed = true;
            return Err(failed("write", &self.path)(source));
        }
        self.value = value;
        Ok(())
    }
}

fn failed(deed: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WatermarkError {
    move |source| WatermarkError::Io { deed, path: path.to_path_buf(), source }
}

fn slot_of(generation: u64) -> usize {
    usize::from(generation % 2 == 1)
}

fn slot_bytes(value: &Value) -> [u8; SLOT_BYTES] {
    let mut out = Writer::new();
    out.bytes(MAGIC).bytes(&value.key.0).u64(value.generation);
    write_position(&mut out, value.mark.position);
    out.bytes(&value.mark.digest.0);
    let mut copy = out.done();
    let sum = Sha256::digest(&copy);
    copy.extend_from_slice(&sum);
    let mut slot = [0; SLOT_BYTES];
    for offset in COPY_OFFSETS {
        slot[offset..offset + COPY_BYTES].copy_from_slice(&copy);
    }
    slot
}

/// Reads the bytes of a watermark's file.
///
/// # Errors
/// [`Damage`] when the greatest value that was ever written to it may be lost.
pub fn parse(bytes: &[u8]) -> Result<Value, Damage> {
    if bytes.len() != WATERMARK_BYTES {
        return Err(Damage::Length { length: bytes.len() as u64 });
    }
    let newest = |slot: usize| {
        let copies = COPY_OFFSETS.iter().filter_map(|offset| {
            let copy = bytes.get(slot * SLOT_BYTES + offset..)?.get(..COPY_BYTES)?;
            parse_copy(copy).ok().flatten().filter(|value| slot_of(value.generation) == slot)
        });
        copies.max_by_key(|value| value.generation).ok_or(Damage::Slot { slot })
    };
    let slots = [newest(0)?, newest(1)?];
    let generations = slots.map(|value| value.generation);
    let (old, new) = if generations[0] < generations[1] { (slots[0], slots[1]) } else { (slots[1], slots[0]) };
    // The first two values are both the floor.
    let follows = old.mark.position < new.mark.position || (old.generation == 0 && old.mark == new.mark);
    if old.generation.checked_add(1) != Some(new.generation) || old.key != new.key || !follows {
        return Err(Damage::Order { generations });
    }
    Ok(new)
}

/// `None`: the checksum is wrong.
fn parse_copy(copy: &[u8]) -> Result<Option<Value>, BytesError> {
    let mut reader = Reader::new(copy);
    let bytes = reader.take(VALUE_BYTES)?;
    if reader.take(32)? != Sha256::digest(bytes).as_slice() || !bytes.starts_with(MAGIC) {
        return Ok(None);
    }
    let mut reader = Reader::new(&bytes[MAGIC.len()..]);
    let (key, generation) = (KeyFingerprint(reader.array()?), reader.u64()?);
    let mark = Mark { position: read_position(&mut reader)?, digest: MessageDigest(reader.array()?) };
    reader.end()?;
    Ok(Some(Value { key, generation, mark }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const KEY: KeyFingerprint = KeyFingerprint([7; 32]);

    fn at(height: u64, round: u32, step: Step) -> Position {
        Position { height: Height(height), round: Round(round), step }
    }

    fn digest(seed: u8) -> MessageDigest {
        MessageDigest([seed; 32])
    }

    fn new(folder: &Path) -> (PathBuf, Watermark) {
        let path = folder.join("key.watermark");
        Watermark::create(&path, KEY, Height(0)).unwrap();
        let mark = Watermark::open(&path, KEY).unwrap();
        (path, mark)
    }

    #[test]
    fn only_what_is_greater_or_the_same_again_is_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut mark) = new(folder.path());
        assert!(mark.advance(at(0, 5, Step::Commit), digest(1)).is_err(), "the genesis is not voted on");
        mark.advance(at(1, 0, Step::Prepare), digest(1)).unwrap();
        mark.advance(at(1, 0, Step::Prepare), digest(1)).unwrap();
        for (position, what) in [
            (at(1, 0, Step::Prepare), digest(2)),
            (at(1, 0, Step::Proposal), digest(1)),
            (at(1, 0, Step::RoundChange), digest(1)),
            (at(0, 9, Step::Commit), digest(1)),
        ] {
            let refused = mark.advance(position, what);
            assert!(matches!(refused, Err(WatermarkError::NotGreater { asked, .. }) if asked == position));
        }
        mark.advance(at(1, 1, Step::RoundChange), digest(3)).unwrap();
        drop(mark);
        let mut mark = Watermark::open(&path, KEY).unwrap();
        assert_eq!(mark.mark(), Mark { position: at(1, 1, Step::RoundChange), digest: digest(3) });
        mark.advance(at(1, 1, Step::RoundChange), digest(3)).unwrap();
        assert!(mark.advance(at(1, 0, Step::Commit), digest(4)).is_err());
    }

    #[test]
    fn a_missing_a_foreign_and_a_held_watermark_are_refused_and_none_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mark) = new(folder.path());
        assert!(matches!(Watermark::create(&path, KEY, Height(9)), Err(WatermarkError::Exists { .. })));
        assert!(matches!(Watermark::open(&path, KEY), Err(WatermarkError::Held { .. })));
        drop(mark);
        let other = Watermark::open(&path, KeyFingerprint([8; 32]));
        assert!(matches!(other, Err(WatermarkError::OtherKey { found: KEY, .. })));
        assert_eq!(Watermark::open(&path, KEY).unwrap().mark(), Mark::floor(Height(0)));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Watermark::open(&path, KEY), Err(WatermarkError::Missing { .. })));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left aside");
    }

    #[test]
    fn a_new_watermark_for_an_old_key_forbids_everything_up_to_its_floor() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.watermark");
        Watermark::create(&path, KEY, Height(100)).unwrap();
        let mut mark = Watermark::open(&path, KEY).unwrap();
        assert!(mark.advance(at(100, u32::MAX, Step::Commit), digest(1)).is_err());
        mark.advance(at(101, 0, Step::RoundChange), digest(1)).unwrap();
    }

    /// The file after some votes, and the values of its last two.
    fn written(votes: u64) -> (Vec<u8>, Mark, Mark) {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut mark) = new(folder.path());
        let mut before = mark.mark();
        for height in 1..=votes {
            before = mark.mark();
            mark.advance(at(height, 0, Step::Commit), digest(height as u8)).unwrap();
        }
        (std::fs::read(path).unwrap(), before, mark.mark())
    }

    #[test]
    fn no_single_flipped_bit_changes_the_watermark() {
        for votes in [0, 1, 2, 3] {
            let (mut bytes, _, last) = written(votes);
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(parse(&bytes).map(|value| value.mark), Ok(last), "bit {bit} after {votes} votes");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn a_file_of_any_other_length_is_refused() {
        let (bytes, ..) = written(2);
        for length in 0..bytes.len() {
            assert_eq!(parse(&bytes[..length]), Err(Damage::Length { length: length as u64 }));
        }
        assert!(parse(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn a_write_torn_at_any_byte_leaves_the_former_or_the_new_value() {
        for votes in [1, 2, 3, 4] {
            let ((old, _, former), (new, _, latest)) = (written(votes - 1), written(votes));
            for torn in 0..=WATERMARK_BYTES {
                for bytes in [[&new[..torn], &old[torn..]].concat(), [&old[..torn], &new[torn..]].concat()] {
                    let mark = parse(&bytes).map(|value| value.mark);
                    assert!(mark == Ok(former) || mark == Ok(latest), "torn at {torn} after {votes} votes: {mark:?}");
                }
            }
        }
    }

    #[test]
    fn a_slot_that_is_lost_as_a_whole_is_refused_and_not_taken_for_an_older_value() {
        for votes in [0, 1, 2, 3] {
            let (bytes, ..) = written(votes);
            for slot in [0, 1] {
                for filler in [0x00, 0xff] {
                    let mut bytes = bytes.clone();
                    bytes[slot * SLOT_BYTES..][..SLOT_BYTES].fill(filler);
                    assert_eq!(parse(&bytes), Err(Damage::Slot { slot }));
                }
            }
        }
    }

    #[test]
    fn slots_of_different_files_do_not_make_a_watermark() {
        let (young, old) = (written(3).0, written(8).0);
        let mixed = [&young[..SLOT_BYTES], &old[SLOT_BYTES..]].concat();
        assert!(matches!(parse(&mixed), Err(Damage::Order { .. })));
    }

    proptest! {
        #[test]
        fn a_disk_that_writes_any_sectors_and_spoils_one_leaves_the_former_or_the_new_value_or_is_refused(
            votes in 1_u64..6, sectors in any::<u16>(), spoilt in 0_usize..16, filler in any::<u8>(),
        ) {
            let ((mut bytes, _, former), (new, _, latest)) = (written(votes - 1), written(votes));
            for sector in (0..16).filter(|sector| sectors >> sector & 1 == 1) {
                bytes[sector * 512..][..512].copy_from_slice(&new[sector * 512..][..512]);
            }
            bytes[spoilt * 512..][..512].fill(filler);
            if let Ok(value) = parse(&bytes) {
                prop_assert!(value.mark == former || value.mark == latest);
            }
        }

        #[test]
        fn bytes_without_a_checksum_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..WATERMARK_BYTES + 2)) {
            prop_assert!(parse(&bytes).is_err());
        }
    }
}
