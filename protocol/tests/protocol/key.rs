//! Keys, their names and their signatures.

use bpi_conformance::story::Signer;
use bpi_protocol::key::{KeyError, PEM_BYTES_MAX, PublicKey, SignatureError, check_keyid};

/// RFC 8032, 7.1, TEST 1: public key, and signature over no bytes.
const RAW: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
const SIGNATURE: &str = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";

fn rfc_key() -> PublicKey {
    PublicKey::from_raw(&hex::decode(RAW).unwrap().try_into().unwrap()).unwrap()
}

#[test]
fn the_vector_of_rfc_8032_verifies() {
    let signature: [u8; 64] = hex::decode(SIGNATURE).unwrap().try_into().unwrap();
    assert_eq!(rfc_key().verify(b"", &signature), Ok(()));
    assert_eq!(rfc_key().verify(b"x", &signature), Err(SignatureError::Mismatch));
}

#[test]
fn a_key_is_named_as_openssh_names_it() {
    // What `ssh-keygen -l` prints for the same 32 bytes.
    let keyid = rfc_key().keyid();
    assert_eq!(keyid, "SHA256:bbXpuKG6zhzdmnxq256TlqzFBzRl2f6OOg722cYNbU8");
    assert_eq!(check_keyid(&keyid), Ok(()));
}

#[test]
fn only_a_fingerprint_is_a_keyid() {
    for wrong in ["", "SHA256:", RAW, "MD5:00", "SHA256:AAAA", &format!("{}=", rfc_key().keyid())] {
        assert!(check_keyid(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_pem_that_was_written_is_read_back() {
    let pem = rfc_key().to_spki_pem();
    assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\n") && pem.ends_with("-----END PUBLIC KEY-----\n"));
    assert_eq!(PublicKey::from_spki_pem(&pem), Ok(rfc_key()));
    assert_eq!(PublicKey::from_spki_pem(&format!("\n{pem}\n\n")), Ok(rfc_key()));
}

#[test]
fn what_is_no_public_key_is_refused_by_its_kind() {
    let long = " ".repeat(PEM_BYTES_MAX + 1);
    assert_eq!(PublicKey::from_spki_pem(&long), Err(KeyError::TooLong { bytes: long.len() }));
    let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert_eq!(PublicKey::from_spki_pem(private), Err(KeyError::Private));
    assert!(matches!(PublicKey::from_spki_pem("hello"), Err(KeyError::NotPem { .. })));
    let cut = rfc_key().to_spki_pem().replace("MCow", "MCo");
    assert!(matches!(PublicKey::from_spki_pem(&cut), Err(KeyError::NotPem { .. })));
}

#[test]
fn a_point_of_small_order_is_no_key() {
    let mut neutral = [0; 32];
    neutral[0] = 1;
    for raw in [[0; 32], neutral] {
        assert!(matches!(PublicKey::from_raw(&raw), Err(KeyError::Unsound { .. })));
    }
}

#[test]
fn a_signature_has_one_spelling() {
    let host = Signer::new("a");
    let mut signature = host.sign(b"message");
    assert_eq!(host.public_key().verify(b"message", &signature), Ok(()));
    signature[63] |= 0x80;
    assert_eq!(host.public_key().verify(b"message", &signature), Err(SignatureError::Scalar));
}
