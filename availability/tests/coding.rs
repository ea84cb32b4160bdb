//! Shards are those of the formula, any k rebuild a batch, what is bent is named, and what is wrongly encoded is proved.
#![allow(clippy::unwrap_used, missing_docs)]

mod draw;

use bpi_availability::codec::{CodecError, Encoded, Encoder, Rebuild, RebuildError, encode};
use bpi_protocol::availability::coding::{Coding, LEAF_BYTES, STRIPE_BYTES};
use bpi_protocol::availability::field::{combine, row};
use bpi_protocol::availability::opening::{Opening, OpeningError};
use bpi_protocol::availability::tree::{ShardTree, da_root, shard_root};
use bpi_protocol::availability::wrong::{WrongEncoding, WrongError, data_bytes};
use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng as _, SeedableRng as _};
use draw::choose;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

const LEAF: usize = LEAF_BYTES as usize;

/// How often a test of random cases tries: `BPI_CASES` times, else as often as is done in seconds.
fn cases(usually: usize) -> usize {
    let asked = std::env::var("BPI_CASES").ok().map(|text| text.parse().expect("BPI_CASES is a number"));
    asked.unwrap_or(if cfg!(debug_assertions) { usually.div_ceil(50) } else { usually })
}

fn random(bytes: usize, seed: u64) -> Vec<u8> {
    let mut data = vec![0; bytes];
    ChaCha20Rng::seed_from_u64(seed).fill_bytes(&mut data);
    data
}

fn encoded(k: u16, n: u16, length: usize, seed: u64) -> (Vec<u8>, Encoded) {
    let data = random(length, seed);
    let encoded = encode(Coding::new(k, n, length as u64).unwrap(), &data).unwrap();
    (data, encoded)
}

fn rebuild(encoded: &Encoded, shards: impl IntoIterator<Item = u8>) -> Rebuild {
    let mut rebuild = Rebuild::new(encoded.coding, encoded.da_root, encoded.roots.clone()).unwrap();
    for shard in shards {
        rebuild.add(shard, encoded.shards[usize::from(shard)].clone()).unwrap();
    }
    rebuild
}

/// Commits to shards whatever they are.
fn committed(coding: Coding, shards: Vec<Vec<u8>>) -> Encoded {
    let roots: Vec<_> = shards.iter().map(|shard| shard_root(shard)).collect();
    Encoded { coding, da_root: da_root(&coding, &roots), roots, shards }
}

fn open(encoded: &Encoded, shard: u8, leaf: usize) -> Opening {
    let bytes = &encoded.shards[usize::from(shard)];
    let leaf_bytes = &bytes[leaf * LEAF..(leaf + 1) * LEAF];
    ShardTree::of(bytes).open(shard, &encoded.roots, leaf as u64, leaf_bytes).unwrap()
}

#[test]
fn shards_roots_and_openings_are_those_that_another_program_made() {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("vectors/coding.json")).unwrap();
    let data = |length: usize| -> Vec<u8> {
        let blocks = (0..length.div_ceil(32) as u64).map(|at| Sha256::digest(at.to_be_bytes()));
        blocks.flatten().take(length).collect()
    };
    for vector in vectors.as_array().unwrap() {
        let number = |value: &serde_json::Value, name: &str| value[name].as_u64().unwrap();
        let (k, n, length) = (number(vector, "k"), number(vector, "n"), number(vector, "length"));
        let coding = Coding::new(k as u16, n as u16, length).unwrap();
        let encoded = encode(coding, &data(length as usize)).unwrap();
        assert_eq!(
            hex::encode(Sha256::digest(encoded.shards.concat())),
            vector["shards_sha256"],
            "{k} of {n}, {length}"
        );
        assert_eq!(hex::encode(Sha256::digest(encoded.roots.as_flattened())), vector["roots_sha256"]);
        assert_eq!(hex::encode(encoded.da_root), vector["da_root"]);
        for pinned in vector["openings"].as_array().unwrap() {
            let opening = open(&encoded, number(pinned, "shard") as u8, number(pinned, "leaf") as usize);
            assert_eq!(hex::encode(Sha256::digest(opening.to_bytes())), pinned["sha256"]);
            assert_eq!(Opening::from_bytes(&opening.to_bytes()).unwrap().check(&coding, &encoded.da_root), Ok(()));
        }
    }
}

#[test]
fn shards_are_those_of_the_crates_own_matrix() {
    for (k, n) in [(1, 3), (4, 12), (16, 32), (16, 48), (64, 256)] {
        let length = usize::from(k) * LEAF;
        let (data, encoded) = encoded(k, n, length, 3);
        let theirs = reed_solomon_erasure::galois_8::ReedSolomon::new(k.into(), (n - k).into()).unwrap();
        let mut shards: Vec<Vec<u8>> = data.chunks(LEAF).map(<[u8]>::to_vec).collect();
        shards.resize(n.into(), vec![0; LEAF]);
        theirs.encode(&mut shards).unwrap();
        assert!(shards == encoded.shards, "{k} of {n}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(200) as u32))]

    #[test]
    fn shards_are_those_of_the_slow_oracle(
        (k, parity) in prop_oneof![Just((1, 1)), Just((2, 5)), Just((4, 8)), Just((16, 16)), Just((16, 32))],
        length in prop_oneof![1usize..20_000, (1usize << 20) - 2000..(1 << 20) + 40_000],
        seed: u64,
    ) {
        let (data, encoded) = encoded(k, k + parity, length, seed);
        let coding = encoded.coding;
        let mut begin = 0;
        for stripe in data.chunks(STRIPE_BYTES as usize) {
            let chunk = coding.chunk_bytes((begin / u64::from(STRIPE_BYTES)) as u32) as usize;
            let at = coding.chunk_begin((begin / u64::from(STRIPE_BYTES)) as u32) as usize;
            let mut padded = stripe.to_vec();
            padded.resize(chunk * usize::from(k), 0);
            // All of what is short, and of what is long the ends: the oracle takes its time.
            let places = if chunk > 4096 { [0..1024, chunk - 1024..chunk] } else { [0..chunk, 0..0] };
            for (shard, bytes) in encoded.shards.iter().enumerate() {
                let row = row(k, shard as u8);
                for place in &places {
                    let slow = combine(&row, padded.chunks(chunk).map(|each| &each[place.clone()]));
                    prop_assert_eq!(&slow[..], &bytes[at + place.start..at + place.end]);
                }
            }
            begin += u64::from(STRIPE_BYTES);
        }
    }
}

#[test]
fn every_four_of_twelve_shards_rebuild_a_batch() {
    let (data, encoded) = encoded(4, 12, (1 << 20) + 5000, 1);
    let mut subsets = 0;
    for bits in (0u16..1 << 12).filter(|bits| bits.count_ones() == 4) {
        let mut rebuild = rebuild(&encoded, (0..12).filter(|shard| bits >> shard & 1 == 1));
        assert!(rebuild.data().unwrap() == data, "{bits:b}");
        let whole = rebuild.finish().unwrap();
        assert!(whole.data == data && whole.shards == encoded.shards, "{bits:b}");
        subsets += 1;
    }
    assert_eq!(subsets, 495);
}

#[test]
fn random_sixteen_of_forty_eight_shards_rebuild_a_batch() {
    let (data, encoded) = encoded(16, 48, 15_000, 1);
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    for round in 0..cases(100_000) {
        let chosen = choose(&mut rng, 48, 16);
        let mut rebuild = rebuild(&encoded, chosen.iter().copied());
        assert!(rebuild.data().unwrap() == data, "{chosen:?}");
        // Twice the price, so not each time.
        if round % 16 == 0 {
            let whole = rebuild.finish().unwrap();
            assert!(whole.data == data && whole.shards == encoded.shards, "{chosen:?}");
        }
    }
}

#[test]
fn a_batch_is_rebuilt_of_pieces_in_any_order() {
    let (data, encoded) = encoded(4, 12, (4 << 20) + 77_777, 5);
    let coding = encoded.coding;
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    let mut rebuild = Rebuild::new(coding, encoded.da_root, encoded.roots.clone()).unwrap();
    let mut pieces: Vec<(u8, u32)> =
        [1, 6, 9, 11].into_iter().flat_map(|shard| (0..coding.stripes()).map(move |stripe| (shard, stripe))).collect();
    while !pieces.is_empty() {
        assert!(!rebuild.is_enough());
        let (shard, stripe) = pieces.swap_remove(rng.next_u32() as usize % pieces.len());
        let begin = coding.chunk_begin(stripe) as usize;
        let bytes = &encoded.shards[usize::from(shard)][begin..begin + coding.chunk_bytes(stripe) as usize];
        let left = pieces.iter().any(|(other, _)| *other == shard);
        assert_eq!(rebuild.add_piece(shard, stripe, bytes), Ok(!left));
    }
    assert_eq!(rebuild.whole().iter().collect::<Vec<_>>(), [1, 6, 9, 11]);
    let whole = rebuild.finish().unwrap();
    assert!(whole.data == data && whole.shards == encoded.shards);
}

#[test]
fn one_bit_flipped_anywhere_in_a_shard_is_named() {
    let (data, encoded) = encoded(4, 12, 4 * 2048, 1);
    let mut rebuild = rebuild(&encoded, [0, 1, 2]);
    let honest = &encoded.shards[7];
    for bit in 0..honest.len() * 8 {
        let mut bent = honest.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(rebuild.add(7, bent), Err(RebuildError::Root { shard: 7 }));
    }
    assert_eq!(rebuild.finish(), Err(RebuildError::Few { found: 3, wanted: 4 }));
    rebuild.add(7, honest.clone()).unwrap();
    assert!(rebuild.finish().unwrap().data == data);
}

#[test]
fn a_bent_piece_is_found_when_its_shard_is_whole_and_the_shard_may_come_again() {
    let (_, encoded) = encoded(4, 12, (2 << 20) + 1, 1);
    let coding = encoded.coding;
    let piece = |shard: usize, stripe: u32| {
        let begin = coding.chunk_begin(stripe) as usize;
        encoded.shards[shard][begin..begin + coding.chunk_bytes(stripe) as usize].to_vec()
    };
    let mut rebuild = rebuild(&encoded, []);
    let mut bent = piece(3, 1);
    bent[77] ^= 4;
    assert_eq!(rebuild.add_piece(3, 0, &piece(3, 0)), Ok(false));
    assert_eq!(rebuild.add_piece(3, 1, &bent), Ok(false));
    assert_eq!(rebuild.add_piece(3, 2, &piece(3, 2)), Err(RebuildError::Root { shard: 3 }));
    for (stripe, whole) in [(2, false), (0, false), (1, true), (1, true)] {
        assert_eq!(rebuild.add_piece(3, stripe, &piece(3, stripe)), Ok(whole));
    }
}

#[test]
fn shards_that_are_missing_short_swapped_or_foreign_are_named() {
    let (_, encoded) = encoded(4, 12, 9000, 1);
    let (_, foreign) = self::encoded(4, 12, 9000, 2);
    let mut rebuild = rebuild(&encoded, [0, 1, 2]);
    let shard = |at: usize| encoded.shards[at].clone();
    let wanted = encoded.coding.shard_bytes();
    assert_eq!(rebuild.add(5, shard(6)), Err(RebuildError::Root { shard: 5 }));
    assert_eq!(rebuild.add(5, foreign.shards[5].clone()), Err(RebuildError::Root { shard: 5 }));
    let short = shard(5)[..wanted as usize - 1].to_vec();
    assert_eq!(rebuild.add(5, short), Err(RebuildError::Length { shard: 5, found: wanted - 1, wanted }));
    assert_eq!(
        rebuild.add(5, [shard(5), vec![0]].concat()),
        Err(RebuildError::Length { shard: 5, found: wanted + 1, wanted })
    );
    assert_eq!(rebuild.add(12, shard(5)), Err(RebuildError::Shard { shard: 12, n: 12 }));
    assert_eq!(rebuild.add_piece(12, 0, &shard(5)), Err(RebuildError::Shard { shard: 12, n: 12 }));
    assert_eq!(rebuild.add_piece(5, 1, &shard(5)), Err(RebuildError::Stripe { shard: 5, stripe: 1, stripes: 1 }));
    assert_eq!(rebuild.add_piece(5, 0, &[]), Err(RebuildError::Length { shard: 5, found: 0, wanted }));
    assert_eq!(rebuild.data(), Err(RebuildError::Few { found: 3, wanted: 4 }));
    let roots = |roots: Vec<_>| Rebuild::new(encoded.coding, encoded.da_root, roots).err();
    assert_eq!(roots(foreign.roots.clone()), Some(RebuildError::Roots { found: 12 }));
    assert_eq!(roots(encoded.roots[..11].to_vec()), Some(RebuildError::Roots { found: 11 }));
}

#[test]
fn an_encoder_takes_whole_stripes_and_all_of_them() {
    let coding = Coding::new(4, 12, (1 << 20) + 1).unwrap();
    let mut encoder = Encoder::new(coding).unwrap();
    let mut shards = vec![Vec::new(); 12];
    assert_eq!(encoder.stripe(&[0; 5], &mut shards), Err(CodecError::Length { found: 5, wanted: 1 << 20 }));
    assert_eq!(
        encoder.stripe(&vec![0; 1 << 20], &mut shards[..11]).unwrap_err(),
        CodecError::Shards { found: 11, wanted: 12 }
    );
    encoder.stripe(&vec![0; 1 << 20], &mut shards).unwrap();
    assert_eq!(encoder.next_bytes(), 1);
    let early = Encoder::new(coding).unwrap();
    assert_eq!(early.finish(), Err(CodecError::Length { found: 0, wanted: (1 << 20) + 1 }));
    encoder.stripe(&[0], &mut shards).unwrap();
    assert_eq!(encoder.next_bytes(), 0);
    assert!(encoder.stripe(&[], &mut shards).is_err());
    let (root, roots) = encoder.finish().unwrap();
    let mut data = vec![0; (1 << 20) + 1];
    let at_once = encode(coding, &data).unwrap();
    assert!(at_once == Encoded { coding, da_root: root, roots, shards });
    data.pop();
    assert_eq!(encode(coding, &data).unwrap_err(), CodecError::Length { found: 1 << 20, wanted: (1 << 20) + 1 });
}

#[test]
fn an_opening_that_is_bent_anywhere_does_not_hold() {
    let (_, encoded) = encoded(4, 12, 9 * 4096, 1);
    let (coding, root) = (encoded.coding, encoded.da_root);
    let opening = open(&encoded, 9, 5);
    let bytes = opening.to_bytes();
    for bit in 0..bytes.len() * 8 {
        let mut bent = bytes.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        let held = Opening::from_bytes(&bent).map(|opening| opening.check(&coding, &root));
        assert!(!matches!(held, Ok(Ok(()))), "bit {bit}");
    }
    for length in 0..bytes.len() {
        assert!(Opening::from_bytes(&bytes[..length]).is_err());
    }
    assert!(Opening::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    // The same leaf under other names.
    let other = |shard, leaf| Opening { shard, leaf, ..opening.clone() }.check(&coding, &root);
    assert_eq!(other(12, 5), Err(OpeningError::Shard { shard: 12, n: 12 }));
    for (shard, leaf) in [(8, 5), (9, 4), (9, 7), (9, 9), (9, u32::MAX)] {
        assert!(other(shard, leaf).is_err(), "{shard} {leaf}");
    }
    let elsewhere = Coding::new(4, 12, 9 * 4096 - 1).unwrap();
    assert_eq!(opening.check(&elsewhere, &root), Err(OpeningError::Root { shard: 9, leaf: 5 }));
}

#[test]
fn a_tree_opens_only_what_it_is_of() {
    let (_, encoded) = encoded(4, 12, 9 * 4096, 1);
    let shard = &encoded.shards[3];
    let tree = ShardTree::of(shard);
    assert!(tree.open(3, &encoded.roots, 9, &shard[..LEAF]).is_none());
    assert!(tree.open(3, &encoded.roots, 1, &shard[..LEAF]).is_none());
    assert!(tree.open(4, &encoded.roots, 0, &shard[..LEAF]).is_none());
    assert!(tree.open(12, &encoded.roots, 0, &shard[..LEAF]).is_none());
    let again = ShardTree::of_leaves(tree.leaves().copied());
    assert_eq!(again.open(3, &encoded.roots, 0, &shard[..LEAF]), tree.open(3, &encoded.roots, 0, &shard[..LEAF]));
}

/// The proof that a batch is wrongly encoded which comes of rebuilding it from these shards.
fn proof(encoded: &Encoded, shards: impl IntoIterator<Item = u8>) -> WrongEncoding {
    match rebuild(encoded, shards).finish() {
        Err(RebuildError::Wrong { proof }) => *proof,
        other => panic!("{:?}", other.map(|_| "rebuilt")),
    }
}

#[test]
fn a_batch_whose_shards_are_bent_before_they_are_committed_to_is_proved_to_be_wrong() {
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    for round in 0..cases(2000) {
        let (k, n) = [(1, 2), (4, 12), (16, 32), (16, 48)][round % 4];
        let (_, honest) = encoded(k, n, 1 + rng.next_u32() as usize % 60_000, round as u64);
        let count = 1 + (rng.next_u32() % 3) as u16 % (n - 1);
        let bent = choose(&mut rng, n, count);
        let mut shards = honest.shards.clone();
        for shard in &bent {
            let at = rng.next_u32() as usize % shards[0].len();
            shards[usize::from(*shard)][at] ^= 1 + (rng.next_u32() % 255) as u8;
        }
        let wrong = committed(honest.coding, shards);
        let all = || (0..n).map(|shard| shard as u8);
        let proof = proof(&wrong, all());
        assert_eq!(proof.check(), Ok(()), "{k} of {n}, {bent:?}");
        assert_eq!(WrongEncoding::from_bytes(&proof.to_bytes()).as_ref(), Ok(&proof));
        // Of k shards alone it is noticed, and the shard named that makes the proof.
        let some = choose(&mut rng, n, k);
        let mut few = rebuild(&wrong, some.iter().copied());
        match few.finish() {
            Err(RebuildError::Differs { shard }) => {
                few.add(shard, wrong.shards[usize::from(shard)].clone()).unwrap();
                let Err(RebuildError::Wrong { proof }) = few.finish() else {
                    panic!("{k} of {n}, {some:?} and {shard}")
                };
                assert_eq!(proof.check(), Ok(()));
            }
            Err(RebuildError::Wrong { proof }) => assert_eq!(proof.check(), Ok(())),
            other => panic!("{k} of {n}, {some:?}: {:?}", other.map(|_| "rebuilt")),
        }
    }
}

#[test]
fn data_behind_the_end_of_a_batch_are_a_wrong_encoding_too() {
    for (k, n, length) in [(4, 12, 5000), (4, 12, (1 << 20) + 3), (16, 48, 100)] {
        // The code word of longer data, committed to as that of shorter ones.
        let data = random(length + 100, 8);
        let mut padded = data.clone();
        padded.resize(length.next_multiple_of(usize::from(k) * LEAF), 0);
        let longer = encode(Coding::new(k, n, padded.len() as u64).unwrap(), &padded).unwrap();
        let coding = Coding::new(k, n, length as u64).unwrap();
        assert_eq!(coding.shard_bytes(), longer.coding.shard_bytes());
        let wrong = committed(coding, longer.shards);
        for shards in [(0..k as u8).collect::<Vec<_>>(), (n as u8 - k as u8..n as u8).collect()] {
            let proof = proof(&wrong, shards);
            assert_eq!((proof.openings.len(), proof.check()), (k.into(), Ok(())));
            assert_eq!(WrongEncoding::from_bytes(&proof.to_bytes()), Ok(proof));
        }
    }
}

#[test]
fn data_bytes_of_leaves_are_all_the_data() {
    for (k, length) in [(1, 1), (4, 5000), (4, 1 << 20), (16, (1 << 20) + 17_000), (64, (3 << 20) - 1)] {
        let coding = Coding::new(k, 2 * k, length).unwrap();
        let sum: usize = (0..k as u8)
            .flat_map(|shard| (0..coding.leaves() as u32).map(move |leaf| (shard, leaf)))
            .map(|(shard, leaf)| data_bytes(&coding, shard, leaf))
            .sum();
        assert_eq!(sum as u64, length);
    }
}

#[test]
fn an_honest_batch_has_no_proof() {
    let (_, honest) = encoded(4, 12, (1 << 20) + 9000, 1);
    let coding = honest.coding;
    let leaves = coding.leaves() as usize;
    let mut rng = ChaCha20Rng::seed_from_u64(6);
    let trees: Vec<_> = honest.shards.iter().map(|shard| ShardTree::of(shard)).collect();
    let open = |shard: u8, leaf: usize| {
        let bytes = &honest.shards[usize::from(shard)][leaf * LEAF..(leaf + 1) * LEAF];
        trees[usize::from(shard)].open(shard, &honest.roots, leaf as u64, bytes).unwrap()
    };
    for round in 0..cases(3000) {
        let leaf = if round % 3 == 0 { leaves - 1 - round % 2 } else { rng.next_u32() as usize % leaves };
        let mut shards = choose(&mut rng, 12, 4 + round as u16 % 2);
        shards.sort_unstable();
        let openings: Vec<_> = shards.iter().map(|shard| open(*shard, leaf)).collect();
        let proof = WrongEncoding { coding, da_root: honest.da_root, openings };
        assert_eq!(proof.check(), Err(WrongError::Right { leaf: leaf as u32 }));
        // Whatever is made of it is none either.
        let mut bytes = proof.to_bytes();
        let at = rng.next_u32() as usize % bytes.len();
        bytes[at] ^= 1 << (rng.next_u32() % 8);
        assert!(!matches!(WrongEncoding::from_bytes(&bytes).map(|bent| bent.check()), Ok(Ok(()))), "{at}");
    }
    let proof = |openings| WrongEncoding { coding, da_root: honest.da_root, openings }.check();
    let of = |list: &[(u8, usize)]| proof(list.iter().map(|(shard, leaf)| open(*shard, *leaf)).collect());
    assert_eq!(of(&[(0, 0), (1, 0), (2, 0)]), Err(WrongError::Count { found: 3, k: 4 }));
    assert_eq!(of(&[(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0)]), Err(WrongError::Count { found: 6, k: 4 }));
    assert_eq!(of(&[(0, 0), (1, 0), (2, 0), (2, 0), (4, 0)]), Err(WrongError::Order { shard: 2 }));
    assert_eq!(of(&[(0, 0), (1, 0), (2, 0), (4, 0), (3, 0)]), Err(WrongError::Order { shard: 3 }));
    assert_eq!(of(&[(0, 0), (1, 0), (2, 1), (3, 0)]), Err(WrongError::Offset { shard: 2, found: 1, wanted: 0 }));
}

/// Best of many short rounds, which other programs on the machine disturb least. Not in debug builds, and only when asked: a figure needs a quiet machine.
#[test]
#[ignore = "a figure, not a truth: run it by name on a quiet machine, optimised"]
fn coding_and_committing_hold_their_floor() {
    for (k, n, floor_mb_s) in [(4, 12, 200.0), (16, 32, 250.0), (16, 48, 150.0)] {
        let data = random(1 << 20, 1);
        let coding = Coding::new(k, n, 1 << 20).unwrap();
        let mut shards: Vec<Vec<u8>> = (0..n).map(|_| Vec::with_capacity(1 << 20)).collect();
        let mut best = std::time::Duration::MAX;
        for _ in 0..400 {
            shards.iter_mut().for_each(Vec::clear);
            let begin = std::time::Instant::now();
            let mut encoder = Encoder::new(coding).unwrap();
            encoder.stripe(&data, &mut shards).unwrap();
            encoder.finish().unwrap();
            best = best.min(begin.elapsed());
        }
        let mut hashing = std::time::Duration::MAX;
        for _ in 0..400 {
            let begin = std::time::Instant::now();
            std::hint::black_box(shard_root(&data));
            hashing = hashing.min(begin.elapsed());
        }
        let mb_s = |time: std::time::Duration| data.len() as f64 / 1e6 / time.as_secs_f64();
        println!(
            "{k} of {n}: {:.0} MB/s coded and committed to; the hashes alone at {:.0} MB/s",
            mb_s(best),
            mb_s(hashing)
        );
        assert!(mb_s(best) >= floor_mb_s, "{k} of {n}: {:.0} MB/s, of {floor_mb_s} at least", mb_s(best));
    }
}
