#![allow(clippy::unwrap_used)]
use bpi_protocol::consensus::ids::{HeaderDigest, TimeMs};

use super::*;
use crate::durable::headers::*;
use crate::durable::sample::{KEY, commit, prepare, prepared, round_change, votes};

const CHAIN: ChainId = ChainId([9; 32]);

/// The header after another, and what makes it final.
fn after(parent: &Header) -> (Header, Seal) {
    let (height, time) = (parent.height.next(), TimeMs(parent.time.0 + 1));
    (Header { height, time, parent: parent.digest(), ..Header::default() }, Seal::Votes(votes(0)))
}

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        Watermark::create(&place.mark(), KEY, Height(0)).unwrap();
        Durable::create(&place.data(), CHAIN, &Header::default()).unwrap();
        place
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn mark(&self) -> PathBuf {
        self.folder.path().join("key.watermark")
    }

    fn open(&self) -> Result<(Durable, Found), DurableError> {
        Durable::open(&self.data(), &self.mark(), CHAIN, KEY)
    }

    /// As a backup does it: every file of the data directory, while nobody writes.
    fn copy(&self, name: &str) -> PathBuf {
        let to = self.folder.path().join(name);
        copy_folder(&self.data(), &to);
        to
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Votes for a height and makes the header final.
fn decide(durable: &mut Durable) {
    let (header, seal) = after(durable.tip());
    let height = header.height.0;
    durable.persist(&prepare(height, 0, 1)).unwrap();
    durable.persist_all(&[prepared(height, 0), commit(height, 0, 1)]).unwrap();
    durable.append(&header, &seal).unwrap();
}

#[test]
fn a_start_goes_on_where_the_last_one_ended() {
    let place = Place::new();
    let (mut durable, found) = place.open().unwrap();
    assert_eq!((found.tip.height, found.recovered.is_forgetful()), (Height(0), false));
    decide(&mut durable);
    decide(&mut durable);
    durable.persist(&prepare(3, 0, 1)).unwrap();
    durable.persist(&prepare(3, 0, 1)).unwrap();
    assert!(durable.persist(&prepare(3, 0, 2)).is_err(), "two votes for one step");
    drop(durable);
    let (mut durable, found) = place.open().unwrap();
    assert_eq!((found.tip.height, found.recovered.votes.len(), found.torn_slots), (Height(2), 1, 0));
    assert!(durable.persist(&prepare(3, 0, 2)).is_err());
    assert!(durable.persist(&round_change(3, 0)).is_err(), "a step before the last one");
    assert_eq!(durable.get(Height(1)).unwrap().unwrap().0.height, Height(1));
    assert_eq!(durable.get(Height(3)).unwrap(), None);
    durable.persist_all(&[prepared(3, 0), commit(3, 0, 1)]).unwrap();
}

#[test]
fn a_data_directory_that_was_put_back_signs_nothing_up_to_where_the_key_has_spoken() {
    let place = Place::new();
    let (mut durable, _) = place.open().unwrap();
    decide(&mut durable);
    durable.persist(&prepare(2, 0, 1)).unwrap();
    drop(durable);
    let backup = place.copy("backup");
    let (mut durable, _) = place.open().unwrap();
    durable.persist_all(&[prepared(2, 0), commit(2, 0, 1)]).unwrap();
    let (second, seal) = after(durable.tip());
    durable.append(&second, &seal).unwrap();
    decide(&mut durable);
    durable.persist_all(&[prepare(4, 0, 1), prepared(4, 0), commit(4, 0, 1)]).unwrap();
    drop(durable);

    fs::remove_dir_all(place.data()).unwrap();
    fs::rename(backup, place.data()).unwrap();
    let (mut durable, found) = place.open().unwrap();
    assert!(found.recovered.is_forgetful());
    assert_eq!((found.tip.height, durable.silent_through()), (Height(1), Some(Height(4))));
    let silent = |durable: &mut Durable, record| {
        assert!(matches!(durable.persist(&record), Err(DurableError::Forgetful { .. })));
    };
    silent(&mut durable, commit(2, 0, 1));
    // It watches, and catches up. At height 4 the watermark alone would allow a greater vote, which denies what was prepared there.
    for height in 2..=3 {
        let (header, seal) = after(durable.tip());
        durable.append(&header, &seal).unwrap();
        silent(&mut durable, round_change(height + 1, 7));
    }
    let (header, seal) = after(durable.tip());
    durable.append(&header, &seal).unwrap();
    durable.persist(&prepare(5, 0, 1)).unwrap();
    drop(durable);
    let (durable, found) = place.open().unwrap();
    assert_eq!((found.recovered.is_forgetful(), durable.silent_through()), (false, None));
}

#[test]
fn a_log_alone_that_was_put_back_is_forgetful_and_headers_alone_are_refused() {
    let place = Place::new();
    let (mut durable, _) = place.open().unwrap();
    decide(&mut durable);
    durable.persist(&prepare(2, 0, 1)).unwrap();
    drop(durable);
    let backup = place.copy("backup");
    let (mut durable, _) = place.open().unwrap();
    durable.persist(&round_change(2, 1)).unwrap();
    drop(durable);
    let newer = place.copy("newer");

    fs::copy(log_path(&backup), log_path(&place.data())).unwrap();
    assert!(place.open().unwrap().1.recovered.is_forgetful());

    fs::copy(log_path(&newer), log_path(&place.data())).unwrap();
    let (mut durable, found) = place.open().unwrap();
    assert!(!found.recovered.is_forgetful());
    let (second, seal) = after(durable.tip());
    durable.append(&second, &seal).unwrap();
    durable.persist(&prepare(3, 0, 1)).unwrap();
    drop(durable);
    fs::remove_dir_all(headers_path(&place.data())).unwrap();
    fs::rename(headers_path(&backup), headers_path(&place.data())).unwrap();
    let damage = log::LogDamage::Ahead { log: Height(3), next: Height(2) };
    assert!(matches!(place.open(), Err(DurableError::Log(LogError::Damaged { damage: found, .. })) if found == damage));
}

#[test]
fn a_data_directory_without_a_watermark_a_held_key_and_another_chain_are_refused() {
    let place = Place::new();
    assert!(matches!(
        Durable::create(&place.data(), CHAIN, &Header::default()),
        Err(DurableError::Headers(HeadersError::Exists { .. }))
    ));
    let (durable, _) = place.open().unwrap();
    assert!(matches!(place.open(), Err(DurableError::Watermark(WatermarkError::Held { .. }))));
    drop(durable);
    let other = Durable::open(&place.data(), &place.mark(), ChainId([1; 32]), KEY);
    assert!(matches!(other, Err(DurableError::Headers(HeadersError::OtherChain { found: CHAIN, .. }))));
    fs::remove_file(place.mark()).unwrap();
    assert!(matches!(place.open(), Err(DurableError::Watermark(WatermarkError::Missing { .. }))));
    Watermark::create(&place.mark(), KEY, Height(1)).unwrap();
    fs::remove_dir_all(place.data()).unwrap();
    assert!(matches!(place.open(), Err(DurableError::Headers(HeadersError::Missing { .. }))));
}

#[test]
fn a_header_that_does_not_follow_the_tip_is_refused_and_the_log_stays() {
    let place = Place::new();
    let (mut durable, _) = place.open().unwrap();
    durable.persist(&prepare(1, 0, 1)).unwrap();
    let (first, seal) = after(durable.tip());
    let (second, _) = after(&first);
    assert!(matches!(durable.append(&second, &seal), Err(DurableError::Headers(HeadersError::Height { .. }))));
    let stranger = Header { parent: HeaderDigest([1; 32]), ..first };
    assert!(matches!(durable.append(&stranger, &seal), Err(DurableError::Headers(HeadersError::Parent { .. }))));
    drop(durable);
    assert_eq!(place.open().unwrap().1.recovered.votes.len(), 1);
}

#[test]
fn what_headers_attest_is_found_by_batch_and_by_height_after_a_start_and_in_order() {
    use crate::contents::attestations::{BatchId, sample::attestation};
    let place = Place::new();
    let (mut durable, _) = place.open().unwrap();
    let first = BatchId::default();
    assert_eq!(durable.headers().attested_from(&first).unwrap(), None);
    let mut kept = Vec::new();
    for height in 1..=4_u32 {
        let (header, seal) = after(durable.tip());
        let all: Vec<_> = (0..height).map(|number| attestation(height as u8, number, &[1, 2], 5)).collect();
        durable.keep_attestations(header.height, &all).unwrap();
        assert_eq!(durable.headers().attested(&BatchId::of(&all[0])).unwrap(), None, "its header is not final yet");
        durable.append(&header, &seal).unwrap();
        kept.push((header.height, all));
    }
    drop(durable);
    let (durable, _) = place.open().unwrap();
    let headers = durable.headers();
    assert_eq!(headers.tip().height, Height(4));
    let mut batches = std::collections::BTreeSet::new();
    for (height, all) in &kept {
        assert_eq!(headers.attestations(*height).unwrap().as_ref(), Some(all));
        for (index, attestation) in (0..).zip(all) {
            let batch = BatchId::of(attestation);
            assert_eq!(headers.attested(&batch).unwrap(), Some((*height, index)));
            assert_eq!(headers.attested_from(&batch).unwrap(), Some(batch));
            batches.insert(batch);
        }
    }
    assert_eq!((headers.attestations(Height(5)).unwrap(), headers.attested(&first).unwrap()), (None, None));
    assert_eq!(headers.attested_from(&first).unwrap(), batches.first().copied());
    assert_eq!(headers.attested_from(&BatchId { da_root: [0xff; 32], ..first }).unwrap(), None);
}
