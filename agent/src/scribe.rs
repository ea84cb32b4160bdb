//! Writes the evidence of each receipt of a batch that has become final, where the configuration wants it.

use std::path::Path;
use std::sync::Arc;

use bpi_class::{BatchState, Class};
use bpi_protocol::log::Hash;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::evidence::{self, MakingError, Shared};
use crate::metrics::Metrics;
use crate::packing::unix_ms;
use crate::spool::Chain;

/// Batches of one page of db.class.
const PAGE: u32 = 1024;

/// Works until nobody tells it of batches any more.
pub async fn run(
    config: Arc<Config>,
    class: Arc<Class>,
    mut finals: mpsc::UnboundedReceiver<Hash>,
    metrics: Arc<Metrics>,
) {
    while let Some(da_root) = finals.recv().await {
        let Some(folder) = &config.evidence_dir else { continue };
        match write_batch(&config, &class, folder, &da_root).await {
            Ok(written) => metrics.evidence(written),
            // It can be made when it is asked for.
            Err(error) => tracing::warn!(%error, da_root = hex::encode(da_root), "evidence cannot be written"),
        }
    }
}

/// Writes the evidence of each receipt of all final batches to a folder, and gives how many there are. `tell` hears of each batch.
///
/// # Errors
/// [`MakingError`] for the first that cannot be made.
pub async fn write_all(
    config: &Config,
    class: &Class,
    folder: &Path,
    mut tell: impl FnMut(u64),
) -> Result<u64, MakingError> {
    let (mut written, mut before) = (0, None);
    loop {
        let page = class.batches(before, PAGE).await?;
        let Some(last) = page.last() else { return Ok(written) };
        before = Some(last.number);
        for batch in page.into_iter().filter(|batch| batch.state == BatchState::Final) {
            written += write_batch(config, class, folder, &batch.da_root).await?;
            tell(written);
        }
    }
}

async fn write_batch(config: &Config, class: &Class, folder: &Path, da_root: &Hash) -> Result<u64, MakingError> {
    let Some(batch) = class.batch(da_root).await? else { return Ok(0) };
    let records = class.records_of_batch(&batch).await?;
    let Some(first) = records.first() else { return Ok(0) };
    let Some(shared) = Shared::of(class, config.chain(), first).await? else { return Ok(0) };
    let chain = Chain::new(&config.spool_dir, &batch.boundary);
    let mut written = 0;
    for record in records.iter().filter(|record| evidence::is_receipt(record)) {
        let made = evidence::make(class, &shared, &chain, record).await?;
        evidence::write(&evidence::folder(folder, record), &made)?;
        written += 1;
    }
    let ms = unix_ms().saturating_sub(batch.created_ms);
    tracing::info!(number = batch.number, written, ms, "evidence");
    Ok(written)
}
