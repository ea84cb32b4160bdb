//! Judges DSSE envelopes by the `dsse` crate, which knows nothing of us: `dsse-check KEY.pem ENVELOPE…` prints one line for each.

use std::path::PathBuf;

use anyhow::Context as _;
use bpi_protocol::key::PublicKey;
use dsse::{Ed25519Verifier, Envelope};

fn main() -> anyhow::Result<()> {
    let mut paths = std::env::args_os().skip(1).map(PathBuf::from);
    let key = paths.next().context("usage: dsse-check KEY.pem ENVELOPE…")?;
    let pem = std::fs::read_to_string(&key).with_context(|| format!("read {}", key.display()))?;
    let key = PublicKey::from_spki_pem(&pem)?;
    // Only the 32 bytes are ours: envelope, PAE and verification are the crate's.
    let verifier = Ed25519Verifier::from_bytes(key.as_bytes())?.with_key_id(key.keyid());
    for path in paths {
        let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let verdict = Envelope::from_json(&bytes).and_then(|envelope| dsse::verify(&envelope, &[&verifier], 1));
        match verdict {
            Ok(_) => println!("{}\taccepted", path.display()),
            Err(error) => println!("{}\trefused\t{}", path.display(), error.to_string().replace(['\n', '\t'], " ")),
        }
    }
    Ok(())
}
