//! Who can read a batch (keyslots), and whose SBOMs count (signers).
//!
//! Always true: a revoked slot holds nothing: its wrapped key is gone from the row, and SQLite overwrites where it stood (its log keeps pages until it
//! is emptied, and a backup keeps what it has). Absent on purpose: keys that are not wrapped.

use sqlx::Row;

use crate::error::{read, write};
use crate::rows::{Reader, number};
use crate::{Class, ClassError, Hash};

/// A batch key, wrapped for one reader.
#[derive(Clone, PartialEq, Eq)]
pub struct NewKeyslot {
    /// Who can open it, as the agent's configuration names them.
    pub reader: String,
    /// Opaque here.
    pub wrapped: Vec<u8>,
}

impl std::fmt::Debug for NewKeyslot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKeyslot").field("reader", &self.reader).finish_non_exhaustive()
    }
}

/// A slot as it stands.
#[derive(Clone, PartialEq, Eq)]
pub struct Keyslot {
    /// Who can open it.
    pub reader: String,
    /// The wrapped batch key; none when it is revoked.
    pub wrapped: Option<Vec<u8>>,
    /// When it was revoked, in ms since 1970.
    pub revoked_ms: Option<u64>,
}

impl std::fmt::Debug for Keyslot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Keyslot");
        out.field("reader", &self.reader).field("revoked_ms", &self.revoked_ms).finish_non_exhaustive()
    }
}

/// Whose signature on an SBOM counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SbomSigner {
    /// The key's id.
    pub key_id: String,
    /// The public key, PEM.
    pub public_key_pem: String,
    /// Whose it is.
    pub name: String,
    /// Since when, in ms since 1970.
    pub added_ms: u64,
    /// Until when; none while it counts.
    pub removed_ms: Option<u64>,
}

impl Class {
    /// The slots of a batch, by reader.
    ///
    /// # Errors
    /// [`ClassError`] when they cannot be read.
    pub async fn keyslots(&self, da_root: &Hash) -> Result<Vec<Keyslot>, ClassError> {
        let query = sqlx::query("SELECT reader, wrapped, revoked_ms FROM keyslots WHERE da_root = $1 ORDER BY reader");
        let rows =
            query.bind(da_root.to_vec()).fetch_all(self.store.readers()).await.map_err(read("reading keyslots"))?;
        let of = |row| {
            let row = Reader { table: "keyslots", row };
            let (wrapped, revoked_ms) = (row.bytes_or_none("wrapped")?, row.number_or_none("revoked_ms")?);
            Ok(Keyslot { reader: row.text("reader")?, wrapped, revoked_ms })
        };
        rows.iter().map(of).collect()
    }

    /// Adds a reader to a batch. A slot that was revoked does not come back.
    ///
    /// # Errors
    /// [`ClassError::Twice`] when the reader has or had one; [`ClassError::Write`] ends the process.
    pub async fn add_keyslot(&self, da_root: &Hash, slot: &NewKeyslot) -> Result<(), ClassError> {
        const DOING: &str = "adding a keyslot";
        if self.batch(da_root).await?.is_none() {
            return Err(ClassError::Unknown { da_root: *da_root });
        }
        let query = sqlx::query("INSERT INTO keyslots (da_root, reader, wrapped) VALUES ($1, $2, $3)");
        let query = query.bind(da_root.to_vec()).bind(&slot.reader).bind(slot.wrapped.clone());
        query.execute(self.store.writer()).await.map(|_| ()).map_err(write(DOING))
    }

    /// Takes all batches from a reader, or one. Answers how many slots were revoked by this.
    ///
    /// # Errors
    /// [`ClassError::Write`] ends the process.
    pub async fn revoke_keyslots(&self, reader: &str, da_root: Option<&Hash>, now_ms: u64) -> Result<u64, ClassError> {
        const DOING: &str = "revoking keyslots";
        let now = number("time of revocation", now_ms)?;
        let query = match da_root {
            None => {
                let sql =
                    "UPDATE keyslots SET wrapped = NULL, revoked_ms = $1 WHERE reader = $2 AND revoked_ms IS NULL";
                sqlx::query(sql).bind(now).bind(reader)
            }
            Some(da_root) => {
                let sql = "UPDATE keyslots SET wrapped = NULL, revoked_ms = $1 WHERE reader = $2 AND revoked_ms IS NULL AND da_root = $3";
                sqlx::query(sql).bind(now).bind(reader).bind(da_root.to_vec())
            }
        };
        query.execute(self.store.writer()).await.map(|done| done.rows_affected()).map_err(write(DOING))
    }

    /// All signers, also those that count no more, by key id.
    ///
    /// # Errors
    /// [`ClassError`] when they cannot be read.
    pub async fn sbom_signers(&self) -> Result<Vec<SbomSigner>, ClassError> {
        let sql = "SELECT key_id, public_key_pem, name, added_ms, removed_ms FROM sbom_signers ORDER BY key_id";
        let rows = sqlx::query(sql).fetch_all(self.store.readers()).await.map_err(read("reading signers"))?;
        let of = |row| {
            let row = Reader { table: "sbom_signers", row };
            Ok(SbomSigner {
                key_id: row.text("key_id")?,
                public_key_pem: row.text("public_key_pem")?,
                name: row.text("name")?,
                added_ms: row.number("added_ms")?,
                removed_ms: row.number_or_none("removed_ms")?,
            })
        };
        rows.iter().map(of).collect()
    }

    /// Lets a signer count from now on. One that was removed counts again.
    ///
    /// # Errors
    /// [`ClassError::Twice`] when its id stands for another key; [`ClassError::Write`] ends the process.
    pub async fn add_sbom_signer(&self, key_id: &str, pem: &str, name: &str, now_ms: u64) -> Result<(), ClassError> {
        const DOING: &str = "adding a signer";
        let sql = "INSERT INTO sbom_signers (key_id, public_key_pem, name, added_ms) VALUES ($1, $2, $3, $4) \
                   ON CONFLICT (key_id) DO UPDATE SET name = excluded.name, added_ms = excluded.added_ms, removed_ms = NULL \
                   WHERE sbom_signers.public_key_pem = excluded.public_key_pem";
        let query = sqlx::query(sql).bind(key_id).bind(pem).bind(name).bind(number("time of a signer", now_ms)?);
        match query.execute(self.store.writer()).await.map_err(write(DOING))?.rows_affected() {
            0 => Err(ClassError::Twice { doing: DOING, constraint: format!("{key_id} is another key") }),
            _ => Ok(()),
        }
    }

    /// Lets a signer count no more. False when it did not.
    ///
    /// # Errors
    /// [`ClassError::Write`] ends the process.
    pub async fn remove_sbom_signer(&self, key_id: &str, now_ms: u64) -> Result<bool, ClassError> {
        let sql = "UPDATE sbom_signers SET removed_ms = $1 WHERE key_id = $2 AND removed_ms IS NULL";
        let query = sqlx::query(sql).bind(number("time of a signer", now_ms)?).bind(key_id);
        let done = query.execute(self.store.writer()).await.map_err(write("removing a signer"))?;
        Ok(done.rows_affected() == 1)
    }

    /// How many slots there are that open a batch.
    pub(crate) async fn count_keyslots(&self) -> Result<u64, ClassError> {
        let query = sqlx::query("SELECT COUNT(*) FROM keyslots WHERE revoked_ms IS NULL");
        let row = query.fetch_one(self.store.readers()).await.map_err(read("counting keyslots"))?;
        row.try_get::<i64, _>(0).map(|count| count as u64).map_err(read("counting keyslots"))
    }
}
