//! Evidence as files, its size, and its page in plain words.

use std::collections::BTreeMap;

use bpi_conformance::mutants::Truth;
use bpi_conformance::story::{Chain, Signer, exec, short};
use bpi_protocol::chain::Record;
use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::evidence::{BUNDLE_FILE, CHAIN_FILE, Evidence, EvidenceError, RUN_FILE};
use bpi_protocol::explain::{NoAdvice, explain};
use bpi_protocol::run::CallCount;
use proptest::prelude::*;

#[test]
fn files_that_were_written_are_read_back() {
    let evidence = Evidence::of(&Truth::default().records).unwrap();
    assert_eq!(Evidence::from_files(evidence.to_files()), Ok(evidence));
}

#[test]
fn the_chain_may_repeat_the_receipt() {
    let truth = Truth::default();
    let mut files = truth.files();
    let chain = files.get_mut(CHAIN_FILE).unwrap();
    chain.extend(truth.receipt().to_json());
    chain.push(b'\n');
    assert_eq!(Evidence::from_files(files), Evidence::from_files(truth.files()));
}

#[test]
fn run_json_hashes_to_the_subject() {
    let evidence = Evidence::of(&Truth::default().records).unwrap();
    assert_eq!(Sha256Digest::of(&evidence.to_files()[RUN_FILE]), evidence.entry().unwrap().subject);
}

#[test]
fn a_bundle_or_an_envelope_alone_is_evidence() {
    let truth = Truth::default();
    let bundle = Evidence::from_bytes(&truth.files()[BUNDLE_FILE]).unwrap();
    let envelope = Evidence::from_bytes(&truth.receipt().to_json()).unwrap();
    assert_eq!(bundle, envelope);
    assert_eq!(bundle.receipt(), truth.receipt());
}

#[test]
fn only_a_receipt_makes_evidence() {
    let truth = Truth::default();
    assert!(matches!(Evidence::of(&truth.records[..1]), Err(EvidenceError::NotAReceipt { .. })));
    assert!(matches!(Evidence::of(&[]), Err(EvidenceError::NotAReceipt { .. })));
}

#[test]
fn a_folder_may_not_hold_what_nobody_checks() {
    let mut files = Truth::default().files();
    files.insert("notes.txt".to_owned(), Vec::new());
    assert!(matches!(Evidence::from_files(files), Err(EvidenceError::UnknownFile { .. })));
}

/// Bytes of a bundle and of all files. `-- --nocapture` prints them.
fn sizes(evidence: &Evidence) -> (usize, usize) {
    let files = evidence.to_files();
    println!("{:?}", files.iter().map(|(name, content)| (name, content.len())).collect::<Vec<_>>());
    (files[BUNDLE_FILE].len(), files.values().map(Vec::len).sum())
}

#[test]
fn a_bundle_is_smaller_than_six_kilobytes_however_much_was_called() {
    let host = Signer::new("a");
    let (bundle, _) = sizes(&Evidence::of(&short(&host)).unwrap());
    assert!(bundle <= 6 * 1024, "{bundle}");

    let mut chain = Chain::new(&host, "default", 0);
    let intent = chain.intend("demo");
    let mut receipt = chain.receipt("demo", intent);
    receipt.run.denied[0].count = 1_000_000_000;
    chain.push(&Record::Receipt(Box::new(receipt)));
    let (later, _) = sizes(&Evidence::of(&chain.records).unwrap());
    assert!(later < bundle + 16, "a count of 10^9 costs its digits and no more: {later}");
}

#[test]
fn the_explanation_says_what_ran_and_what_was_not_controlled() {
    let page = explain(&Evidence::of(&Truth::default().records).unwrap(), &NoAdvice).unwrap();
    for said in [
        "Container demo",
        "success (exit code 0)",
        "refused 3 system calls",
        "apparmor was absent",
        "clock, entropy, scheduling",
    ] {
        assert!(page.replace('\n', " ").contains(said), "{said:?} in\n{page}");
    }
    assert!(page.lines().count() < 50 && page.lines().all(|line| line.chars().count() <= 100), "{page}");
}

#[test]
fn the_explanation_says_how_a_run_was_ordered_and_why_it_claims_no_more() {
    let host = Signer::new("a");
    let mut chain = Chain::new(&host, "default", 0);
    let intent = chain.intend("demo");
    let mut receipt = chain.receipt("demo", intent);
    receipt.run.params.schedule = "turns".to_owned();
    receipt.assurance.schedule = Some("serial-syscall".to_owned());
    receipt.assurance.escapes = vec!["task 3 was stopped by the host's clock".to_owned()];
    receipt.assurance.counters.insert("turns".to_owned(), 7);
    chain.push(&Record::Receipt(Box::new(receipt)));
    let page = explain(&Evidence::of(&chain.records).unwrap(), &NoAdvice).unwrap().replace('\n', " ");
    for said in [
        "one task run at a time",
        "entropy: random bytes",
        "left the deterministic path:   task 3 was stopped by the host's clock.",
        "the run does not say its seed",
    ] {
        assert!(page.contains(said), "{said:?} in\n{page}");
    }
}

#[test]
fn the_explanation_fits_on_a_page_and_keeps_the_terminal_still() {
    let host = Signer::new("a");
    let mut chain = Chain::new(&host, "default", 0);
    let intent = chain.intend("\u{1b}[2Jdemo");
    let mut receipt = chain.receipt("\u{1b}[2Jdemo", intent);
    receipt.assurance.execs = vec![exec(); 1000];
    let denied = |n: u64| CallCount { syscall: format!("call{n:04}"), errno: Some("EPERM".to_owned()), count: n + 1 };
    receipt.run.denied = (0..400).map(denied).collect();
    chain.push(&Record::Receipt(Box::new(receipt)));
    let page = explain(&Evidence::of(&chain.records).unwrap(), &NoAdvice).unwrap();
    assert!(!page.contains('\u{1b}') && page.contains("\\u{1b}[2Jdemo"), "{page}");
    assert!(page.contains("388 kinds more"), "{page}");
    assert!(page.contains("1000 processes entered"), "{page}");
    assert!(page.lines().count() < 60, "{page}");
}

proptest! {
    #[test]
    fn any_files_are_read_without_a_panic(bundle: Vec<u8>, run: Vec<u8>, chain: Vec<u8>) {
        let files = [(BUNDLE_FILE, bundle), (RUN_FILE, run), (CHAIN_FILE, chain)].map(|(name, bytes)| (name.to_owned(), bytes));
        prop_assert!(Evidence::from_files(BTreeMap::from(files)).is_err());
    }
}
