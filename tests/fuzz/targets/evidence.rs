//! An evidence file, or the three files of an evidence folder with `\0` between them: verifying never panics, is repeatable,
//! survives a round trip, and never passes under a key that did not sign.

#![no_main]

use std::collections::BTreeMap;

use bpi_protocol::evidence::Evidence;
use bpi_protocol::key::PublicKey;
use bpi_protocol::trust::Trust;
use bpi_protocol::verify::{Level, verify};
use libfuzzer_sys::fuzz_target;

const FILES: [&str; 3] = ["receipt.sigstore.json", "run.json", "chain.jsonl"];

fuzz_target!(|bytes: &[u8]| {
    drop(Trust::parse(bytes));
    let files: BTreeMap<String, Vec<u8>> =
        FILES.iter().zip(bytes.splitn(3, |byte| *byte == 0)).map(|(name, part)| ((*name).to_owned(), part.to_vec())).collect();
    // RFC 8032, section 7.1, test 1: a key whose private half the fuzzer does not know.
    let stranger = *b"\xd7\x5a\x98\x01\x82\xb1\x0a\xb7\xd5\x4b\xfe\xd3\xc9\x64\x07\x3a\x0e\xe1\x72\xf3\xda\xa6\x23\x25\xaf\x02\x1a\x68\xf7\x07\x51\x1a";
    let trust = Trust::from_key(PublicKey::from_raw(&stranger).expect("a key of RFC 8032"));
    for evidence in [Evidence::from_bytes(bytes), Evidence::from_files(files)].into_iter().flatten() {
        let report = verify(&evidence, &trust, Level::Signed);
        assert_ne!(report.exit_code(), 0, "evidence passed under a key that did not sign it");
        assert_eq!(verify(&evidence, &trust, Level::Signed).verdict(), report.verdict());
        let again = Evidence::from_files(evidence.to_files()).expect("what we wrote can be read");
        assert_eq!(again.receipt().pae(), evidence.receipt().pae());
    }
});
