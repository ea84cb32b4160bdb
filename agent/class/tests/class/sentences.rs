//! What is true of a class on either database.

use std::time::Instant;

use bpi_class::{Attested, BatchState, Class, ClassError, NewIncident, NewKeyslot};

use crate::{Place, batch, hash, open};

fn incident(what: &str) -> NewIncident {
    NewIncident {
        what: what.to_owned(),
        time_ms: 9,
        kind: "no-receipt".to_owned(),
        boundary: "k8s.io".to_owned(),
        container_id: "c".to_owned(),
        detail: "a container ended without a receipt".to_owned(),
    }
}

fn attested(height: u64) -> Attested {
    Attested { height, attestation: vec![4; 300], inclusion: vec![5; 200] }
}

/// Something in every table.
pub async fn fill(class: &Class) {
    for first in 0..5 {
        class.add_batch(batch("k8s.io", first * 40, 20)).await.unwrap();
    }
    class.add_batch(batch("default", 3, 1)).await.unwrap();
    let first = batch("k8s.io", 0, 20);
    class.acknowledge(&first.da_root, &hash(1), &[8; 136]).await.unwrap();
    class.set_kept(&first.da_root, &[3; 300]).await.unwrap();
    class.set_attested(&first.da_root, &[2; 500], &attested(7)).await.unwrap();
    let proofs = first.records.iter().filter_map(|record| Some((record.leaf?, vec![6; 400]))).collect();
    class.add_inclusions(8, &[2; 500], proofs).await.unwrap();
    class.revoke_keyslots("tenant", Some(&first.da_root), 77).await.unwrap();
    class.add_sbom_signer("id", "pem\nof two lines", "näme \"quoted\"", 4).await.unwrap();
    class.remove_sbom_signer("id", 5).await.unwrap();
    class.record_incident(incident("one")).await.unwrap();
    class.record_incident(incident("two")).await.unwrap();
}

pub async fn a_batch_is_there_whole_or_not_at_all(place: &Place) {
    let class = open(place).await;
    let mut new = batch("k8s.io", 0, 3);
    assert_eq!(class.add_batch(new.clone()).await.unwrap(), 1);
    let kept = class.batch(&new.da_root).await.unwrap().unwrap();
    assert_eq!(
        (kept.number, kept.first_seq, kept.last_seq, kept.receipts, kept.state),
        (1, 0, 5, 3, BatchState::Packed)
    );
    let records = class.records_of_batch(&kept).await.unwrap();
    assert_eq!(records.len(), 6);
    for (record, (seq, wanted)) in records.iter().zip((0..).zip(&new.records)) {
        assert_eq!(
            (record.seq, record.position as u64, &record.cid, record.leaf),
            (seq, seq, &wanted.cid, wanted.leaf)
        );
        assert_eq!(class.record("k8s.io", seq).await.unwrap().as_ref(), Some(record));
        assert_eq!(class.record_of_cid(&wanted.cid).await.unwrap().as_ref(), Some(record));
    }
    let of_one = class.records_of_container(&new.records[0].container_id).await.unwrap();
    assert_eq!(of_one.iter().map(|record| record.seq).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(class.batch_of_leaf(&new.records[1].leaf.unwrap()).await.unwrap(), Some(kept));

    // The last record of the next one is there already: nothing of it stays, nor does the cursor move.
    let last = new.records[5].clone();
    new = batch("k8s.io", 6, 3);
    new.records[5] = last;
    let error = class.add_batch(new.clone()).await.unwrap_err();
    assert!(matches!(error, ClassError::Twice { .. }) && !error.ends_the_process(), "{error}");
    assert_eq!(class.batch(&new.da_root).await.unwrap(), None);
    assert_eq!(class.record("k8s.io", 6).await.unwrap(), None);
    assert_eq!(class.cursor("k8s.io").await.unwrap().unwrap().next_seq, 6);
    class.add_batch(batch("k8s.io", 6, 3)).await.unwrap();
}

pub async fn a_batch_begins_where_the_last_one_ended(place: &Place) {
    let class = open(place).await;
    assert_eq!(class.cursor("k8s.io").await.unwrap(), None);
    let first = batch("k8s.io", 10, 2);
    class.add_batch(first.clone()).await.unwrap();
    let cursor = class.cursor("k8s.io").await.unwrap().unwrap();
    assert_eq!((cursor.next_seq, cursor.digest), (14, first.last_digest));
    for wrong in [10, 13, 15] {
        let error = class.add_batch(batch("k8s.io", wrong, 2)).await.unwrap_err();
        assert!(matches!(error, ClassError::Cursor { next_seq: 14, .. }), "{error}");
    }
    class.add_batch(batch("default", 0, 2)).await.unwrap();
    class.skip("k8s.io", 14, 20, &hash(9)).await.unwrap();
    assert!(class.skip("k8s.io", 20, 20, &hash(9)).await.is_err());
    assert!(class.skip("k8s.io", 14, 30, &hash(9)).await.is_err());
    class.add_batch(batch("k8s.io", 20, 2)).await.unwrap();
    assert_eq!(class.open_batches(10).await.unwrap().iter().map(|b| b.first_seq).collect::<Vec<_>>(), [10, 0, 20]);
    assert_eq!(class.batches(None, 2).await.unwrap().iter().map(|b| b.number).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(class.batches(Some(2), 2).await.unwrap().iter().map(|b| b.number).collect::<Vec<_>>(), [1]);
}

pub async fn a_record_is_in_one_batch(place: &Place) {
    let class = open(place).await;
    let first = batch("k8s.io", 0, 2);
    class.add_batch(first.clone()).await.unwrap();
    let mut again = batch("default", 0, 2);
    again.da_root = first.da_root;
    assert!(matches!(class.add_batch(again).await, Err(ClassError::Twice { .. })));
    let mut leaf = batch("default", 0, 2);
    leaf.records[1].leaf = first.records[1].leaf;
    assert!(matches!(class.add_batch(leaf).await, Err(ClassError::Twice { .. })));
    let mut none = batch("default", 0, 2);
    none.records.clear();
    assert!(matches!(class.add_batch(none).await, Err(ClassError::Value { .. })));
    let mut intents = batch("default", 0, 2);
    intents.records.retain(|record| record.leaf.is_none());
    assert!(matches!(class.add_batch(intents).await, Err(ClassError::Value { .. })));
}

pub async fn a_batch_becomes_final_once_in_any_order(place: &Place) {
    let class = open(place).await;
    for (at, order) in ["attest first", "include first", "include between"].into_iter().enumerate() {
        let new = batch("k8s.io", at as u64 * 6, 3);
        let root = new.da_root;
        class.add_batch(new.clone()).await.unwrap();
        let leaves: Vec<_> = new.records.iter().filter_map(|record| record.leaf).collect();
        let proofs = |range: std::ops::Range<usize>| leaves[range].iter().map(|leaf| (*leaf, vec![1; 40])).collect();
        assert!(class.set_kept(&root, &[1]).await.unwrap());
        assert!(!class.set_kept(&root, &[2]).await.unwrap());
        assert_eq!(class.attestation(&root).await.unwrap(), Some(vec![1]));
        assert_eq!(class.pending_leaves(&root, 9).await.unwrap(), leaves);
        let mut became = Vec::new();
        if order == "attest first" {
            became.extend(class.set_attested(&root, &[9; 60], &attested(5)).await.unwrap().became_final);
        }
        let included = class.add_inclusions(11, &[8; 60], proofs(0..2)).await.unwrap();
        assert_eq!((included.added, class.pending_leaves(&root, 9).await.unwrap()), (2, leaves[2..].to_vec()));
        became.extend(included.became_final);
        if order == "include between" {
            became.extend(class.set_attested(&root, &[9; 60], &attested(5)).await.unwrap().became_final);
        }
        assert_eq!(became, Vec::<[u8; 32]>::new());
        let included = class.add_inclusions(12, &[7; 60], proofs(1..3)).await.unwrap();
        assert_eq!(included.added, 1);
        became.extend(included.became_final);
        if order == "include first" {
            assert_eq!(class.batch(&root).await.unwrap().unwrap().state, BatchState::Kept);
            became.extend(class.set_attested(&root, &[9; 60], &attested(5)).await.unwrap().became_final);
        }
        assert_eq!(became, [root], "{order}");
        let kept = class.batch(&root).await.unwrap().unwrap();
        assert_eq!(
            (kept.state, kept.included, kept.attested_height, kept.final_height),
            (BatchState::Final, 3, Some(5), Some(12))
        );
        // Once more: nothing becomes final twice.
        assert_eq!(class.add_inclusions(13, &[7; 60], proofs(0..3)).await.unwrap(), Default::default());
        assert_eq!(class.set_attested(&root, &[9; 60], &attested(6)).await.unwrap(), Default::default());
        assert_eq!(class.sealed_header(11).await.unwrap(), Some(vec![8; 60]));
        assert_eq!(class.sealed_header(13).await.unwrap(), None);
        assert_eq!(class.attested(&root).await.unwrap(), Some(attested(5)));
        assert_eq!(class.inclusion(&leaves[0]).await.unwrap().unwrap().height, 11);
        assert_eq!(class.inclusion(&leaves[2]).await.unwrap().unwrap().height, 12);
    }
    assert_eq!(class.open_batches(10).await.unwrap(), []);
}

pub async fn a_proof_of_an_unknown_leaf_is_passed_over(place: &Place) {
    let class = open(place).await;
    class.add_batch(batch("k8s.io", 0, 1)).await.unwrap();
    assert_eq!(class.add_inclusions(3, &[1], vec![(hash(99), vec![1])]).await.unwrap(), Default::default());
    assert_eq!((class.inclusion(&hash(99)).await.unwrap(), class.sealed_header(3).await.unwrap()), (None, None));
    assert!(class.add_inclusions(3, &[1], vec![(hash(99), vec![1]); 1025]).await.is_err());
    assert!(matches!(class.set_kept(&hash(98), &[1]).await, Err(ClassError::Unknown { .. })));
    assert!(matches!(class.acknowledge(&hash(98), &hash(1), &[1]).await, Err(ClassError::Unknown { .. })));
    assert!(matches!(class.set_attested(&hash(98), &[1], &attested(1)).await, Err(ClassError::Unknown { .. })));
    assert_eq!(class.attested(&hash(98)).await.unwrap(), None);
}

pub async fn what_is_acknowledged_is_read_back(place: &Place) {
    let class = open(place).await;
    let new = batch("k8s.io", 0, 1);
    class.add_batch(new.clone()).await.unwrap();
    for pinner in [3_u64, 1, 2] {
        class.acknowledge(&new.da_root, &[pinner as u8; 32], &[pinner as u8]).await.unwrap();
    }
    class.acknowledge(&new.da_root, &[2; 32], &[22]).await.unwrap();
    let wanted = vec![([1; 32], vec![1]), ([2; 32], vec![22]), ([3; 32], vec![3])];
    assert_eq!(class.acknowledgements(&new.da_root).await.unwrap(), wanted);
}

pub async fn a_revoked_keyslot_holds_nothing(place: &Place) {
    let class = open(place).await;
    let (one, two) = (batch("k8s.io", 0, 1), batch("k8s.io", 2, 1));
    class.add_batch(one.clone()).await.unwrap();
    class.add_batch(two.clone()).await.unwrap();
    let auditor = NewKeyslot { reader: "auditor".to_owned(), wrapped: vec![2; 80] };
    class.add_keyslot(&one.da_root, &auditor).await.unwrap();
    assert!(matches!(class.add_keyslot(&one.da_root, &auditor).await, Err(ClassError::Twice { .. })));
    assert!(matches!(class.add_keyslot(&hash(98), &auditor).await, Err(ClassError::Unknown { .. })));
    assert_eq!(class.revoke_keyslots("auditor", None, 50).await.unwrap(), 1);
    assert_eq!(class.revoke_keyslots("tenant", Some(&two.da_root), 51).await.unwrap(), 1);
    assert_eq!(class.revoke_keyslots("tenant", Some(&two.da_root), 52).await.unwrap(), 0);
    let slots = class.keyslots(&one.da_root).await.unwrap();
    let told: Vec<_> = slots.iter().map(|slot| (&*slot.reader, slot.wrapped.is_some(), slot.revoked_ms)).collect();
    assert_eq!(told, [("auditor", false, Some(50)), ("tenant", true, None)]);
    assert!(
        matches!(class.add_keyslot(&one.da_root, &auditor).await, Err(ClassError::Twice { .. })),
        "it does not come back"
    );
    assert_eq!(class.figures().await.unwrap().keyslots, 1);
    assert!(!format!("{auditor:?}{slots:?}").contains("2, 2"), "wrapped keys are not in logs");
}

pub async fn an_sbom_signer_comes_and_goes(place: &Place) {
    let class = open(place).await;
    class.add_sbom_signer("a", "pem a", "Anna", 1).await.unwrap();
    class.add_sbom_signer("b", "pem b", "Bert", 2).await.unwrap();
    assert!(matches!(class.add_sbom_signer("a", "pem b", "Anna", 3).await, Err(ClassError::Twice { .. })));
    assert!(class.remove_sbom_signer("a", 4).await.unwrap());
    assert!(!class.remove_sbom_signer("a", 5).await.unwrap());
    let told = class.sbom_signers().await.unwrap();
    assert_eq!(told.iter().map(|s| (&*s.key_id, s.removed_ms)).collect::<Vec<_>>(), [("a", Some(4)), ("b", None)]);
    class.add_sbom_signer("a", "pem a", "Anna", 6).await.unwrap();
    assert_eq!(class.sbom_signers().await.unwrap()[0].removed_ms, None);
}

pub async fn the_same_incident_is_recorded_once_and_the_chain_is_checked(place: &Place) {
    let class = open(place).await;
    for what in ["one", "two", "three", "two"] {
        let recorded = class.record_incident(incident(what)).await.unwrap();
        assert_eq!(
            recorded.is_some(),
            class.incidents(None, 1).await.unwrap()[0].incident.what == what && recorded.is_some()
        );
    }
    let long = NewIncident { detail: "é".repeat(5_000) + "\0", container_id: "a\0b".to_owned(), ..incident("long") };
    assert_eq!(class.record_incident(long).await.unwrap().unwrap().incident.detail.len(), 4096);
    let all = class.incidents(None, 10).await.unwrap();
    assert_eq!(all.iter().map(|i| i.id).collect::<Vec<_>>(), [4, 3, 2, 1]);
    assert!(all.windows(2).all(|pair| pair[0].previous == pair[1].digest));
    assert_eq!(class.incidents(Some(3), 1).await.unwrap()[0].id, 2);
    class.close().await;
    open(place).await.close().await;

    sqlx::any::install_default_drivers();
    for (change, back) in [
        (
            "UPDATE incidents SET detail = 'nothing' WHERE id = 2",
            "UPDATE incidents SET detail = 'a container ended without a receipt' WHERE id = 2",
        ),
        ("UPDATE incidents SET id = 9 WHERE id = 4", "UPDATE incidents SET id = 4 WHERE id = 9"),
    ] {
        for (sql, opens) in [(change, false), (back, true)] {
            let url = place.url.replace(' ', "%20");
            let pool = sqlx::AnyPool::connect(&url).await.unwrap();
            sqlx::query(sql).execute(&pool).await.unwrap();
            pool.close().await;
            match Class::open(&place.url).await {
                Ok(class) => {
                    assert!(opens, "{sql}");
                    class.close().await;
                }
                Err(error) => assert!(!opens && matches!(error, ClassError::Incidents { .. }), "{sql}: {error}"),
            }
        }
    }
}

pub async fn figures_are_those_of_the_rows(place: &Place) {
    let class = open(place).await;
    assert_eq!(class.figures().await.unwrap(), Default::default());
    fill(&class).await;
    let figures = class.figures().await.unwrap();
    assert_eq!(figures.batches, [5, 0, 0, 1]);
    assert_eq!((figures.open(), figures.batches_of(BatchState::Final)), (5, 1));
    assert_eq!((figures.records, figures.receipts, figures.included), (202, 101, 20));
    assert_eq!((figures.keyslots, figures.incidents, figures.oldest_pending_ms), (5, 2, Some(1_003)));
    assert!(class.answers().await);
}

pub async fn a_second_writer_is_refused(place: &Place) {
    let class = open(place).await;
    let error = Class::open(&place.url).await.unwrap_err();
    assert!(matches!(error, ClassError::Taken { .. }), "{error}");
    class.close().await;
    open(place).await.close().await;
}

pub async fn numbers_beyond_the_column_are_refused(place: &Place) {
    let class = open(place).await;
    for first_seq in [u64::MAX, i64::MAX as u64, i64::MAX as u64 - 3] {
        let mut new = batch("k8s.io", 0, 2);
        new.first_seq = first_seq;
        assert!(matches!(class.add_batch(new).await, Err(ClassError::Value { .. })), "{first_seq}");
    }
    assert!(class.record("k8s.io", u64::MAX).await.is_err());
    assert!(class.sealed_header(u64::MAX).await.is_err());
    let mut new = batch("k8s.io", 0, 2);
    new.first_seq = i64::MAX as u64 - 4;
    class.add_batch(new).await.unwrap();
}

pub async fn bytes_and_text_of_any_kind_come_back(place: &Place) {
    let class = open(place).await;
    let every: Vec<u8> = (0..=255).collect();
    let mut new = batch("'; DROP TABLE batches; --", 0, 1);
    new.slots = [vec![], every.clone(), b"123".to_vec(), vec![0; 3]]
        .into_iter()
        .zip(["é", "\"", "$1", "?"])
        .map(|(wrapped, reader)| NewKeyslot { reader: reader.to_owned(), wrapped })
        .collect();
    class.add_batch(new.clone()).await.unwrap();
    let mut wanted: Vec<_> = new.slots.iter().map(|slot| (slot.reader.clone(), slot.wrapped.clone())).collect();
    let mut found: Vec<_> =
        class.keyslots(&new.da_root).await.unwrap().into_iter().map(|s| (s.reader, s.wrapped.unwrap())).collect();
    wanted.sort();
    found.sort();
    assert_eq!(found, wanted);
    assert_eq!(class.cursor(&new.boundary).await.unwrap().unwrap().next_seq, 2);
}

pub async fn a_thousand_records_are_added_in_one_breath(place: &Place) {
    let class = open(place).await;
    let mut took = Vec::new();
    for at in 0..30 {
        let new = batch("k8s.io", at * 1024, 512);
        let begin = Instant::now();
        class.add_batch(new).await.unwrap();
        took.push(begin.elapsed());
    }
    took.sort();
    eprintln!("1 024 records, {}: median {:?}, worst {:?}", class.engine(), took[15], took[29]);
    // A hundred times what it takes on a quiet machine when optimised: it tells a quadratic statement, and no busy neighbour.
    assert!(took[15].as_millis() < 1000, "{:?}", took[15]);
}

pub async fn what_was_committed_is_there_after_opening_again(place: &Place) {
    let class = open(place).await;
    fill(&class).await;
    let figures = class.figures().await.unwrap();
    class.close().await;
    let class = open(place).await;
    assert_eq!(class.figures().await.unwrap(), figures);
    class.add_batch(batch("k8s.io", 200, 1)).await.unwrap();
}
