//! The receipt's own signature as signify(1) writes one: nothing is signed anew, since both are Ed25519 over the bytes themselves.
//!
//! A file is a comment line, and base64 of `Ed`, eight bytes that pair a signature with its key, and the signature or the key. The pair
//! number is ours to choose: the first eight bytes of the key's fingerprint.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bpi_protocol::evidence::Evidence;
use bpi_protocol::key::PublicKey;

const MESSAGE_FILE: &str = "receipt.pae";
const SIGNATURE_FILE: &str = "receipt.pae.sig";
const KEY_FILE: &str = "host.pub";

/// Message and signature, and the key where it is known.
pub(super) fn files(evidence: &Evidence, key: Option<&PublicKey>) -> BTreeMap<String, Vec<u8>> {
    let envelope = evidence.receipt();
    let keyid = key.map(|key| key.keyid()).or_else(|| envelope.keyid().map(str::to_owned)).unwrap_or_default();
    let number = pair_number(&keyid);
    let mut files = BTreeMap::from([
        (MESSAGE_FILE.to_owned(), envelope.pae()),
        (SIGNATURE_FILE.to_owned(), file(&format!("verify with {KEY_FILE}"), number, envelope.signature())),
    ]);
    if let Some(key) = key {
        files.insert(KEY_FILE.to_owned(), file("docklock host public key", number, key.as_bytes()));
    }
    files
}

/// Of an envelope that names no key it is zero: signify then wants a key file with zero as well.
fn pair_number(keyid: &str) -> [u8; 8] {
    let digest = keyid.strip_prefix("SHA256:").and_then(|tail| STANDARD_NO_PAD.decode(tail).ok()).unwrap_or_default();
    let mut number = [0; 8];
    if let Some(start) = digest.get(..8) {
        number.copy_from_slice(start);
    }
    number
}

fn file(comment: &str, number: [u8; 8], content: &[u8]) -> Vec<u8> {
    let body = [&b"Ed"[..], &number, content].concat();
    format!("untrusted comment: {comment}\n{}\n", STANDARD.encode(body)).into_bytes()
}
