//! What strangers say of the validators' key: messages of a ceremony, parts of signatures, dealers' logs, a kept sharing. What is read is what we
//! would have written, no longer than its bound; nobody but a dealer has a log, and no bytes are a share of a key that was never shared.

#![no_main]

use std::sync::{Arc, LazyLock};

use bpi_protocol::consensus::bls::SecretKey;
use bpi_protocol::consensus::ids::{ChainId, Epoch, Height};
use bpi_protocol::consensus::validators::{Validator, ValidatorSet};
use bpi_validator::beacon::assembly::{Assembly, PARTS_MESSAGE_BYTES_MAX, PartsMessage};
use bpi_validator::beacon::ceremony::Ceremony;
use bpi_validator::beacon::message::{CEREMONY_MESSAGE_BYTES_MAX, CeremonyMessage};
use bpi_validator::beacon::plan::Plan;
use bpi_validator::beacon::sharing::Sharing;
use libfuzzer_sys::fuzz_target;

static SET: LazyLock<Arc<ValidatorSet>> = LazyLock::new(|| {
    let member = |number: u8| {
        let secret = SecretKey::generate(&[number; 32]).expect("a key");
        Validator { key: secret.public_key(), possession: secret.prove_possession(), weight: 1 }
    };
    Arc::new(ValidatorSet::new(Epoch(1), (1..=4).map(member).collect()).expect("a set"))
});

static CEREMONY: LazyLock<Ceremony> = LazyLock::new(|| {
    let (dealers, players) = (SET.clone(), SET.clone());
    let plan = Plan { chain: ChainId([7; 32]), start: Height(1), dealers, players, previous: None };
    Ceremony::observe(plan).expect("a ceremony")
});

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = CeremonyMessage::from_bytes(bytes) {
        assert!(bytes.len() <= CEREMONY_MESSAGE_BYTES_MAX);
        assert_eq!(message.to_bytes().as_slice(), bytes);
    }
    if let Ok(message) = PartsMessage::from_bytes(bytes) {
        assert!(bytes.len() <= PARTS_MESSAGE_BYTES_MAX);
        assert_eq!(message.to_bytes(), bytes);
        assert!(Assembly::new(ChainId([7; 32])).hear(message).is_empty(), "of a height that is not final");
    }
    assert!(CEREMONY.check(bytes).is_err(), "nobody has signed a log");
    if let Ok(sharing) = Sharing::from_bytes(bytes, &SET) {
        assert_eq!(sharing.to_bytes(), bytes);
    }
});
