//! db.class: what an agent knows of its batches, so that nothing has to be found again: batches and what became of them, the map from record to
//! batch (cid_map), proofs, keyslots, SBOM signers, how far each boundary is batched, incidents.
//!
//! ```text
//! add_batch ─► packed ─ set_kept ─► kept ─ set_attested ─► attested ─ (all of its receipts included) ─► final
//!                                     add_inclusions, at any time from packed on
//! ```
//!
//! Always true: a record is in one batch, since the batch and the cursor of its boundary move in one transaction; a batch becomes final once, by the
//! write that brings the last of what it needs; what a function answered is on disk. After [`ClassError::ends_the_process`] the process ends. Absent
//! on purpose: the records and the sealed bytes (files of the agent), checks of proofs (`bpi_protocol`), and more than one writer.

mod batch;
mod error;
mod figures;
mod finality;
mod incidents;
mod keys;
mod rows;
mod snapshot;
mod store;

use std::borrow::Cow;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Row, SqlSafeStr};

pub use batch::{Batch, BatchState, Cursor, NewBatch, NewRecord, Record, RecordKind};
pub use error::ClassError;
pub use figures::Figures;
pub use finality::{Attested, Included, Inclusion};
pub use incidents::{Incident, NewIncident};
pub use keys::{Keyslot, NewKeyslot, SbomSigner};
pub use snapshot::Snapshot;
use store::Store;

/// A SHA-256 or a 32-byte key.
pub type Hash = [u8; 32];

/// The one set of migrations. A file that is published is never changed; what is new is a new file.
const MIGRATIONS: [(i64, &str, &str); 1] = [(1, "class", include_str!("../migrations/0001_class.sql"))];

/// The database, opened for its one writer.
#[derive(Debug)]
pub struct Class {
    store: Store,
}

impl Class {
    /// Opens it, brings its tables up to this version and checks the chain of incidents. `sqlite:PATH` is made when it is not there;
    /// `postgres://…` has to be there.
    ///
    /// # Errors
    /// [`ClassError`] when it cannot be used, when another process writes to it, or when incidents were changed.
    pub async fn open(url: &str) -> Result<Self, ClassError> {
        let store = Store::open(url).await?;
        let migrations = MIGRATIONS
            .iter()
            .map(|&(version, name, sql)| {
                Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, sql.into_sql_str(), false)
            })
            .collect();
        let tables = Migrator::with_migrations(migrations).run(store.writer()).await;
        tables.map_err(|source| ClassError::Tables { source: Box::new(source) })?;
        let class = Self { store };
        class.check_incidents().await?;
        Ok(class)
    }

    /// What is opened: `SQLite` or `PostgreSQL`, for a status.
    pub fn engine(&self) -> &'static str {
        match self.store.dialect {
            store::Dialect::Sqlite => "SQLite",
            store::Dialect::Postgres => "PostgreSQL",
        }
    }

    /// Closes it: with SQLite, its log is emptied into the file.
    pub async fn close(self) {
        self.store.close().await;
    }

    /// True when it answers: for a readiness probe.
    pub async fn answers(&self) -> bool {
        let one = sqlx::query("SELECT CAST(1 AS BIGINT)").fetch_one(self.store.readers()).await;
        one.and_then(|row| row.try_get::<i64, _>(0)).is_ok()
    }
}
