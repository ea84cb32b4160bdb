//! Shards in a real bucket: `tests/pinner/objects.py` starts one and says where it is.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bpi_pinner::answers::Reader;
use bpi_pinner::catalogue::Catalogue;
use bpi_pinner::disk::{Disk, HostDisk, Span};
use bpi_pinner::index::Index;
use bpi_pinner::keeper::Keeper;
use bpi_pinner::store::objects::Objects;
use bpi_pinner::store::{ShardKey, Shards};
use bpi_protocol::frame::key::Signer as _;
use bpi_protocol::mesh::pinner::{Answer, Reason};

use crate::model::Model;
use crate::site::{AGENT, Key, NOW_S, Pinner, batch, pieces, policy};

fn bucket(folder: &Path, prefix: &str) -> Objects {
    let url = std::env::var("BPI_PINNER_BUCKET").unwrap();
    let options: BTreeMap<String, String> =
        serde_json::from_str(&std::env::var("BPI_PINNER_BUCKET_OPTIONS").unwrap()).unwrap();
    HostDisk.make_folder(folder).unwrap();
    Objects::new(Arc::new(HostDisk), &format!("{url}/{prefix}"), &options, Duration::from_secs(10)).unwrap()
}

#[test]
#[ignore = "needs a bucket: tests/pinner/objects.py"]
fn a_bucket_keeps_what_it_was_given_and_says_what_it_has_not() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = bucket(folder.path(), "unit");
    let key = ShardKey { da_root: [0xab; 32], shard: 3 };
    let staged = folder.path().join("staged");
    let put = |bytes: &[u8]| {
        std::fs::write(&staged, bytes).unwrap();
        bucket.put(&key, &staged).unwrap();
        assert!(!staged.exists());
        bucket.settle().unwrap();
    };
    let span = |offset, length| Span { offset, length };
    assert_eq!(bucket.read(&key, &[span(0, 1)]).unwrap(), None);
    bucket.remove(&key).unwrap();
    let bytes: Vec<u8> = (0..100_000u32).map(|at| (at / 7) as u8).collect();
    put(&bytes);
    // A second time the same, as after a crash.
    put(&bytes);
    let read = bucket.read(&key, &[span(5, 3), span(99_000, 1000), span(0, 10)]).unwrap().unwrap();
    assert_eq!(read, [bytes[5..8].to_vec(), bytes[99_000..].to_vec(), bytes[..10].to_vec()]);
    assert_eq!(bucket.read(&key, &[span(99_500, 1000)]).unwrap(), None, "it ends before");
    assert_eq!(bucket.read(&key, &[span(200_000, 10)]).unwrap(), None, "it ends long before");
    // One that is not as it should be is replaced.
    put(&bytes[..500]);
    assert_eq!(bucket.read(&key, &[span(400, 100)]).unwrap().unwrap(), [bytes[400..500].to_vec()]);
    assert_eq!(bucket.list(0xab).unwrap(), [key]);
    assert_eq!(bucket.list(0xac).unwrap(), []);
    bucket.remove(&key).unwrap();
    assert_eq!(bucket.list(0xab).unwrap(), []);
}

#[test]
#[ignore = "needs a bucket: tests/pinner/objects.py"]
fn a_pinner_keeps_shows_misses_and_lets_go_in_a_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let key = Key::of(1);
    let disk: Arc<dyn Disk> = Arc::new(HostDisk);
    let shards: Arc<dyn Shards> = Arc::new(bucket(folder.path(), "pinner"));
    let index = Arc::new(Index::open(&folder.path().join("index")).unwrap());
    let catalogue = Arc::new(Catalogue::open(index, &key.identity()).unwrap());
    let staging = folder.path().join("staging");
    let keeper =
        Keeper::open(policy(&[]), Arc::clone(&key) as _, disk, Arc::clone(&shards), Arc::clone(&catalogue), staging)
            .unwrap();
    let reader = Reader::new(Arc::clone(&shards), Arc::clone(&catalogue));
    let mut pinner = Pinner { model: Model::default(), key, keeper, reader, catalogue };
    let (offer, encoded) = batch(1, 1_500_000);
    assert_eq!(pinner.bring(&offer, &encoded, NOW_S).unwrap(), offer.shards);
    let lost = ShardKey { da_root: encoded.da_root, shard: 7 };
    assert!(matches!(pinner.reader.probe(&lost, 5).unwrap().answer, Answer::Opening { .. }));
    let Answer::Piece(piece) = pinner.reader.fetch(&lost, 1).unwrap().answer else { panic!() };
    assert_eq!(piece.bytes, pieces(&encoded, [7].into_iter().collect())[1].bytes);
    shards.remove(&lost).unwrap();
    let read = pinner.reader.probe(&lost, 5).unwrap();
    assert!(matches!(read.answer, Answer::Refused { reason: Reason::Missing, .. }) && read.bad == Some(lost));
    assert_eq!(pinner.scrub(&encoded.da_root).iter().collect::<Vec<_>>(), [7]);
    assert_eq!(pinner.bring(&offer, &encoded, NOW_S).unwrap(), offer.shards);
    assert!(pinner.scrub(&encoded.da_root).is_empty());
    // What nobody knows of is swept away, and what is due is let go.
    let orphan = ShardKey { da_root: encoded.da_root, shard: 99 };
    let staged = folder.path().join("orphan");
    std::fs::write(&staged, b"x").unwrap();
    shards.put(&orphan, &staged).unwrap();
    assert_eq!(pinner.keeper.sweep(encoded.da_root[0]).unwrap(), 1);
    assert_eq!(pinner.keeper.release(NOW_S + 31 * 86_400).unwrap(), 1);
    assert_eq!(shards.list(encoded.da_root[0]).unwrap(), []);
    assert!(matches!(pinner.keeper.offer(NOW_S, AGENT, offer).unwrap(), Answer::Have { .. }));
}

#[test]
#[ignore = "needs a bucket: tests/pinner/objects.py"]
fn a_bucket_that_does_not_answer_is_said_and_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let options = [
        ("aws_endpoint", "http://127.0.0.1:1"),
        ("aws_allow_http", "true"),
        ("aws_access_key_id", "a"),
        ("aws_secret_access_key", "b"),
        ("aws_region", "us-east-1"),
    ];
    let options = options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let bucket = Objects::new(Arc::new(HostDisk), "s3://nowhere/x", &options, Duration::from_secs(1)).unwrap();
    let error = bucket.read(&ShardKey { da_root: [1; 32], shard: 1 }, &[Span { offset: 0, length: 1 }]).unwrap_err();
    assert!(error.is_passing(), "{error}");
    let staged = folder.path().join("staged");
    std::fs::write(&staged, b"x").unwrap();
    assert!(bucket.put(&ShardKey { da_root: [1; 32], shard: 1 }, &staged).unwrap_err().is_passing());
}
