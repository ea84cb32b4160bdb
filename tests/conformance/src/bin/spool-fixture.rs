//! Writes a spool as DockLock leaves it, without running anything: `spool-fixture FOLDER BOUNDARY COUNT [PER_S]`.
//!
//! Each of COUNT containers has an intent and a receipt. With PER_S they come at that pace, and a line on standard output says when each receipt
//! was in place: its container and the time in µs since 1970. The host's key is printed to `FOLDER/../host.key.pub.pem`.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use bpi_conformance::story::{Chain, Signer};

fn main() -> anyhow::Result<()> {
    const USAGE: &str = "usage: spool-fixture FOLDER BOUNDARY COUNT [PER_S]";
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [folder, boundary, count, rest @ ..] = &words[..] else { anyhow::bail!(USAGE) };
    let count: u64 = count.parse().context(USAGE)?;
    let per_s: Option<f64> = rest.first().map(|text| text.parse()).transpose().context(USAGE)?;
    let folder = Path::new(folder);
    let records = folder.join(boundary).join("records");
    fs::create_dir_all(&records)?;
    let host = Signer::new("a");
    if let Some(above) = folder.parent() {
        fs::write(above.join("host.key.pub.pem"), host.public_key().to_spki_pem())?;
    }
    let mut chain = Chain::new(&host, boundary, 0);
    let (mut written, mut out, began) = (0, std::io::stdout().lock(), Instant::now());
    for number in 0..count {
        if let Some(per_s) = per_s {
            let due = Duration::from_secs_f64(number as f64 / per_s);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        let id = format!("c{number}");
        let intent = chain.intend(&id);
        chain.complete(&id, intent);
        for envelope in &chain.records[written..] {
            let (draft, path) = (records.join("draft"), records.join(format!("{written:012}.json")));
            let mut file = File::create(&draft)?;
            file.write_all(&envelope.to_json())?;
            fs::rename(&draft, &path)?;
            written += 1;
        }
        if per_s.is_some() {
            let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
            writeln!(out, "{id} {}", since.as_micros())?;
            out.flush()?;
        }
    }
    Ok(())
}
