//! Shards that rot, go, are short, swapped or another's: found by hash, never given out, made anew of others, and told.

use std::collections::BTreeMap;

use bpi_pinner::catalogue::CatalogueError;
use bpi_pinner::journal::EntryKind;
use bpi_pinner::repair::{Outcome, described};
use bpi_pinner::store::ShardKey;
use bpi_protocol::availability::attestation::ShardSet;
use bpi_protocol::availability::opening::Opening;
use bpi_protocol::frame::key::Signer as _;
use bpi_protocol::log::Hash;
use bpi_protocol::mesh::pinner::{Answer, Described, Reason};

use crate::model::Model;
use crate::site::{Bend, Key, NOW_S, Neighbours, Pinner, batch, batch_of, policy, repairer, shards_of};

fn kinds(pinner: &Pinner) -> Vec<(EntryKind, Option<u8>)> {
    let mut kinds = Vec::new();
    let each = |entry: &bpi_pinner::journal::Entry, _: &bpi_pinner::journal::Head| {
        kinds.push((entry.event.kind, entry.event.shard));
        Ok::<(), CatalogueError>(())
    };
    pinner.catalogue.verify_log(each).unwrap();
    kinds
}

fn is_missing(answer: &Answer) -> bool {
    matches!(answer, Answer::Refused { reason: Reason::Missing, .. })
}

#[test]
fn every_leaf_and_chunk_is_given_with_a_path_that_holds() {
    for (k, n, length) in [(1, 2, 3000), (4, 12, 1_200_000), (16, 48, 1), (4, 12, 70_000)] {
        let (offer, encoded) = batch_of(3, k, n, length);
        let mut pinner = Pinner::new(1);
        pinner.bring(&offer, &encoded, NOW_S).unwrap();
        for shard in [0, n as u8 - 1] {
            let key = ShardKey { da_root: encoded.da_root, shard };
            for leaf in 0..encoded.coding.leaves() {
                let Answer::Opening { opening, .. } = pinner.reader.probe(&key, leaf).unwrap().answer else { panic!() };
                let opening = Opening::from_bytes(&opening).unwrap();
                opening.check(&encoded.coding, &encoded.da_root).unwrap();
                assert_eq!((opening.shard, u64::from(opening.leaf)), (shard, leaf));
            }
            assert!(is_missing(&pinner.reader.probe(&key, encoded.coding.leaves()).unwrap().answer));
            for stripe in 0..encoded.coding.stripes() {
                let Answer::Piece(piece) = pinner.reader.fetch(&key, stripe).unwrap().answer else { panic!() };
                let begin = encoded.coding.chunk_begin(stripe) as usize;
                assert_eq!(piece.bytes, encoded.shards[usize::from(shard)][begin..begin + piece.bytes.len()]);
            }
            assert!(is_missing(&pinner.reader.fetch(&key, encoded.coding.stripes()).unwrap().answer));
        }
        assert!(is_missing(&pinner.reader.describe(&[3; 32]).unwrap().answer));
        assert_eq!(pinner.reader.describe(&encoded.da_root).unwrap().answer, Answer::Described(Box::new(offer)));
    }
}

#[test]
fn one_flipped_bit_anywhere_in_a_file_is_found_and_what_it_spoils_is_not_given_out() {
    let (offer, encoded) = batch(3, 9_000);
    let mut pinner = Pinner::new(1);
    pinner.bring(&offer, &encoded, NOW_S).unwrap();
    let key = ShardKey { da_root: encoded.da_root, shard: 5 };
    let path = pinner.path_of(&key);
    let record = pinner.catalogue.record(&key.da_root).unwrap().unwrap();
    let whole = pinner.model.bytes(&path);
    for at in 0..whole.len() {
        pinner.model.rot(&path, |bytes| bytes[at] ^= 1 << (at % 8));
        assert!(!pinner.reader.is_good(&record, &key, |_| {}).unwrap(), "byte {at}");
        for leaf in 0..encoded.coding.leaves() {
            let read = pinner.reader.probe(&key, leaf).unwrap();
            match read.answer {
                Answer::Opening { opening, .. } => {
                    Opening::from_bytes(&opening).unwrap().check(&encoded.coding, &encoded.da_root).unwrap();
                }
                answer => assert!(is_missing(&answer) && read.bad == Some(key)),
            }
        }
        let read = pinner.reader.fetch(&key, 0).unwrap();
        if let Answer::Piece(piece) = &read.answer {
            assert_eq!(piece.bytes, encoded.shards[5], "byte {at}");
        }
        if at < encoded.shards[5].len() {
            assert!(is_missing(&read.answer) && read.bad == Some(key));
        }
        pinner.model.rot(&path, |bytes| bytes[at] ^= 1 << (at % 8));
    }
    assert!(pinner.scrub(&key.da_root).is_empty());
}

/// So many pinners that have what placement gives them.
fn spread(count: u8, offer: &Described, encoded: &bpi_availability::codec::Encoded) -> Vec<Pinner> {
    let keys: Vec<_> = (1..=count).map(Key::of).collect();
    let identities: Vec<[u8; 32]> = keys.iter().map(|key| key.identity()).collect();
    let (root, n) = (encoded.da_root, encoded.coding.n());
    keys.iter()
        .map(|key| {
            let mut pinner = Pinner::open(&Model::default(), policy(&identities), key).unwrap();
            let shards = shards_of(&root, n, &identities, &key.identity());
            let offer = Described { shards, ..offer.clone() };
            assert_eq!(pinner.bring(&offer, encoded, NOW_S).unwrap(), shards);
            pinner
        })
        .collect()
}

fn neighbours(pinners: &[Pinner]) -> Neighbours {
    let readers = pinners.iter().map(|pinner| (pinner.key.identity(), pinner.reader.clone())).collect();
    Neighbours { readers, ..Neighbours::default() }
}

/// Repairs all that is bad. What became of each.
fn repair_all(pinner: &mut Pinner, neighbours: Neighbours, root: &Hash) -> BTreeMap<u8, &'static str> {
    let mut repairer = repairer(pinner, neighbours);
    let record = pinner.catalogue.record(root).unwrap().unwrap();
    let mut done = BTreeMap::new();
    for shard in record.bad.iter() {
        let word = match repairer.repair(&record, shard).unwrap() {
            Outcome::Repaired { key, path } => {
                pinner.keeper.repaired(described(&record), key, path).unwrap();
                assert_eq!(pinner.keeper.commit(NOW_S + 2).unwrap(), []);
                "repaired"
            }
            Outcome::Few { .. } => "few",
            Outcome::Gone => "gone",
            Outcome::Wrong(_) => "wrong",
        };
        done.insert(shard, word);
    }
    let left: Vec<_> = pinner.model.paths().into_iter().filter(|path| path.starts_with("/data/repairs")).collect();
    assert!(left.is_empty(), "{left:?}");
    done
}

#[test]
fn shards_that_are_bent_gone_short_swapped_or_foreign_are_found_repaired_and_told() {
    for length in [9_000, 1_200_000] {
        let (offer, encoded) = batch(3, length);
        let mut pinners = spread(3, &offer, &encoded);
        let other = batch(4, length);
        let mut pinner = pinners.remove(0);
        let root = encoded.da_root;
        let own: Vec<u8> = pinner.catalogue.record(&root).unwrap().unwrap().kept.iter().collect();
        let path = |shard: usize| pinner.path_of(&ShardKey { da_root: root, shard: own[shard] });
        let (swapped, foreign) = (pinner.model.bytes(&path(1)), other.1.shards[0].clone());
        let shown = ShardKey { da_root: root, shard: own[0] };
        pinner.model.rot(&path(0), |bytes| bytes[700] ^= 4);
        pinner.model.rot(&path(1), |bytes| bytes.truncate(1024));
        pinner.model.rot(&path(2), |bytes| *bytes = swapped);
        pinner.model.rot(&path(3), |bytes| bytes[..foreign.len()].copy_from_slice(&foreign));
        // The first is found by a probe, the others by scrubbing.
        let read = pinner.reader.probe(&shown, 0).unwrap();
        assert!(is_missing(&read.answer) && read.bad == Some(shown));
        pinner.keeper.scrubbed(NOW_S, &root, ShardSet::default().with(own[0]), false).unwrap();
        assert_eq!(pinner.scrub(&root).len(), 4);
        let total = pinner.catalogue.total();
        assert_eq!((total.bad, total.shards), (4, 4));
        // What is known to be bad is not acknowledged, and not offered to others.
        assert!(is_missing(&pinner.reader.probe(&shown, 0).unwrap().answer));
        let Answer::Described(said) = pinner.reader.describe(&root).unwrap().answer else { panic!() };
        assert!(said.shards.is_empty());

        let done = repair_all(&mut pinner, neighbours(&pinners), &root);
        assert_eq!(done, own.iter().map(|shard| (*shard, "repaired")).collect());
        assert!(pinner.scrub(&root).is_empty());
        assert_eq!(pinner.catalogue.total().bad, 0);
        for shard in &own {
            let bytes = pinner.model.bytes(&pinner.path_of(&ShardKey { da_root: root, shard: *shard }));
            assert_eq!(bytes[..encoded.shards[0].len()], encoded.shards[usize::from(*shard)]);
        }
        let kinds = kinds(&pinner);
        for kind in [EntryKind::Kept, EntryKind::ScrubbedBad, EntryKind::Repaired] {
            let told: Vec<u8> =
                kinds.iter().filter(|(each, _)| *each == kind).filter_map(|(_, shard)| *shard).collect();
            assert_eq!(told.len(), 4, "{kind:?}");
        }
    }
}

#[test]
fn a_lost_shard_is_made_anew_of_any_four_others() {
    let (offer, encoded) = batch(3, 9_000);
    let mut pinner = Pinner::new(1);
    pinner.bring(&offer, &encoded, NOW_S).unwrap();
    let root = encoded.da_root;
    for left in [[0u8, 1, 2, 3], [8, 9, 10, 11], [0, 3, 7, 11], [1, 2, 9, 10]] {
        for shard in (0..12).filter(|shard| !left.contains(shard)) {
            pinner.model.rot(&pinner.path_of(&ShardKey { da_root: root, shard }), Vec::clear);
        }
        assert_eq!(pinner.scrub(&root).len(), 8);
        let done = repair_all(&mut pinner, Neighbours::default(), &root);
        assert!(done.len() == 8 && done.values().all(|word| *word == "repaired"), "{done:?}");
        assert!(pinner.scrub(&root).is_empty());
    }
    for shard in 0..9 {
        pinner.model.rot(&pinner.path_of(&ShardKey { da_root: root, shard }), Vec::clear);
    }
    pinner.scrub(&root);
    let done = repair_all(&mut pinner, Neighbours::default(), &root);
    assert!(done.len() == 9 && done.values().all(|word| *word == "few"), "{done:?}");
}

#[test]
fn what_other_pinners_give_counts_only_when_its_root_is_right() {
    let (offer, encoded) = batch(3, 1_200_000);
    let mut pinners = spread(4, &offer, &encoded);
    let mut pinner = pinners.remove(0);
    let root = encoded.da_root;
    let bad: Vec<u8> = pinner.catalogue.record(&root).unwrap().unwrap().kept.iter().collect();
    for shard in &bad {
        pinner.model.rot(&pinner.path_of(&ShardKey { da_root: root, shard: *shard }), Vec::clear);
    }
    pinner.scrub(&root);
    let bent: Bend = Box::new(|answer| match answer {
        Answer::Piece(mut piece) => {
            piece.bytes[9] ^= 1;
            Some(Answer::Piece(piece))
        }
        other => Some(other),
    });
    let short: Bend = Box::new(|answer| match answer {
        Answer::Piece(mut piece) => {
            piece.bytes.truncate(1024);
            Some(Answer::Piece(piece))
        }
        other => Some(other),
    });
    let silent: Bend = Box::new(|answer| (!matches!(answer, Answer::Piece(_))).then_some(answer));
    // Nine others; with two liars three are left, which are too few, and with one there are six.
    for (bends, word) in [(vec![bent, short], "few"), (vec![silent], "repaired")] {
        let mut neighbours = neighbours(&pinners);
        neighbours.bends = pinners.iter().map(|pinner| pinner.key.identity()).zip(bends).collect();
        let done = repair_all(&mut pinner, neighbours, &root);
        assert!(done.len() == 3 && done.values().all(|found| *found == word), "{done:?}");
    }
    assert!(pinner.scrub(&root).is_empty());
}

#[test]
fn a_log_that_was_changed_is_found() {
    let (offer, encoded) = batch(3, 9_000);
    for (number, change) in [(0_u64, 12), (5, 30), (11, 60)] {
        let mut pinner = Pinner::new(1);
        pinner.bring(&offer, &encoded, NOW_S).unwrap();
        let key = [b"l", &number.to_be_bytes()[..]].concat();
        pinner.model.rot_row(&key, |bytes| bytes[change] ^= 1);
        let said = pinner.catalogue.verify_log(|_, _| Ok::<(), CatalogueError>(())).unwrap_err().to_string();
        assert!(said.contains("of the log is"), "{said}");
    }
}
