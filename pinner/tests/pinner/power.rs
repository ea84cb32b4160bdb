//! Power is cut before, in and after every call: what was acknowledged is there, the log is chained, and all goes on.

use std::collections::BTreeSet;

use bpi_pinner::catalogue::CatalogueError;
use bpi_pinner::disk::Deed;
use bpi_pinner::keeper::KeeperError;
use bpi_pinner::store::ShardKey;
use bpi_protocol::availability::attestation::ShardSet;
use bpi_protocol::mesh::pinner::{Answer, Reason};

use crate::model::{Fault, Loss, Model};
use crate::site::{AGENT, Key, NOW_S, Pinner, batch, is_fatal, pieces, policy};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// Two batches come in turn, are acknowledged bit by bit, one shard rots and is found. What was acknowledged until then.
fn live(model: &Model, key: &std::sync::Arc<Key>, kept: &mut BTreeSet<ShardKey>) -> Result<(), KeeperError> {
    let mut pinner = Pinner::open(model, policy(&[]), key)?;
    let (first, second) = (batch(1, 9_000), batch(2, 1_100_000));
    let mut all = Vec::new();
    for (offer, encoded) in [&first, &second] {
        match pinner.keeper.offer(NOW_S, AGENT, offer.clone())? {
            Answer::Have { shards, .. } => {
                all.push(pieces(encoded, bpi_pinner::catalogue::without(offer.shards, shards)))
            }
            Answer::Kept { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    let longest = all.iter().map(Vec::len).max().unwrap_or(0);
    for at in 0..longest {
        for batch in &all {
            if let Some(piece) = batch.get(at) {
                assert_eq!(pinner.keeper.piece(NOW_S, AGENT, piece)?, None);
            }
        }
        if at % 5 == 4 || at + 1 == longest {
            for (_, answer) in pinner.keeper.commit(NOW_S)? {
                let Answer::Kept { da_root, acknowledgement } = answer else { panic!("{answer:?}") };
                kept.extend(acknowledgement.shards.iter().map(|shard| ShardKey { da_root, shard }));
            }
        }
    }
    pinner.keeper.release(NOW_S + 10).map(drop)
}

fn check(model: &Model, key: &std::sync::Arc<Key>, kept: &BTreeSet<ShardKey>, at: &str) {
    let mut pinner = Pinner::open(model, policy(&[]), key).unwrap();
    for shard in kept {
        let record = pinner.catalogue.record(&shard.da_root).unwrap();
        let record = record.unwrap_or_else(|| panic!("{at}: nothing is known of {shard:?}"));
        assert!(record.good().contains(shard.shard), "{at}: {shard:?} is not known");
        assert!(pinner.reader.is_good(&record, shard, |_| {}).unwrap(), "{at}: {shard:?} is not good");
    }
    let mut rows = BTreeSet::new();
    pinner
        .catalogue
        .verify_log(|entry, _| {
            rows.insert(ShardKey { da_root: entry.event.da_root, shard: entry.event.shard.unwrap() });
            Ok::<(), CatalogueError>(())
        })
        .unwrap();
    for (root, record) in pinner.catalogue.records_after(None).unwrap() {
        for shard in record.kept.iter() {
            assert!(rows.remove(&ShardKey { da_root: root, shard }), "{at}: the log does not know {shard}");
        }
        assert!(pinner.scrub(&root).is_empty(), "{at}: something of what is known is not good");
    }
    assert!(rows.is_empty(), "{at}: the log knows more than there is");
    // Nothing is left behind, and all goes on.
    for first in 0..=255 {
        pinner.keeper.sweep(first).unwrap();
    }
    for (offer, encoded) in [batch(1, 9_000), batch(2, 1_100_000)] {
        assert_eq!(pinner.bring(&offer, &encoded, NOW_S + 20).unwrap(), offer.shards, "{at}");
    }
    assert_eq!(model.paths().len(), 24, "{at}: {:?}", model.paths());
}

#[test]
fn nothing_that_was_acknowledged_is_lost_wherever_the_power_is_cut() {
    let key = Key::of(1);
    let losses = [Loss::Nothing, Loss::Everything, Loss::Some(1), Loss::Some(2), Loss::Some(3)];
    let mut cuts = 0;
    for step in 0.. {
        let (model, mut kept) = (Model::default(), BTreeSet::new());
        model.fail_at(step, Fault::Death);
        let lived = live(&model, &key, &mut kept);
        if !model.has_failed() {
            lived.unwrap();
            assert_eq!(kept.len(), 24);
            break;
        }
        assert!(lived.is_err());
        for loss in losses {
            let after = model.restarted(loss);
            check(&after, &key, &kept, &format!("cut at step {step}, {loss:?} lost"));
            cuts += 1;
        }
    }
    assert!(cuts > 500, "{cuts}");
}

#[test]
fn power_that_is_cut_a_second_time_while_it_comes_back_loses_nothing_either() {
    let key = Key::of(1);
    let (model, mut kept) = (Model::default(), BTreeSet::new());
    model.fail_at(60, Fault::Death);
    assert!(live(&model, &key, &mut kept).is_err());
    assert!(!kept.is_empty());
    for step in (0..).step_by(7) {
        let again = model.restarted(Loss::Some(u64::from(step)));
        let mut kept = kept.clone();
        again.fail_at(step, Fault::Death);
        let lived = live(&again, &key, &mut kept);
        if !again.has_failed() {
            lived.unwrap();
            break;
        }
        check(&again.restarted(Loss::Everything), &key, &kept, &format!("cut again at step {step}"));
    }
}

#[test]
fn an_error_of_fsync_ends_the_process_with_a_sentence_and_loses_nothing() {
    for (deed, errno, words) in [
        (Deed::SyncFile, EIO, "could not make durable the file"),
        (Deed::SyncFile, ENOSPC, "could not make durable the file"),
        (Deed::SyncFolder, EIO, "could not make durable the names in"),
        (Deed::SyncFolder, ENOSPC, "could not make durable the names in"),
    ] {
        for step in 0..6 {
            let (key, model, mut kept) = (Key::of(1), Model::default(), BTreeSet::new());
            model.fail_at_deed(deed, step, Fault::Error(errno));
            let error = live(&model, &key, &mut kept).unwrap_err();
            let said = error.to_string();
            let of_index = said.contains("the index in");
            assert!(is_fatal(&error) && said.contains(words) || of_index, "{said}");
            assert!(of_index || said.contains("the process ends"), "{said}");
            check(&model.restarted(Loss::Everything), &key, &kept, &said);
        }
    }
}

#[test]
fn a_full_disk_is_said_and_what_is_kept_stays() {
    let (mut pinner, first, second) = (Pinner::new(1), batch(1, 9_000), batch(2, 9_000));
    assert_eq!(pinner.bring(&first.0, &first.1, NOW_S).unwrap(), first.0.shards);
    assert!(matches!(pinner.keeper.offer(NOW_S, AGENT, second.0.clone()).unwrap(), Answer::Have { .. }));
    pinner.model.fail_at_deed(Deed::Write, 3, Fault::Error(ENOSPC));
    let mut refused = None;
    for piece in pieces(&second.1, second.0.shards) {
        refused = refused.or(pinner.keeper.piece(NOW_S, AGENT, &piece).unwrap());
    }
    let Some(Answer::Refused { reason: Reason::Full, sentence, .. }) = refused else { panic!("{refused:?}") };
    assert!(sentence.contains("the disk is full"), "{sentence}");
    pinner.keeper.commit(NOW_S).unwrap();
    assert!(pinner.scrub(&first.1.da_root).is_empty());
    // There is room again.
    assert_eq!(pinner.bring(&second.0, &second.1, NOW_S).unwrap(), second.0.shards);
    assert_eq!(pinner.scrub(&second.1.da_root), ShardSet::default());
}
