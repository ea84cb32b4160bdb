//! Files that are not what they must be, whatever they say.

use std::collections::BTreeMap;

use bpi_protocol::evidence::{BUNDLE_FILE, CHAIN_FILE};
use bpi_protocol::verify::Level;
use serde_json::{Value, json};

use super::{Layer, Mutant, Raw, Truth};

type Files = BTreeMap<String, Vec<u8>>;

pub(super) fn mutants(truth: &Truth) -> Vec<Mutant> {
    let mut made = Vec::new();
    bundles(truth, &mut made);
    folders(truth, &mut made);
    made
}

fn mutant(name: &str, files: Files) -> Mutant {
    Mutant { name: name.to_owned(), layer: Layer::File, level: Level::Chained, files, raw: None }
}

fn bundles(truth: &Truth, made: &mut Vec<Mutant>) {
    let bundle = Raw::of(truth.receipt()).bundle();
    let mut add = |name: &str, bend: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_slice(&bundle).expect("a bundle is JSON");
        bend(&mut value);
        made.push(mutant(name, truth.with_bundle(value.to_string().into_bytes())));
    };
    let stranger = Raw {
        signature: truth.stranger.sign(&Raw::of(truth.receipt()).pae()).to_vec(),
        keyid: truth.stranger.public_key().keyid(),
        ..Raw::of(truth.receipt())
    };
    let second = stranger.json()["signatures"][0].clone();
    add("bundle: a second signature", &|value| {
        let signatures = value["dsseEnvelope"]["signatures"].as_array_mut().expect("a list");
        signatures.push(second.clone());
    });
    add("bundle: no signature", &|value| value["dsseEnvelope"]["signatures"] = json!([]));
    add("bundle: keyid in hexadecimal", &|value| value["dsseEnvelope"]["signatures"][0]["keyid"] = json!("00ff00ff"));
    add("bundle: hint at another key", &|value| {
        value["verificationMaterial"]["publicKey"]["hint"] = json!(truth.stranger.public_key().keyid());
    });
    add("bundle: another version", &|value| {
        value["mediaType"] = json!("application/vnd.dev.sigstore.bundle+json;version=0.1");
    });
    add("bundle: an unknown member", &|value| value["trustMe"] = json!(true));
    add("bundle: a log entry", &|value| value["verificationMaterial"]["tlogEntries"] = json!([{ "logIndex": "1" }]));
    add("bundle: a key to trust inside", &|value| {
        let pem = truth.stranger.public_key().to_spki_pem();
        value["verificationMaterial"]["publicKey"]["rawBytes"] = json!(pem);
    });
    add("bundle: payload in URL-safe base64", &|value| {
        let payload = value["dsseEnvelope"]["payload"].as_str().expect("a string").to_owned();
        value["dsseEnvelope"]["payload"] = json!(format!("-_{}", &payload[2..]));
    });
    add("bundle: signature not base64", &|value| value["dsseEnvelope"]["signatures"][0]["sig"] = json!("!"));
    add("bundle: no envelope", &|value| value["dsseEnvelope"] = json!({}));
    for (name, bytes) in [
        ("bundle: cut off", bundle[..bundle.len() / 2].to_vec()),
        ("bundle: empty", Vec::new()),
        ("bundle: not JSON", b"hello".to_vec()),
        ("bundle: too long", vec![b' '; 2 << 20]),
    ] {
        made.push(mutant(name, truth.with_bundle(bytes)));
    }
}

fn folders(truth: &Truth, made: &mut Vec<Mutant>) {
    let mut add = |name: &str, bend: &dyn Fn(&mut Files)| {
        let mut files = truth.files();
        bend(&mut files);
        made.push(mutant(name, files));
    };
    add("folder: no bundle", &|files| drop(files.remove(BUNDLE_FILE)));
    add("folder: no chain", &|files| drop(files.remove(CHAIN_FILE)));
    add("folder: chain cut off", &|files| {
        let chain = files.get_mut(CHAIN_FILE).expect("there is a chain");
        chain.truncate(chain.len() - 10);
    });
    add("folder: chain empty", &|files| drop(files.insert(CHAIN_FILE.to_owned(), Vec::new())));
    add("folder: chain with an empty line", &|files| {
        files.get_mut(CHAIN_FILE).expect("there is a chain").extend(b"\n");
    });
    add("folder: chain not JSON", &|files| drop(files.insert(CHAIN_FILE.to_owned(), b"hello\n".to_vec())));
}
