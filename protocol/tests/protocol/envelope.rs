//! DSSE envelopes.

use bpi_conformance::story::Signer;
use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::envelope::{ENVELOPE_BYTES_MAX, Envelope, EnvelopeError, pae};
use proptest::prelude::*;

#[test]
fn the_pae_is_that_of_the_dsse_specification() {
    // protocol.md of DSSE v1.0.0, "Test vectors": its payload type and payload.
    let expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
    assert_eq!(pae("http://example.com/HelloWorld", b"hello world"), expected);
    assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
}

#[test]
fn an_envelope_that_was_written_is_read_back() {
    let envelope = Signer::new("a").seal_bytes(b"anything at all".to_vec());
    assert_eq!(Envelope::from_json(&envelope.to_json()), Ok(envelope.clone()));
    assert_eq!(envelope.pae_digest(), Sha256Digest::of(&envelope.pae()));
    assert!(envelope.verify(&Signer::new("a").public_key()).is_ok());
    assert!(envelope.verify(&Signer::new("b").public_key()).is_err());
}

#[test]
fn the_spelling_of_the_json_is_free_but_its_members_are_not() {
    let json = String::from_utf8(Signer::new("a").seal_bytes(b"{}".to_vec()).to_json()).unwrap();
    assert!(Envelope::from_json(json.replace(',', " ,\n ").as_bytes()).is_ok());
    let more = json.replacen('{', "{\"more\":1,", 1);
    assert!(matches!(Envelope::from_json(more.as_bytes()), Err(EnvelopeError::Json { .. })));
    let twice = json.replacen('{', "{\"payload\":\"\",", 1);
    assert!(matches!(Envelope::from_json(twice.as_bytes()), Err(EnvelopeError::Json { .. })));
    let long = vec![b' '; ENVELOPE_BYTES_MAX + 1];
    assert!(matches!(Envelope::from_json(&long), Err(EnvelopeError::TooLong { .. })));
}

#[test]
fn an_envelope_may_leave_its_key_unnamed() {
    let host = Signer::new("a");
    let json = String::from_utf8(host.seal_bytes(b"{}".to_vec()).to_json()).unwrap();
    let keyid = host.public_key().keyid();
    for unnamed in [json.replace(&keyid, ""), json.replace(&format!("\"keyid\":\"{keyid}\","), "")] {
        assert_eq!(Envelope::from_json(unnamed.as_bytes()).unwrap().keyid(), None);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
        prop_assert!(Envelope::from_json(&bytes).is_err());
    }

    #[test]
    fn any_payload_keeps_its_signature_through_json(payload: Vec<u8>) {
        let host = Signer::new("a");
        let envelope = Envelope::from_json(&host.seal_bytes(payload.clone()).to_json()).unwrap();
        prop_assert_eq!(envelope.payload(), &payload[..]);
        prop_assert!(envelope.verify(&host.public_key()).is_ok());
    }
}
