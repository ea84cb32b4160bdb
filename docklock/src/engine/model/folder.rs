//! Folders as the guest reads them: whole, sorted, and the same on every file system.
//!
//! A file system lists names in the order of its own hashes, and getdents64(2) gives as many as fit; so the engine reads a folder whole,
//! sorts it once, and serves from the sorted list. A position in a folder is an index into that list, so telldir(3), seekdir(3) and
//! rewinddir(3) work, and the position lives where it always did: in the open file description.
//!
//! Order: `.`, `..`, then the names as bytes. Inode numbers are the caller's to replace, in this order ([`Listing::renumber`]).
//! Absent on purpose: reading folders.

use nix::errno::Errno;

/// Entries of one folder at most: 2^20 of at most 280 bytes are below 300 MB.
pub const ENTRIES_MAX: usize = 1 << 20;
/// Bytes one call gives at most, whatever the guest's buffer holds: the kernel too may return fewer.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Offsets in `struct linux_dirent64` (getdents64(2)): d_ino u64, d_off i64, d_reclen u16, d_type u8, d_name.
const RECLEN: usize = 16;
const TYPE: usize = 18;
const NAME: usize = 19;
/// Offset of d_name in the older `struct linux_dirent`, whose d_type is the record's last byte.
const OLD_NAME: usize = 18;

/// Why a folder cannot be served. All of them are `EIO` to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FolderError {
    /// The record's length is too small, not within the buffer, or leaves its name without an end.
    #[error("the folder entry at byte {offset} of {total} has the length {length}, which does not hold an entry")]
    Record {
        /// Where it begins.
        offset: usize,
        /// What it says of itself.
        length: usize,
        /// Bytes of the buffer.
        total: usize,
    },
    /// The name is empty or holds a slash.
    #[error("the folder entry at byte {offset} has no name that a file can have")]
    Name {
        /// Where the record begins.
        offset: usize,
    },
    /// More than [`ENTRIES_MAX`].
    #[error("a folder of {count} entries is larger than the {ENTRIES_MAX} that are sorted")]
    TooMany {
        /// How many there are.
        count: usize,
    },
}

/// One name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Inode number.
    pub ino: u64,
    /// `DT_DIR`, `DT_REG`, … of readdir(3).
    pub kind: u8,
    /// The name, without the NUL.
    pub name: Vec<u8>,
}

/// Which of the two calls asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// getdents64(2).
    Dents64,
    /// The older getdents(2), whose record ends with the type.
    Dents,
}

/// The entries in one answer of getdents64(2).
///
/// # Errors
/// When a record does not lie within `raw`, or its name is none.
pub fn parse(raw: &[u8]) -> Result<Vec<Entry>, FolderError> {
    let mut entries = Vec::new();
    let mut offset = 0;
    while offset < raw.len() {
        let rest = &raw[offset..];
        let length = rest.get(RECLEN..TYPE).map_or(0, |bytes| usize::from(u16::from_le_bytes([bytes[0], bytes[1]])));
        let refused = FolderError::Record { offset, length, total: raw.len() };
        let record = rest.get(..length).filter(|record| record.len() > NAME).ok_or(refused)?;
        let end = record[NAME..].iter().position(|byte| *byte == 0).ok_or(refused)?;
        let name = &record[NAME..NAME + end];
        if name.is_empty() || name.contains(&b'/') {
            return Err(FolderError::Name { offset });
        }
        let mut ino = [0; 8];
        ino.copy_from_slice(&record[..8]);
        entries.push(Entry { ino: u64::from_le_bytes(ino), kind: record[TYPE], name: name.to_vec() });
        offset += length;
    }
    Ok(entries)
}

/// A whole folder in the order in which the guest sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    entries: Vec<Entry>,
}

impl Listing {
    /// Sorts a whole folder.
    ///
    /// # Errors
    /// [`FolderError::TooMany`].
    pub fn sorted(mut entries: Vec<Entry>) -> Result<Self, FolderError> {
        if entries.len() > ENTRIES_MAX {
            return Err(FolderError::TooMany { count: entries.len() });
        }
        // The kind decides between equal names, which a file system that changes while it is read may give.
        entries.sort_by(|one, other| {
            (rank(&one.name), &one.name, one.kind).cmp(&(rank(&other.name), &other.name, other.kind))
        });
        Ok(Self { entries })
    }

    /// Keeps only what `shown` accepts, as in a /proc that hides names.
    pub fn retain(&mut self, mut shown: impl FnMut(&[u8]) -> bool) {
        self.entries.retain(|entry| shown(&entry.name));
    }

    /// Replaces each inode number by what `number` gives for it, in the order of the listing.
    pub fn renumber(&mut self, mut number: impl FnMut(&Entry) -> u64) {
        for entry in &mut self.entries {
            entry.ino = number(entry);
        }
    }

    /// The entries, sorted.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The records from position `index` on that fit into `capacity` bytes, and the position after them. At the end no bytes.
    ///
    /// # Errors
    /// `EINVAL` when not even one record fits (getdents64(2), ERRORS).
    pub fn serve(&self, index: u64, capacity: usize, form: Form) -> Result<(Vec<u8>, u64), Errno> {
        let capacity = capacity.min(ANSWER_BYTES_MAX);
        let mut next = index;
        let mut answer = Vec::new();
        let start = usize::try_from(index).unwrap_or(usize::MAX);
        for entry in self.entries.get(start..).unwrap_or_default() {
            if answer.len() + record_bytes(entry, form) > capacity {
                break;
            }
            next += 1;
            append(&mut answer, entry, next, form);
        }
        if answer.is_empty() && start < self.entries.len() {
            return Err(Errno::EINVAL);
        }
        Ok((answer, next))
    }
}

fn rank(name: &[u8]) -> u8 {
    match name {
        b"." => 0,
        b".." => 1,
        _ => 2,
    }
}

/// Records are aligned to 8 bytes; the older form has room for the type behind the name's NUL.
fn record_bytes(entry: &Entry, form: Form) -> usize {
    let bytes = match form {
        Form::Dents64 => NAME + entry.name.len() + 1,
        Form::Dents => OLD_NAME + entry.name.len() + 2,
    };
    bytes.next_multiple_of(8)
}

fn append(answer: &mut Vec<u8>, entry: &Entry, next: u64, form: Form) {
    let (begin, length) = (answer.len(), record_bytes(entry, form));
    answer.extend_from_slice(&entry.ino.to_le_bytes());
    answer.extend_from_slice(&next.to_le_bytes());
    // A name of the kernel's has at most 4095 bytes; `parse` took it from a record whose length is 16 bits.
    answer.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
    if form == Form::Dents64 {
        answer.push(entry.kind);
    }
    answer.extend_from_slice(&entry.name);
    answer.resize(begin + length, 0);
    if form == Form::Dents
        && let Some(last) = answer.last_mut()
    {
        *last = entry.kind;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn entry(name: &str, ino: u64) -> Entry {
        Entry { ino, kind: 8, name: name.as_bytes().to_vec() }
    }

    fn names(entries: &[Entry]) -> Vec<&str> {
        entries.iter().map(|entry| std::str::from_utf8(&entry.name).unwrap()).collect()
    }

    fn folder() -> Listing {
        Listing::sorted(["b", "!", "..", "a", "B", "."].map(|name| entry(name, 7)).to_vec()).unwrap()
    }

    #[test]
    fn a_folder_begins_with_itself_and_its_parent() {
        assert_eq!(names(folder().entries()), [".", "..", "!", "B", "a", "b"]);
    }

    #[test]
    fn inode_numbers_are_handed_out_in_sorted_order() {
        let (mut listing, mut next) = (folder(), 999);
        listing.renumber(|_| {
            next += 1;
            next
        });
        assert_eq!(listing.entries()[2], entry("!", 1002));
    }

    #[test]
    fn a_record_has_the_kernels_layout() {
        let listing = Listing::sorted(vec![Entry { ino: 0x0102, kind: 4, name: b"abc".to_vec() }]).unwrap();
        let (new, _) = listing.serve(0, 100, Form::Dents64).unwrap();
        assert_eq!(new, b"\x02\x01\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x18\0\x04abc\0\0");
        let (old, _) = listing.serve(0, 100, Form::Dents).unwrap();
        assert_eq!(old, b"\x02\x01\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x18\0abc\0\0\x04");
    }

    #[test]
    fn a_buffer_too_small_for_one_record_is_invalid() {
        assert_eq!(folder().serve(0, 23, Form::Dents64), Err(Errno::EINVAL));
        assert_eq!(folder().serve(6, 0, Form::Dents64), Ok((Vec::new(), 6)));
        assert_eq!(folder().serve(u64::MAX, 100, Form::Dents64), Ok((Vec::new(), u64::MAX)));
    }

    #[test]
    fn records_that_lie_are_refused() {
        let (good, _) = folder().serve(0, 1000, Form::Dents64).unwrap();
        let broken = |at: usize, byte: u8| {
            let mut raw = good.clone();
            raw[at] = byte;
            parse(&raw).unwrap_err()
        };
        assert_eq!(broken(RECLEN, 0), FolderError::Record { offset: 0, length: 0, total: good.len() });
        assert_eq!(broken(RECLEN, NAME as u8), FolderError::Record { offset: 0, length: NAME, total: good.len() });
        assert_eq!(broken(RECLEN + 1, 0xff), FolderError::Record { offset: 0, length: 0xff18, total: good.len() });
        assert_eq!(broken(NAME, 0), FolderError::Name { offset: 0 });
        assert_eq!(broken(NAME, b'/'), FolderError::Name { offset: 0 });
        assert!(matches!(parse(&good[..good.len() - 1]), Err(FolderError::Record { .. })));
    }

    #[test]
    fn a_folder_that_grew_without_bound_is_refused() {
        let entries = vec![entry("a", 1); ENTRIES_MAX + 1];
        assert_eq!(Listing::sorted(entries), Err(FolderError::TooMany { count: ENTRIES_MAX + 1 }));
    }

    prop_compose! {
        fn any_entry()(ino in any::<u64>(), kind in any::<u8>(), name in proptest::collection::vec(any::<u8>().prop_map(|byte| match byte {
            0 | b'/' => b'x',
            byte => byte,
        }), 1..256)) -> Entry {
            Entry { ino, kind, name }
        }
    }

    proptest! {
        #[test]
        fn in_whatever_pieces_a_folder_is_read_it_is_whole(
            entries in proptest::collection::vec(any_entry(), 0..40),
            capacity in 280_usize..3000,
        ) {
            let listing = Listing::sorted(entries).unwrap();
            let (mut index, mut seen) = (0, Vec::new());
            loop {
                let (raw, next) = listing.serve(index, capacity, Form::Dents64).unwrap();
                prop_assert!(raw.len() <= capacity);
                if raw.is_empty() {
                    break;
                }
                seen.extend(parse(&raw).unwrap());
                index = next;
            }
            prop_assert_eq!(seen.as_slice(), listing.entries());
        }

        #[test]
        fn the_order_of_the_file_system_is_not_seen(mut entries in proptest::collection::vec(any_entry(), 0..20), turn in any::<usize>()) {
            entries.dedup_by(|one, other| one.name == other.name);
            let sorted = Listing::sorted(entries.clone()).unwrap();
            let middle = turn % entries.len().max(1);
            entries.rotate_left(middle);
            let names = |listing: &Listing| listing.entries().iter().map(|entry| entry.name.clone()).collect::<Vec<_>>();
            prop_assert_eq!(names(&Listing::sorted(entries).unwrap()), names(&sorted));
        }

        #[test]
        fn no_raw_folder_panics(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&raw);
        }
    }
}
