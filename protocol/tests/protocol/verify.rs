//! The ladder.

use std::collections::BTreeMap;

use bpi_conformance::mutants::{Layer, Truth, judge};
use bpi_conformance::story::{Chain, Signer, short};
use bpi_protocol::chain::ChainError;
use bpi_protocol::evidence::{CHAIN_FILE, Evidence};
use bpi_protocol::trust::Trust;
use bpi_protocol::verify::{Falsehood, Level, RowName, Status, verify};
use proptest::prelude::*;

fn trust() -> Trust {
    Trust::parse(&Truth::default().trust_json()).unwrap()
}

fn evidence() -> Evidence {
    Evidence::of(&Truth::default().records).unwrap()
}

#[test]
fn true_evidence_passes_up_to_the_chain_and_no_further() {
    let report = verify(&evidence(), &trust(), Level::Chained);
    let statuses: Vec<_> = report.rows.iter().map(|row| row.status).collect();
    assert_eq!(statuses[..4], [Status::Pass; 4], "{report}");
    assert_eq!(statuses[4..], [Status::NotChecked; 5], "{report}");
    assert_eq!(report.exit_code(), 0);
    assert!(report.verdict().starts_with("true: "));
}

#[test]
fn the_ladder_ends_with_what_is_claimed_and_what_nothing_controlled() {
    let text = verify(&evidence(), &trust(), Level::Chained).to_string();
    let lines: Vec<&str> = text.lines().collect();
    let claimed = lines[lines.len() - 2];
    assert!(claimed.starts_with("CLAIMED      determinism"), "{text}");
    assert!(claimed.ends_with("D0, schedule host; uncontrolled: clock, entropy, scheduling"), "{text}");
}

#[test]
fn a_level_whose_rows_could_not_be_checked_is_incomplete() {
    for level in [Level::Included, Level::Final, Level::Rerun] {
        let report = verify(&evidence(), &trust(), level);
        assert_eq!(report.exit_code(), 3, "{report}");
        assert!(report.verdict().starts_with("incomplete: "), "{report}");
    }
}

#[test]
fn without_trust_nothing_about_signatures_passes() {
    let report = verify(&evidence(), &Trust::none(), Level::Signed);
    for name in [RowName::Signature, RowName::Identity, RowName::Chain] {
        let row = report.rows.iter().find(|row| row.name == name).unwrap();
        assert_eq!(row.status, Status::NotChecked, "{report}");
    }
    assert_eq!(report.exit_code(), 3);
}

#[test]
fn a_bare_key_is_believed_for_whatever_host_it_names() {
    let key = Truth::default().host.public_key();
    assert_eq!(verify(&evidence(), &Trust::from_key(key), Level::Chained).exit_code(), 0);
    let other = Signer::new("b").public_key();
    let report = verify(&evidence(), &Trust::from_key(other), Level::Chained);
    assert!(matches!(report.first_false().unwrap().falsehood, Some(Falsehood::UnknownKey { .. })), "{report}");
}

#[test]
fn an_envelope_that_names_no_key_is_judged_by_all() {
    let truth = Truth::default();
    let json = String::from_utf8(truth.receipt().to_json()).unwrap();
    let unnamed = Evidence::from_bytes(json.replace(&truth.host.public_key().keyid(), "").as_bytes()).unwrap();
    assert_eq!(verify(&unnamed, &trust(), Level::Signed).exit_code(), 0);
    let stranger = Trust::from_key(truth.stranger.public_key());
    let report = verify(&unnamed, &stranger, Level::Signed);
    assert_eq!(report.first_false().unwrap().falsehood, Some(Falsehood::NoKeyFits { tried: 1 }));
}

#[test]
fn a_bundle_alone_is_signed_but_not_chained() {
    let mut files = Truth::default().files();
    files.remove(CHAIN_FILE);
    files.remove("run.json");
    assert_eq!(judge(&files, &trust(), Level::Signed).0, 0);
    assert_eq!(judge(&files, &trust(), Level::Chained).0, 3);
}

#[test]
fn a_chain_from_the_very_first_record_passes() {
    let host = Signer::new("a");
    let report = verify(&Evidence::of(&short(&host)).unwrap(), &trust(), Level::Chained);
    assert_eq!(report.exit_code(), 0, "{report}");
}

#[test]
fn every_mutant_is_refused_with_a_sentence_of_its_own() {
    let (truth, trust) = (Truth::default(), trust());
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let mutants = truth.mutants();
    for mutant in &mutants {
        let (exit, sentence) = judge(&mutant.files, &trust, mutant.level);
        assert!(matches!(exit, 1..=3), "{}: exit {exit}", mutant.name);
        assert!(exit == 1 || matches!(mutant.layer, Layer::File | Layer::Envelope), "{}: {sentence}", mutant.name);
        if let Some(other) = seen.insert(sentence.clone(), mutant.name.clone()) {
            panic!("{other:?} and {:?} are both told as {sentence:?}", mutant.name);
        }
    }
    assert!(mutants.iter().filter(|mutant| mutant.layer == Layer::Envelope).count() >= 20);
}

#[test]
fn a_receipt_of_another_boundary_shows_as_such() {
    let host = Signer::new("a");
    let mut chain = Chain::new(&host, "default", 0);
    let intent = chain.intend("demo");
    let mut receipt = chain.receipt("demo", intent);
    receipt.chain.boundary = "other".to_owned();
    chain.push(&bpi_protocol::chain::Record::Receipt(Box::new(receipt)));
    let report = verify(&Evidence::of(&chain.records).unwrap(), &trust(), Level::Chained);
    let falsehood = report.first_false().unwrap().falsehood.clone();
    assert!(matches!(falsehood, Some(Falsehood::Chain(ChainError::Boundary { seq: 1, .. }))), "{report}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn evidence_with_any_byte_changed_is_not_true(file in 0usize..3, at: prop::sample::Index, flip in 1u8..) {
        let truth = Truth::default();
        let mut files = truth.files();
        let content = files.values_mut().nth(file).unwrap();
        let at = at.index(content.len());
        content[at] ^= flip;
        let changed = files.clone();
        let (exit, sentence) = judge(&files, &trust(), Level::Chained);
        if exit == 0 {
            // Only what is never trusted may change: the envelope's spelling around what is signed, and an empty hint.
            let kept = Evidence::from_files(changed).unwrap();
            prop_assert_eq!(kept.receipt().pae(), truth.receipt().pae());
            prop_assert_eq!(kept.receipt().signature(), truth.receipt().signature(), "{}", sentence);
        }
    }
}
