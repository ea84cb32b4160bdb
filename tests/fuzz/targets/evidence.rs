//! An evidence file, or the four files of an evidence folder with `\0` between them: verifying never panics, is repeatable,
//! survives a round trip, and never passes under a key that did not sign; and no header is final but the one that was sealed.

#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bpi_protocol::consensus::bls::SecretKey;
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{Epoch, HeaderDigest, TimeMs};
use bpi_protocol::consensus::light::{chain_of, genesis};
use bpi_protocol::consensus::validators::{Validator, ValidatorSet};
use bpi_protocol::evidence::Evidence;
use bpi_protocol::key::PublicKey;
use bpi_protocol::trust::Trust;
use bpi_protocol::verify::{Level, RowName, Status, verify};
use libfuzzer_sys::fuzz_target;

const FILES: [&str; 4] = ["receipt.sigstore.json", "run.json", "chain.jsonl", "finality.bin"];

/// What the fuzzer cannot sign for: a host's key, and the one validator of a chain.
static TRUST: LazyLock<Trust> = LazyLock::new(|| {
    // RFC 8032, section 7.1, test 1.
    let stranger = *b"\xd7\x5a\x98\x01\x82\xb1\x0a\xb7\xd5\x4b\xfe\xd3\xc9\x64\x07\x3a\x0e\xe1\x72\xf3\xda\xa6\x23\x25\xaf\x02\x1a\x68\xf7\x07\x51\x1a";
    let key = PublicKey::from_raw(&stranger).expect("a key of RFC 8032").to_spki_pem().replace('\n', "\\n");
    let (id, set) = (chain_of(&first()), set().digest());
    let file = format!(
        r#"{{"hosts":[{{"id":"spiffe://fuzz/host","publicKey":"{key}"}}],"chains":[{{"id":"{id}","validatorSets":["{set}"]}}]}}"#
    );
    Trust::parse(file.as_bytes()).expect("a trust file")
});

fn set() -> ValidatorSet {
    let secret = SecretKey::generate(&[7; 32]).expect("32 bytes of entropy");
    let member = Validator { key: secret.public_key(), possession: secret.prove_possession(), weight: 1 };
    ValidatorSet::new(Epoch(0), vec![member]).expect("a set")
}

fn first() -> Header {
    genesis(&set(), TimeMs(1_000))
}

/// The header of the seed `anchored`, which that validator has sealed, and no other.
const SEALED: &str = "b7aef450f35414a9e569088333b245734d598153a9352a08e671c73b04acd748";

fuzz_target!(|bytes: &[u8]| {
    drop(Trust::parse(bytes));
    let files: BTreeMap<String, Vec<u8>> = FILES
        .iter()
        .zip(bytes.splitn(4, |byte| *byte == 0))
        .map(|(name, part)| ((*name).to_owned(), part.to_vec()))
        .collect();
    for evidence in [Evidence::from_bytes(bytes), Evidence::from_files(files)].into_iter().flatten() {
        let report = verify(&evidence, &TRUST, Level::Signed);
        assert_ne!(report.exit_code(), 0, "evidence passed under a key that did not sign it");
        assert_eq!(verify(&evidence, &TRUST, Level::Signed).verdict(), report.verdict());
        let is_final = report.rows.iter().any(|row| row.name == RowName::Finality && row.status == Status::Pass);
        let digest = evidence.finality().map(|proof| proof.header.digest());
        assert!(
            !is_final || digest.as_ref().map(HeaderDigest::to_string).as_deref() == Some(SEALED),
            "a header was forged"
        );
        let again = Evidence::from_files(evidence.to_files()).expect("what we wrote can be read");
        assert_eq!(again.receipt().pae(), evidence.receipt().pae());
        assert_eq!(again.finality(), evidence.finality());
    }
});
