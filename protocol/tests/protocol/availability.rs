//! Evidence whose data can be had: pinners have signed, and a final header commits to what they signed.

use bpi_protocol::availability::attestation::AttestationError;
use bpi_protocol::availability::proof::{AVAILABILITY_BYTES_MAX, Availability};
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::Height;
use bpi_protocol::evidence::{AVAILABILITY_FILE, Evidence};
use bpi_protocol::log::leaf::TenantId;
use bpi_protocol::log::proof::ProofError;
use bpi_protocol::mesh::validator::Sealed;
use bpi_protocol::trust::Trust;
use bpi_protocol::verify::{Falsehood, Level, RowName, Status, Verifier, verify};

use crate::finality::row;
use bpi_conformance::anchored::{Anchored, Available, MADE_S, TENANT};

#[test]
fn data_that_enough_pinners_keep_under_a_final_header_are_available() {
    let made = Available::story();
    let report = made.judge(&made.proof, &made.trust());
    let detail =
        "9 of 12 shards, any 4 of which are enough, were kept by 3 pinners at height 7, and are for 30 days from then";
    assert_eq!(row(&report, RowName::Availability), (Status::Pass, detail.to_owned()), "{report}");
    assert_eq!(report.exit_code(), 0, "{report}");
}

#[test]
fn without_a_proof_or_an_anchor_nothing_is_said() {
    let made = Available::story();
    let evidence = made.anchored.evidence.clone();
    for evidence in
        [evidence.clone().with_finality(made.anchored.proof.clone()), evidence.with_availability(made.proof.clone())]
    {
        let report = verify(&evidence, &made.trust(), Level::Final);
        assert_eq!((row(&report, RowName::Availability).0, report.exit_code()), (Status::NotChecked, 3), "{report}");
    }
    let report = made.judge(&made.proof, &Anchored::trust(serde_json::json!([])));
    assert_eq!(row(&report, RowName::Availability).0, Status::NotChecked, "{report}");
}

#[test]
fn a_header_of_its_own_has_to_be_final_as_well() {
    let mut made = Available::story();
    let header = Header { height: Height(8), ..made.anchored.proof.header };
    let (seal, set) = (made.anchored.seal(header), made.anchored.cluster.set.clone());
    made.proof.sealed = Some(Box::new(Sealed { header, seal, set }));
    // The header of finality.bin commits to nothing.
    made.anchored.proof.header.da_root = [0; 32];
    made.anchored.proof.seal = made.anchored.seal(made.anchored.proof.header);
    let report = made.judge(&made.proof, &made.trust());
    assert_eq!((row(&report, RowName::Availability).0, report.exit_code()), (Status::Pass, 0), "{report}");
    if let Some(sealed) = &mut made.proof.sealed {
        sealed.seal = made.anchored.proof.seal;
    }
    let report = made.judge(&made.proof, &made.trust());
    assert_eq!((row(&report, RowName::Availability).0, report.exit_code()), (Status::Fail, 1), "{report}");
}

#[test]
fn each_way_in_which_data_are_not_shown_to_be_available_is_told() {
    let falsehood = |made: &Available, trust: &Trust| {
        let report = made.judge(&made.proof, trust);
        report.rows.iter().find(|row| row.name == RowName::Availability).unwrap().falsehood.clone()
    };
    let bent = |bend: &dyn Fn(&mut Available)| {
        let mut made = Available::story();
        bend(&mut made);
        falsehood(&made, &made.trust())
    };
    let root = ProofError::Root { size: 2 };
    assert_eq!(bent(&|made| made.proof.receipt.path[0][0] ^= 1), Some(Falsehood::NotInBatch(root)));
    let not_attested = Some(Falsehood::NotAttested { height: 7, source: root });
    assert_eq!(bent(&|made| made.proof.attested.path[0][0] ^= 1), not_attested);
    assert_eq!(bent(&|made| made.proof.attestation.batch.da_root[0] ^= 1), not_attested);
    let of_another = Falsehood::OtherTenant { batch: TenantId([1; 16]), receipt: TENANT };
    assert_eq!(bent(&|made| made.proof.attestation.batch.tenant = TenantId([1; 16])), Some(of_another));
    let few = AttestationError::Few { found: 6, wanted: 8, n: 12 };
    let fewer = bent(&|made| {
        made.proof.attestation.acknowledgements.pop();
        made.commit();
    });
    assert_eq!(fewer, Some(Falsehood::Attestation(few)));
    let made = Available::story();
    let [first, second, third] = [0, 1, 2].map(|at| made.pinners[at].verifying_key().to_bytes());
    let forged = bent(&|made| {
        made.proof.attestation.acknowledgements[1].signature[5] ^= 1;
        made.commit();
    });
    assert_eq!(forged, Some(Falsehood::Attestation(AttestationError::Signature { pinner: second })));
    let over = bent(&|made| {
        made.proof.attestation.acknowledgements[0].until_s = MADE_S - 1;
        made.commit();
    });
    let short = AttestationError::Short { pinner: first, until_s: MADE_S - 1, wanted_s: MADE_S };
    assert_eq!(over, Some(Falsehood::Attestation(short)));
    let mut chain = made.anchored.chain();
    chain[0]["pinners"] = serde_json::json!([hex::encode(first), hex::encode(second)]);
    let stranger = AttestationError::Stranger { pinner: third };
    assert_eq!(falsehood(&made, &Anchored::trust(chain)), Some(Falsehood::Attestation(stranger)));
}

#[test]
fn a_proof_is_read_as_it_was_written_and_no_changed_byte_passes() {
    let made = Available::story();
    let bytes = made.proof.to_bytes();
    assert!(bytes.len() < 800 && bytes.len() <= AVAILABILITY_BYTES_MAX, "{}", bytes.len());
    assert_eq!(Availability::from_bytes(&bytes).unwrap(), made.proof);
    let trust = made.trust();
    let evidence = made.anchored.evidence.clone().with_finality(made.anchored.proof.clone());
    let good = evidence.with_availability(made.proof.clone()).to_files();
    // One that has found the honest proof good, and remembers it.
    let mut verifier = Verifier::new(&trust);
    assert_eq!(verifier.judge(&Evidence::from_files(good.clone()).unwrap(), None, Level::Final).exit_code(), 0);
    for at in 0..bytes.len() {
        assert!(Availability::from_bytes(&bytes[..at]).is_err());
        let mut files = good.clone();
        files.get_mut(AVAILABILITY_FILE).unwrap()[at] ^= 1 << (at % 8);
        if let Ok(evidence) = Evidence::from_files(files) {
            assert_ne!(verify(&evidence, &trust, Level::Final).exit_code(), 0, "byte {at}");
            assert_ne!(verifier.judge(&evidence, None, Level::Final).exit_code(), 0, "byte {at}");
        }
    }
}
