//! BLS signatures: what holds, and what must not.

use blst::min_sig;
use bpi_protocol::consensus::bls::{KeyError, Keys, POP_DST, Proved, SecretKey, VerifyingKey};
use bpi_protocol::consensus::ids::{Epoch, ValidatorIndex};
use bpi_protocol::consensus::scheme::{PublicKey, Scheme as _, Signature, Signer as _};
use bpi_protocol::consensus::validators::{Signers, Validator, ValidatorSet};

use bpi_conformance::cluster::{Cluster, secret, signers, validator};

/// Order of the group (draft-irtf-cfrg-pairing-friendly-curves, section 4.2.1), big-endian.
const ORDER: &str = "73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001";

fn infinity<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    bytes[0] = 0xc0;
    bytes
}

fn refused(members: Vec<Validator>) -> KeyError {
    Keys::new(&ValidatorSet::new(Epoch(0), members).unwrap()).unwrap_err()
}

/// Points of the curve that are none of the group: almost every x that has a y.
fn outside<const N: usize>(is_point: impl Fn(&[u8]) -> bool) -> [u8; N] {
    let with = |x: u8| {
        let mut bytes = [0; N];
        (bytes[0], bytes[N - 1]) = (0x80, x);
        bytes
    };
    (1..=255).map(with).find(|bytes| is_point(bytes)).unwrap()
}

#[test]
fn a_signature_is_its_signers_over_its_message_and_nothing_else() {
    let cluster = Cluster::new(0, 1, 3);
    let signature = cluster.sign(1, b"message");
    assert_eq!(signature, cluster.sign(1, b"message"), "the same each time");
    let verify =
        |index, message: &[u8], signature: &Signature| cluster.keys.verify(ValidatorIndex(index), message, signature);
    assert!(verify(1, b"message", &signature));
    assert!(!verify(0, b"message", &signature));
    assert!(!verify(3, b"message", &signature), "nobody has index 3");
    assert!(!verify(1, b"massage", &signature));
    assert!(!verify(1, b"message", &Signature(infinity())));
    assert!(!verify(1, b"message", &Signature([0xff; 48])));
    for bit in 0..384 {
        let mut bent = signature;
        bent.0[bit / 8] ^= 1 << (bit % 8);
        assert!(!verify(1, b"message", &bent), "{bit}");
    }
}

#[test]
fn a_secret_key_is_a_number_from_one_to_below_the_order() {
    let mut order: [u8; 32] = hex::decode(ORDER).unwrap().try_into().unwrap();
    assert_eq!(SecretKey::from_bytes(&order).map(|_| ()), Err(KeyError::Secret));
    order[31] = 0;
    assert!(SecretKey::from_bytes(&order).is_ok());
    assert_eq!(SecretKey::from_bytes(&[0; 32]).map(|_| ()), Err(KeyError::Secret));
    let key = secret(9);
    assert_eq!(SecretKey::from_bytes(&key.to_bytes()).unwrap().public_key(), key.public_key());
}

#[test]
fn a_proof_of_possession_of_another_key_is_refused() {
    let (first, second) = (validator(1), validator(2));
    assert!(Keys::new(&ValidatorSet::new(Epoch(0), vec![first, second]).unwrap()).is_ok());
    let stolen = Validator { possession: first.possession, ..second };
    assert_eq!(refused(vec![first, stolen]), KeyError::Possession { index: 1 });
    // Both proofs are there, and their sum is what it should be: each of the other's key.
    let [mut one, mut other] = [validator(2), validator(3)];
    std::mem::swap(&mut one.possession, &mut other.possession);
    assert_eq!(refused(vec![first, one, other]), KeyError::Possession { index: 1 });
    for possession in [Signature(infinity()), Signature([0; 48]), Signature([0xff; 48])] {
        assert_eq!(refused(vec![Validator { possession, ..first }]), KeyError::Possession { index: 0 });
    }
}

#[test]
fn keys_of_some_check_the_votes_of_these_alone() {
    let bad = Validator { possession: Signature([0; 48]), ..validator(3) };
    let set = ValidatorSet::new(Epoch(0), vec![validator(1), validator(2), bad]).unwrap();
    let of = |signers| Keys::of_signers(&set, signers, &mut Proved::default());
    assert_eq!(of(signers([1, 2])).unwrap_err(), KeyError::Possession { index: 2 });
    let keys = of(signers([0, 1])).unwrap();
    let votes = [1, 2, 3].map(|number| secret(number).sign(b"message"));
    let sum = |of: &[Signature]| keys.aggregate(of).unwrap();
    assert!(keys.verify_aggregate(signers([0, 1]), b"message", &sum(&votes[..2])));
    assert!(keys.verify(ValidatorIndex(1), b"message", &votes[1]));
    assert!(!keys.verify(ValidatorIndex(2), b"message", &votes[2]));
    assert!(!keys.verify_aggregate(signers([0, 1, 2]), b"message", &sum(&votes)));
}

#[test]
fn a_signature_over_the_own_key_is_no_proof_of_possession_nor_the_other_way_round() {
    let (key, member) = (secret(1), validator(1));
    let possession = key.sign(&member.key.0);
    assert_eq!(refused(vec![Validator { possession, ..member }]), KeyError::Possession { index: 0 });
    let cluster = Cluster::new(0, 1, 1);
    assert!(!cluster.keys.verify(ValidatorIndex(0), &member.key.0, &member.possession));
    let point = min_sig::SecretKey::from_bytes(key.to_bytes().as_slice()).unwrap();
    assert_eq!(member.possession.0, point.sign(&member.key.0, POP_DST, &[]).compress());
}

#[test]
fn what_is_no_point_of_the_group_is_no_key() {
    let member = validator(1);
    let stranger: [u8; 96] = outside(|bytes| min_sig::PublicKey::uncompress(bytes).is_ok());
    assert!(min_sig::PublicKey::uncompress(&stranger).unwrap().validate().is_err(), "on the curve, not in the group");
    let mut positive = member.key.0;
    positive[0] &= 0x7f;
    for key in [infinity(), [0; 96], [0xff; 96], stranger, positive] {
        let other = Validator { key: PublicKey(key), ..member };
        assert_eq!(refused(vec![member, other]), KeyError::Point { index: 1 });
        let keys = Cluster::new(0, 1, 1).keys;
        assert_eq!(keys.with_group(&PublicKey(key)).map(|_| ()), Err(KeyError::Point { index: u16::MAX }));
    }
}

#[test]
fn what_is_no_point_of_the_group_is_no_signature_and_spoils_a_sum() {
    let cluster = Cluster::new(0, 1, 2);
    let stranger = Signature(outside(|bytes| min_sig::Signature::uncompress(bytes).is_ok()));
    let good = cluster.sign(0, b"message");
    for bad in [stranger, Signature(infinity()), Signature([0; 48]), Signature([0xff; 48])] {
        assert!(!cluster.keys.verify(ValidatorIndex(0), b"message", &bad));
        assert!(!cluster.keys.verify_aggregate(signers([0, 1]), b"message", &bad));
        // A sum may be made of what is on the curve, and does not hold.
        let sum = cluster.keys.aggregate(&[good, bad]);
        assert!(sum.is_none_or(|sum| !cluster.keys.verify_aggregate(signers([0, 1]), b"message", &sum)));
        assert!(
            sum.is_none_or(|sum| !cluster.keys.verify_aggregate(signers([0]), b"message", &sum) || bad.0 == infinity())
        );
    }
    assert_eq!(cluster.keys.aggregate(&[good, Signature([0xff; 48])]), None);
    assert_eq!(cluster.keys.aggregate(&[]), None);
}

#[test]
fn a_sum_of_signatures_is_that_of_its_signers_and_no_other_set() {
    let cluster = Cluster::new(0, 1, 9);
    let quorum = signers([0, 2, 3, 5, 7, 8]);
    let sum = cluster.aggregate(quorum, b"message");
    let verify = |signers, message: &[u8], sum: &Signature| cluster.keys.verify_aggregate(signers, message, sum);
    assert!(verify(quorum, b"message", &sum));
    assert!(!verify(quorum, b"massage", &sum));
    assert!(!verify(quorum.with(ValidatorIndex(1)), b"message", &sum), "one too many");
    assert!(!verify(signers([0, 2, 3, 5, 7]), b"message", &sum), "one too few");
    assert!(!verify(signers([0, 1, 3, 5, 7, 8]), b"message", &sum), "another one");
    assert!(!verify(quorum.with(ValidatorIndex(9)), b"message", &sum), "one who is not there");
    assert!(!verify(Signers::default(), b"message", &sum));
    assert!(!verify(Signers::default(), b"message", &Signature(infinity())));
    // Whoever is counted twice in the sum is in the bitmap once.
    let parts = [0, 0, 2, 3, 5, 7, 8].map(|index| cluster.sign(index, b"message"));
    assert!(!verify(quorum, b"message", &cluster.keys.aggregate(&parts).unwrap()));
    assert_eq!(cluster.keys.aggregate(&[parts[0]]), Some(parts[0]));
    assert!(verify(signers([0]), b"message", &parts[0]));
}

#[test]
fn a_group_signature_holds_only_where_there_is_a_group_key() {
    let Cluster { keys, .. } = Cluster::new(0, 1, 2);
    let group = secret(99);
    let signature = group.sign(b"message");
    assert!(!keys.verify_group(b"message", &signature));
    let keys = keys.with_group(&group.public_key()).unwrap();
    assert!(keys.verify_group(b"message", &signature));
    assert!(!keys.verify_group(b"massage", &signature));
    assert!(!keys.verify(ValidatorIndex(0), b"message", &signature));
}

#[test]
fn a_sum_of_signatures_holds_for_exactly_the_keys_that_signed() {
    let secrets: Vec<_> = (1..=4).map(secret).collect();
    let keys: Vec<_> = secrets.iter().map(|secret| VerifyingKey::new(&secret.public_key()).unwrap()).collect();
    let signatures: Vec<_> = secrets.iter().map(|secret| secret.sign(b"message")).collect();
    assert!(VerifyingKey::verify_sum(&keys, b"message", &signatures));
    assert!(!VerifyingKey::verify_sum(&keys, b"massage", &signatures));
    assert!(!VerifyingKey::verify_sum(&keys[..3], b"message", &signatures));
    assert!(!VerifyingKey::verify_sum(&keys[..3], b"message", &signatures[1..]));
    assert!(!VerifyingKey::verify_sum(&[], b"message", &[]));
    assert!(keys[2].verify(b"message", &signatures[2]) && !keys[2].verify(b"message", &signatures[1]));
    assert_eq!(keys[0].public_key(), secrets[0].public_key());
    assert_eq!(VerifyingKey::new(&PublicKey(infinity())), Err(KeyError::Point { index: u16::MAX }));
}
