//! `bpi-agent keygen`: the key that the mesh knows this agent by, and keys of readers.

use std::path::PathBuf;

use bpi_availability::sealing::ReaderKey;
use bpi_keyfile::PeerKey;
use clap::Args;
use getrandom::SysRng;
use rand_core::UnwrapErr;

use crate::failure::Failure;
use bpi_program::output::print;

/// Make a key and print what others have to know of it
#[derive(Args)]
#[command(
    long_about = "Makes the key that validators and pinners know this agent by, and prints its identity for their configurations;
or, with --reader, the key of somebody who may read a tenant's batches, and prints what the tenant's configuration needs.

Nothing is overwritten. Whoever loses all readers' keys cannot restore anything: keep one away from this host."
)]
pub(crate) struct Arguments {
    /// Where to write it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A reader's key (X25519), not the agent's
    #[arg(long)]
    reader: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let public = if arguments.reader {
        let key = ReaderKey::generate(&mut UnwrapErr(SysRng));
        key.save(&arguments.file)?;
        key.id().0
    } else {
        PeerKey::create(&arguments.file)?.public()
    };
    Ok(print(&format!("{}\n", hex::encode(public)))?)
}
