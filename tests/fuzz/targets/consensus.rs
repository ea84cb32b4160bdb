//! Bytes from another validator: what is read as a message, a header, a set or evidence is what we would have written, and evidence that
//! nobody signed convicts nobody.

#![no_main]

use std::sync::LazyLock;

use bpi_protocol::consensus::bls::{Keys, SecretKey};
use bpi_protocol::consensus::bytes::{Reader, Writer};
use bpi_protocol::consensus::equivocation::Equivocation;
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{ChainId, Epoch};
use bpi_protocol::consensus::justification::Justification;
use bpi_protocol::consensus::message::{Body, MESSAGE_BYTES_MAX, Message};
use bpi_protocol::consensus::seal::Seal;
use bpi_protocol::consensus::validators::{Validator, ValidatorSet};
use libfuzzer_sys::fuzz_target;

/// A set whose only validator has signed nothing.
static SET: LazyLock<(ValidatorSet, Keys)> = LazyLock::new(|| {
    let secret = SecretKey::generate(&[42; 32]).expect("32 bytes of entropy");
    let (key, possession) = (secret.public_key(), secret.prove_possession());
    let set = ValidatorSet::new(Epoch(0), vec![Validator { key, possession, weight: 1 }]).expect("one validator");
    let keys = Keys::new(&set).expect("a key with its proof");
    (set, keys)
});

fuzz_target!(|bytes: &[u8]| {
    let (set, keys) = &*SET;
    if let Ok(message) = Message::from_bytes(bytes) {
        assert!(bytes.len() <= MESSAGE_BYTES_MAX);
        assert_eq!(message.to_bytes(), bytes);
        assert!(!message.name().is_empty());
        if let Body::Final(last) = &message.body {
            let sealed = last.seal.check(message.place(ChainId::default()), &last.header, set, keys);
            assert!(sealed.is_err(), "a seal that nobody made");
        }
    }
    if let Ok(header) = Header::from_bytes(bytes) {
        assert_eq!(header.to_bytes(), bytes);
    }
    if let Ok(set) = ValidatorSet::from_bytes(bytes) {
        assert_eq!(set.to_bytes(), bytes);
        // Keys that are no points, proofs that prove nothing: refused or not, without a panic.
        drop(Keys::new(&set));
    }
    if let Ok(evidence) = Equivocation::from_bytes(bytes) {
        assert_eq!(evidence.to_bytes(), bytes);
        assert!(evidence.check(ChainId::default(), keys).is_err(), "an honest validator was convicted");
    }
    let mut reader = Reader::new(bytes);
    if let Ok(justification) = Justification::read(&mut reader)
        && reader.end().is_ok()
    {
        let mut out = Writer::new();
        justification.write(&mut out);
        assert_eq!(out.done(), bytes);
    }
    let mut reader = Reader::new(bytes);
    if let Ok(seal) = Seal::read(&mut reader)
        && reader.end().is_ok()
    {
        let mut out = Writer::new();
        seal.write(&mut out);
        assert_eq!(out.done(), bytes);
    }
});
