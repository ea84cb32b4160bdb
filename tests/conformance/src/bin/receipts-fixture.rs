//! Writes the true evidence and all its mutants for other programs to judge: `receipts-fixture FOLDER`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use bpi_conformance::mutants::{Raw, Truth, judge};
use bpi_protocol::trust::Trust;
use bpi_protocol::verify::Level;
use serde_json::json;

fn main() -> anyhow::Result<()> {
    let out = std::env::args_os().nth(1).context("usage: receipts-fixture FOLDER")?;
    let out = Path::new(&out);
    let truth = Truth::default();
    let trust_json = truth.trust_json();
    let trust = Trust::parse(&trust_json)?;
    write(&out.join("trust.json"), &trust_json)?;
    write(&out.join("host.pub.pem"), truth.host.public_key().to_spki_pem().as_bytes())?;
    write(&out.join("stranger.pub.pem"), truth.stranger.public_key().to_spki_pem().as_bytes())?;

    let (exit, sentence) = judge(&truth.files(), &trust, Level::Chained);
    write_case(out, "true", &truth.files(), Some(&Raw::of(truth.receipt())))?;
    let mut cases = vec![
        json!({ "id": "true", "name": "true", "layer": "true", "level": "chained", "exit": exit, "sentence": sentence }),
    ];
    for (index, mutant) in truth.mutants().iter().enumerate() {
        let id = format!("m{index:03}");
        write_case(out, &id, &mutant.files, mutant.raw.as_ref())?;
        let (exit, sentence) = judge(&mutant.files, &trust, mutant.level);
        cases.push(json!({
            "id": id, "name": mutant.name, "layer": mutant.layer.as_str(), "level": mutant.level.as_str(),
            "exit": exit, "sentence": sentence,
        }));
    }
    write(&out.join("cases.json"), serde_json::to_string_pretty(&json!({ "keyid": truth.host.public_key().keyid(), "key": hex(truth.host.public_key().as_bytes()), "seed": hex(&truth.host.seed()), "cases": cases }))?.as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `<id>/` is the evidence; `<id>.dsse.json`, `<id>.pae` and `<id>.sig` are its envelope for those who read nothing else.
fn write_case(out: &Path, id: &str, files: &BTreeMap<String, Vec<u8>>, raw: Option<&Raw>) -> anyhow::Result<()> {
    for (name, content) in files {
        write(&out.join(id).join(name), content)?;
    }
    if let Some(raw) = raw {
        write(&out.join(format!("{id}.dsse.json")), &raw.envelope())?;
        write(&out.join(format!("{id}.pae")), &raw.pae())?;
        write(&out.join(format!("{id}.sig")), &raw.signature)?;
    }
    Ok(())
}

fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    fs::write(path, content).with_context(|| format!("write {}", path.display()))
}
