//! `bpi-pinner scrub`: reads all that is kept, in the running pinner, or here when none runs.

use bpi_keyfile::PeerKey;
use bpi_pinner::answers::Reader;
use bpi_pinner::catalogue::Catalogue;
use bpi_pinner::config::Config;
use bpi_pinner::serve;
use clap::Args;

use crate::ask::ask;
use crate::failure::Failure;
use bpi_program::output::print;

/// Read all that is kept and check it
#[derive(Args)]
#[command(
    long_about = "Tells the running pinner to read all that it keeps, at the pace of `scrub.bytes_per_s`; bad shards are made anew of those of other pinners.

With --offline it is done here, as fast as the disk is, and nothing is changed: the pinner may not run. It fails when a shard is bad."
)]
pub(crate) struct Arguments {
    /// Do it here; no pinner may run on this data directory
    #[arg(long)]
    offline: bool,
}

pub(crate) fn run(arguments: &Arguments, config: &Config) -> Result<(), Failure> {
    if !arguments.offline {
        ask(&config.api, "POST", "/v1/scrub")?;
        return Ok(print("the pinner reads all that it keeps; `bpi-pinner status` shows how far it is\n")?);
    }
    let key = PeerKey::load(&config.key_file)?;
    let opened = serve::open(config, key.public())?;
    let reader = Reader::new(opened.shards, opened.catalogue.clone());
    let (count, bad) = all(&reader, &opened.catalogue)?;
    match bad.is_empty() {
        true => Ok(print(&format!("{count} shards are as they should be\n"))?),
        false => Err(Failure::Bad { shards: bad }),
    }
}

fn all(reader: &Reader, catalogue: &Catalogue) -> Result<(u64, Vec<String>), Failure> {
    let (mut after, mut count, mut bad) = (None, 0, Vec::new());
    loop {
        let records = catalogue.records_after(after.as_ref())?;
        let Some((last, _)) = records.last() else { return Ok((count, bad)) };
        after = Some(*last);
        for (root, record) in &records {
            count += u64::from(record.kept.len());
            let found = reader.scrub(root, |_| {}).map_err(serve::RunError::from)?;
            bad.extend(found.iter().map(|shard| format!("{}.{shard}", hex::encode(root))));
        }
    }
}
