//! What pinners and validators say of a batch and its receipts.
//!
//! Always true: a state never goes back; a sealed header is kept once, however many proofs lead to it; saying the same again changes nothing.

use sqlx::{Any, Row, Transaction};

use crate::error::{read, write};
use crate::rows::{Reader, number};
use crate::store::Value;
use crate::{Batch, BatchState, Class, ClassError, Hash};

/// Proofs of one call, at most.
const INCLUSIONS_MAX: usize = 1024;
/// Bytes of a proof, header or attestation, at most: what a message carries.
const BYTES_MAX: usize = 1 << 20;

/// The proof that a leaf is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inclusion {
    /// The height of the header it leads to.
    pub height: u64,
    /// As the validators gave it.
    pub bytes: Vec<u8>,
}

/// The proof that a header commits to a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    /// The height of the header.
    pub height: u64,
    /// The attestation, as it stands under the header's `da_root`.
    pub attestation: Vec<u8>,
    /// The way from its leaf to `da_root`.
    pub inclusion: Vec<u8>,
}

/// What new proofs brought about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Included {
    /// Leaves whose inclusion was not known before.
    pub added: u64,
    /// `da_root` of the batches that became final by this.
    pub became_final: Vec<Hash>,
}

fn bounded(field: &'static str, bytes: &[u8]) -> Result<(), ClassError> {
    match bytes.len() <= BYTES_MAX {
        true => Ok(()),
        false => Err(ClassError::Value { field, found: bytes.len() as u64, wanted: BYTES_MAX as u64 }),
    }
}

impl Class {
    /// Keeps what a pinner signed for a batch. A newer one takes the place of an older.
    ///
    /// # Errors
    /// [`ClassError::Unknown`] for a batch that is not here; [`ClassError::Write`] ends the process.
    pub async fn acknowledge(&self, da_root: &Hash, pinner: &Hash, bytes: &[u8]) -> Result<(), ClassError> {
        const DOING: &str = "keeping an acknowledgement";
        bounded("bytes of an acknowledgement", bytes)?;
        let mut transaction = self.store.begin(DOING).await?;
        state(&mut transaction, da_root, DOING).await?;
        let sql = "INSERT INTO acknowledgements (da_root, pinner, bytes) VALUES ($1, $2, $3) \
                   ON CONFLICT (da_root, pinner) DO UPDATE SET bytes = excluded.bytes";
        let query = sqlx::query(sql).bind(da_root.to_vec()).bind(pinner.to_vec()).bind(bytes.to_vec());
        query.execute(&mut *transaction).await.map_err(write(DOING))?;
        transaction.commit().await.map_err(write(DOING))
    }

    /// What pinners signed for a batch: their keys, ascending, and the bytes.
    ///
    /// # Errors
    /// [`ClassError`] when they cannot be read.
    pub async fn acknowledgements(&self, da_root: &Hash) -> Result<Vec<(Hash, Vec<u8>)>, ClassError> {
        let query = sqlx::query("SELECT pinner, bytes FROM acknowledgements WHERE da_root = $1 ORDER BY pinner");
        let rows = query.bind(da_root.to_vec()).fetch_all(self.store.readers()).await;
        let rows = rows.map_err(read("reading acknowledgements"))?;
        let of = |row| {
            let row = Reader { table: "acknowledgements", row };
            Ok((row.array("pinner")?, row.bytes("bytes")?))
        };
        rows.iter().map(of).collect()
    }

    /// Packed becomes kept, with the attestation that is sent to the validators. False when it is kept already: then the attestation stays as it is.
    ///
    /// # Errors
    /// As [`Class::acknowledge`].
    pub async fn set_kept(&self, da_root: &Hash, attestation: &[u8]) -> Result<bool, ClassError> {
        const DOING: &str = "a batch is kept";
        bounded("bytes of an attestation", attestation)?;
        let mut transaction = self.store.begin(DOING).await?;
        if state(&mut transaction, da_root, DOING).await? >= BatchState::Kept {
            return Ok(false);
        }
        let query = sqlx::query("UPDATE batches SET state = 'kept', attestation = $1 WHERE da_root = $2");
        let query = query.bind(attestation.to_vec()).bind(da_root.to_vec());
        query.execute(&mut *transaction).await.map_err(write(DOING))?;
        transaction.commit().await.map_err(write(DOING))?;
        Ok(true)
    }

    /// The attestation of a batch: the agent's own, or the one that a header commits to.
    ///
    /// # Errors
    /// [`ClassError`] when it cannot be read.
    pub async fn attestation(&self, da_root: &Hash) -> Result<Option<Vec<u8>>, ClassError> {
        let query = sqlx::query("SELECT attestation FROM batches WHERE da_root = $1").bind(da_root.to_vec());
        let row = query.fetch_optional(self.store.readers()).await.map_err(read("reading an attestation"))?;
        row.map_or(Ok(None), |row| Reader { table: "batches", row: &row }.bytes_or_none("attestation"))
    }

    /// A final header, whose bytes with seal and validators are `sealed`, commits to a batch. Nothing changes when one is known already.
    ///
    /// # Errors
    /// As [`Class::acknowledge`].
    pub async fn set_attested(
        &self,
        da_root: &Hash,
        sealed: &[u8],
        attested: &Attested,
    ) -> Result<Included, ClassError> {
        const DOING: &str = "a batch is attested";
        for (field, bytes) in [
            ("bytes of a sealed header", sealed),
            ("bytes of an attestation", &*attested.attestation),
            ("bytes of an inclusion", &*attested.inclusion),
        ] {
            bounded(field, bytes)?;
        }
        let mut transaction = self.store.begin(DOING).await?;
        if state(&mut transaction, da_root, DOING).await? >= BatchState::Attested {
            return Ok(Included::default());
        }
        keep_sealed(&mut transaction, attested.height, sealed, DOING).await?;
        let sql = "UPDATE batches SET state = 'attested', attested_height = $1, attestation = $2, inclusion = $3 WHERE da_root = $4";
        let query = sqlx::query(sql).bind(number("height", attested.height)?).bind(attested.attestation.clone());
        let query = query.bind(attested.inclusion.clone()).bind(da_root.to_vec());
        query.execute(&mut *transaction).await.map_err(write(DOING))?;
        let became_final = match finish(&mut transaction, da_root, DOING).await? {
            true => vec![*da_root],
            false => Vec::new(),
        };
        transaction.commit().await.map_err(write(DOING))?;
        Ok(Included { added: 0, became_final })
    }

    /// The proof that a header commits to a batch.
    ///
    /// # Errors
    /// [`ClassError`] when it cannot be read.
    pub async fn attested(&self, da_root: &Hash) -> Result<Option<Attested>, ClassError> {
        let sql = "SELECT attested_height, attestation, inclusion FROM batches WHERE da_root = $1 AND attested_height IS NOT NULL";
        let row = sqlx::query(sql).bind(da_root.to_vec()).fetch_optional(self.store.readers()).await;
        let row = row.map_err(read("reading the proof of a batch"))?;
        row.map(|row| {
            let row = Reader { table: "batches", row: &row };
            let (attestation, inclusion) = (row.bytes("attestation")?, row.bytes("inclusion")?);
            Ok(Attested { height: row.number("attested_height")?, attestation, inclusion })
        })
        .transpose()
    }

    /// Keeps proofs that lead to the final header of `height`, whose bytes with seal and validators are `sealed`. Leaves that are in no batch, and those
    /// whose proof is here already, are passed over.
    ///
    /// # Errors
    /// [`ClassError::Value`] for more than 1 024 proofs or one of more than 1 MiB; [`ClassError::Write`] ends the process.
    pub async fn add_inclusions(
        &self,
        height: u64,
        sealed: &[u8],
        proofs: Vec<(Hash, Vec<u8>)>,
    ) -> Result<Included, ClassError> {
        const DOING: &str = "keeping proofs";
        bounded("bytes of a sealed header", sealed)?;
        if proofs.len() > INCLUSIONS_MAX {
            let (found, wanted) = (proofs.len() as u64, INCLUSIONS_MAX as u64);
            return Err(ClassError::Value { field: "proofs of one call", found, wanted });
        }
        let mut transaction = self.store.begin(DOING).await?;
        let (mut rows, mut roots) = (Vec::with_capacity(proofs.len()), Vec::<Hash>::new());
        for (leaf, bytes) in proofs {
            bounded("bytes of an inclusion", &bytes)?;
            let sql = "SELECT b.da_root FROM cid_map r JOIN batches b ON b.number = r.batch \
                       LEFT JOIN inclusions i ON i.leaf = r.leaf WHERE r.leaf = $1 AND i.leaf IS NULL";
            let row =
                sqlx::query(sql).bind(leaf.to_vec()).fetch_optional(&mut *transaction).await.map_err(write(DOING))?;
            let Some(row) = row else { continue };
            let da_root = Reader { table: "batches", row: &row }.array("da_root")?;
            if !roots.contains(&da_root) {
                roots.push(da_root);
            }
            rows.push(vec![
                Value::from(&leaf[..]),
                Value::Number(Some(number("height", height)?)),
                Value::Bytes(Some(bytes)),
            ]);
        }
        if rows.is_empty() {
            return Ok(Included::default());
        }
        keep_sealed(&mut transaction, height, sealed, DOING).await?;
        let table = ("inclusions", &["leaf", "height", "bytes"][..]);
        let added = self.store.insert(&mut transaction, table, " ON CONFLICT (leaf) DO NOTHING", rows, DOING).await?;
        let mut became_final = Vec::new();
        for da_root in roots {
            let sql = "UPDATE batches SET included = (SELECT COUNT(*) FROM cid_map r JOIN inclusions i ON i.leaf = r.leaf \
                       WHERE r.boundary = batches.boundary AND r.seq BETWEEN batches.first_seq AND batches.last_seq) WHERE da_root = $1";
            sqlx::query(sql).bind(da_root.to_vec()).execute(&mut *transaction).await.map_err(write(DOING))?;
            if finish(&mut transaction, &da_root, DOING).await? {
                became_final.push(da_root);
            }
        }
        transaction.commit().await.map_err(write(DOING))?;
        Ok(Included { added, became_final })
    }

    /// The proof of a leaf.
    ///
    /// # Errors
    /// [`ClassError`] when it cannot be read.
    pub async fn inclusion(&self, leaf: &Hash) -> Result<Option<Inclusion>, ClassError> {
        let query = sqlx::query("SELECT height, bytes FROM inclusions WHERE leaf = $1").bind(leaf.to_vec());
        let row = query.fetch_optional(self.store.readers()).await.map_err(read("reading a proof"))?;
        row.map(|row| {
            let row = Reader { table: "inclusions", row: &row };
            Ok(Inclusion { height: row.number("height")?, bytes: row.bytes("bytes")? })
        })
        .transpose()
    }

    /// The proofs of a batch's receipts, as far as there are any: a leaf and its proof.
    ///
    /// # Errors
    /// [`ClassError`] when they cannot be read.
    pub async fn inclusions_of_batch(&self, batch: &Batch) -> Result<Vec<(Hash, Inclusion)>, ClassError> {
        let sql = "SELECT i.leaf, i.height, i.bytes FROM cid_map r JOIN inclusions i ON i.leaf = r.leaf \
                   WHERE r.boundary = $1 AND r.seq BETWEEN $2 AND $3 ORDER BY r.seq";
        let (first, last) = (number("first record", batch.first_seq)?, number("last record", batch.last_seq)?);
        let query = sqlx::query(sql).bind(&batch.boundary).bind(first).bind(last);
        let rows = query.fetch_all(self.store.readers()).await.map_err(read("reading proofs"))?;
        let of = |row| {
            let row = Reader { table: "inclusions", row };
            Ok((row.array("leaf")?, Inclusion { height: row.number("height")?, bytes: row.bytes("bytes")? }))
        };
        rows.iter().map(of).collect()
    }

    /// A final header with its seal and validators, when a proof leads to it.
    ///
    /// # Errors
    /// [`ClassError`] when it cannot be read.
    pub async fn sealed_header(&self, height: u64) -> Result<Option<Vec<u8>>, ClassError> {
        let query = sqlx::query("SELECT bytes FROM sealed_headers WHERE height = $1").bind(number("height", height)?);
        let row = query.fetch_optional(self.store.readers()).await.map_err(read("reading a header"))?;
        row.map(|row| Reader { table: "sealed_headers", row: &row }.bytes("bytes")).transpose()
    }
}

async fn state(
    transaction: &mut Transaction<'static, Any>,
    da_root: &Hash,
    doing: &'static str,
) -> Result<BatchState, ClassError> {
    let query = sqlx::query("SELECT state FROM batches WHERE da_root = $1").bind(da_root.to_vec());
    let row = query.fetch_optional(&mut **transaction).await.map_err(write(doing))?;
    let row = row.ok_or(ClassError::Unknown { da_root: *da_root })?;
    Reader { table: "batches", row: &row }.named("state", BatchState::of)
}

/// Keeps a header. Its seal may be of other signers the second time, and proves the same: the first stays.
async fn keep_sealed(
    transaction: &mut Transaction<'static, Any>,
    height: u64,
    sealed: &[u8],
    doing: &'static str,
) -> Result<(), ClassError> {
    let query =
        sqlx::query("INSERT INTO sealed_headers (height, bytes) VALUES ($1, $2) ON CONFLICT (height) DO NOTHING");
    let query = query.bind(number("height", height)?).bind(sealed.to_vec());
    query.execute(&mut **transaction).await.map(|_| ()).map_err(write(doing))
}

/// Attested becomes final when no proof is missing. True when it did.
async fn finish(
    transaction: &mut Transaction<'static, Any>,
    da_root: &Hash,
    doing: &'static str,
) -> Result<bool, ClassError> {
    let sql = "SELECT MAX(i.height) FROM batches b JOIN cid_map r ON r.boundary = b.boundary AND r.seq BETWEEN b.first_seq AND b.last_seq \
               JOIN inclusions i ON i.leaf = r.leaf WHERE b.da_root = $1";
    let row = sqlx::query(sql).bind(da_root.to_vec()).fetch_one(&mut **transaction).await.map_err(write(doing))?;
    let height: Option<i64> = row.try_get(0).map_err(write(doing))?;
    let sql = "UPDATE batches SET state = 'final', final_height = CASE WHEN attested_height > $1 THEN attested_height ELSE $2 END \
               WHERE da_root = $3 AND state = 'attested' AND included = receipts";
    let height = height.unwrap_or(0);
    let query = sqlx::query(sql).bind(height).bind(height).bind(da_root.to_vec());
    Ok(query.execute(&mut **transaction).await.map_err(write(doing))?.rows_affected() == 1)
}
