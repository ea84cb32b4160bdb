//! Archives have one spelling that other programs read, and what is sealed opens for its readers alone.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Read;
use std::path::Path;

use bpi_availability::batch::{BatchError, Packed, pack, receipts_root, unpack};
use bpi_availability::car::{self, Block, CarError, Kind, Part, RECORDS_MAX, Reader, record_cid};
use bpi_availability::codec::Rebuild;
use bpi_availability::sealing::{
    CHUNK_BYTES, KEY_SLOT_BYTES, KeySlot, READERS_MAX, ReaderId, ReaderKey, SealingError, grant, open, seal,
    sealed_bytes,
};
use bpi_conformance::story::{Chain, Signer, long};
use bpi_keyfile::KeyFileError;
use bpi_protocol::availability::attestation::Batch;
use bpi_protocol::envelope::Envelope;
use bpi_protocol::log::Log;
use bpi_protocol::log::leaf::{Leaf, TenantId};
use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng as _, SeedableRng as _};

const TENANT: TenantId = TenantId([0xc0; 16]);
const OTHER: TenantId = TenantId([0xc1; 16]);

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn story() -> Vec<Envelope> {
    long(&Signer::new("a"))
}

/// Kinds and bytes of records, as they stand in an archive.
fn records(envelopes: &[Envelope]) -> Vec<(Kind, Vec<u8>)> {
    let kind = |envelope| bpi_availability::batch::kind(envelope).unwrap();
    envelopes.iter().map(|envelope| (kind(envelope), envelope.to_json())).collect()
}

fn blocks(records: &[(Kind, Vec<u8>)]) -> Vec<Block> {
    records.iter().map(|(kind, bytes)| Block::new(*kind, bytes.clone())).collect()
}

fn archive(records: &[(Kind, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    car::write(&mut out, TENANT, &blocks(records)).unwrap();
    assert!(out.len() <= car::archive_bytes(records.iter().map(|(_, bytes)| bytes.len())));
    out
}

fn read(archive: &[u8]) -> Result<Vec<(Kind, Vec<u8>)>, CarError> {
    let (mut reader, mut records) = (Reader::new(archive)?, Vec::new());
    while let Some(record) = reader.next_record()? {
        records.push(record);
    }
    Ok(records)
}

fn packed(readers: &[ReaderId]) -> Packed {
    pack(TENANT, &story(), readers, &mut rng(1)).unwrap()
}

/// `vectors/batch.car` is what `tests/availability/ipfs_car.py` shows to ipfs-car; `BPI_WRITE_VECTORS=1` writes it anew.
#[test]
fn the_archive_of_the_story_is_the_one_that_ipfs_car_reads() {
    let (path, root) = ("tests/vectors/batch.car", "tests/vectors/batch.root");
    let archive = archive(&records(&story()));
    let cid = Reader::new(&archive[..]).unwrap().root().to_string();
    if std::env::var_os("BPI_WRITE_VECTORS").is_some() {
        std::fs::write(path, &archive).unwrap();
        std::fs::write(root, format!("{cid}\n")).unwrap();
    }
    assert_eq!(std::fs::read_to_string(root).unwrap().trim_end(), cid);
    assert!(std::fs::read(path).unwrap() == archive);
}

#[test]
fn an_archive_is_read_as_it_was_written_and_its_cids_are_those_of_the_leaves() {
    let envelopes = story();
    let written = records(&envelopes);
    assert_eq!(written.iter().map(|(kind, _)| *kind as u8).collect::<Vec<_>>(), [1, 1, 3, 2]);
    let bytes = archive(&written);
    assert!(read(&bytes).unwrap() == written);
    let mut reader = Reader::new(&bytes[..]).unwrap();
    assert_eq!((reader.tenant(), reader.records()), (TENANT, 4));
    for envelope in &envelopes {
        reader.next_record().unwrap();
        assert_eq!(record_cid(&envelope.to_json()).hash().digest(), Leaf::of(TENANT, envelope).hash);
    }
    assert!(reader.next_record().unwrap().is_none() && reader.next_record().unwrap().is_none());
}

#[test]
fn an_archive_that_is_bent_or_cut_anywhere_is_refused() {
    let bytes = archive(&records(&story()));
    for at in 0..bytes.len() {
        for bit in [0, 1, 6, 7] {
            let mut bent = bytes.clone();
            bent[at] ^= 1 << bit;
            // A root that is another one is seen by who compares it; the root block cannot follow it.
            assert!(read(&bent).is_err(), "bit {bit} of byte {at}");
        }
        assert!(read(&bytes[..at]).is_err(), "{at} bytes");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(read(&longer), Err(CarError::Long { records: 4 })));
}

/// Length, CID and bytes of a block.
fn block(cid: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut length = cid.len() + bytes.len();
    let mut out = Vec::new();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    [&out, cid, bytes].concat()
}

#[test]
fn archives_of_other_spellings_roots_and_orders_are_refused() {
    let written = records(&story());
    let good = archive(&written);
    let malformed = |bytes: &[u8], wanted: Part| match read(bytes) {
        Err(CarError::Malformed { part, .. }) => assert_eq!(part, wanted),
        other => panic!("{other:?}"),
    };
    let header = 1 + usize::from(good[0]);
    // Two roots, and none.
    let roots = |count: u8, cids: &[u8]| {
        let map = [&[0xa2, 0x65][..], b"roots", &[0x80 + count], cids, &[0x67], b"version", &[1]].concat();
        [&[map.len() as u8][..], &map, &good[header..]].concat()
    };
    assert!(matches!(read(&roots(0, &[])), Err(CarError::Length { part: Part::Header, .. })));
    let link = &good[1 + 8..1 + 8 + 41];
    assert!(read(&roots(1, link)).unwrap() == written);
    assert!(matches!(read(&roots(2, &[link, link].concat())), Err(CarError::Length { part: Part::Header, .. })));
    // Version 2, a root that is raw, a length in two bytes that needs one.
    let changed = |at: usize, byte: u8| [&good[..at], &[byte], &good[at + 1..]].concat();
    malformed(&changed(header - 1, 2), Part::Header);
    malformed(&changed(1 + 8 + 6, 0x55), Part::Header);
    malformed(&[&[good[0] | 0x80, 0], &good[1..]].concat(), Part::Header);
    malformed(&[0xff; 8], Part::Header);
    // Records in another order: the last two, changed with each other.
    let of = |at: usize| block(&record_cid(&written[at].1).to_bytes(), &written[at].1);
    let until = good.len() - of(2).len() - of(3).len();
    let swapped = [&good[..until], &of(3), &of(2)].concat();
    assert!(matches!(read(&swapped), Err(CarError::Order { part: Part::Record(2), .. })));
    // A record with the right CID and other bytes.
    let bent = [&good[..until], &block(&record_cid(&written[2].1).to_bytes(), b"{}"), &of(3)].concat();
    assert!(matches!(read(&bent), Err(CarError::Hash { part: Part::Record(2) })));
    let long = [&good[..until], &[0xff, 0xff, 0xff, 0x7f]].concat();
    assert!(matches!(read(&long), Err(CarError::Length { part: Part::Record(2), .. })));
}

#[test]
fn nobody_writes_an_archive_without_records_or_with_one_twice() {
    let write = |records: &[(Kind, &[u8])]| {
        let blocks: Vec<_> = records.iter().map(|(kind, bytes)| Block::new(*kind, bytes.to_vec())).collect();
        car::write(&mut Vec::new(), TENANT, &blocks)
    };
    assert!(matches!(write(&[]), Err(CarError::Count { found: 0 })));
    assert!(matches!(write(&[(Kind::Intent, b"")]), Err(CarError::Length { part: Part::Record(0), .. })));
    let twice = [(Kind::Intent, &b"a"[..]), (Kind::Receipt, b"b"), (Kind::Receipt, b"a")];
    assert!(matches!(write(&twice), Err(CarError::Twice { part: Part::Record(2) })));
    let many = (0..RECORDS_MAX as u32 + 1).map(|at| Block::new(Kind::Abort, at.to_be_bytes().to_vec()));
    let many: Vec<Block> = many.collect();
    assert!(matches!(car::write(&mut Vec::new(), TENANT, &many), Err(CarError::Count { .. })));
    let mut out = Vec::new();
    car::write(&mut out, TENANT, &many[1..]).unwrap();
    assert_eq!(read(&out).unwrap().len(), RECORDS_MAX);
    let full: &mut [u8] = &mut [0; 100];
    assert!(matches!(car::write(&mut &mut full[..], TENANT, &many[1..]), Err(CarError::Io { deed: "write", .. })));
}

#[test]
fn a_reader_that_fails_is_no_end_of_the_archive() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the disk is gone"))
        }
    }
    let bytes = archive(&records(&story()));
    for at in 0..bytes.len() {
        let read = || {
            let mut reader = Reader::new(bytes[..at].chain(Broken))?;
            while reader.next_record()?.is_some() {}
            Ok(())
        };
        assert!(matches!(read(), Err(CarError::Io { deed: "read", .. })), "{at}");
    }
}

#[test]
fn what_is_sealed_opens_for_each_reader_whatever_its_length() {
    let mut rng = rng(1);
    let readers = [ReaderKey::generate(&mut rng), ReaderKey::generate(&mut rng)];
    let ids = readers.each_ref().map(ReaderKey::id);
    for length in [1, 15, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 300_000] {
        let mut plain = vec![0; length];
        rng.fill_bytes(&mut plain);
        let (sealed, slots) = seal(&plain, TENANT, &ids, &mut rng).unwrap();
        assert_eq!(sealed.len(), sealed_bytes(length));
        for (slot, reader) in slots.iter().zip(&readers) {
            let slot = KeySlot::from_bytes(&slot.to_bytes()).unwrap();
            assert!(open(&sealed, TENANT, &slot, reader).unwrap() == plain, "{length}");
        }
    }
}

#[test]
fn sealed_bytes_that_are_bent_cut_swapped_or_foreign_do_not_open() {
    let mut rng = rng(2);
    let reader = ReaderKey::generate(&mut rng);
    let plain = vec![7; 2 * CHUNK_BYTES + 100];
    let (sealed, slots) = seal(&plain, TENANT, &[reader.id()], &mut rng).unwrap();
    let open = |sealed: &[u8]| open(sealed, TENANT, &slots[0], &reader);
    assert!(open(&sealed).is_ok());
    for at in (0..200).chain((200..sealed.len()).step_by(997)).chain(sealed.len() - 200..sealed.len()) {
        let mut bent = sealed.clone();
        bent[at] ^= 1 << (at % 8);
        assert!(open(&bent).is_err(), "{at}");
        assert!(open(&sealed[..at]).is_err(), "{at}");
    }
    let step = CHUNK_BYTES + 16;
    let (head, one, two) = (&sealed[..60], &sealed[60..60 + step], &sealed[60 + step..60 + 2 * step]);
    let swapped = [head, two, one, &sealed[60 + 2 * step..]].concat();
    assert_eq!(open(&swapped), Err(SealingError::Chunk { chunk: 0, chunks: 3 }));
    // Cut at a chunk, with a head that says so: no chunk there is a last one, and the head is under each of them.
    let mut cut = sealed[..60 + 2 * step].to_vec();
    cut[1..9].copy_from_slice(&(2 * CHUNK_BYTES as u64).to_be_bytes());
    assert_eq!(open(&cut), Err(SealingError::Chunk { chunk: 0, chunks: 2 }));
    assert_eq!(
        open(&sealed[..60 + 2 * step]),
        Err(SealingError::Cut { found: 60 + 2 * step as u64, wanted: sealed.len() as u64 })
    );
    let longer = [&sealed[..], &[0]].concat();
    assert!(matches!(open(&longer), Err(SealingError::Cut { .. })));
    // Another batch of the same tenant and reader, and the keyslot of one with the bytes of the other.
    let (foreign, foreign_slots) = seal(&plain, TENANT, &[reader.id()], &mut rng).unwrap();
    assert_eq!(open(&foreign), Err(SealingError::Unwrap { reader: reader.id() }));
    let mixed = [head, &foreign[60..]].concat();
    assert_eq!(open(&mixed), Err(SealingError::Chunk { chunk: 0, chunks: 3 }));
    let all = |slot: &KeySlot, tenant| bpi_availability::sealing::open(&sealed, tenant, slot, &reader);
    assert_eq!(all(&foreign_slots[0], TENANT), Err(SealingError::Unwrap { reader: reader.id() }));
    assert_eq!(all(&slots[0], OTHER), Err(SealingError::Unwrap { reader: reader.id() }));
    for at in 0..80 {
        let mut bent = slots[0];
        bent.wrapped[at] ^= 1;
        assert_eq!(all(&bent, TENANT), Err(SealingError::Unwrap { reader: reader.id() }), "{at}");
    }
}

#[test]
fn a_keyslot_opens_for_its_reader_alone_and_can_be_given_on() {
    let mut rng = rng(3);
    let [reader, second, stranger] = [(); 3].map(|()| ReaderKey::generate(&mut rng));
    let (sealed, slots) = seal(b"records", TENANT, &[reader.id()], &mut rng).unwrap();
    let refused = SealingError::Slot { slot: reader.id(), reader: stranger.id() };
    assert_eq!(open(&sealed, TENANT, &slots[0], &stranger), Err(refused));
    let renamed = KeySlot { reader: stranger.id(), ..slots[0] };
    assert_eq!(open(&sealed, TENANT, &renamed, &stranger), Err(SealingError::Unwrap { reader: stranger.id() }));
    let given = grant(&sealed, TENANT, &slots[0], &reader, second.id(), &mut rng).unwrap();
    assert_eq!(open(&sealed, TENANT, &given, &second).unwrap(), b"records");
    assert!(grant(&sealed, TENANT, &slots[0], &stranger, stranger.id(), &mut rng).is_err());
}

#[test]
fn readers_that_are_none_or_too_many_are_refused() {
    let mut rng = rng(4);
    let key = ReaderKey::generate(&mut rng).id();
    let mut refused = |readers: &[ReaderId]| seal(b"x", TENANT, readers, &mut rng).unwrap_err();
    assert_eq!(refused(&[]), SealingError::Readers { found: 0 });
    assert_eq!(refused(&[key, key]), SealingError::Twice { reader: key });
    assert_eq!(refused(&vec![key; READERS_MAX + 1]), SealingError::Readers { found: READERS_MAX + 1 });
    // Points of small order (RFC 7748, section 6.1): everybody knows the secret they give.
    for point in [[0; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        assert_eq!(refused(&[ReaderId(point)]), SealingError::Reader { reader: ReaderId(point) });
    }
    assert_eq!(seal(b"", TENANT, &[key], &mut rng).unwrap_err(), SealingError::Length { bytes: 0 });
}

#[test]
fn keyslots_and_reader_ids_have_one_spelling() {
    let mut rng = rng(5);
    let reader = ReaderKey::generate(&mut rng);
    let (_, slots) = seal(b"x", TENANT, &[reader.id()], &mut rng).unwrap();
    let bytes = slots[0].to_bytes();
    assert_eq!(bytes.len(), KEY_SLOT_BYTES);
    assert!(KeySlot::from_bytes(&bytes[1..]).is_err() && KeySlot::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    assert!(KeySlot::from_bytes(&[&[2], &bytes[1..]].concat()).is_err());
    assert_eq!(reader.id().to_string().parse(), Ok(reader.id()));
    assert!("c0ffee".parse::<ReaderId>().is_err());
}

#[test]
fn a_readers_key_is_kept_as_openssl_keeps_it_and_shown_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reader.pem");
    let reader = ReaderKey::generate(&mut rng(6));
    reader.save(&path).unwrap();
    assert_eq!(ReaderKey::load(&path).unwrap().id(), reader.id());
    assert!(matches!(reader.save(&path), Err(KeyFileError::Exists { .. })));
    let pem = reader.to_pem();
    let secret = pem.lines().nth(1).unwrap();
    assert!(!format!("{reader:?}").contains(&secret[22..40]));
    assert!(matches!(ReaderKey::load(Path::new("/dev/null")), Err(KeyFileError::NotAFile { .. })));
    // Alice's key (RFC 7748, section 6.1) in the file of `openssl genpkey`, and what `openssl pkey -pubout` says of it.
    let theirs = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VuBCIEIHcHbQpzGKV9PBbBclGyZkXfTC+H68CZKrF3+6UduSwq\n-----END PRIVATE KEY-----\n";
    let public = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
    assert_eq!(ReaderKey::from_pem(theirs).unwrap().id().to_string(), public);
    for bent in
        ["", &theirs[1..], &theirs.replace("MC4C", "MC4D"), &theirs.replace('\n', "\r\n"), &format!("{theirs}\n")]
    {
        assert!(ReaderKey::from_pem(bent).is_none(), "{bent}");
    }
}

/// A batch that was coded as devnets code.
fn coded(readers: &[ReaderId]) -> (Packed, Batch, bpi_availability::codec::Encoded) {
    let packed = packed(readers);
    let (batch, encoded) = packed.encode(4, 12).unwrap();
    (packed, batch, encoded)
}

#[test]
fn records_come_back_from_any_four_shards_and_a_keyslot() {
    let reader = ReaderKey::generate(&mut rng(1));
    let (packed, batch, encoded) = coded(&[reader.id()]);
    let mut rebuild = Rebuild::new(batch.coding, batch.da_root, encoded.roots.clone()).unwrap();
    for shard in [2, 5, 8, 11] {
        rebuild.add(shard, encoded.shards[usize::from(shard)].clone()).unwrap();
    }
    let unpacked = unpack(&batch, &rebuild.finish().unwrap().data, &packed.slots[0], &reader).unwrap();
    assert_eq!(unpacked.root_cid, packed.root_cid);
    assert!(unpacked.records.iter().map(|(_, envelope)| envelope).eq(&story()));
}

#[test]
fn receipts_and_aborts_are_under_the_receipts_root_in_their_order() {
    let packed = packed(&[ReaderKey::generate(&mut rng(1)).id()]);
    let envelopes = story();
    let wanted = [&envelopes[2], &envelopes[3]].map(|envelope| Leaf::of(TENANT, envelope).leaf_hash());
    assert_eq!(packed.leaves, wanted);
    let mut log = Log::new();
    wanted.iter().for_each(|leaf| {
        log.append(leaf.0);
    });
    assert_eq!(packed.receipts_root, log.head().root);
    assert_eq!(log.prove_inclusion(1, 2).unwrap().check(&wanted[1].0, &log.head()), Ok(()));
    assert_ne!(receipts_root(&[wanted[1], wanted[0]]), packed.receipts_root);
}

#[test]
fn a_batch_that_holds_something_else_than_it_commits_to_is_refused() {
    let reader = ReaderKey::generate(&mut rng(1));
    let (packed, batch, _) = coded(&[reader.id()]);
    let unpack = |batch: &Batch, sealed: &[u8], slot: &KeySlot| unpack(batch, sealed, slot, &reader).unwrap_err();
    let refused = |batch: Batch| unpack(&batch, &packed.sealed, &packed.slots[0]);
    assert!(matches!(refused(Batch { receipts: 3, ..batch }), BatchError::Root { found: 2, wanted: 3 }));
    assert!(matches!(refused(Batch { receipts_root: [1; 32], ..batch }), BatchError::Root { found: 2, wanted: 2 }));
    assert!(matches!(refused(Batch { tenant: OTHER, ..batch }), BatchError::Sealing(SealingError::Unwrap { .. })));
    // Archives that a dishonest agent seals.
    let sealed = |tenant: TenantId, records: &[(Kind, Vec<u8>)]| {
        let mut out = Vec::new();
        car::write(&mut out, tenant, &blocks(records)).unwrap();
        let (sealed, slots) = seal(&out, TENANT, &[reader.id()], &mut rng(9)).unwrap();
        unpack(&batch, &sealed, &slots[0])
    };
    let honest = records(&story());
    assert!(matches!(sealed(OTHER, &honest), BatchError::Tenant { found: OTHER, wanted: TENANT }));
    let mut renamed = honest.clone();
    renamed[2].0 = Kind::Intent;
    assert!(matches!(sealed(TENANT, &renamed), BatchError::Kind { at: 2, found: Kind::Abort, said: Kind::Intent }));
    let mut spelled = honest.clone();
    spelled[1].1.push(b'\n');
    assert!(matches!(sealed(TENANT, &spelled), BatchError::Spelling { at: 1 }));
    let mut none = honest.clone();
    none[3].1 = b"{}".to_vec();
    assert!(matches!(sealed(TENANT, &none), BatchError::Envelope { at: 3, .. }));
    assert!(matches!(sealed(TENANT, &honest[..2]), BatchError::Receipts { found: 0 }));
    assert!(matches!(sealed(TENANT, &honest[..3]), BatchError::Root { found: 1, wanted: 2 }));
}

#[test]
fn what_is_no_batch_is_not_packed() {
    let reader = ReaderKey::generate(&mut rng(1)).id();
    let signer = Signer::new("a");
    let pack = |envelopes: &[Envelope]| pack(TENANT, envelopes, &[reader], &mut rng(1)).unwrap_err();
    assert!(matches!(pack(&[]), BatchError::Receipts { found: 0 }));
    assert!(matches!(pack(&story()[..2]), BatchError::Receipts { found: 0 }));
    let strange = signer.seal_bytes(b"{}".to_vec());
    assert!(matches!(pack(&[story().remove(0), strange]), BatchError::Record { at: 1, .. }));
    let twice = [story(), story()].concat();
    assert!(matches!(pack(&twice), BatchError::Car(CarError::Twice { part: Part::Record(4) })));
    let mut chain = Chain::new(&signer, "default", 0);
    for _ in 0..1025 {
        let intent = chain.intend("many");
        chain.give_up("many", intent);
    }
    assert!(matches!(pack(&chain.records), BatchError::Receipts { found: 1025 }));
}
