//! A signed statement of SCITT: COSE_Sign1 (RFC 9052, 4.2) with EdDSA over a hash envelope (draft-ietf-cose-hash-envelope-10).
//!
//! The payload is the SHA-256 of the receipt's in-toto statement; a protected header says so, of what type the statement is, who issues it
//! and about what (CWT claims, RFC 9597). CBOR is written here in its one deterministic form (RFC 8949, 4.2.1), since there are five shapes
//! to write and nothing to read.

use bpi_protocol::digest::Sha256Digest;

/// COSE_Sign1 (RFC 9052, table 1).
const TAG_SIGN1: u64 = 18;
/// Header parameters: RFC 9052, table 3; RFC 9597, 2; draft-ietf-cose-hash-envelope-10, 4.
const ALG: u64 = 1;
const KID: u64 = 4;
const CWT_CLAIMS: u64 = 15;
const PAYLOAD_HASH_ALG: u64 = 258;
const PREIMAGE_CONTENT_TYPE: u64 = 259;
/// EdDSA is -8 (RFC 9053, 2.2), SHA-256 is -16 (RFC 9054, 3.2); CBOR writes -1 - n.
const EDDSA: u64 = 7;
const SHA256: u64 = 15;
/// CWT claims (RFC 8392, 4).
const ISS: u64 = 1;
const SUB: u64 = 2;

/// What the protected header says.
pub(super) struct Claims<'a> {
    pub(super) keyid: &'a str,
    pub(super) issuer: &'a str,
    pub(super) subject: &'a str,
    pub(super) content_type: &'a str,
}

/// The statement over `preimage`, signed by `sign`.
pub(super) fn sign1<E>(
    claims: &Claims<'_>,
    preimage: &[u8],
    sign: impl FnOnce(&[u8]) -> Result<[u8; 64], E>,
) -> Result<Vec<u8>, E> {
    let protected = protected(claims);
    let payload = Sha256Digest::of(preimage);
    let mut signed = Vec::new();
    head(&mut signed, 4, 4);
    text(&mut signed, "Signature1");
    bytes(&mut signed, &protected);
    bytes(&mut signed, &[]);
    bytes(&mut signed, payload.as_bytes());
    let signature = sign(&signed)?;
    let mut statement = Vec::new();
    head(&mut statement, 6, TAG_SIGN1);
    head(&mut statement, 4, 4);
    bytes(&mut statement, &protected);
    head(&mut statement, 5, 0);
    bytes(&mut statement, payload.as_bytes());
    bytes(&mut statement, &signature);
    Ok(statement)
}

/// The protected header; its labels are in the order of their bytes.
fn protected(claims: &Claims<'_>) -> Vec<u8> {
    let mut map = Vec::new();
    head(&mut map, 5, 5);
    head(&mut map, 0, ALG);
    head(&mut map, 1, EDDSA);
    head(&mut map, 0, KID);
    bytes(&mut map, claims.keyid.as_bytes());
    head(&mut map, 0, CWT_CLAIMS);
    head(&mut map, 5, 2);
    head(&mut map, 0, ISS);
    text(&mut map, claims.issuer);
    head(&mut map, 0, SUB);
    text(&mut map, claims.subject);
    head(&mut map, 0, PAYLOAD_HASH_ALG);
    head(&mut map, 1, SHA256);
    head(&mut map, 0, PREIMAGE_CONTENT_TYPE);
    text(&mut map, claims.content_type);
    map
}

/// Major type and argument in the shortest form (RFC 8949, 3).
fn head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    let big = argument.to_be_bytes();
    match argument {
        0..=23 => out.push(major | big[7]),
        24..=0xff => out.extend([major | 24, big[7]]),
        0x100..=0xffff => out.extend([major | 25, big[6], big[7]]),
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend(&big[4..]);
        }
        _ => {
            out.push(major | 27);
            out.extend(big);
        }
    }
}

fn bytes(out: &mut Vec<u8>, content: &[u8]) {
    head(out, 2, content.len() as u64);
    out.extend(content);
}

fn text(out: &mut Vec<u8>, content: &str) {
    head(out, 3, content.len() as u64);
    out.extend(content.as_bytes());
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    #[test]
    fn heads_are_the_examples_of_rfc_8949() {
        // Appendix A: 23, 24, 1000, 1000000, 1000000000000, -1000.
        for (major, argument, wanted) in [
            (0, 23, "17"),
            (0, 24, "1818"),
            (0, 1000, "1903e8"),
            (0, 1_000_000, "1a000f4240"),
            (0, 1_000_000_000_000, "1b000000e8d4a51000"),
            (1, 999, "3903e7"),
        ] {
            let mut out = Vec::new();
            head(&mut out, major, argument);
            assert_eq!(hex::encode(out), wanted);
        }
    }

    #[test]
    fn the_statement_of_a_known_key_keeps_its_bytes() {
        // RFC 8032, 7.1, test 1. pycose 1.1.0 verifies these bytes with the public half.
        let key = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let key = SigningKey::from_bytes(&hex::decode(key).unwrap().try_into().unwrap());
        let claims =
            Claims { keyid: "SHA256:k", issuer: "spiffe://d/host/a", subject: "sha256:ab", content_type: "text/plain" };
        let made = sign1(&claims, b"statement", |message| Ok::<_, ()>(key.sign(message).to_bytes())).unwrap();
        let protected = concat!(
            "a501270448",
            "5348413235363a6b",
            "0fa20171",
            "7370696666653a2f2f642f686f73742f61",
            "0269",
            "7368613235363a6162",
            "1901022f",
            "1901036a",
            "746578742f706c61696e"
        );
        let start = format!("d284583f{protected}a05820{}5840", Sha256Digest::of(b"statement"));
        let made = hex::encode(made);
        assert!(made.starts_with(&start), "{made}\n{start}");
        assert_eq!(made.len(), start.len() + 128);
    }
}
