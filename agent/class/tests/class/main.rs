#![allow(clippy::unwrap_used, missing_docs)]
//! The same sentences of both databases: SQLite in a file, and PostgreSQL in a server of this test's own.

mod postgres;
mod sentences;

use bpi_class::{Class, NewBatch, NewKeyslot, NewRecord, RecordKind};

/// A database that is empty.
pub struct Place {
    pub url: String,
    _folder: Option<tempfile::TempDir>,
}

/// A value that is unlike others.
pub fn hash(seed: u64) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(seed.to_be_bytes()).into()
}

pub fn sqlite() -> Place {
    let folder = tempfile::tempdir().unwrap();
    Place { url: format!("sqlite:{}", folder.path().join("a class.db").display()), _folder: Some(folder) }
}

/// A batch of `receipts` containers that each have an intent and a receipt, from `first_seq` on.
pub fn batch(boundary: &str, first_seq: u64, receipts: u64) -> NewBatch {
    let seed = |seq: u64| first_seq + seq + boundary.len() as u64 * 1_000_000_000;
    let records = (0..receipts).flat_map(|at| {
        let container_id = format!("{boundary}-{}", first_seq + at);
        let record = |kind, seq, leaf| NewRecord {
            cid: format!("bafyrei{}", hex::encode(&hash(seed(seq))[..26])),
            kind,
            container_id: container_id.clone(),
            leaf,
        };
        let (intent, receipt) = (2 * at, 2 * at + 1);
        [record(RecordKind::Intent, intent, None), record(RecordKind::Receipt, receipt, Some(hash(seed(receipt))))]
    });
    NewBatch {
        tenant: [7; 16],
        boundary: boundary.to_owned(),
        first_seq,
        da_root: hash(seed(1 << 40)),
        k: 4,
        n: 12,
        length: 1_000_000,
        receipts_root: hash(2),
        root_cid: "bafyroot".to_owned(),
        sealed_sha256: hash(3),
        created_ms: 1_000 + first_seq,
        records: records.collect(),
        slots: vec![NewKeyslot { reader: "tenant".to_owned(), wrapped: vec![1; 80] }],
        last_digest: hash(seed(2 * receipts - 1)),
    }
}

pub async fn open(place: &Place) -> Class {
    Class::open(&place.url).await.unwrap()
}

macro_rules! on_both {
    ($($sentence:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $sentence() {
                crate::sentences::$sentence(&crate::sqlite()).await;
            })*
        }

        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $sentence() {
                match crate::postgres::database(stringify!($sentence)) {
                    Ok(place) => crate::sentences::$sentence(&place).await,
                    Err(reason) => eprintln!("skipped: {reason}"),
                }
            })*
        }
    };
}

on_both!(
    a_batch_is_there_whole_or_not_at_all,
    a_batch_begins_where_the_last_one_ended,
    a_record_is_in_one_batch,
    a_batch_becomes_final_once_in_any_order,
    a_proof_of_an_unknown_leaf_is_passed_over,
    what_is_acknowledged_is_read_back,
    a_revoked_keyslot_holds_nothing,
    an_sbom_signer_comes_and_goes,
    the_same_incident_is_recorded_once_and_the_chain_is_checked,
    figures_are_those_of_the_rows,
    a_second_writer_is_refused,
    numbers_beyond_the_column_are_refused,
    bytes_and_text_of_any_kind_come_back,
    a_thousand_records_are_added_in_one_breath,
    what_was_committed_is_there_after_opening_again,
);

#[tokio::test]
async fn a_url_of_another_kind_is_refused() {
    for url in ["", "mysql://me:secret@x/y", "sqlite:", "sqlite://", "/a/path", "sqlite"] {
        let error = Class::open(url).await.unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(error.to_string().contains("sqlite:PATH"), "{error}");
    }
}

#[tokio::test]
async fn a_database_is_the_agents_alone() {
    use std::os::unix::fs::PermissionsExt;
    let place = sqlite();
    let class = open(&place).await;
    class.add_batch(batch("k8s.io", 0, 2)).await.unwrap();
    let folder = std::path::Path::new(place.url.strip_prefix("sqlite:").unwrap()).parent().unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_goes_from_either_database_into_the_other() {
    let mut places = vec![sqlite(), sqlite()];
    match postgres::database("a_snapshot_from").and_then(|from| Ok((from, postgres::database("a_snapshot_into")?))) {
        Ok((from, into)) => {
            places.insert(1, from);
            places.push(into);
        }
        Err(reason) => eprintln!("only between SQLite and SQLite: {reason}"),
    }
    // SQLite, PostgreSQL, SQLite, PostgreSQL: each is restored from the one before.
    sentences::fill(&open(&places[0]).await).await;
    let folder = tempfile::tempdir().unwrap();
    let mut digests = Vec::new();
    for pair in places.windows(2) {
        let path = folder.path().join("class-snapshot");
        let (from, into) = (open(&pair[0]).await, open(&pair[1]).await);
        let written = from.snapshot(&path, 5).await.unwrap();
        assert_eq!(into.restore(&path).await.unwrap(), written);
        assert_eq!(from.figures().await.unwrap(), into.figures().await.unwrap());
        assert!(into.restore(&path).await.unwrap_err().to_string().contains("holds"), "into one that is not empty");
        digests.push(written.sha256);
    }
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "the same rows have the same file");
}

#[tokio::test]
async fn a_snapshot_that_was_changed_anywhere_is_refused_and_changes_nothing() {
    let class = open(&sqlite()).await;
    sentences::fill(&class).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("class-snapshot");
    class.snapshot(&path, 5).await.unwrap();
    let whole = std::fs::read(&path).unwrap();
    let place = sqlite();
    let into = open(&place).await;
    let step = whole.len() / 97 + 1;
    for at in (0..whole.len()).step_by(step) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(into.restore(&path).await.is_err(), "byte {at}");
        std::fs::write(&path, &whole[..at]).unwrap();
        assert!(into.restore(&path).await.is_err(), "cut at byte {at}");
    }
    assert_eq!(into.figures().await.unwrap().records, 0);
    std::fs::write(&path, &whole).unwrap();
    into.restore(&path).await.unwrap();
}
