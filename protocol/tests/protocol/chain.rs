//! Chains as a model: whatever sequence of honest deeds is walked, and nothing else.

use bpi_conformance::story::{Chain, Signer};
use bpi_protocol::chain::{ChainError, Entry, Record, SealError, Walk};
use bpi_protocol::digest::Sha256Digest;
use proptest::prelude::*;

fn walk(mut walk: Walk, records: &[Entry]) -> Result<Walk, ChainError> {
    records.iter().try_for_each(|entry| walk.step(entry)).map(|()| walk)
}

/// Does what `deeds` say: an even number announces a container, an odd one closes an open one.
fn honest(signer: &Signer, deeds: &[u8]) -> (Vec<Entry>, usize) {
    let mut chain = Chain::new(signer, "default", 0);
    let mut open: Vec<(String, Sha256Digest)> = Vec::new();
    for (step, deed) in deeds.iter().enumerate() {
        if deed % 2 == 0 || open.is_empty() {
            let container = format!("c{step}");
            let intent = chain.intend(&container);
            open.push((container, intent));
        } else {
            let (container, intent) = open.remove(usize::from(*deed) % open.len());
            match deed % 4 {
                1 => chain.complete(&container, intent),
                _ => chain.give_up(&container, intent),
            };
        }
    }
    (chain.records.iter().map(|envelope| Entry::read(envelope).unwrap()).collect(), open.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn an_honest_chain_is_walked_and_shows_its_open_intents(deeds in prop::collection::vec(any::<u8>(), 1..12)) {
        let (records, open) = honest(&Signer::new("a"), &deeds);
        let walked = walk(Walk::whole(), &records).unwrap();
        prop_assert_eq!(walked.open().len(), open);
        prop_assert_eq!(walked.head().unwrap().0, records.len() as u64 - 1);
    }

    #[test]
    fn a_chain_with_any_record_removed_repeated_or_moved_is_refused(
        deeds in prop::collection::vec(any::<u8>(), 3..12), at: prop::sample::Index, to: prop::sample::Index,
    ) {
        let (records, _) = honest(&Signer::new("a"), &deeds);
        // The last one may be missing: what comes after it would show that.
        let (at, to) = (at.index(records.len() - 1), to.index(records.len()));
        let mut removed = records.clone();
        let taken = removed.remove(at);
        prop_assert!(walk(Walk::whole(), &removed).is_err());
        let mut repeated = records.clone();
        repeated.insert(to, taken.clone());
        prop_assert!(walk(Walk::whole(), &repeated).is_err());
        if at != to {
            removed.insert(to, taken);
            prop_assert!(walk(Walk::whole(), &removed).is_err());
        }
    }
}

#[test]
fn a_whole_chain_begins_at_its_first_record() {
    let (records, _) = honest(&Signer::new("a"), &[0, 0]);
    assert_eq!(walk(Walk::whole(), &records[1..]).err(), Some(ChainError::Headless { found: 1 }));
    assert!(walk(Walk::stretch(), &records[1..]).is_ok());
}

#[test]
fn a_refused_record_leaves_the_walk_as_it_was() {
    let (records, _) = honest(&Signer::new("a"), &[0, 0, 0]);
    let mut walked = walk(Walk::whole(), &records[..1]).unwrap();
    assert!(walked.step(&records[2]).is_err());
    assert_eq!(walked.step(&records[1]), Ok(()));
}

#[test]
fn a_record_that_breaks_a_rule_is_not_signed() {
    let signer = Signer::new("a");
    let mut chain = Chain::new(&signer, "default", 0);
    let intent = chain.intend("demo");
    let mut receipt = chain.receipt("demo", intent);
    receipt.run.result.signal = Some(9);
    let sealed = Record::Receipt(Box::new(receipt)).seal(Sha256Digest::EMPTY, |_| -> Result<_, std::fmt::Error> {
        panic!("the signer must not be asked");
    });
    assert!(matches!(sealed, Err(SealError::Record(_))));
}

#[test]
fn every_kind_of_record_is_read_back() {
    let signer = Signer::new("a");
    let mut chain = Chain::new(&signer, "default", 0);
    let intent = chain.intent("demo");
    let name = chain.push(&Record::Intent(Box::new(intent.clone())));
    assert_eq!(Record::parse(&chain.records[0]), Ok(Record::Intent(Box::new(intent))));
    let abort = chain.abort("demo", name);
    assert_eq!(
        Record::parse(&signer.seal(&Record::Abort(Box::new(abort.clone())))),
        Ok(Record::Abort(Box::new(abort)))
    );
    let receipt = chain.receipt("demo", name);
    let envelope = signer.seal(&Record::Receipt(Box::new(receipt.clone())));
    assert_eq!(Record::parse(&envelope), Ok(Record::Receipt(Box::new(receipt))));
}
