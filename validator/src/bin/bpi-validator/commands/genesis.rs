//! `bpi-validator genesis`: the file that a chain starts from.

use std::fs;
use std::path::{Path, PathBuf};

use bpi_validator::node::genesis::{ChainRules, Genesis, Member, Pinner};
use bpi_validator::node::now_ms;
use clap::Args;

use crate::failure::Failure;
use bpi_program::output::{StdoutError, print};

/// Print a genesis of these validators
#[derive(Args)]
pub(crate) struct Arguments {
    /// What people call the chain
    #[arg(long)]
    name: String,
    /// When it begins, in ms since 1970 [default: now]
    #[arg(long, value_name = "MS")]
    time_ms: Option<u64>,
    /// Heights in which a ceremony of the validators' key is held; 0 for a chain without that key
    #[arg(long, value_name = "HEIGHTS", default_value_t = ChainRules::default().ceremony_heights)]
    ceremony_heights: u64,
    /// A file with what the genesis has to know of a pinner: identity, and if you like region, operator and name; once for each
    #[arg(long = "pinner", value_name = "FILE")]
    pinners: Vec<PathBuf>,
    /// How long the shards of attested batches have to be kept, in s; counts when there are pinners
    #[arg(long, value_name = "S", default_value_t = ChainRules::default().kept_s_min)]
    kept_s_min: u64,
    /// What `bpi-validator keygen` has printed for each validator, in the order of their votes
    #[arg(required = true)]
    members: Vec<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let members = arguments.members.iter().map(|path| read::<Member>(path)).collect::<Result<Vec<_>, _>>()?;
    let time_ms = arguments.time_ms.unwrap_or_else(now_ms);
    let pinners = arguments.pinners.iter().map(|path| read::<Pinner>(path)).collect::<Result<Vec<_>, _>>()?;
    let (ceremony_heights, kept_s_min) = (arguments.ceremony_heights, arguments.kept_s_min);
    let rules = ChainRules { ceremony_heights, kept_s_min, ..ChainRules::default() };
    let text = Genesis::text(&arguments.name, time_ms, rules, members, pinners)
        .map_err(|error| Failure::Stdout(StdoutError::new(error)))?;
    // It is read as a node will read it: what is printed can be used.
    Genesis::parse(Path::new("(to be printed)"), &text)?;
    Ok(print(&text)?)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let wrong = |reason: String| Failure::Member { path: path.to_path_buf(), reason };
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    toml::from_str(&text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))
}
