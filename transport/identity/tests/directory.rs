//! The signed directory: who may speak for a member, and that nothing goes back.

#![allow(clippy::unwrap_used, missing_docs)]

mod harness;

use std::collections::BTreeMap;

use bpi_identity::directory::{Directory, DirectoryError, Document, LiveDirectory, MEMBERS_MAX, Member, PAYLOAD_TYPE};
use bpi_identity::{Role, SpiffeId};
use bpi_protocol::envelope::Envelope;
use bpi_protocol::key::PublicKey;
use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;

use harness::{DAY_S, NOW_S, domain, id};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(key: &SigningKey) -> PublicKey {
    PublicKey::from_verifying_key(key.verifying_key())
}

fn member(address: Option<&str>) -> Member {
    Member {
        address: address.map(str::to_owned),
        asn: 64_500,
        key: hex::encode(key(9).verifying_key().as_bytes()),
        operator: "acme".to_owned(),
        region: "eu-1".to_owned(),
    }
}

fn document(version: u64) -> Document {
    let members = [(id("relay/r1"), member(Some("192.0.2.1:443"))), (id("agent/a1"), member(None))];
    Document { domain: domain(), members: members.into(), valid_until_s: NOW_S + DAY_S, version }
}

fn open(json: &[u8]) -> Result<Directory, DirectoryError> {
    Directory::open(json, &[public(&key(1))], &domain(), NOW_S)
}

fn signed(document: &Document) -> Directory {
    open(&document.sign(&key(1)).unwrap()).unwrap()
}

/// What the signer would not sign.
fn forced(payload: &[u8]) -> Vec<u8> {
    let sign = |pae: &[u8]| Ok::<_, ()>(key(1).sign(pae).to_bytes());
    Envelope::sign_as(PAYLOAD_TYPE, payload.to_vec(), "", sign).unwrap().to_json()
}

#[test]
fn a_signed_directory_answers_until_its_end() {
    let directory = signed(&document(7));
    let relay = directory.lookup(&id("relay/r1"), NOW_S).unwrap();
    assert_eq!((relay.asn, relay.operator.as_str(), relay.address.as_deref()), (64_500, "acme", Some("192.0.2.1:443")));
    assert_eq!(relay.identity_key().unwrap(), public(&key(9)));
    assert_eq!(directory.members(Role::Relay, NOW_S).unwrap().count(), 1);
    let unknown = directory.lookup(&id("relay/r2"), NOW_S).unwrap_err();
    assert!(matches!(unknown, DirectoryError::Unknown { version: 7, .. }));
    assert!(directory.lookup(&id("relay/r1"), NOW_S + DAY_S).is_ok());
    let late = directory.lookup(&id("relay/r1"), NOW_S + DAY_S + 1).unwrap_err();
    assert!(matches!(late, DirectoryError::Expired { .. }));
    assert!(directory.members(Role::Relay, NOW_S + DAY_S + 1).is_err());
}

#[test]
fn only_a_trusted_key_speaks_for_the_directory() {
    let json = document(1).sign(&key(2)).unwrap();
    assert_eq!(open(&json).unwrap_err(), DirectoryError::Signature { keys: 1 });
    let keys = [public(&key(1)), public(&key(2))];
    assert!(Directory::open(&json, &keys, &domain(), NOW_S).is_ok());
    assert_eq!(Directory::open(&json, &[], &domain(), NOW_S).unwrap_err(), DirectoryError::Keys { found: 0 });
    let other = Directory::open(&json, &keys, &"other.test".parse().unwrap(), NOW_S);
    assert!(matches!(other, Err(DirectoryError::Domain { .. })));
    let late = Directory::open(&json, &keys, &domain(), NOW_S + DAY_S + 1);
    assert!(matches!(late, Err(DirectoryError::Expired { .. })));
    // A signature over the same bytes as another type is none over a directory.
    let sign = |pae: &[u8]| Ok::<_, ()>(key(1).sign(pae).to_bytes());
    let receipt = Envelope::sign(b"{}".to_vec(), "", sign).unwrap().to_json();
    assert!(matches!(open(&receipt), Err(DirectoryError::Type { .. })));
}

#[test]
fn what_is_not_canonical_or_not_a_directory_is_refused() {
    let payload = r#"{"domain":"bpi.test","members":{},"validUntil":1800086400,"version":1}"#;
    assert!(open(&forced(payload.as_bytes())).is_ok());
    for broken in [
        payload.replace(':', ": "),
        payload.replace(r#""version":1"#, r#""version":1.0"#),
        payload.replace(r#""version":1"#, r#""version":-1"#),
        payload.replace(r#""version":1"#, r#""version":1,"z":1"#),
        payload.replace(r#","version":1"#, ""),
        payload.replace("{}", "[]"),
        payload.replace("bpi.test", "Bpi.test"),
        payload.replace("{}", r#"{"spiffe://bpi.test/king/k":{}}"#),
    ] {
        assert!(matches!(open(&forced(broken.as_bytes())), Err(DirectoryError::Form(_))), "{broken}");
    }
    for broken in [&b""[..], b"{}", b"\xff", b"[1]"] {
        assert!(matches!(open(broken), Err(DirectoryError::Envelope(_))));
    }
    assert!(matches!(open(&vec![b' '; 1 << 20]), Err(DirectoryError::Envelope(_))));
}

#[test]
fn a_member_with_a_wrong_field_is_refused_by_signer_and_reader() {
    let with = |who: &str, bend: &dyn Fn(&mut Member)| {
        let mut member = member(Some("relay.example:443"));
        bend(&mut member);
        let members = BTreeMap::from([(id(who), member)]);
        let document = Document { members, ..document(1) };
        let refused = document.sign(&key(1)).map(drop);
        let payload = bpi_protocol::canonical::to_bytes(&document).unwrap();
        assert_eq!(open(&forced(&payload)).map(drop), refused);
        refused.err().map(|error| match error {
            DirectoryError::Field { field, .. } => field,
            error => panic!("{error}"),
        })
    };
    assert_eq!(with("relay/r1", &|_| {}), None);
    assert_eq!(with("service/gateway", &|m| m.address = None), None);
    assert_eq!(with("pinner/p1", &|m| m.address = Some("[2001:db8::1]:443".to_owned())), None);
    assert_eq!(with("relay/r1", &|m| m.asn = 0), Some("asn"));
    assert_eq!(with("relay/r1", &|m| m.key.make_ascii_uppercase()), Some("key"));
    assert_eq!(with("relay/r1", &|m| m.key = "00".repeat(32)), Some("key"));
    assert_eq!(with("relay/r1", &|m| m.key.truncate(62)), Some("key"));
    assert_eq!(with("relay/r1", &|m| m.operator.clear()), Some("operator"));
    assert_eq!(with("relay/r1", &|m| m.operator = "a".repeat(65)), Some("operator"));
    assert_eq!(with("relay/r1", &|m| m.region = "EU".to_owned()), Some("region"));
    assert_eq!(with("relay/r1", &|m| m.address = None), Some("address"));
    assert_eq!(with("agent/a1", &|_| {}), Some("address"));
    assert_eq!(with("validator/v1", &|_| {}), Some("address"));
    for address in [
        "",
        ":443",
        "a",
        "a:",
        "a:0",
        "a:65536",
        "a:+1",
        "a:01",
        "-a:1",
        "a..b:1",
        "a b:1",
        "1.2.3:4",
        "256.1.1.1:1",
        "2001:db8::1:443",
        "[::1]:0",
        "http://a:1",
        "a/b:1",
        "A:1",
    ] {
        assert_eq!(with("relay/r1", &|m| m.address = Some(address.to_owned())), Some("address"), "{address}");
    }

    let foreign: SpiffeId = "spiffe://other.test/relay/r1".parse().unwrap();
    let members = BTreeMap::from([(foreign, member(Some("a:1")))]);
    let refused = Document { members, ..document(1) }.sign(&key(1)).unwrap_err();
    assert!(matches!(refused, DirectoryError::Foreign { .. }));
}

#[test]
fn a_directory_is_bounded_in_members_and_bytes() {
    let many = |number: usize, name_bytes: usize| {
        let member_of = |number| (id(&format!("agent/{number:0>name_bytes$}")), member(None));
        Document { members: (0..number).map(member_of).collect(), ..document(1) }.sign(&key(1))
    };
    assert!(matches!(many(MEMBERS_MAX + 1, 1), Err(DirectoryError::TooMany { found: 4097 })));
    assert!(matches!(many(300, 2000), Err(DirectoryError::Form(_))), "512 KiB are the tighter limit");
    let json = many(200, 2000).unwrap();
    assert!(json.len() < 1 << 20);
    assert_eq!(open(&json).unwrap().document().members.len(), 200);
}

#[test]
fn a_live_directory_never_goes_back() {
    let refused = LiveDirectory::new(signed(&document(6)), 7).unwrap_err();
    assert_eq!(refused, DirectoryError::Older { found: 6, held: 7 });
    let live = LiveDirectory::new(signed(&document(7)), 7).unwrap();
    let changed = live.changed();
    assert!(!live.replace(signed(&document(7))).unwrap());
    assert_eq!(live.replace(signed(&document(6))), Err(DirectoryError::Older { found: 6, held: 7 }));
    let twin = Document { members: BTreeMap::new(), ..document(7) };
    assert!(matches!(live.replace(signed(&twin)), Err(DirectoryError::Twice { version: 7, .. })));
    assert!(!changed.has_changed().unwrap());
    assert!(live.clone().replace(signed(&document(8))).unwrap());
    assert!(changed.has_changed().unwrap());
    assert_eq!(live.current().version(), 8);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_is_never_a_directory(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(open(&bytes).is_err());
        prop_assert!(open(&forced(&bytes)).is_err());
    }

    #[test]
    fn a_changed_byte_is_never_a_directory(at in 0usize..2000, to in any::<u8>()) {
        let mut json = document(1).sign(&key(1)).unwrap();
        let whole = open(&json).unwrap();
        let at = at % json.len();
        if std::mem::replace(&mut json[at], to) != to
            && let Ok(directory) = open(&json)
        {
            // Only what is not signed may change: the hint of the key, and how the JSON is spelled.
            prop_assert_eq!(directory.digest(), whole.digest());
        }
    }
}
