//! `bpi-agent restore`: all records again, from a snapshot and shards.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bpi_agent::config::Config;
use bpi_agent::restore::{Wanted, restore};
use clap::Args;

use crate::failure::Failure;
use bpi_program::output::{Format, StdoutError, print};

/// How often it is said how far it is.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// Restore all records from a snapshot and shards
#[derive(Args)]
#[command(
    long_about = "Makes a new folder with db.class (class.db) and the spool, from a snapshot of db.class, a reader's key and any k shards of each batch.

Each batch is checked against its da_root, its archive's CID and its receipts root, each record against its CID. What cannot be restored is
named, and the exit status is 1. The agent with this key must not run at the same time."
)]
pub(crate) struct Arguments {
    /// The snapshot
    #[arg(long, value_name = "FILE")]
    snapshot: PathBuf,
    /// The key of somebody who may read the batches
    #[arg(long, value_name = "FILE")]
    reader: PathBuf,
    /// The folder to make
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// How to print what was restored
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(crate) fn run(arguments: &Arguments, config: &Config) -> Result<(), Failure> {
    let wanted =
        Wanted { snapshot: arguments.snapshot.clone(), reader: arguments.reader.clone(), to: arguments.to.clone() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|source| Failure::Threads { source })?;
    let mut said = Instant::now();
    let tell = |done: u64, all: u64| {
        if said.elapsed() >= SAY_EVERY || (done == all && std::io::stderr().is_terminal()) {
            said = Instant::now();
            // Who does not listen to how far it is has nothing to lose.
            writeln!(std::io::stderr(), "{done} of {all} batches").unwrap_or_default();
        }
    };
    let restored = runtime.block_on(restore(config, &wanted, tell)).map_err(Box::new)?;
    match arguments.format {
        Format::Json => {
            let json =
                serde_json::to_string_pretty(&restored).map_err(|error| Failure::Stdout(StdoutError::new(error)))?;
            print(&format!("{json}\n"))?;
        }
        Format::Text => {
            let (batches, records, ms) = (restored.batches, restored.records, restored.took_ms);
            print(&format!("{records} records of {batches} batches in {ms} ms, each checked\n"))?;
            for lost in &restored.lost {
                print(&format!("lost: batch {}: {}\n", lost.da_root, lost.reason))?;
            }
        }
    }
    match restored.lost.len() {
        0 => Ok(()),
        batches => Err(Failure::Lost { batches }),
    }
}
