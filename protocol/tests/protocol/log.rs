//! The log against the definitions of RFC 9162, section 2.1, written down as the text has them, and against the crate ct-merkle.

use bpi_protocol::consensus::header::LogHead;
use bpi_protocol::log::proof::{Consistency, Inclusion, ProofError};
use bpi_protocol::log::{EMPTY_ROOT, Frontier, Hash, LEAVES_MAX, Log, leaf_hash};
use ct_merkle::{ConsistencyProof, InclusionProof, RootHash};
use proptest::prelude::*;
use sha2::digest::Output;
use sha2::{Digest as _, Sha256};

/// `MTH(D[n])`, section 2.1.1.
fn mth(leaves: &[Vec<u8>]) -> Hash {
    match leaves {
        [] => Sha256::digest(b"").into(),
        [leaf] => Sha256::digest([&[0], leaf.as_slice()].concat()).into(),
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            Sha256::digest([&[1], mth(left).as_slice(), mth(right).as_slice()].concat()).into()
        }
    }
}

/// The largest power of two smaller than n.
fn split(n: usize) -> usize {
    (0..).map(|bits| 1 << bits).take_while(|power| *power < n).last().unwrap()
}

/// `PATH(m, D[n])`, section 2.1.3.1.
fn path(m: usize, leaves: &[Vec<u8>]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let k = split(leaves.len());
    let (left, right) = leaves.split_at(k);
    let (mut path, last) = if m < k { (path(m, left), mth(right)) } else { (path(m - k, right), mth(left)) };
    path.push(last);
    path
}

/// `SUBPROOF(m, D[n], b)`, section 2.1.4.1; `PROOF(m, D[n])` is that with `b` true.
fn subproof(m: usize, leaves: &[Vec<u8>], known: bool) -> Vec<Hash> {
    if m == leaves.len() {
        return if known { Vec::new() } else { vec![mth(leaves)] };
    }
    let k = split(leaves.len());
    let (left, right) = leaves.split_at(k);
    let (mut proof, last) =
        if m <= k { (subproof(m, left, known), mth(right)) } else { (subproof(m - k, right, false), mth(left)) };
    proof.push(last);
    proof
}

fn log_of(leaves: &[Vec<u8>]) -> Log {
    let mut log = Log::new();
    for leaf in leaves {
        log.append(leaf_hash(leaf));
    }
    log
}

fn numbered(count: u64) -> Vec<Vec<u8>> {
    (0..count).map(|leaf| leaf.to_be_bytes()[7 - (leaf % 7) as usize..].to_vec()).collect()
}

#[test]
fn every_head_and_proof_of_a_small_log_is_the_one_that_the_text_defines() {
    let leaves = numbered(70);
    let log = log_of(&leaves);
    let mut frontier = Frontier::new();
    for size in 0..=leaves.len() {
        let (first, head) = (&leaves[..size], log.head_at(size as u64).unwrap());
        assert_eq!((head.root, frontier.head()), (mth(first), head), "{size}");
        for (index, leaf) in first.iter().enumerate() {
            let proof = log.prove_inclusion(index as u64, size as u64).unwrap();
            assert_eq!(proof.path, path(index, first), "{index} of {size}");
            assert_eq!(proof.check(&leaf_hash(leaf), &head), Ok(()));
            assert_eq!(Inclusion::from_bytes(&proof.to_bytes()), Ok(proof));
        }
        for earlier in 0..=size {
            let proof = log.prove_consistency(earlier as u64, size as u64).unwrap();
            if earlier > 0 {
                assert_eq!(proof.path, subproof(earlier, first, true), "{earlier} to {size}");
            }
            assert_eq!(proof.check(&log.head_at(earlier as u64).unwrap(), &head), Ok(()), "{earlier} to {size}");
            assert_eq!(Consistency::from_bytes(&proof.to_bytes()), Ok(proof));
        }
        if let Some(leaf) = leaves.get(size) {
            frontier.append(leaf_hash(leaf));
        }
    }
}

#[test]
fn a_log_that_was_rewritten_is_no_continuation() {
    let leaves = numbered(13);
    let mut other = leaves.clone();
    other[3] = b"rewritten".to_vec();
    let (log, other) = (log_of(&leaves), log_of(&other));
    for size in 4..=13 {
        let proof = other.prove_consistency(size, 13).unwrap();
        assert!(proof.check(&log.head_at(size).unwrap(), &other.head()).is_err(), "{size}");
    }
}

#[test]
fn only_the_empty_log_and_the_log_itself_need_no_path() {
    let head = log_of(&numbered(5)).head();
    let (empty, all) = (LogHead::default(), |first| Consistency { first, second: 5, path: Vec::new() });
    assert_eq!(empty.root, EMPTY_ROOT);
    assert_eq!(all(0).check(&empty, &head), Ok(()));
    assert_eq!(all(0).check(&LogHead { size: 0, root: [0; 32] }, &head), Err(ProofError::Root { size: 0 }));
    assert_eq!(all(5).check(&head, &head), Ok(()));
    assert_eq!(all(5).check(&head, &LogHead { root: [0; 32], ..head }), Err(ProofError::Root { size: 5 }));
    assert_eq!(all(3).check(&head, &head), Err(ProofError::Size { proof: 3, head: 5 }));
    let three = log_of(&numbered(3)).head();
    assert_eq!(all(3).check(&three, &head), Err(ProofError::Length { found: 0, wanted: 4 }));
    let back = Consistency { first: 5, second: 3, path: Vec::new() };
    assert_eq!(back.check(&head, &three), Err(ProofError::Backwards { first: 5, second: 3 }));
}

#[test]
fn sizes_that_no_log_has_are_refused_before_anything_is_read() {
    let head = LogHead { size: u64::MAX, root: [0; 32] };
    let proof = Inclusion { index: 0, size: u64::MAX, path: Vec::new() };
    assert_eq!(proof.check(&[0; 32], &head), Err(ProofError::Large { size: u64::MAX }));
    assert!(Inclusion::from_bytes(&proof.to_bytes()).is_err());
    let widest = Inclusion { index: 0, size: LEAVES_MAX, path: vec![[7; 32]; 53] };
    assert_eq!(Inclusion::from_bytes(&widest.to_bytes()), Ok(widest));
    let longest = Consistency { first: LEAVES_MAX / 2 - 1, second: LEAVES_MAX, path: vec![[7; 32]; 54] };
    assert_eq!(Consistency::from_bytes(&longest.to_bytes()), Ok(longest));
}

fn outputs(path: &[Hash]) -> Vec<Output<Sha256>> {
    path.iter().map(|hash| Output::<Sha256>::from(*hash)).collect()
}

fn foreign(head: &LogHead) -> RootHash<Sha256> {
    RootHash::new(head.root.into(), head.size)
}

#[test]
fn ct_merkle_accepts_every_proof_of_ours_and_no_bent_one() {
    let leaves = numbered(40);
    let log = log_of(&leaves);
    for size in 1..=40_u64 {
        let head = foreign(&log.head_at(size).unwrap());
        for index in 0..size {
            let path = outputs(&log.prove_inclusion(index, size).unwrap().path);
            let proof = InclusionProof::<Sha256>::from_digests(&path);
            assert!(head.verify_inclusion(&leaves[index as usize], index, &proof).is_ok(), "{index} of {size}");
            assert!(head.verify_inclusion(b"another", index, &proof).is_err());
        }
        for first in 1..size {
            let earlier = foreign(&log.head_at(first).unwrap());
            let mut path = outputs(&log.prove_consistency(first, size).unwrap().path);
            let proof = ConsistencyProof::<Sha256>::from_digests(&path);
            assert!(head.verify_consistency(&earlier, &proof).is_ok(), "{first} to {size}");
            path[0][0] ^= 1;
            let proof = ConsistencyProof::<Sha256>::from_digests(&path);
            assert!(head.verify_consistency(&earlier, &proof).is_err());
        }
    }
}

proptest! {
    // A log of its own for each case takes most of the time, so there are few, with many proofs each.
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn ct_merkle_accepts_the_proofs_of_long_logs_and_no_bent_one(
        count in 2_000_u64..=100_000, at in prop::collection::vec(any::<[prop::sample::Index; 3]>(), 100), bit in 0_usize..256,
    ) {
        let leaves = numbered(count);
        let log = log_of(&leaves);
        for [size, index, place] in at {
            let size = size.index(count as usize - 1) as u64 + 2;
            let (head, index) = (foreign(&log.head_at(size).unwrap()), index.index(size as usize - 1) as u64);
            let (leaf, first) = (&leaves[index as usize], index + 1);
            let mut path = outputs(&log.prove_inclusion(index, size).unwrap().path);
            prop_assert!(head.verify_inclusion(leaf, index, &InclusionProof::<Sha256>::from_digests(&path)).is_ok());
            let bent = place.index(path.len());
            path[bent][bit / 8] ^= 1 << (bit % 8);
            prop_assert!(head.verify_inclusion(leaf, index, &InclusionProof::<Sha256>::from_digests(&path)).is_err());

            let earlier = foreign(&log.head_at(first).unwrap());
            let mut path = outputs(&log.prove_consistency(first, size).unwrap().path);
            prop_assert!(head.verify_consistency(&earlier, &ConsistencyProof::<Sha256>::from_digests(&path)).is_ok());
            let bent = place.index(path.len());
            path[bent][bit / 8] ^= 1 << (bit % 8);
            prop_assert!(head.verify_consistency(&earlier, &ConsistencyProof::<Sha256>::from_digests(&path)).is_err());
        }
    }
}

proptest! {
    #[test]
    fn logs_of_any_leaves_have_the_heads_and_proofs_of_the_text(
        leaves in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..200), at in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(),
    ) {
        let log = log_of(&leaves);
        let size = to.index(leaves.len()) + 1;
        let at = at.index(size);
        let head = log.head_at(size as u64).unwrap();
        prop_assert_eq!(head.root, mth(&leaves[..size]));
        prop_assert_eq!(log.prove_inclusion(at as u64, size as u64).unwrap().path, path(at, &leaves[..size]));
        prop_assert_eq!(log.prove_consistency(at as u64 + 1, size as u64).unwrap().path, subproof(at + 1, &leaves[..size], true));
    }

    #[test]
    fn a_proof_with_anything_changed_is_refused(
        count in 2_u64..300, at in any::<prop::sample::Index>(), bit in 0_usize..256, which in any::<prop::sample::Index>(),
    ) {
        let leaves = numbered(count);
        let log = log_of(&leaves);
        let (head, index) = (log.head(), at.index(count as usize) as u64);
        let leaf = leaf_hash(&leaves[index as usize]);
        let proof = log.prove_inclusion(index, count).unwrap();
        let bent = |bend: &dyn Fn(&mut Inclusion)| {
            let mut proof = proof.clone();
            bend(&mut proof);
            proof.check(&leaf, &head)
        };
        let place = which.index(proof.path.len());
        prop_assert_eq!(bent(&|_| ()), Ok(()));
        prop_assert_eq!(bent(&|proof| proof.path[place][bit / 8] ^= 1 << (bit % 8)), Err(ProofError::Root { size: count }));
        prop_assert!(bent(&|proof| proof.path.push([0; 32])).is_err());
        prop_assert!(bent(&|proof| proof.path.truncate(proof.path.len() - 1)).is_err());
        prop_assert!(bent(&|proof| proof.size += 1).is_err());
        prop_assert!(bent(&|proof| proof.index = (proof.index + 1) % count).is_err());

        let first = index.max(1);
        let (earlier, proof) = (log.head_at(first).unwrap(), log.prove_consistency(first, count).unwrap());
        let bent = |bend: &dyn Fn(&mut Consistency)| {
            let mut proof = proof.clone();
            bend(&mut proof);
            proof.check(&earlier, &head)
        };
        let place = which.index(proof.path.len());
        prop_assert_eq!(bent(&|_| ()), Ok(()));
        prop_assert!(bent(&|proof| proof.path[place][bit / 8] ^= 1 << (bit % 8)).is_err());
        prop_assert!(bent(&|proof| proof.path.push([0; 32])).is_err());
        prop_assert!(bent(&|proof| proof.path.truncate(proof.path.len() - 1)).is_err());
        prop_assert!(bent(&|proof| proof.first -= 1).is_err());
    }

    #[test]
    fn bytes_of_proofs_are_refused_when_cut_continued_or_of_another_kind(
        first in 0..=LEAVES_MAX, second in 0..=LEAVES_MAX, cut in any::<prop::sample::Index>(),
    ) {
        let (low, high) = (first.min(second), first.max(second));
        // Zeros for hashes until there are enough: as many as the sizes ask for is the one length that is read.
        let read = |kind: u8, count: usize| {
            let bytes = [&[1, kind][..], &low.to_be_bytes(), &high.to_be_bytes(), &vec![0; 32 * count]].concat();
            let known = if kind == 1 { Inclusion::from_bytes(&bytes).is_ok() } else { Consistency::from_bytes(&bytes).is_ok() };
            known.then_some(bytes)
        };
        let lengths = |kind| (0..60).filter_map(|count| read(kind, count)).collect::<Vec<_>>();
        let (inclusion, consistency) = (lengths(1), lengths(2));
        prop_assert_eq!(inclusion.len(), usize::from(low < high));
        prop_assert_eq!(consistency.len(), 1);
        for bytes in inclusion.iter().chain(&consistency) {
            let cut = &bytes[..cut.index(bytes.len())];
            prop_assert!(Inclusion::from_bytes(cut).is_err() && Consistency::from_bytes(cut).is_err());
            prop_assert!(Inclusion::from_bytes(bytes).is_err() || Consistency::from_bytes(bytes).is_err());
        }
    }
}
