//! Evidence that is anchored: the receipt is in the log of a header that a quorum has sealed.

use bpi_protocol::consensus::header::{Header, LogHead};
use bpi_protocol::consensus::ids::{ChainId, Epoch, Height, Round, TimeMs, ValidatorIndex};
use bpi_protocol::consensus::light::StepError;
use bpi_protocol::consensus::scheme::Signer as _;
use bpi_protocol::consensus::seal::{Seal, SealError, Votes, VotesError};
use bpi_protocol::consensus::statement::{self, Place};
use bpi_protocol::consensus::validators::ValidatorSet;
use bpi_protocol::evidence::{Evidence, EvidenceError, FINALITY_FILE};
use bpi_protocol::finality::{FINALITY_BYTES_MAX, Finality};
use bpi_protocol::log::LEAVES_MAX;
use bpi_protocol::log::leaf::TenantId;
use bpi_protocol::log::proof::{Inclusion, ProofError};
use bpi_protocol::trust::{Trust, TrustError};
use bpi_protocol::verify::{Falsehood, Level, Report, RowName, Status, Verifier, verify};
use proptest::prelude::*;
use serde_json::json;

use bpi_conformance::anchored::{Anchored, TENANT, trust_file};
use bpi_conformance::cluster::{Cluster, secret, signers, validator};

pub(crate) fn row(report: &Report, name: RowName) -> (Status, String) {
    let row = report.rows.iter().find(|row| row.name == name).unwrap();
    (row.status, row.detail.clone())
}

#[test]
fn a_receipt_in_the_log_of_a_header_that_a_trusted_quorum_has_sealed_is_final() {
    let made = Anchored::story();
    let report = made.judge(made.proof.clone(), &Anchored::trust(made.chain()));
    let by = format!("final at height 7 of chain {} by 6 of 9 validators", made.proof.chain);
    assert_eq!(row(&report, RowName::Finality), (Status::Pass, by));
    let leaf = format!("leaf 4 of 9 in the log, for tenant {TENANT}");
    assert_eq!(row(&report, RowName::Inclusion), (Status::Pass, leaf));
    assert_eq!(report.exit_code(), 0, "{report}");
}

#[test]
fn what_was_found_of_a_seal_is_believed_of_that_seal_alone() {
    let made = Anchored::story();
    let trust = Anchored::trust(made.chain());
    let mut verifier = Verifier::new(&trust);
    let mut judge = |proof: &Finality| {
        let evidence = made.evidence.clone().with_finality(proof.clone());
        verifier.judge(&evidence, None, Level::Included).exit_code()
    };
    let later = Header { height: Height(8), ..made.proof.header };
    let of_another = Finality { seal: made.seal(later), ..made.proof.clone() };
    let of_nobody = Finality { header: later, ..made.proof.clone() };
    for _ in 0..2 {
        assert_eq!([judge(&made.proof), judge(&of_another), judge(&of_nobody)], [0, 1, 1]);
        assert_eq!(judge(&Finality { chain: ChainId([1; 32]), ..made.proof.clone() }), 1);
    }
}

#[test]
fn evidence_without_a_proof_is_not_anchored_and_says_so() {
    let made = Anchored::story();
    let report = verify(&made.evidence, &Anchored::trust(made.chain()), Level::Included);
    let missing = (Status::NotChecked, "not anchored: no finality.bin is part of this evidence".to_owned());
    assert_eq!((row(&report, RowName::Inclusion), row(&report, RowName::Finality)), (missing.clone(), missing));
    assert_eq!(report.exit_code(), 3, "{report}");
}

#[test]
fn validators_inside_the_evidence_are_not_trusted_for_being_there() {
    let made = Anchored::story();
    let report = made.judge(made.proof.clone(), &Anchored::trust(json!([])));
    for name in [RowName::Inclusion, RowName::Finality] {
        assert_eq!(row(&report, name).0, Status::NotChecked, "{report}");
    }
    assert_eq!(report.exit_code(), 3, "{report}");
}

#[test]
fn each_way_in_which_a_header_is_not_final_is_told() {
    let made = Anchored::story();
    let (good, trust) = (&made.proof, Anchored::trust(made.chain()));
    let other = Cluster::new(0, 50, 9);
    let Seal::Votes(votes) = good.seal else { unreachable!() };
    let not_final = |source| Falsehood::NotFinal { height: 7, source };
    let signature = not_final(StepError::Seal(SealError::Votes(VotesError::Signature)));
    let few = not_final(StepError::Seal(SealError::Votes(VotesError::Few { signers: 5, quorum: 6 })));
    let early = not_final(StepError::Seal(SealError::Early { seal: 0, header: 1 }));
    let of_others = Header { validators: other.set.digest(), ..good.header };
    let set = StepError::Set { header: other.set.digest(), set: made.cluster.set.digest() };
    let sealed = |header| Finality { header, seal: made.seal(header), ..good.clone() };
    let chain = ChainId([9; 32]);
    let cases = [
        (Finality { chain, ..good.clone() }, Falsehood::UnknownChain { chain }),
        (Finality { header: Header { time: TimeMs(9), ..good.header }, ..good.clone() }, signature.clone()),
        (Finality { seal: Seal::Votes(Votes { signers: signers(1..7), ..votes }), ..good.clone() }, signature),
        (Finality { seal: Seal::Votes(Votes { signers: signers(0..5), ..votes }), ..good.clone() }, few),
        (sealed(Header { round: Round(1), ..good.header }), early),
        (sealed(of_others), not_final(set)),
        (sealed(Header { epoch: Epoch(1), ..good.header }), not_final(StepError::Epoch { header: 1, set: 0 })),
        (
            sealed(Header { proposer: ValidatorIndex(9), ..good.header }),
            not_final(StepError::Proposer { proposer: 9, validators: 9 }),
        ),
    ];
    for (proof, falsehood) in cases {
        let report = made.judge(proof, &trust);
        let row = report.rows.iter().find(|row| row.name == RowName::Finality).unwrap();
        assert_eq!(row.falsehood, Some(falsehood), "{report}");
        assert_eq!((report.exit_code(), row_status(&report)), (1, Status::NotChecked), "{report}");
    }
}

#[test]
fn a_set_that_the_trust_file_does_not_know_is_not_checked() {
    let made = Anchored::story();
    let other = Cluster::new(0, 50, 9);
    let proof = Finality { set: other.set.clone(), ..made.proof.clone() };
    let report = made.judge(proof, &Anchored::trust(made.chain()));
    let why = format!("it is sealed by validator set {}, which the trust file does not know", other.set.digest());
    assert_eq!(row(&report, RowName::Finality), (Status::NotChecked, why));
    assert_eq!((report.exit_code(), row_status(&report)), (3, Status::NotChecked), "{report}");
}

fn row_status(report: &Report) -> Status {
    row(report, RowName::Inclusion).0
}

#[test]
fn a_receipt_that_is_not_in_the_log_of_a_final_header_is_false() {
    let made = Anchored::story();
    let (good, trust) = (&made.proof, Anchored::trust(made.chain()));
    let root = ProofError::Root { size: 9 };
    let mut bent = good.inclusion.clone();
    bent.path[0][0] ^= 1;
    let empty = Header { receipts: LogHead::default(), ..good.header };
    let elsewhere = Inclusion { index: 5, ..good.inclusion.clone() };
    let cases = [
        (Finality { tenant: TenantId([0; 16]), ..good.clone() }, root),
        (Finality { inclusion: bent, ..good.clone() }, root),
        (Finality { inclusion: elsewhere, ..good.clone() }, root),
        (Finality { header: empty, seal: made.seal(empty), ..good.clone() }, ProofError::Size { proof: 9, head: 0 }),
    ];
    for (proof, source) in cases {
        let report = made.judge(proof, &trust);
        assert_eq!(
            report.first_false().unwrap().falsehood,
            Some(Falsehood::NotInLog { height: 7, source }),
            "{report}"
        );
        assert_eq!((row(&report, RowName::Finality).0, report.exit_code()), (Status::Pass, 1), "{report}");
    }
}

#[test]
fn a_threshold_seal_needs_the_group_key_of_the_trust_file_and_no_set_in_it() {
    let made = Anchored::story();
    let (header, chain) = (made.proof.header, made.proof.chain);
    let commit = statement::commit(Place { chain, height: header.height }, Round(2), header.digest());
    let seal = Seal::Threshold { round: Round(2), signature: secret(99).sign(&commit) };
    let proof = Finality { seal, ..made.proof.clone() };
    let of = |number| json!([{ "id": chain.to_string(), "groupKey": hex::encode(secret(number).public_key().0) }]);
    let report = made.judge(proof.clone(), &Anchored::trust(of(99)));
    let by = format!("final at height 7 of chain {chain} by the key that its 9 validators share");
    assert_eq!(row(&report, RowName::Finality), (Status::Pass, by));
    assert_eq!(report.exit_code(), 0, "{report}");
    let report = made.judge(proof.clone(), &Anchored::trust(of(98)));
    let source = StepError::Seal(SealError::Votes(VotesError::Signature));
    assert_eq!(report.first_false().unwrap().falsehood, Some(Falsehood::NotFinal { height: 7, source }), "{report}");
    let report = made.judge(proof, &Anchored::trust(made.chain()));
    assert_eq!((row(&report, RowName::Finality).0, report.exit_code()), (Status::NotChecked, 3), "{report}");
}

#[test]
fn chains_of_a_trust_file_are_read_strictly() {
    let made = Anchored::story();
    let parse = |chains| Trust::parse(&trust_file(chains)).unwrap_err();
    let (id, set) = (made.proof.chain, made.cluster.set.digest().to_string());
    let named = |id: &str| json!([{ "id": id, "validatorSets": [set] }]);
    assert!(matches!(parse(named("7")), TrustError::Digits { what: "chain id", digits: 64, .. }));
    let short = json!([{ "id": id.to_string(), "validatorSets": ["00"] }]);
    assert!(matches!(parse(short), TrustError::Digits { what: "validator set", digits: 64, .. }));
    let twice = [made.chain()[0].clone(), made.chain()[0].clone()];
    assert_eq!(parse(json!(twice)), TrustError::ChainTwice { id });
    assert_eq!(parse(json!([{ "id": id.to_string() }])), TrustError::NoSet { id });
    let key = |key: String| json!([{ "id": id.to_string(), "groupKey": key }]);
    assert!(matches!(parse(key("00".to_owned())), TrustError::Digits { what: "groupKey", digits: 192, .. }));
    assert_eq!(parse(key("00".repeat(96))), TrustError::GroupKey { id });
    assert!(matches!(parse(json!([{ "id": id.to_string(), "sets": [] }])), TrustError::Form { .. }));
}

#[test]
fn the_longest_proof_is_as_long_as_the_bound_and_a_usual_one_a_few_kilobytes() {
    let made = Anchored::story();
    assert_eq!(made.proof.to_bytes().len(), 1 + 32 + 16 + 360 + 69 + (10 + 9 * 146) + (18 + 4 * 32));
    let set = ValidatorSet::new(Epoch(0), (0..128).map(validator).collect()).unwrap();
    let inclusion = Inclusion { index: 0, size: LEAVES_MAX, path: vec![[0; 32]; 53] };
    let longest = Finality { set, inclusion, ..made.proof };
    assert_eq!(longest.to_bytes().len(), FINALITY_BYTES_MAX);
    assert_eq!(Finality::from_bytes(&longest.to_bytes()), Ok(longest));
}

#[test]
fn a_file_that_is_no_proof_is_malformed_evidence() {
    let made = Anchored::story();
    let mut files = made.evidence.with_finality(made.proof).to_files();
    let good = files[FINALITY_FILE].clone();
    for length in [0, 1, 48, 408, 478, good.len() - 1] {
        files.insert(FINALITY_FILE.to_owned(), good[..length].to_vec());
        assert!(matches!(Evidence::from_files(files.clone()), Err(EvidenceError::Finality(_))), "{length}");
    }
    for bytes in [[&good[..], &[0]].concat(), [&[2], &good[1..]].concat()] {
        files.insert(FINALITY_FILE.to_owned(), bytes);
        assert!(matches!(Evidence::from_files(files.clone()), Err(EvidenceError::Finality(_))));
    }
    files.insert(FINALITY_FILE.to_owned(), vec![1; FINALITY_BYTES_MAX + 1]);
    let long = EvidenceError::TooLong { name: FINALITY_FILE, max: FINALITY_BYTES_MAX };
    assert_eq!(Evidence::from_files(files), Err(long));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_changed_bit_passes(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let made = Anchored::story();
        let mut bytes = made.proof.to_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(proof) = Finality::from_bytes(&bytes) {
            prop_assert_eq!(proof.to_bytes(), bytes);
            // Another set is not false, but unknown.
            prop_assert_ne!(made.judge(proof, &Anchored::trust(made.chain())).exit_code(), 0);
        }
    }
}
