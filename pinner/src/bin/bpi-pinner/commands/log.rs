//! `bpi-pinner log`: the chained log of what was kept, lost, mended and let go. It can be read while the pinner runs.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bpi_pinner::catalogue::{Catalogue, CatalogueError};
use bpi_pinner::config::Config;
use bpi_pinner::export::Export;
use bpi_pinner::index::Index;
use bpi_pinner::journal::{Entry, Head};
use bpi_pinner::serve::index_path;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::failure::Failure;
use bpi_program::output::{Format, plain, print};

/// Read, verify or export the log
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print entries, the oldest first
    List {
        /// The first
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// How many, at most
        #[arg(long, default_value_t = 1000)]
        count: u64,
        /// How to print them; json: one document a line
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Check that each entry is chained to the one before, up to the head
    Verify,
    /// Write all entries to a Parquet file, verified on the way
    Export {
        /// The file, which may not be there yet
        #[arg(long, value_name = "FILE")]
        parquet: PathBuf,
    },
}

pub(crate) fn run(arguments: &Arguments, config: &Config) -> Result<(), Failure> {
    let index = Index::open_to_read(&index_path(&config.data_dir))?;
    let catalogue = Catalogue::open_to_read(Arc::new(index))?;
    match &arguments.command {
        Command::List { from, count, format } => list(&catalogue, *from, *count, *format),
        Command::Verify => {
            let Head { length, digest } = catalogue.verify_log(|_, _| Ok::<(), CatalogueError>(()))?;
            Ok(print(&format!("{length} entries are chained; the head is {}\n", hex::encode(digest)))?)
        }
        Command::Export { parquet } => export(&catalogue, parquet),
    }
}

fn export(catalogue: &Catalogue, path: &Path) -> Result<(), Failure> {
    let refused = |reason: String| Failure::Write { path: path.to_path_buf(), reason };
    let file = File::create_new(path).map_err(|error| refused(error.to_string()))?;
    let mut export = Export::begin(BufWriter::new(file)).map_err(|error| refused(error.to_string()))?;
    let head =
        catalogue.verify_log(|entry, head| export.add(entry, head).map_err(|error| refused(error.to_string())))?;
    let out = export.end().map_err(|error| refused(error.to_string()))?;
    let file = out.into_inner().map_err(|error| refused(error.to_string()))?;
    file.sync_all().map_err(|error| refused(error.to_string()))?;
    Ok(print(&format!(
        "{} entries are in {}; the head is {}\n",
        head.length,
        path.display(),
        hex::encode(head.digest)
    ))?)
}

fn list(catalogue: &Catalogue, from: u64, count: u64, format: Format) -> Result<(), Failure> {
    let (mut next, end) = (from, from.saturating_add(count));
    while next < end {
        let entries = catalogue.entries(next)?;
        let Some(last) = entries.last() else { return Ok(()) };
        let text: String = entries.iter().filter(|entry| entry.number < end).map(|entry| line(entry, format)).collect();
        print(&text)?;
        next = last.number + 1;
    }
    Ok(())
}

fn line(Entry { number, event }: &Entry, format: Format) -> String {
    let (root, time) = (hex::encode(event.da_root), time_of(event.time_s));
    match format {
        Format::Json => {
            let said = json!({
                "number": number, "time": time, "kind": event.kind.name(), "daRoot": root, "shard": event.shard, "detail": event.detail,
            });
            format!("{said}\n")
        }
        Format::Text => {
            let shard = event.shard.map_or_else(|| "-".to_owned(), |shard| shard.to_string());
            format!("{number:>8} {time} {:<13} {root} {shard:>3} {}\n", event.kind.name(), plain(&event.detail))
        }
    }
}

/// RFC 3339.
fn time_of(time_s: u64) -> String {
    let time = i64::try_from(time_s).ok().and_then(|time_s| jiff::Timestamp::from_second(time_s).ok());
    time.map_or_else(|| time_s.to_string(), |time| time.to_string())
}
