//! `bpi-validator headers`: what a node that does not run has kept.

use bpi_protocol::consensus::ids::Height;
use bpi_validator::durable::headers::Headers;
use bpi_validator::durable::headers_path;
use bpi_validator::node::config::Config;
use bpi_validator::node::genesis::Genesis;
use clap::{Args, Subcommand};

use crate::failure::Failure;
use bpi_program::output::print;

/// Look into the headers of a node that does not run
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check that all headers follow one another
    Check,
    /// Print headers, one to a line: height, digest, time in ms, leaves of the log
    List {
        /// From this height on
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// At most so many
        #[arg(long, default_value_t = u64::MAX)]
        count: u64,
    },
}

pub(crate) fn run(arguments: &Arguments, config: &Config) -> Result<(), Failure> {
    let genesis = Genesis::load(&config.genesis)?;
    let headers = Headers::open(&headers_path(&config.data_dir), genesis.chain)?;
    match arguments.command {
        Command::Check => {
            headers.check()?;
            Ok(print(&format!(
                "{} headers, up to height {}, follow one another\n",
                headers.tip().height.0 + 1,
                headers.tip().height
            ))?)
        }
        Command::List { from, count } => {
            if from > headers.tip().height.0 {
                return Err(Failure::NotFinal { height: from, tip: headers.tip().height.0 });
            }
            for kept in headers.iter(Height(from)).take(usize::try_from(count).unwrap_or(usize::MAX)) {
                let (header, _) = kept?;
                let (height, digest) = (header.height, hex::encode(header.digest().0));
                print(&format!("{height} {digest} {} {}\n", header.time.0, header.receipts.size))?;
            }
            Ok(())
        }
    }
}
