//! What went wrong and has to be seen: a container without a receipt, a gap in a chain, a batch that a pinner does not have any more.
//!
//! ```text
//! digest = SHA-256("bpi/1 incident" || previous 32 || id 8 || time ms 8 || what, kind, boundary, container, detail: each length 4, bytes)
//! ```
//!
//! Always true: incidents count from 1 and each commits to the one before, from 32 zeros; the same (`what`) is recorded once. The chain is checked
//! when the class is opened and when a snapshot is restored. Absent on purpose: a proof that none was cut off at the end; who wants that compares
//! [`Figures::incidents`](crate::Figures) with what the metrics said before.

use sha2::{Digest, Sha256};
use sqlx::Row;

use crate::error::{read, write};
use crate::rows::{Reader, number};
use crate::{Class, ClassError, Hash};

const DOMAIN: &[u8] = b"bpi/1 incident";
/// Bytes of what stands in an incident, at most; longer text is cut, since an incident is never refused.
const TEXT_BYTES_MAX: usize = 4096;
/// Incidents that are read at a time.
const PAGE: i64 = 1000;

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewIncident {
    /// What makes it this incident and not another of its kind: recorded once however often it is seen. For example "no-receipt k8s.io/4f1a".
    pub what: String,
    /// When it was seen, in ms since 1970.
    pub time_ms: u64,
    /// Its kind, a short word.
    pub kind: String,
    /// The containerd namespace; empty when it is of none.
    pub boundary: String,
    /// The container; empty when it is of none.
    pub container_id: String,
    /// In a sentence.
    pub detail: String,
}

/// An incident in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Counts from 1.
    pub id: u64,
    /// What it is.
    pub incident: NewIncident,
    /// The digest of the one before.
    pub previous: Hash,
    /// Its digest.
    pub digest: Hash,
}

impl Incident {
    fn digest_of(previous: &Hash, id: u64, new: &NewIncident) -> Hash {
        let mut out = Sha256::new();
        out.update(DOMAIN);
        out.update(previous);
        out.update(id.to_be_bytes());
        out.update(new.time_ms.to_be_bytes());
        for text in [&new.what, &new.kind, &new.boundary, &new.container_id, &new.detail] {
            out.update((text.len() as u32).to_be_bytes());
            out.update(text);
        }
        out.finalize().into()
    }

    fn of(row: &sqlx::any::AnyRow) -> Result<Self, ClassError> {
        let row = Reader { table: "incidents", row };
        let incident = NewIncident {
            what: row.text("what")?,
            time_ms: row.number("time_ms")?,
            kind: row.text("kind")?,
            boundary: row.text("boundary")?,
            container_id: row.text("container_id")?,
            detail: row.text("detail")?,
        };
        Ok(Self { id: row.number("id")?, incident, previous: row.array("previous")?, digest: row.array("digest")? })
    }
}

/// Text as a column takes it: PostgreSQL has no NUL in text, and nothing is longer than its bound.
fn cut(text: &mut String) {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    if text.contains('\0') {
        *text = text.replace('\0', "\u{fffd}");
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    }
}

const COLUMNS: &str = "id, time_ms, what, kind, boundary, container_id, detail, previous, digest";

impl Class {
    /// Records an incident. None when it was recorded before.
    ///
    /// # Errors
    /// [`ClassError::Write`] ends the process.
    pub async fn record_incident(&self, mut new: NewIncident) -> Result<Option<Incident>, ClassError> {
        const DOING: &str = "recording an incident";
        for text in [&mut new.what, &mut new.kind, &mut new.boundary, &mut new.container_id, &mut new.detail] {
            cut(text);
        }
        let mut transaction = self.store.begin(DOING).await?;
        let seen = sqlx::query("SELECT id FROM incidents WHERE what = $1").bind(&new.what);
        if seen.fetch_optional(&mut *transaction).await.map_err(write(DOING))?.is_some() {
            return Ok(None);
        }
        let last = sqlx::query("SELECT id, digest FROM incidents ORDER BY id DESC LIMIT 1");
        let last = last.fetch_optional(&mut *transaction).await.map_err(write(DOING))?;
        let (id, previous) = match &last {
            None => (1, [0; 32]),
            Some(row) => {
                let row = Reader { table: "incidents", row };
                (row.number("id")? + 1, row.array("digest")?)
            }
        };
        let digest = Incident::digest_of(&previous, id, &new);
        let sql = "INSERT INTO incidents (id, time_ms, what, kind, boundary, container_id, detail, previous, digest) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let query = sqlx::query(sql)
            .bind(number("number of an incident", id)?)
            .bind(number("time of an incident", new.time_ms)?);
        let query = query.bind(&new.what).bind(&new.kind).bind(&new.boundary).bind(&new.container_id).bind(&new.detail);
        let query = query.bind(previous.to_vec()).bind(digest.to_vec());
        query.execute(&mut *transaction).await.map_err(write(DOING))?;
        transaction.commit().await.map_err(write(DOING))?;
        Ok(Some(Incident { id, incident: new, previous, digest }))
    }

    /// Incidents before number `before` (none: all), the newest first, at most `limit` (and 1 000).
    ///
    /// # Errors
    /// [`ClassError`] when they cannot be read.
    pub async fn incidents(&self, before: Option<u64>, limit: u32) -> Result<Vec<Incident>, ClassError> {
        let sql = "SELECT id, time_ms, what, kind, boundary, container_id, detail, previous, digest FROM incidents \
                   WHERE id < $1 ORDER BY id DESC LIMIT $2";
        let before = number("number of an incident", before.unwrap_or(i64::MAX as u64))?;
        let query = sqlx::query(sql).bind(before).bind(i64::from(limit).min(PAGE));
        let rows = query.fetch_all(self.store.readers()).await.map_err(read("reading incidents"))?;
        rows.iter().map(Incident::of).collect()
    }

    /// Follows the chain from its begin.
    pub(crate) async fn check_incidents(&self) -> Result<(), ClassError> {
        let (mut id, mut previous): (u64, Hash) = (0, [0; 32]);
        loop {
            let sql =
                sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM incidents WHERE id > $1 ORDER BY id LIMIT $2"));
            let query = sqlx::query(sql).bind(number("number of an incident", id)?).bind(PAGE);
            let rows = query.fetch_all(self.store.readers()).await.map_err(read("checking incidents"))?;
            if rows.is_empty() {
                return Ok(());
            }
            for row in &rows {
                let incident = Incident::of(row)?;
                id += 1;
                let wanted = Incident::digest_of(&previous, id, &incident.incident);
                if incident.id != id || incident.previous != previous || incident.digest != wanted {
                    return Err(ClassError::Incidents { id });
                }
                previous = wanted;
            }
        }
    }

    pub(crate) async fn count_incidents(&self) -> Result<u64, ClassError> {
        let query = sqlx::query("SELECT COALESCE(MAX(id), 0) FROM incidents");
        let row = query.fetch_one(self.store.readers()).await.map_err(read("counting incidents"))?;
        row.try_get::<i64, _>(0).map(|count| count as u64).map_err(read("counting incidents"))
    }
}
