//! Batches whose shards are no code word: shown, refused, and never repaired into something that looks right.

use bpi_availability::codec::Encoded;
use bpi_pinner::repair::Outcome;
use bpi_pinner::store::ShardKey;
use bpi_protocol::availability::coding::Coding;
use bpi_protocol::availability::tree::{da_root, shard_root};
use bpi_protocol::availability::wrong::WrongEncoding;
use bpi_protocol::frame::key::Signer as _;
use bpi_protocol::mesh::pinner::{Answer, Described, Reason};

use crate::site::{AGENT, NOW_S, Neighbours, Pinner, batch, described, repairer};

/// A batch of whose shards some are bent, and which commits to them as they are.
fn bent(length: usize, bend: impl FnOnce(&mut Vec<Vec<u8>>)) -> Encoded {
    let (_, Encoded { coding, mut shards, .. }) = batch(5, length);
    bend(&mut shards);
    let roots: Vec<_> = shards.iter().map(|shard| shard_root(shard)).collect();
    Encoded { coding, da_root: da_root(&coding, &roots), roots, shards }
}

/// A pinner with all but some shards and another with these, the first of which lose theirs; what repairing one gives.
fn repair(encoded: &Encoded, here: &[u8], lost: u8) -> (Pinner, Outcome) {
    let offer = described(encoded);
    let (mut pinner, mut other) = (Pinner::new(1), Pinner::new(2));
    let of = |shards: Vec<u8>| Described { shards: shards.into_iter().collect(), ..offer.clone() };
    pinner.bring(&of(here.to_vec()), encoded, NOW_S).unwrap();
    other.bring(&of((0..12).filter(|shard| !here.contains(shard)).collect()), encoded, NOW_S).unwrap();
    pinner.model.rot(&pinner.path_of(&ShardKey { da_root: encoded.da_root, shard: lost }), Vec::clear);
    assert!(pinner.scrub(&encoded.da_root).contains(lost));
    let readers = [(other.key.identity(), other.reader.clone())].into();
    let record = pinner.catalogue.record(&encoded.da_root).unwrap().unwrap();
    let outcome = repairer(&pinner, Neighbours { readers, ..Neighbours::default() }).repair(&record, lost).unwrap();
    (pinner, outcome)
}

#[test]
fn a_shard_that_does_not_fit_to_the_others_is_shown_and_the_batch_refused_from_then_on() {
    for (length, at) in [(9_000, 1500), (1_200_000, 262_144 + 1030)] {
        let encoded = bent(length, |shards| shards[9][at] ^= 1);
        // The shard that was lost is one that the bent one speaks of: only the bent one among the first four says so.
        let (mut pinner, outcome) = repair(&encoded, &[7, 8, 9, 10, 11], 8);
        let Outcome::Wrong(proof) = outcome else { panic!("{outcome:?}") };
        assert_eq!(proof.check(), Ok(()));
        assert_eq!(WrongEncoding::from_bytes(&proof.to_bytes()).unwrap(), *proof);
        pinner.keeper.wrong(NOW_S + 5, &encoded.da_root, proof.to_bytes()).unwrap();
        let answer = pinner.keeper.offer(NOW_S + 6, AGENT, described(&encoded)).unwrap();
        assert!(matches!(answer, Answer::Refused { reason: Reason::Wrong, .. }), "{answer:?}");
        assert_eq!(pinner.catalogue.proofs().unwrap(), [proof.to_bytes()]);
    }
}

#[test]
fn something_behind_the_end_of_the_data_is_shown() {
    // All shards are a code word of data that are longer than the batch says.
    let (_, longer) = batch(5, 9_100);
    let coding = Coding::new(4, 12, 9_000).unwrap();
    assert_eq!(coding.shard_bytes(), longer.coding.shard_bytes());
    let encoded = Encoded { coding, da_root: da_root(&coding, &longer.roots), ..longer };
    // As long as a shard fits to the others it is made anew, and nobody has looked at the end: validators and readers do.
    let (_, outcome) = repair(&encoded, &[0, 1, 2, 3, 4], 0);
    assert!(matches!(outcome, Outcome::Repaired { .. }), "{outcome:?}");
    let mut both = encoded;
    both.shards[11][5] ^= 1;
    both.roots[11] = shard_root(&both.shards[11]);
    both.da_root = da_root(&both.coding, &both.roots);
    let (_, outcome) = repair(&both, &[0, 1, 2, 3, 11], 11);
    let Outcome::Wrong(proof) = outcome else { panic!("{outcome:?}") };
    assert_eq!((proof.check(), proof.openings.len()), (Ok(()), 4));
}

#[test]
fn a_lost_shard_that_alone_did_not_fit_is_gone() {
    let encoded = bent(9_000, |shards| shards[11][5] ^= 1);
    let (_, outcome) = repair(&encoded, &[0, 1, 2, 3, 11], 11);
    assert!(matches!(outcome, Outcome::Gone), "{outcome:?}");
}
