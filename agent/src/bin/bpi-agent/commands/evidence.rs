//! `bpi-agent evidence`: all evidence that db.class and the spool can make, while the agent does not run.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bpi_agent::config::Config;
use bpi_agent::scribe::write_all;
use bpi_class::Class;
use clap::Args;

use crate::failure::Failure;
use bpi_program::output::print;

/// How often it is said how far it is.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// Write the evidence of every receipt that is final
#[derive(Args)]
#[command(
    long_about = "Writes a folder of evidence for each receipt that is final, from db.class and the spool of the configuration: after a restore, or
when the folder of evidence was lost. The agent must not run; while it does, `docklock receipts export` asks it."
)]
pub(crate) struct Arguments {
    /// Where to: BOUNDARY/CONTAINER-NUMBER below it
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

pub(crate) fn run(arguments: &Arguments, config: &Config) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|source| Failure::Threads { source })?;
    let mut said = Instant::now();
    let written = runtime.block_on(async {
        let class = Class::open(&config.class).await?;
        let tell = |written: u64| {
            if said.elapsed() >= SAY_EVERY {
                said = Instant::now();
                // Who does not listen to how far it is has nothing to lose.
                writeln!(std::io::stderr(), "{written} receipts").unwrap_or_default();
            }
        };
        let written = write_all(config, &class, &arguments.to, tell).await;
        class.close().await;
        written
    });
    let written = written.map_err(Box::new)?;
    Ok(print(&format!("{written} receipts\n"))?)
}
