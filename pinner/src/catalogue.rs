//! What a pinner keeps, as rows of a [`Table`]: batches, what they cost each tenant, when they are due, and the log. Each change is one durable write.
//!
//! ```text
//! "b" da_root          a record: the batch, its shards' roots, which shards are kept and which of them are bad
//! "e" time 8 da_root   when the batch is looked at for release
//! "q" time 8 da_root   when it was scrubbed last
//! "x" da_root          it has bad shards
//! "w" da_root          the proof that it is wrongly encoded
//! "l" number 8         an entry of the log
//! "h"                  the log's head
//! "i"                  whose table it is: chain and identity
//! ```
//!
//! Always true: the log says of every shard what its record says, because both are written at once. What each tenant uses is counted when the catalogue is
//! opened, and is a part of no row. One writer; readers as many as there are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bpi_protocol::availability::attestation::{Batch, ShardSet};
use bpi_protocol::consensus::bytes::{BytesError, Reader, Writer};
use bpi_protocol::log::Hash;
use bpi_protocol::log::leaf::TenantId;

use crate::journal::{Entry, Event, Head};
use crate::store::layout::Layout;
use crate::table::{Table, TableError, Write};

const VERSION: u8 = 1;
/// Rows that are read at once: batches of some kilobytes.
const ROWS_MAX: usize = 256;
/// Proofs that are read at once, of 117 KiB at most.
const PROOFS_MAX: usize = 64;
const HEAD_KEY: &[u8] = b"h";
const OWNER_KEY: &[u8] = b"i";

/// Why the catalogue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A row is none.
    #[error(
        "the row {} of the index is damaged: {source}; move the data directory away, start anew, and the shards are repaired from other pinners",
        hex::encode(key)
    )]
    Row {
        /// Its key.
        key: Vec<u8>,
        /// What is wrong.
        source: BytesError,
    },
    /// The log is not what its head says.
    #[error("entry {number} of the log is {what}: somebody has changed it, or the medium has")]
    Log {
        /// Which.
        number: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The table is another's.
    #[error(
        "the index is that of pinner {found}, and this one is {wanted} of another name or chain; correct `data_dir`, `key_file` or `chain`"
    )]
    Owner {
        /// In hex.
        found: String,
        /// In hex.
        wanted: String,
    },
}

/// What is kept of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who brought it.
    pub agent: [u8; 32],
    /// Since when, in s since 1970.
    pub accepted_s: u64,
    /// Until when that was promised.
    pub until_s: u64,
    /// When it is looked at for release.
    pub due_s: u64,
    /// When it was scrubbed last, or came.
    pub scrubbed_s: u64,
    /// Shards that are to be here.
    pub kept: ShardSet,
    /// Those of them that are not as they should be.
    pub bad: ShardSet,
    /// The batch.
    pub batch: Batch,
    /// The root of each of its shards.
    pub roots: Vec<Hash>,
}

/// What is in one set and not in another.
pub fn without(set: ShardSet, other: ShardSet) -> ShardSet {
    set.iter().filter(|shard| !other.contains(*shard)).collect()
}

impl Record {
    /// Shards that are here and good, as far as is known.
    pub fn good(&self) -> ShardSet {
        without(self.kept, self.bad)
    }

    /// Bytes that its shards take, with their trees.
    pub fn bytes(&self) -> u64 {
        Layout::of(&self.batch.coding).file_bytes() * u64::from(self.kept.len())
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(VERSION).bytes(&self.agent).u64(self.accepted_s).u64(self.until_s).u64(self.due_s).u64(self.scrubbed_s);
        self.kept.write(&mut out);
        self.bad.write(&mut out);
        self.batch.write(&mut out);
        out.bytes(self.roots.as_flattened());
        out.done()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(BytesError::Value { field: "version of a record", value: version.into() });
        }
        let agent = reader.array()?;
        let (accepted_s, until_s, due_s, scrubbed_s) = (reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?);
        let (kept, bad) = (ShardSet::read(&mut reader)?, ShardSet::read(&mut reader)?);
        let batch = Batch::read(&mut reader)?;
        let roots = (0..batch.coding.n()).map(|_| reader.array()).collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(Self { agent, accepted_s, until_s, due_s, scrubbed_s, kept, bad, batch, roots })
    }
}

/// What batches come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Batches.
    pub batches: u64,
    /// Shards that are to be here.
    pub shards: u64,
    /// Those of them that are bad.
    pub bad: u64,
    /// Bytes of shards and their trees.
    pub bytes: u64,
}

impl Usage {
    fn of(record: &Record) -> Self {
        Self { batches: 1, shards: record.kept.len().into(), bad: record.bad.len().into(), bytes: record.bytes() }
    }

    fn add(&mut self, more: Self) {
        self.batches += more.batches;
        self.shards += more.shards;
        self.bad += more.bad;
        self.bytes += more.bytes;
    }

    fn take(&mut self, less: Self) {
        self.batches = self.batches.saturating_sub(less.batches);
        self.shards = self.shards.saturating_sub(less.shards);
        self.bad = self.bad.saturating_sub(less.bad);
        self.bytes = self.bytes.saturating_sub(less.bytes);
    }
}

#[derive(Debug, Default)]
struct Counted {
    head: Head,
    tenants: BTreeMap<[u8; 16], Usage>,
}

/// Changes that are done at once or not at all.
#[derive(Debug, Default)]
pub struct Change {
    writes: Vec<Write>,
    less: Vec<(TenantId, Usage)>,
    more: Vec<(TenantId, Usage)>,
    events: Vec<Event>,
}

impl Change {
    /// True when there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.events.is_empty()
    }

    /// Something for the log.
    pub fn log(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Another record in place of the one before, of the same batch.
    pub fn record(&mut self, da_root: &Hash, before: Option<&Record>, after: Option<&Record>) {
        let rows = |record: &Record| {
            let timed = |prefix: u8, time_s: u64| timed_key(prefix, time_s, da_root);
            let mut rows = vec![timed(b'e', record.due_s), timed(b'q', record.scrubbed_s)];
            rows.extend((!record.bad.is_empty()).then(|| key_of(b'x', da_root)));
            rows
        };
        if let Some(before) = before {
            self.writes.extend(rows(before).into_iter().map(|key| (key, None)));
            self.less.push((before.batch.tenant, Usage::of(before)));
        }
        if let Some(after) = after {
            self.writes.extend(rows(after).into_iter().map(|key| (key, Some(Vec::new()))));
            self.more.push((after.batch.tenant, Usage::of(after)));
        }
        self.writes.push((key_of(b'b', da_root), after.map(Record::to_bytes)));
    }

    /// The proof that a batch is wrongly encoded.
    pub fn wrong(&mut self, da_root: &Hash, proof: Vec<u8>) {
        self.writes.push((key_of(b'w', da_root), Some(proof)));
    }
}

/// What is kept.
#[derive(Debug)]
pub struct Catalogue {
    table: Arc<dyn Table>,
    counted: Mutex<Counted>,
}

impl Catalogue {
    /// Opens the catalogue of one pinner of one chain, and counts what each tenant has.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub fn open(table: Arc<dyn Table>, owner: &[u8]) -> Result<Self, CatalogueError> {
        match table.get(OWNER_KEY)? {
            None => table.write(&[(OWNER_KEY.to_vec(), Some(owner.to_vec()))])?,
            Some(found) if found == owner => {}
            Some(found) => {
                return Err(CatalogueError::Owner { found: hex::encode(found), wanted: hex::encode(owner) });
            }
        }
        Self::open_to_read(table)
    }

    /// Opens it whosever it is.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub fn open_to_read(table: Arc<dyn Table>) -> Result<Self, CatalogueError> {
        let catalogue = Self { table, counted: Mutex::default() };
        let mut counted = Counted::default();
        if let Some(bytes) = catalogue.table.get(HEAD_KEY)? {
            counted.head = Head::from_bytes(&bytes).map_err(damaged(HEAD_KEY))?;
        }
        let mut after = None;
        loop {
            let records = catalogue.records_after(after.as_ref())?;
            let Some((last, _)) = records.last() else { break };
            after = Some(*last);
            for (_, record) in &records {
                counted.tenants.entry(record.batch.tenant.0).or_default().add(Usage::of(record));
            }
        }
        *catalogue.counted() = counted;
        Ok(catalogue)
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept of a batch.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub fn record(&self, da_root: &Hash) -> Result<Option<Record>, CatalogueError> {
        let key = key_of(b'b', da_root);
        let Some(bytes) = self.table.get(&key)? else { return Ok(None) };
        Record::from_bytes(&bytes).map(Some).map_err(damaged(&key))
    }

    /// Some batches after one, in order of their `da_root`.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub fn records_after(&self, after: Option<&Hash>) -> Result<Vec<(Hash, Record)>, CatalogueError> {
        let from = after.map_or_else(Vec::new, |root| [&key_of(b'b', root)[..], &[0]].concat());
        let rows = self.table.scan(b"b", &from, ROWS_MAX)?;
        let read = |(key, bytes): (Vec<u8>, Vec<u8>)| {
            let record = Record::from_bytes(&bytes).map_err(damaged(&key))?;
            Ok((root_of(&key)?, record))
        };
        rows.into_iter().map(read).collect()
    }

    /// The batch that was not scrubbed for longest, and when it was.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub fn longest_unscrubbed(&self) -> Result<Option<(u64, Hash)>, CatalogueError> {
        Ok(self.timed(b'q', 1)?.pop())
    }

    /// Batches that are due at a time.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub fn due(&self, now_s: u64) -> Result<Vec<Hash>, CatalogueError> {
        let rows = self.timed(b'e', ROWS_MAX)?;
        Ok(rows.into_iter().take_while(|(due_s, _)| *due_s <= now_s).map(|(_, root)| root).collect())
    }

    fn timed(&self, prefix: u8, count_max: usize) -> Result<Vec<(u64, Hash)>, CatalogueError> {
        let rows = self.table.scan(&[prefix], &[], count_max)?;
        let read = |(key, _): (Vec<u8>, Vec<u8>)| {
            let time = key.get(1..9).and_then(|time| time.try_into().ok()).map_or(0, u64::from_be_bytes);
            Ok((time, root_of(&key)?))
        };
        rows.into_iter().map(read).collect()
    }

    /// Batches after one that have bad shards.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub fn with_bad_shards(&self, after: Option<&Hash>) -> Result<Vec<Hash>, CatalogueError> {
        let from = after.map_or_else(Vec::new, |root| [&key_of(b'x', root)[..], &[0]].concat());
        self.table.scan(b"x", &from, ROWS_MAX)?.iter().map(|(key, _)| root_of(key)).collect()
    }

    /// The proof that a batch is wrongly encoded, if there is one.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub fn wrong(&self, da_root: &Hash) -> Result<Option<Vec<u8>>, CatalogueError> {
        Ok(self.table.get(&key_of(b'w', da_root))?)
    }

    /// Proofs of wrong encodings, some of them.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub fn proofs(&self) -> Result<Vec<Vec<u8>>, CatalogueError> {
        Ok(self.table.scan(b"w", &[], PROOFS_MAX)?.into_iter().map(|(_, proof)| proof).collect())
    }

    /// What a tenant uses.
    pub fn usage_of(&self, tenant: TenantId) -> Usage {
        self.counted().tenants.get(&tenant.0).copied().unwrap_or_default()
    }

    /// What each tenant uses.
    pub fn usage(&self) -> Vec<(TenantId, Usage)> {
        self.counted().tenants.iter().map(|(tenant, usage)| (TenantId(*tenant), *usage)).collect()
    }

    /// What all use.
    pub fn total(&self) -> Usage {
        let mut total = Usage::default();
        self.counted().tenants.values().for_each(|usage| total.add(*usage));
        total
    }

    /// The head of the log.
    pub fn head(&self) -> Head {
        self.counted().head
    }

    /// Does all of a change, durably.
    ///
    /// # Errors
    /// [`CatalogueError`]: nothing may be written after.
    pub fn commit(&self, change: Change) -> Result<(), CatalogueError> {
        let Change { mut writes, less, more, events } = change;
        let mut counted = self.counted();
        let mut head = counted.head;
        for event in events {
            let number = head.length;
            let bytes = Entry { number, event }.to_bytes();
            head = head.after(&bytes);
            writes.push((entry_key(number), Some(bytes)));
        }
        if head != counted.head {
            writes.push((HEAD_KEY.to_vec(), Some(head.to_bytes())));
        }
        if writes.is_empty() {
            return Ok(());
        }
        self.table.write(&writes)?;
        counted.head = head;
        for (tenant, usage) in less {
            counted.tenants.entry(tenant.0).or_default().take(usage);
        }
        for (tenant, usage) in more {
            counted.tenants.entry(tenant.0).or_default().add(usage);
        }
        Ok(())
    }

    /// Entries of the log from a number on, at most 256.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub fn entries(&self, from: u64) -> Result<Vec<Entry>, CatalogueError> {
        let rows = self.table.scan(b"l", &entry_key(from), ROWS_MAX)?;
        rows.iter().map(|(key, bytes)| Entry::from_bytes(bytes).map_err(damaged(key))).collect()
    }

    /// Reads the whole log and shows each entry: their numbers ascend by one, and they lead to the head.
    ///
    /// # Errors
    /// [`CatalogueError::Log`] at the first entry that is not as it should be, and what `each` refuses.
    pub fn verify_log<E: From<CatalogueError>>(
        &self,
        mut each: impl FnMut(&Entry, &Head) -> Result<(), E>,
    ) -> Result<Head, E> {
        let (wanted, mut head) = (self.head(), Head::default());
        while head.length < wanted.length {
            let rows = self.table.scan(b"l", &entry_key(head.length), ROWS_MAX).map_err(CatalogueError::from)?;
            if rows.is_empty() {
                return Err(CatalogueError::Log { number: head.length, what: "missing" }.into());
            }
            for (_, bytes) in rows.iter().take(usize::try_from(wanted.length - head.length).unwrap_or(usize::MAX)) {
                let number = head.length;
                let entry = Entry::from_bytes(bytes).map_err(|_| CatalogueError::Log { number, what: "no entry" })?;
                if entry.number != number {
                    return Err(CatalogueError::Log { number, what: "missing" }.into());
                }
                head = head.after(bytes);
                each(&entry, &head)?;
            }
        }
        if head != wanted {
            return Err(CatalogueError::Log {
                number: wanted.length.saturating_sub(1),
                what: "not the one that the head covers, or one before it is not",
            }
            .into());
        }
        Ok(head)
    }
}

fn damaged(key: &[u8]) -> impl Fn(BytesError) -> CatalogueError {
    move |source| CatalogueError::Row { key: key.to_vec(), source }
}

fn key_of(prefix: u8, da_root: &Hash) -> Vec<u8> {
    [&[prefix], &da_root[..]].concat()
}

fn timed_key(prefix: u8, time_s: u64, da_root: &Hash) -> Vec<u8> {
    [&[prefix], &time_s.to_be_bytes()[..], da_root].concat()
}

fn entry_key(number: u64) -> Vec<u8> {
    [b"l", &number.to_be_bytes()[..]].concat()
}

/// The `da_root` at the end of a key.
fn root_of(key: &[u8]) -> Result<Hash, CatalogueError> {
    let short = BytesError::Short { offset: 0, wanted: 32, left: key.len() };
    key.last_chunk().copied().ok_or_else(|| damaged(key)(short))
}
