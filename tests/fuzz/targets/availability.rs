//! What members of the mesh say of data: attestations, openings, proofs of wrong encodings, and the questions and answers of agents, validators and
//! pinners, from a stranger. What is read is written as it was; nothing is longer than it may be; an opening and a proof are judged without a panic,
//! and no attestation holds whose pinners nobody knows.

#![no_main]

use bpi_protocol::availability::attestation::{ATTESTATION_BYTES_MAX, Attestation, PINNERS_MAX};
use bpi_protocol::availability::coding::Coding;
use bpi_protocol::availability::opening::Opening;
use bpi_protocol::availability::proof::{AVAILABILITY_BYTES_MAX, Availability};
use bpi_protocol::availability::wrong::WrongEncoding;
use bpi_protocol::consensus::ids::ChainId;
use bpi_protocol::mesh::{MESSAGE_BYTES_MAX, pinner, validator};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 8 {
        0 => attestation(bytes),
        1 => opening(bytes),
        2 => wrong(bytes),
        3 => {
            if let Ok(proof) = Availability::from_bytes(bytes) {
                assert!(proof.to_bytes() == bytes && bytes.len() <= AVAILABILITY_BYTES_MAX);
            }
        }
        4 => {
            if let Ok(request) = validator::Request::from_bytes(bytes) {
                assert!(request.to_bytes() == bytes && bytes.len() <= MESSAGE_BYTES_MAX);
            }
        }
        5 => {
            if let Ok(answer) = validator::Answer::from_bytes(bytes) {
                assert!(answer.to_bytes() == bytes && bytes.len() <= MESSAGE_BYTES_MAX);
            }
        }
        6 => {
            if let Ok(request) = pinner::Request::from_bytes(bytes) {
                assert!(request.to_bytes() == bytes && bytes.len() <= MESSAGE_BYTES_MAX);
            }
        }
        _ => {
            if let Ok(answer) = pinner::Answer::from_bytes(bytes) {
                assert!(answer.to_bytes() == bytes && bytes.len() <= MESSAGE_BYTES_MAX);
            }
        }
    }
});

fn attestation(bytes: &[u8]) {
    let Ok(read) = Attestation::from_bytes(bytes) else { return };
    assert!(read.to_bytes() == bytes && bytes.len() <= ATTESTATION_BYTES_MAX);
    assert!(read.acknowledgements.len() <= PINNERS_MAX);
    assert!(read.check(ChainId([1; 32]), 0, |_| false).is_err(), "nobody counts");
    // Whoever counts, a signature of a chain that nobody has signed for does not hold.
    assert!(read.check(ChainId([1; 32]), 0, |_| true).is_err());
}

fn opening(bytes: &[u8]) {
    let Ok(read) = Opening::from_bytes(bytes) else { return };
    assert!(read.to_bytes() == bytes && bytes.len() <= pinner::OPENING_BYTES_MAX);
    for (k, n, length) in [(4, 12, 9_000), (16, 32, 3_000_000)] {
        let coding = Coding::new(k, n, length).expect("numbers that can be");
        assert!(read.check(&coding, &[0; 32]).is_err(), "nothing has this root");
    }
}

fn wrong(bytes: &[u8]) {
    let Ok(read) = WrongEncoding::from_bytes(bytes) else { return };
    assert!(read.to_bytes() == bytes && bytes.len() <= validator::WRONG_BYTES_MAX);
    // It may hold: who makes up a batch can code it wrongly. It must be judged.
    if read.check().is_ok() {
        assert!(!read.openings.is_empty());
    }
}
