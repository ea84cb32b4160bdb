//! Evidence of which parts were withheld: what is left verifies, what is gone is named, and what was forged is found.

use std::collections::BTreeMap;

use bpi_conformance::mutants::Truth;
use bpi_conformance::story::long;
use bpi_protocol::chain::Entry;
use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::evidence::{CHAIN_FILE, Evidence};
use bpi_protocol::redaction::Redaction;
use bpi_protocol::trust::Trust;
use bpi_protocol::verify::{Falsehood, Level, Report, RowName, Ruling, Status, Verifier, verify};

struct Story {
    files: BTreeMap<String, Vec<u8>>,
    seqs: BTreeMap<u64, Sha256Digest>,
    trust: Trust,
}

impl Story {
    /// A chain of several containers, whose last record is a receipt.
    fn new() -> Self {
        let truth = Truth::default();
        let records = long(&truth.host);
        let seqs = (records.iter().map(|envelope| Entry::read(envelope).unwrap()))
            .map(|entry| (entry.record.chain().seq, entry.pae_digest))
            .collect();
        let files = Evidence::of(&records).unwrap().to_files();
        Self { files, seqs, trust: Trust::parse(&truth.trust_json()).unwrap() }
    }

    fn report(&self, hidden: &[u64], redaction: &Redaction) -> Report {
        let mut files = self.files.clone();
        let lines = String::from_utf8(files.remove(CHAIN_FILE).unwrap()).unwrap();
        let first = *self.seqs.keys().next().unwrap();
        let shown = lines.lines().zip(first..).filter(|(_, seq)| !hidden.contains(seq));
        let kept: String = shown.map(|(line, _)| format!("{line}\n")).collect();
        if !kept.is_empty() {
            files.insert(CHAIN_FILE.to_owned(), kept.into_bytes());
        }
        Verifier::new(&self.trust).judge(&Evidence::from_files(files).unwrap(), Some(redaction), Level::Chained)
    }

    fn hide(&self, hidden: &[u64]) -> Report {
        let records = hidden.iter().map(|seq| (*seq, self.seqs[seq])).collect();
        self.report(hidden, &Redaction::new(BTreeMap::new(), records).unwrap())
    }

    /// Positions between the intent of the last receipt and that receipt.
    fn between(&self) -> Vec<u64> {
        let mut seqs: Vec<u64> = self.seqs.keys().copied().collect();
        seqs.pop();
        seqs
    }
}

fn row(report: &Report, name: RowName) -> (Status, String) {
    let row = report.rows.iter().find(|row| row.name == name).unwrap();
    (row.status, row.detail.clone())
}

#[test]
fn any_records_before_the_receipt_can_be_hidden_and_the_chain_is_never_pass() {
    let story = Story::new();
    let all = story.between();
    assert!(all.len() >= 3 && all.len() < 16, "{all:?}");
    for subset in 1_u32..1 << all.len() {
        let hidden: Vec<u64> =
            all.iter().enumerate().filter(|(at, _)| subset & 1 << at != 0).map(|(_, seq)| *seq).collect();
        let report = story.hide(&hidden);
        let (status, detail) = row(&report, RowName::Chain);
        assert_eq!(status, Status::NotChecked, "{hidden:?}: {report}");
        assert!(detail.starts_with("withheld: "), "{report}");
        assert_eq!(report.withheld.len(), hidden.len());
        assert_eq!(report.exit_code(), 3);
        assert_eq!(row(&report, RowName::Signature).0, Status::Pass);
    }
}

#[test]
fn a_digest_that_the_record_after_it_does_not_name_is_a_falsehood() {
    let story = Story::new();
    for seq in story.between() {
        let redaction = Redaction::new(BTreeMap::new(), BTreeMap::from([(seq, Sha256Digest::of(b"forged"))])).unwrap();
        let report = story.report(&[seq], &redaction);
        assert!(matches!(report.first_false().unwrap().falsehood, Some(Falsehood::Chain(_))), "{seq}: {report}");
    }
}

#[test]
fn a_record_that_is_missing_without_a_word_is_still_a_gap() {
    let story = Story::new();
    let all = story.between();
    let (hidden, told) = (&all[1..3], &all[1..2]);
    let records = told.iter().map(|seq| (*seq, story.seqs[seq])).collect();
    let report = story.report(hidden, &Redaction::new(BTreeMap::new(), records).unwrap());
    assert_eq!(row(&report, RowName::Chain).0, Status::Fail, "{report}");
}

#[test]
fn a_record_after_the_receipt_cannot_have_been_withheld() {
    let story = Story::new();
    let last = *story.seqs.keys().last().unwrap();
    let redaction = Redaction::new(BTreeMap::new(), BTreeMap::from([(last + 1, Sha256Digest::EMPTY)])).unwrap();
    let report = story.report(&[], &redaction);
    assert!(matches!(report.first_false().unwrap().falsehood, Some(Falsehood::WithheldAfter { .. })), "{report}");
}

#[test]
fn a_withheld_file_is_the_one_that_the_receipt_commits_to_or_it_is_false() {
    let story = Story::new();
    let hide = |digest| {
        let files = BTreeMap::from([("config.json".to_owned(), digest), ("trace.log".to_owned(), digest)]);
        story.report(&[], &Redaction::new(files, BTreeMap::new()).unwrap())
    };
    let honest = hide(bpi_conformance::story::config_digest());
    assert_eq!(honest.exit_code(), 0, "{honest}");
    let committed: Vec<bool> = honest.withheld.iter().map(|one| one.committed).collect();
    assert_eq!(committed, [true, false], "{honest}");
    let forged = hide(Sha256Digest::of(b"another"));
    assert!(matches!(forged.first_false().unwrap().falsehood, Some(Falsehood::WithheldOther { .. })), "{forged}");
}

#[test]
fn a_withheld_proof_is_named_in_the_rows_it_would_have_shown() {
    let story = Story::new();
    let files = BTreeMap::from([("finality.bin".to_owned(), Sha256Digest::EMPTY)]);
    let report = story.report(&[], &Redaction::new(files, BTreeMap::new()).unwrap());
    for name in [RowName::Inclusion, RowName::Finality] {
        assert!(row(&report, name).1.contains("finality.bin"), "{report}");
    }
}

#[test]
fn a_policy_is_a_row_of_its_own_and_refusal_is_exit_4() {
    let evidence = Evidence::of(&Truth::default().records).unwrap();
    let trust = Trust::parse(&Truth::default().trust_json()).unwrap();
    let rule = |accept, reasons: &[&str]| Ruling {
        policy: "p.rego".to_owned(),
        accept,
        reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
    };
    let judged = |trust: &Trust, ruling| verify(&evidence, trust, Level::Signed).with_ruling(ruling);
    assert_eq!(judged(&trust, rule(true, &[])).exit_code(), 0);
    let refused = judged(&trust, rule(false, &["b", "a"]));
    assert_eq!(refused.exit_code(), 4);
    assert!(refused.verdict().ends_with("a; b"), "{refused}");
    // Nobody is known to have said what the policy accepts.
    let unproved = judged(&Trust::none(), rule(true, &[]));
    assert_eq!((unproved.status(RowName::Policy), unproved.exit_code()), (Status::NotChecked, 3), "{unproved}");
}

#[test]
fn a_rerun_is_the_last_rung() {
    let evidence = Evidence::of(&Truth::default().records).unwrap();
    let trust = Trust::parse(&Truth::default().trust_json()).unwrap();
    let (one, other) = (Sha256Digest::of(b"1"), Sha256Digest::of(b"2"));
    let again = |found| verify(&evidence, &trust, Level::Rerun).with_rerun(found, one);
    assert_eq!(again(one).exit_code(), 0);
    assert_eq!(again(other).exit_code(), 5);
}
