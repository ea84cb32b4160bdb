//! A DSSE envelope from a stranger: what is accepted survives a round trip, and no input verifies against our key.

#![no_main]

use bpi_protocol::envelope::Envelope;
use bpi_protocol::key::PublicKey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(pem) = std::str::from_utf8(bytes)
        && let Ok(key) = PublicKey::from_spki_pem(pem)
    {
        assert_eq!(PublicKey::from_spki_pem(&key.to_spki_pem()).expect("what we wrote can be read").as_bytes(), key.as_bytes());
    }
    let Ok(envelope) = Envelope::from_json(bytes) else { return };
    let again = Envelope::from_json(&envelope.to_json()).expect("what was accepted is accepted again");
    assert_eq!(again.pae(), envelope.pae());
    assert_eq!(again.signature(), envelope.signature());
    // RFC 8032, section 7.1, test 1: a key whose private half the fuzzer does not know.
    let stranger = *b"\xd7\x5a\x98\x01\x82\xb1\x0a\xb7\xd5\x4b\xfe\xd3\xc9\x64\x07\x3a\x0e\xe1\x72\xf3\xda\xa6\x23\x25\xaf\x02\x1a\x68\xf7\x07\x51\x1a";
    let key = PublicKey::from_raw(&stranger).expect("a key of RFC 8032");
    assert!(envelope.verify(&key).is_err(), "a forged signature was accepted");
});
