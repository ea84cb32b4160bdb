//! What metrics and a status say. All of it is read from the few rows of `batches`, so that a million records cost nothing.

use crate::error::read;
use crate::rows::Reader;
use crate::{BatchState, Class, ClassError};

/// Counts of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Batches, by [`BatchState::ALL`].
    pub batches: [u64; 4],
    /// Records in batches.
    pub records: u64,
    /// Receipts and aborts in batches.
    pub receipts: u64,
    /// Those whose inclusion is known.
    pub included: u64,
    /// Slots that open a batch.
    pub keyslots: u64,
    /// Incidents.
    pub incidents: u64,
    /// When the oldest batch was made that is not final, in ms since 1970.
    pub oldest_pending_ms: Option<u64>,
}

impl Figures {
    /// Batches of one state.
    pub fn batches_of(&self, state: BatchState) -> u64 {
        self.batches[state as usize]
    }

    /// Batches that are not final.
    pub fn open(&self) -> u64 {
        self.batches[..BatchState::Final as usize].iter().sum()
    }
}

impl Class {
    /// Counts what there is.
    ///
    /// # Errors
    /// [`ClassError`] when it cannot be read.
    pub async fn figures(&self) -> Result<Figures, ClassError> {
        let sql = "SELECT state, COUNT(*) AS batches, CAST(SUM(last_seq - first_seq + 1) AS BIGINT) AS records, \
                   CAST(SUM(receipts) AS BIGINT) AS receipts, CAST(SUM(included) AS BIGINT) AS included, MIN(created_ms) AS oldest \
                   FROM batches GROUP BY state";
        let rows = sqlx::query(sql).fetch_all(self.store.readers()).await.map_err(read("counting batches"))?;
        let mut figures = Figures::default();
        for row in &rows {
            let row = Reader { table: "batches", row };
            let state = row.named("state", BatchState::of)?;
            figures.batches[state as usize] = row.number("batches")?;
            figures.records += row.number("records")?;
            figures.receipts += row.number("receipts")?;
            figures.included += row.number("included")?;
            if state != BatchState::Final {
                let oldest = row.number("oldest")?;
                figures.oldest_pending_ms = Some(figures.oldest_pending_ms.map_or(oldest, |known| known.min(oldest)));
            }
        }
        figures.keyslots = self.count_keyslots().await?;
        figures.incidents = self.count_incidents().await?;
        Ok(figures)
    }
}
