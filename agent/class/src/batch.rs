//! Batches, the records in them, and how far each boundary is batched.
//!
//! Always true: the batches of a boundary follow each other without a gap or an overlap, because each begins where the cursor stands and moves it in
//! the same transaction.

use sqlx::{Any, Row, Transaction};

use crate::error::{read, write};
use crate::rows::{Reader, number};
use crate::store::Value;
use crate::{Class, ClassError, Hash, NewKeyslot};

/// Records of a batch, at most: 1 024 that close, and as many intents of theirs or of others that still run.
const RECORDS_MAX: usize = 64 * 1024;
/// Batches of an answer, at most.
const ANSWER_BATCHES_MAX: u32 = 4096;

/// How far a batch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BatchState {
    /// Sealed and coded here, and not yet acknowledged by enough pinners.
    Packed,
    /// Acknowledged by enough pinners.
    Kept,
    /// A final header commits to it.
    Attested,
    /// And all of its receipts are included in final headers.
    Final,
}

impl BatchState {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Packed, Self::Kept, Self::Attested, Self::Final];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Packed => "packed",
            Self::Kept => "kept",
            Self::Attested => "attested",
            Self::Final => "final",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// It says that something will run.
    Intent,
    /// It says what ran. It has a leaf.
    Receipt,
    /// It says that an intent came to nothing. It has a leaf.
    Abort,
}

impl RecordKind {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Receipt => "receipt",
            Self::Abort => "abort",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        [Self::Intent, Self::Receipt, Self::Abort].into_iter().find(|kind| kind.name() == name)
    }
}

/// A record of a new batch. Its place in the batch and its number in the chain are those of its place in [`NewBatch::records`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// Its CID, as text.
    pub cid: String,
    /// What it is.
    pub kind: RecordKind,
    /// Whose it is.
    pub container_id: String,
    /// The leaf of the log that stands for it; none for an intent.
    pub leaf: Option<Hash>,
}

/// A batch that is sealed, coded, and whose bytes are on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBatch {
    /// Whose.
    pub tenant: [u8; 16],
    /// The containerd namespace whose records it holds.
    pub boundary: String,
    /// The number of the first record in the boundary's chain.
    pub first_seq: u64,
    /// The commitment to its shards.
    pub da_root: Hash,
    /// Shards that are enough.
    pub k: u16,
    /// Shards.
    pub n: u16,
    /// Bytes that are coded.
    pub length: u64,
    /// The root over the leaves of its receipts and aborts.
    pub receipts_root: Hash,
    /// The CID of the root of its CAR.
    pub root_cid: String,
    /// SHA-256 of the sealed bytes.
    pub sealed_sha256: Hash,
    /// When, in ms since 1970.
    pub created_ms: u64,
    /// Its records, in the order of the chain, without a gap: `first_seq`, `first_seq + 1`, …
    pub records: Vec<NewRecord>,
    /// The batch key, wrapped for each reader.
    pub slots: Vec<NewKeyslot>,
    /// SHA-256 of the last record's PAE, which the next record has as its `prev`.
    pub last_digest: Hash,
}

/// A batch, without what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Counts from 1.
    pub number: u64,
    /// Whose.
    pub tenant: [u8; 16],
    /// The containerd namespace.
    pub boundary: String,
    /// The number of the first record.
    pub first_seq: u64,
    /// The number of the last record.
    pub last_seq: u64,
    /// The commitment to its shards.
    pub da_root: Hash,
    /// Shards that are enough.
    pub k: u16,
    /// Shards.
    pub n: u16,
    /// Bytes that are coded.
    pub length: u64,
    /// Receipts and aborts in it.
    pub receipts: u32,
    /// Those whose inclusion is known.
    pub included: u32,
    /// The root over their leaves.
    pub receipts_root: Hash,
    /// The CID of the root of its CAR.
    pub root_cid: String,
    /// SHA-256 of the sealed bytes.
    pub sealed_sha256: Hash,
    /// When it was made, in ms since 1970.
    pub created_ms: u64,
    /// How far it has come.
    pub state: BatchState,
    /// The height of the header that commits to it.
    pub attested_height: Option<u64>,
    /// The highest of the headers that it needs.
    pub final_height: Option<u64>,
}

/// A record that is in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The containerd namespace.
    pub boundary: String,
    /// Its number in the boundary's chain.
    pub seq: u64,
    /// The batch it is in.
    pub da_root: Hash,
    /// Its place among the batch's records, from 0.
    pub position: u32,
    /// Its CID, as text.
    pub cid: String,
    /// What it is.
    pub kind: RecordKind,
    /// Whose it is.
    pub container_id: String,
    /// The leaf of the log that stands for it; none for an intent.
    pub leaf: Option<Hash>,
}

/// How far a boundary is batched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The containerd namespace.
    pub boundary: String,
    /// The number of the first record that is in no batch.
    pub next_seq: u64,
    /// SHA-256 of the PAE of the record before.
    pub digest: Hash,
}

const BATCHES: (&str, &[&str]) = (
    "batches",
    &[
        "number",
        "tenant",
        "boundary",
        "first_seq",
        "last_seq",
        "da_root",
        "k",
        "n",
        "length",
        "receipts",
        "receipts_root",
        "root_cid",
        "sealed_sha256",
        "created_ms",
        "state",
        "included",
    ],
);
const RECORDS: (&str, &[&str]) =
    ("cid_map", &["boundary", "seq", "batch", "position", "cid", "kind", "container_id", "leaf"]);
const SLOTS: (&str, &[&str]) = ("keyslots", &["da_root", "reader", "wrapped"]);

macro_rules! batch_columns {
    () => {
        "b.number, b.tenant, b.boundary, b.first_seq, b.last_seq, b.da_root, b.k, b.n, b.length, b.receipts, b.receipts_root, \
         b.root_cid, b.sealed_sha256, b.created_ms, b.state, b.included, b.attested_height, b.final_height"
    };
}

macro_rules! record_columns {
    () => {
        "r.boundary, r.seq, b.da_root, r.position, r.cid, r.kind, r.container_id, r.leaf FROM cid_map r JOIN batches b ON b.number = r.batch"
    };
}

impl Batch {
    fn of(row: &sqlx::any::AnyRow) -> Result<Self, ClassError> {
        let row = Reader { table: "batches", row };
        Ok(Self {
            number: row.number("number")?,
            tenant: row.array("tenant")?,
            boundary: row.text("boundary")?,
            first_seq: row.number("first_seq")?,
            last_seq: row.number("last_seq")?,
            da_root: row.array("da_root")?,
            k: row.small("k")?,
            n: row.small("n")?,
            length: row.number("length")?,
            receipts: row.small("receipts")?,
            included: row.small("included")?,
            receipts_root: row.array("receipts_root")?,
            root_cid: row.text("root_cid")?,
            sealed_sha256: row.array("sealed_sha256")?,
            created_ms: row.number("created_ms")?,
            state: row.named("state", BatchState::of)?,
            attested_height: row.number_or_none("attested_height")?,
            final_height: row.number_or_none("final_height")?,
        })
    }
}

impl Cursor {
    fn of(row: &sqlx::any::AnyRow) -> Result<Self, ClassError> {
        let row = Reader { table: "cursors", row };
        Ok(Self { boundary: row.text("boundary")?, next_seq: row.number("next_seq")?, digest: row.array("digest")? })
    }
}

impl Record {
    fn of(row: &sqlx::any::AnyRow) -> Result<Self, ClassError> {
        let row = Reader { table: "cid_map", row };
        Ok(Self {
            boundary: row.text("boundary")?,
            seq: row.number("seq")?,
            da_root: row.array("da_root")?,
            position: row.small("position")?,
            cid: row.text("cid")?,
            kind: row.named("kind", RecordKind::of)?,
            container_id: row.text("container_id")?,
            leaf: row.array_or_none("leaf")?,
        })
    }
}

impl NewBatch {
    /// The number of the last record, and of the receipts and aborts.
    fn checked(&self) -> Result<(u64, u64), ClassError> {
        let (count, wanted) = (self.records.len() as u64, RECORDS_MAX as u64);
        if count == 0 || count > wanted {
            return Err(ClassError::Value { field: "records of a batch", found: count, wanted });
        }
        let receipts = self.records.iter().filter(|record| record.leaf.is_some()).count() as u64;
        let closing = self.records.iter().filter(|record| record.kind != RecordKind::Intent).count() as u64;
        if receipts == 0 || receipts != closing {
            return Err(ClassError::Value { field: "leaves of a batch", found: receipts, wanted: closing.max(1) });
        }
        let last = self.first_seq.saturating_add(count - 1);
        // The cursor stands one further.
        number("number of a record", last.saturating_add(1))?;
        Ok((last, receipts))
    }
}

impl Class {
    /// How far a boundary is batched; none when nothing of it is.
    ///
    /// # Errors
    /// [`ClassError`] when it cannot be read.
    pub async fn cursor(&self, boundary: &str) -> Result<Option<Cursor>, ClassError> {
        let query = sqlx::query("SELECT boundary, next_seq, digest FROM cursors WHERE boundary = $1");
        let row = query.bind(boundary).fetch_optional(self.store.readers()).await.map_err(read("reading a cursor"))?;
        row.map(|row| Cursor::of(&row)).transpose()
    }

    /// How far each boundary is batched, by name.
    ///
    /// # Errors
    /// [`ClassError`] when they cannot be read.
    pub async fn cursors(&self) -> Result<Vec<Cursor>, ClassError> {
        let query = sqlx::query("SELECT boundary, next_seq, digest FROM cursors ORDER BY boundary");
        let rows = query.fetch_all(self.store.readers()).await.map_err(read("reading cursors"))?;
        rows.iter().map(Cursor::of).collect()
    }

    /// Adds a batch with its records and keyslots and moves the cursor of its boundary behind it, all at once. Answers the batch's number.
    ///
    /// # Errors
    /// [`ClassError::Cursor`] when it does not begin where the last one ended, [`ClassError::Twice`] for a record or `da_root` that is in a batch
    /// already, [`ClassError::Value`] for a batch without a receipt: all three change nothing. [`ClassError::Write`] ends the process.
    pub async fn add_batch(&self, batch: NewBatch) -> Result<u64, ClassError> {
        const DOING: &str = "adding a batch";
        let (last_seq, receipts) = batch.checked()?;
        let mut transaction = self.store.begin(DOING).await?;
        move_cursor(&mut transaction, &batch.boundary, batch.first_seq, last_seq + 1, &batch.last_digest).await?;
        let next = sqlx::query("SELECT COALESCE(MAX(number), 0) + 1 FROM batches").fetch_one(&mut *transaction).await;
        let next: i64 = next.and_then(|row| row.try_get(0)).map_err(write(DOING))?;
        let NewBatch { boundary, first_seq, da_root, records, slots, .. } = batch;
        let row = vec![
            Value::Number(Some(next)),
            Value::from(&batch.tenant[..]),
            Value::from(&*boundary),
            Value::Number(Some(number("first record", first_seq)?)),
            Value::Number(Some(number("last record", last_seq)?)),
            Value::from(&da_root[..]),
            Value::Number(Some(batch.k.into())),
            Value::Number(Some(batch.n.into())),
            Value::Number(Some(number("length of a batch", batch.length)?)),
            Value::Number(Some(number("receipts of a batch", receipts)?)),
            Value::from(&batch.receipts_root[..]),
            Value::Text(batch.root_cid),
            Value::from(&batch.sealed_sha256[..]),
            Value::Number(Some(number("time of a batch", batch.created_ms)?)),
            Value::from(BatchState::Packed.name()),
            Value::Number(Some(0)),
        ];
        self.store.insert(&mut transaction, BATCHES, "", vec![row], DOING).await?;
        let first_seq = number("first record", first_seq)?;
        let rows = records.into_iter().zip(0..).map(|(record, position)| {
            vec![
                Value::from(&*boundary),
                Value::Number(Some(first_seq + position)),
                Value::Number(Some(next)),
                Value::Number(Some(position)),
                Value::Text(record.cid),
                Value::from(record.kind.name()),
                Value::Text(record.container_id),
                Value::Bytes(record.leaf.map(Vec::from)),
            ]
        });
        self.store.insert(&mut transaction, RECORDS, "", rows.collect(), DOING).await?;
        let rows = slots
            .into_iter()
            .map(|slot| vec![Value::from(&da_root[..]), Value::Text(slot.reader), Value::Bytes(Some(slot.wrapped))]);
        self.store.insert(&mut transaction, SLOTS, "", rows.collect(), DOING).await?;
        transaction.commit().await.map_err(write(DOING))?;
        Ok(next as u64)
    }

    /// Moves the cursor of a boundary from where it stands, `from_seq`, without a batch: past records that are lost, after an incident says so.
    ///
    /// # Errors
    /// As [`Class::add_batch`].
    pub async fn skip(&self, boundary: &str, from_seq: u64, next_seq: u64, digest: &Hash) -> Result<(), ClassError> {
        let mut transaction = self.store.begin("moving a cursor").await?;
        move_cursor(&mut transaction, boundary, from_seq, next_seq, digest).await?;
        transaction.commit().await.map_err(write("moving a cursor"))
    }

    /// Batches that are not final, the oldest first, at most `limit` (and 4 096).
    ///
    /// # Errors
    /// [`ClassError`] when they cannot be read.
    pub async fn open_batches(&self, limit: u32) -> Result<Vec<Batch>, ClassError> {
        let sql = concat!(
            "SELECT ",
            batch_columns!(),
            " FROM batches b WHERE b.state IN ('packed', 'kept', 'attested') ORDER BY b.number LIMIT $1"
        );
        self.batches_of(sqlx::query(sql).bind(i64::from(limit.min(ANSWER_BATCHES_MAX)))).await
    }

    /// Batches before number `before` (none: all), the newest first, at most `limit` (and 4 096).
    ///
    /// # Errors
    /// [`ClassError`] when they cannot be read.
    pub async fn batches(&self, before: Option<u64>, limit: u32) -> Result<Vec<Batch>, ClassError> {
        let sql =
            concat!("SELECT ", batch_columns!(), " FROM batches b WHERE b.number < $1 ORDER BY b.number DESC LIMIT $2");
        let before = number("number of a batch", before.unwrap_or(i64::MAX as u64))?;
        self.batches_of(sqlx::query(sql).bind(before).bind(i64::from(limit.min(ANSWER_BATCHES_MAX)))).await
    }

    /// The batch of a `da_root`.
    ///
    /// # Errors
    /// [`ClassError`] when it cannot be read.
    pub async fn batch(&self, da_root: &Hash) -> Result<Option<Batch>, ClassError> {
        let sql = concat!("SELECT ", batch_columns!(), " FROM batches b WHERE b.da_root = $1");
        Ok(self.batches_of(sqlx::query(sql).bind(da_root.to_vec())).await?.pop())
    }

    /// The batch that the record of a leaf is in.
    ///
    /// # Errors
    /// [`ClassError`] when it cannot be read.
    pub async fn batch_of_leaf(&self, leaf: &Hash) -> Result<Option<Batch>, ClassError> {
        let sql = concat!(
            "SELECT ",
            batch_columns!(),
            " FROM batches b JOIN cid_map r ON r.batch = b.number WHERE r.leaf = $1"
        );
        Ok(self.batches_of(sqlx::query(sql).bind(leaf.to_vec())).await?.pop())
    }

    /// The records of a container that are in batches, the newest first, at most 64: an intent and what closes it, of the last runs under that name.
    ///
    /// # Errors
    /// [`ClassError`] when they cannot be read.
    pub async fn records_of_container(&self, container_id: &str) -> Result<Vec<Record>, ClassError> {
        let sql = concat!(
            "SELECT ",
            record_columns!(),
            " WHERE r.container_id = $1 ORDER BY r.batch DESC, r.seq DESC LIMIT 64"
        );
        self.records_of(sqlx::query(sql).bind(container_id)).await
    }

    /// The record of a number, when it is in a batch.
    ///
    /// # Errors
    /// [`ClassError`] when it cannot be read.
    pub async fn record(&self, boundary: &str, seq: u64) -> Result<Option<Record>, ClassError> {
        let sql = concat!("SELECT ", record_columns!(), " WHERE r.boundary = $1 AND r.seq = $2");
        let seq = number("number of a record", seq)?;
        Ok(self.records_of(sqlx::query(sql).bind(boundary).bind(seq)).await?.pop())
    }

    /// The record of a CID, when it is in a batch.
    ///
    /// # Errors
    /// [`ClassError`] when it cannot be read.
    pub async fn record_of_cid(&self, cid: &str) -> Result<Option<Record>, ClassError> {
        let sql = concat!("SELECT ", record_columns!(), " WHERE r.cid = $1");
        Ok(self.records_of(sqlx::query(sql).bind(cid)).await?.pop())
    }

    /// All records of a batch, in their order.
    ///
    /// # Errors
    /// [`ClassError`] when they cannot be read.
    pub async fn records_of_batch(&self, batch: &Batch) -> Result<Vec<Record>, ClassError> {
        let sql =
            concat!("SELECT ", record_columns!(), " WHERE r.boundary = $1 AND r.seq BETWEEN $2 AND $3 ORDER BY r.seq");
        let (first, last) = (number("first record", batch.first_seq)?, number("last record", batch.last_seq)?);
        self.records_of(sqlx::query(sql).bind(&batch.boundary).bind(first).bind(last)).await
    }

    /// Leaves of a batch whose inclusion is not known, in their order, at most `limit`.
    ///
    /// # Errors
    /// [`ClassError`] when they cannot be read.
    pub async fn pending_leaves(&self, da_root: &Hash, limit: u32) -> Result<Vec<Hash>, ClassError> {
        let sql = "SELECT r.leaf FROM batches b \
                   JOIN cid_map r ON r.boundary = b.boundary AND r.seq BETWEEN b.first_seq AND b.last_seq \
                   LEFT JOIN inclusions i ON i.leaf = r.leaf \
                   WHERE b.da_root = $1 AND r.leaf IS NOT NULL AND i.leaf IS NULL ORDER BY r.seq LIMIT $2";
        let query = sqlx::query(sql).bind(da_root.to_vec()).bind(i64::from(limit));
        let rows = query.fetch_all(self.store.readers()).await.map_err(read("reading leaves"))?;
        rows.iter().map(|row| Reader { table: "cid_map", row }.array("leaf")).collect()
    }

    async fn batches_of(&self, query: AnyQuery<'_>) -> Result<Vec<Batch>, ClassError> {
        let rows = query.fetch_all(self.store.readers()).await.map_err(read("reading batches"))?;
        rows.iter().map(Batch::of).collect()
    }

    async fn records_of(&self, query: AnyQuery<'_>) -> Result<Vec<Record>, ClassError> {
        let rows = query.fetch_all(self.store.readers()).await.map_err(read("reading records"))?;
        rows.iter().map(Record::of).collect()
    }
}

type AnyQuery<'q> = sqlx::query::Query<'q, Any, sqlx::any::AnyArguments>;

async fn move_cursor(
    transaction: &mut Transaction<'static, Any>,
    boundary: &str,
    first_seq: u64,
    next_seq: u64,
    digest: &Hash,
) -> Result<(), ClassError> {
    const DOING: &str = "moving a cursor";
    let query = sqlx::query("SELECT next_seq FROM cursors WHERE boundary = $1").bind(boundary);
    let row = query.fetch_optional(&mut **transaction).await.map_err(write(DOING))?;
    let found = row.map(|row| Reader { table: "cursors", row: &row }.number("next_seq")).transpose()?;
    match found {
        Some(next_seq) if next_seq != first_seq => {
            return Err(ClassError::Cursor { boundary: boundary.to_owned(), next_seq, first_seq });
        }
        _ if next_seq <= first_seq => {
            return Err(ClassError::Cursor {
                boundary: boundary.to_owned(),
                next_seq: first_seq + 1,
                first_seq: next_seq,
            });
        }
        _ => {}
    }
    let sql = "INSERT INTO cursors (boundary, next_seq, digest) VALUES ($1, $2, $3) \
               ON CONFLICT (boundary) DO UPDATE SET next_seq = excluded.next_seq, digest = excluded.digest";
    let query = sqlx::query(sql).bind(boundary).bind(number("number of a record", next_seq)?).bind(digest.to_vec());
    query.execute(&mut **transaction).await.map(|_| ()).map_err(write(DOING))
}
