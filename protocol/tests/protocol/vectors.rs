//! Checkpoints and proofs of the log that other programs judge, pinned in `tests/vectors/checkpoint.json`.
//!
//! The leaves are those of real receipts' layout, so the bytes of a leaf are pinned too. Regenerating a vector is a decision record:
//! `BPI_VECTORS=write cargo test -p bpi-protocol --test protocol every_checkpoint` writes the file.

use std::convert::Infallible;

use bpi_protocol::checkpoint::{Checkpoint, Note, NoteKey, NoteSignature};
use bpi_protocol::key::PublicKey;
use bpi_protocol::log::leaf::{Leaf, TenantId};
use bpi_protocol::log::{Hash, Log};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/checkpoint.json");
const NAME: &str = "mesh.example";
const LEAVES: u64 = 1_000;
/// Sizes on both sides of powers of two, and of none.
const SIZES: [u64; 9] = [0, 1, 2, 7, 8, 9, 512, 777, LEAVES];

fn leaf(number: u64) -> Leaf {
    let mut hash = [0xab; 32];
    hash[..8].copy_from_slice(&number.to_be_bytes());
    Leaf { tenant: TenantId([number as u8; 16]), hash }
}

/// A leaf's bytes as its module header documents them, put together a second time.
fn documented(leaf: &Leaf) -> Vec<u8> {
    [&[1][..], &leaf.tenant.0, &leaf.hash].concat()
}

fn hashes(path: &[Hash]) -> Vec<String> {
    path.iter().map(hex::encode).collect()
}

fn made() -> Value {
    let secret = SigningKey::from_bytes(&[3; 32]);
    let key = NoteKey::new(NAME, PublicKey::from_verifying_key(secret.verifying_key())).unwrap();
    let mut log = Log::new();
    for number in 0..LEAVES {
        log.append(leaf(number).leaf_hash().0);
    }
    let checkpoints = SIZES.map(|size| {
        let head = log.head_at(size).unwrap();
        let checkpoint = Checkpoint::new(NAME, head).unwrap();
        let Ok(mut note) = Note::sign::<Infallible>(&checkpoint, &key, |text| Ok(secret.sign(text).to_bytes()));
        // The validators' seal, of a kind that others do not know and have to pass over.
        note.add(NoteSignature { name: format!("bls.{NAME}"), id: [9; 4], bytes: vec![0xff; 69] }).unwrap();
        json!({ "size": size, "root": hex::encode(head.root), "note": note.to_string() })
    });
    let pairs = || SIZES.into_iter().flat_map(|size| SIZES.map(|other| (other, size)));
    let inclusions: Vec<_> = (pairs().filter(|(index, size)| index < size))
        .map(|(index, size)| {
            let path = log.prove_inclusion(index, size).unwrap().path;
            json!({ "leaf": hex::encode(documented(&leaf(index))), "index": index, "size": size, "path": hashes(&path) })
        })
        .collect();
    let consistencies: Vec<_> = (pairs().filter(|(first, second)| 0 < *first && first < second))
        .map(|(first, second)| {
            let path = log.prove_consistency(first, second).unwrap().path;
            json!({ "first": first, "second": second, "path": hashes(&path) })
        })
        .collect();
    json!({
        "note": "Pinned: regenerating one of these is a decision record. See protocol/tests/protocol/vectors.rs.",
        "vkey": key.to_vkey(),
        "secret": hex::encode(secret.to_bytes()),
        "checkpoints": checkpoints,
        "inclusions": inclusions,
        "consistencies": consistencies,
    })
}

#[test]
fn every_checkpoint_and_proof_is_the_pinned_one() {
    let text = serde_json::to_string_pretty(&made()).unwrap() + "\n";
    if std::env::var("BPI_VECTORS").as_deref() == Ok("write") {
        std::fs::write(FILE, &text).unwrap();
    }
    assert!(std::fs::read_to_string(FILE).unwrap() == text, "the vectors are not those of {FILE}");
}
