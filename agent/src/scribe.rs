//! Writes the evidence of each receipt of a batch that has become final, where the configuration wants it.
//!
//! Nothing is queued: what is missing is looked for, newest batches first, whenever one has become final and when the agent starts; so an agent that was
//! ended between the two writes what it owes. Batches become final out of order by as many as may be open, so after as many in a row that have their
//! evidence nothing older lacks it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bpi_class::{Batch, BatchState, Class};
use bpi_protocol::log::Hash;
use tokio::sync::watch;

use crate::config::Config;
use crate::evidence::{self, MakingError, Shared, Window};
use crate::metrics::Metrics;
use crate::outbox::OPEN_MAX;
use crate::packing::unix_ms;
use crate::spool::Chain;

/// Batches of one page of db.class.
const PAGE: u32 = 1024;
/// Batches that are remembered as written, at most.
const WRITTEN_MAX: usize = 8 * OPEN_MAX;

/// Works until nobody tells it of batches any more.
pub async fn run(config: Arc<Config>, class: Arc<Class>, mut finals: watch::Receiver<u64>, metrics: Arc<Metrics>) {
    let Some(folder) = &config.evidence_dir else { return };
    let mut written = BTreeSet::new();
    loop {
        if let Err(error) = write_missing(&config, &class, folder, &mut written, &metrics).await {
            // It can be made when it is asked for, and is tried again with the next.
            tracing::warn!(%error, "evidence cannot be written");
        }
        if finals.changed().await.is_err() {
            return;
        }
    }
}

async fn write_missing(
    config: &Config,
    class: &Class,
    folder: &Path,
    written: &mut BTreeSet<Hash>,
    metrics: &Metrics,
) -> Result<(), MakingError> {
    let (mut missing, mut before, mut in_a_row) = (Vec::new(), None, 0);
    'pages: loop {
        let page = class.batches(before, 2 * OPEN_MAX as u32).await?;
        let Some(last) = page.last() else { break };
        before = Some(last.number);
        for batch in page.into_iter().filter(|batch| batch.state == BatchState::Final) {
            if written.contains(&batch.da_root) || is_written(class, folder, &batch).await? {
                in_a_row += 1;
            } else {
                in_a_row = 0;
                missing.push(batch);
            }
            if in_a_row > OPEN_MAX {
                break 'pages;
            }
        }
    }
    if written.len() > WRITTEN_MAX {
        written.clear();
    }
    while let Some(batch) = missing.pop() {
        let count = write_batch(config, class, folder, &batch).await?;
        written.insert(batch.da_root);
        metrics.evidence(count);
        let ms = unix_ms().saturating_sub(batch.created_ms);
        tracing::info!(number = batch.number, written = count, ms, "evidence");
    }
    Ok(())
}

/// True when the last receipt of a batch has its folder: they are written in order.
async fn is_written(class: &Class, folder: &Path, batch: &Batch) -> Result<bool, MakingError> {
    let records = class.records_of_batch(batch).await?;
    let last = records.iter().rev().find(|record| evidence::is_receipt(record));
    Ok(last.is_none_or(|record| evidence::folder(folder, record).exists()))
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
            written += write_batch(config, class, folder, &batch).await?;
            tell(written);
        }
    }
}

async fn write_batch(config: &Config, class: &Class, folder: &Path, batch: &Batch) -> Result<u64, MakingError> {
    let records = class.records_of_batch(batch).await?;
    let Some(first) = records.first() else { return Ok(0) };
    let Some(shared) = Shared::of(class, config.chain(), first).await? else { return Ok(0) };
    let (chain, folder) = (Chain::new(&config.spool_dir, &batch.boundary), folder.to_path_buf());
    let write = move || {
        let (mut window, mut written) = (Window::of(chain), 0);
        for record in records.iter().filter(|record| evidence::is_receipt(record)) {
            evidence::write(&evidence::folder(&folder, record), &shared.evidence(&mut window, record)?)?;
            written += 1;
        }
        Ok(written)
    };
    // Files by the thousand: nobody else's answers wait for them.
    tokio::task::spawn_blocking(write).await.unwrap_or_else(|ended| Err(MakingError::Ended(ended.to_string())))
}
