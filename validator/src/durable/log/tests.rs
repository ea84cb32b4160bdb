#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::super::sample::{KEY, commit, prepare, prepared, proposal, round_change};
use super::*;

struct Place {
    _folder: tempfile::TempDir,
    log: PathBuf,
    mark: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (log, mark) = (folder.path().join("votes.log"), folder.path().join("key.watermark"));
        Log::create(&log).unwrap();
        Watermark::create(&mark, KEY, Height(0)).unwrap();
        Self { _folder: folder, log, mark }
    }

    fn open(&self, next: u64) -> Result<(Log, Watermark, Recovered, usize), LogError> {
        let (mut log, mut mark) = (Log::open(&self.log)?, Watermark::open(&self.mark, KEY)?);
        let (recovered, torn) = log.recover(Height(next), &mut mark)?;
        Ok((log, mark, recovered, torn))
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.log).unwrap()
    }
}

/// As a validator keeps it: the log first, then the watermark.
fn keep(log: &mut Log, mark: &mut Watermark, records: &[Record]) {
    log.append(records).unwrap();
    for found in records.iter().filter_map(mark_of) {
        mark.advance(found.position, found.digest).unwrap();
    }
}

fn messages(records: &[Record]) -> Vec<bpi_protocol::consensus::message::Message> {
    let vote = |record: &Record| match record {
        Record::Vote { message, .. } => Some((**message).clone()),
        Record::Prepared { .. } => None,
    };
    records.iter().filter_map(vote).collect()
}

/// The appends of a round at height 1.
fn round(round: u32) -> Vec<Vec<Record>> {
    vec![
        vec![round_change(1, round)],
        vec![proposal(1, round, 6)],
        vec![prepare(1, round, 5)],
        vec![prepared(1, round), commit(1, round, 5)],
    ]
}

/// A log and a watermark after these appends at height 1, and the log's bytes after each of them.
fn written(appends: &[Vec<Record>]) -> (Place, Vec<Vec<u8>>) {
    let place = Place::new();
    let (mut log, mut mark, ..) = place.open(1).unwrap();
    let mut stages = vec![place.bytes()];
    for records in appends {
        keep(&mut log, &mut mark, records);
        stages.push(place.bytes());
    }
    (place, stages)
}

#[test]
fn what_was_appended_is_recovered_and_appends_go_on_after_it() {
    let (place, _) = written(&round(0));
    let (mut log, mut mark, recovered, torn) = place.open(1).unwrap();
    let all = round(0).concat();
    assert_eq!((recovered.votes.clone(), torn, recovered.is_forgetful()), (messages(&all), 0, false));
    assert_eq!(recovered.prepared.unwrap().1.round.0, 0);
    keep(&mut log, &mut mark, &[round_change(1, 1)]);
    drop((log, mark));
    let (_, _, recovered, _) = place.open(1).unwrap();
    assert_eq!(recovered.votes.len(), 5);
}

#[test]
fn a_height_begins_with_an_empty_log_and_writes_over_the_one_before() {
    let (place, _) = written(&round(0));
    let (mut log, mut mark, ..) = place.open(1).unwrap();
    assert!(matches!(log.append(&[prepare(2, 0, 1)]), Err(LogError::Height { .. })));
    log.begin_height(Height(2));
    assert!(matches!(log.append(&[prepare(1, 9, 1)]), Err(LogError::Height { .. })));
    keep(&mut log, &mut mark, &[prepare(2, 0, 1)]);
    drop((log, mark));
    let (mut log, mut mark, recovered, torn) = place.open(2).unwrap();
    assert_eq!((recovered.votes.clone(), torn, recovered.is_forgetful()), (messages(&[prepare(2, 0, 1)]), 0, false));
    log.begin_height(Height(3));
    keep(&mut log, &mut mark, &[proposal(3, 0, 128)]);
    drop((log, mark));
    assert_eq!(place.open(3).unwrap().2.votes.len(), 1);
    assert!(
        place.open(4).unwrap().2.votes.is_empty(),
        "the height became final, and the crash came before the next vote"
    );
    let older = place.open(2).map(drop);
    assert!(matches!(older, Err(LogError::Damaged { damage: LogDamage::Ahead { .. }, .. })));
}

#[test]
fn a_height_that_fills_the_log_keeps_its_last_round_and_what_was_prepared() {
    let place = Place::new();
    let (mut log, mut mark, ..) = place.open(1).unwrap();
    keep(&mut log, &mut mark, &[prepared(1, 0), commit(1, 0, 5)]);
    let rounds = 300;
    for round in 1..=rounds {
        keep(&mut log, &mut mark, &[round_change(1, round)]);
        keep(&mut log, &mut mark, &[proposal(1, round, 128)]);
        keep(&mut log, &mut mark, &[prepare(1, round, 5)]);
    }
    drop((log, mark));
    let (_, _, recovered, torn) = place.open(1).unwrap();
    let last = [round_change(1, rounds), proposal(1, rounds, 128), prepare(1, rounds, 5)];
    assert!(recovered.votes.ends_with(&messages(&last)));
    assert_eq!((recovered.prepared.as_ref().unwrap().1.round.0, torn, recovered.is_forgetful()), (0, 0, false));
    assert_eq!(place.bytes().len(), LOG_BYTES);
}

#[test]
fn a_vote_that_a_crash_kept_from_the_watermark_is_noted_when_the_log_is_recovered() {
    let (place, _) = written(&[vec![prepare(1, 0, 5)]]);
    let (mut log, mark, ..) = place.open(1).unwrap();
    log.append(&[prepared(1, 0), commit(1, 0, 5)]).unwrap();
    drop((log, mark));
    let (_, mark, recovered, _) = place.open(1).unwrap();
    assert_eq!((recovered.votes.len(), recovered.is_forgetful()), (2, false));
    assert_eq!(Some(mark.mark()), mark_of(&commit(1, 0, 5)));
}

#[test]
fn a_watermark_that_was_put_back_or_belongs_to_another_life_is_refused() {
    let (place, _) = written(&[vec![prepare(1, 0, 5)]]);
    let older = std::fs::read(&place.mark).unwrap();
    let (mut log, mut mark, ..) = place.open(1).unwrap();
    keep(&mut log, &mut mark, &[commit(1, 0, 5)]);
    keep(&mut log, &mut mark, &[round_change(1, 1)]);
    drop((log, mark));
    std::fs::write(&place.mark, &older).unwrap();
    let refused = place.open(1).map(drop);
    assert!(matches!(refused, Err(LogError::Damaged { damage: LogDamage::Watermark { .. }, .. })));

    let (other, _) = written(&[vec![prepare(1, 0, 6)]]);
    std::fs::write(&other.mark, &older).unwrap();
    let refused = other.open(1).map(drop);
    assert!(matches!(refused, Err(LogError::Damaged { damage: LogDamage::Watermark { .. }, .. })));
}

#[test]
fn a_log_that_was_put_back_makes_the_node_silent() {
    let (place, stages) = written(&[round(0), round(1)].concat());
    for (known, stage) in stages.iter().enumerate() {
        std::fs::write(&place.log, stage).unwrap();
        let (_, _, recovered, torn) = place.open(1).unwrap();
        assert_eq!((recovered.is_forgetful(), torn), (known + 1 < stages.len(), 0), "{known} appends");
    }
}

/// What a log may say after damage: an error, or so many of the records, in order and unchanged.
fn prefix_of(bytes: &[u8], all: &[Vec<Record>]) -> Option<usize> {
    let found = scan(bytes, Height(1)).ok()?;
    let frames = found.frames as usize;
    assert_eq!(found.records, all[..frames].concat());
    Some(frames)
}

#[test]
fn a_flipped_bit_in_any_frame_but_the_last_is_refused_and_in_the_last_one_cuts_it() {
    let all = round(0);
    let (_, stages) = written(&all);
    let mut bytes = stages[all.len()].clone();
    let used = scan(&bytes, Height(1)).unwrap().slots * SLOT_BYTES;
    let last = scan(&stages[all.len() - 1], Height(1)).unwrap().slots * SLOT_BYTES;
    for bit in 0..(used + SLOT_BYTES) * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let expected = match bit / 8 {
            at if at < last => None,
            at if at < used => Some(all.len() - 1),
            _ => Some(all.len()),
        };
        assert_eq!(prefix_of(&bytes, &all), expected, "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_flipped_bit_in_the_last_vote_makes_the_node_silent_instead_of_young() {
    let all = round(0);
    let (place, stages) = written(&all);
    let last = scan(&stages[all.len() - 1], Height(1)).unwrap().slots * SLOT_BYTES;
    for at in (last..last + 2 * SLOT_BYTES).step_by(97) {
        let mut bytes = stages[all.len()].clone();
        bytes[at] ^= 0x10;
        std::fs::write(&place.log, &bytes).unwrap();
        let (_, _, recovered, torn) = place.open(1).unwrap();
        assert!(recovered.is_forgetful() && torn > 0, "byte {at}");
        let (_, _, recovered, torn) = place.open(1).unwrap();
        assert!(recovered.is_forgetful() && torn == 0, "byte {at}: the tail is cut once");
    }
}

#[test]
fn an_append_torn_at_any_byte_is_kept_whole_or_not_at_all() {
    let all = round(0);
    let (_, stages) = written(&all);
    for (before, pair) in stages.windows(2).enumerate() {
        let (old, new) = (&pair[0], &pair[1]);
        let (from, to) = [old, new].map(|bytes| scan(bytes, Height(1)).unwrap().slots * SLOT_BYTES).into();
        for torn in from..=to {
            let mut bytes = old.clone();
            bytes[from..torn].copy_from_slice(&new[from..torn]);
            let frames = prefix_of(&bytes, &all).unwrap();
            assert!(frames == before || (torn == to && frames == before + 1), "torn at {torn}: {frames}");
        }
    }
}

#[test]
fn a_file_of_another_length_or_none_is_refused() {
    let place = Place::new();
    assert!(matches!(Log::create(&place.log), Err(LogError::Io { .. })));
    for length in [0, 1, LOG_BYTES - 1, LOG_BYTES + 1] {
        std::fs::write(&place.log, vec![0; length]).unwrap();
        assert!(matches!(Log::open(&place.log), Err(LogError::Damaged { .. })));
        assert!(scan(&vec![0; length], Height(1)).is_err());
    }
    std::fs::remove_file(&place.log).unwrap();
    assert!(matches!(Log::open(&place.log), Err(LogError::Missing { .. })));
}

#[test]
fn more_than_one_append_may_hold_is_refused_and_nothing_is_written() {
    let (place, stages) = written(&[]);
    let (mut log, ..) = place.open(1).unwrap();
    let many = vec![proposal(1, 0, 128); 5];
    assert!(matches!(log.append(&many), Err(LogError::Long { .. })));
    assert_eq!(place.bytes(), stages[0]);
}

#[test]
fn a_record_is_read_as_it_was_written_and_a_vote_beside_another_position_is_refused() {
    for record in round(3).concat() {
        let bytes = record.to_bytes();
        assert_eq!(Record::from_bytes(&bytes), Ok(record.clone()));
        for cut in 0..bytes.len() {
            assert!(Record::from_bytes(&bytes[..cut]).is_err());
        }
        assert!(Record::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    }
    let Record::Vote { mut position, message } = prepare(1, 0, 5) else { unreachable!("a vote") };
    position.round.0 = 1;
    let bent = Record::Vote { position, message }.to_bytes();
    assert!(matches!(Record::from_bytes(&bent), Err(RecordError::Position { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A disk that loses power writes any of an append's sectors, and may spoil one of them.
    #[test]
    fn any_sectors_of_an_unfinished_append_leave_all_that_was_kept_before(
        known in 0_usize..8, sectors in any::<u64>(), spoilt in any::<Option<(u8, u8)>>(), over_an_older_height in any::<bool>(),
    ) {
        let all = [round(0), round(1)].concat();
        let (_, stages) = written(&all);
        let (mut old, new) = (stages[known].clone(), &stages[known + 1]);
        let from = scan(&old, Height(1)).unwrap().slots;
        let to = scan(new, Height(1)).unwrap().slots;
        if over_an_older_height {
            for (slot, frame) in (from..40).zip(0..) {
                let stale = frame_bytes(Height(0), frame, b"an older height");
                old[slot * SLOT_BYTES..][..SLOT_BYTES].copy_from_slice(&stale);
            }
        }
        for slot in (from..to).filter(|slot| sectors >> (slot - from) & 1 == 1) {
            old[slot * SLOT_BYTES..][..SLOT_BYTES].copy_from_slice(&new[slot * SLOT_BYTES..][..SLOT_BYTES]);
        }
        if let Some((slot, filler)) = spoilt {
            old[(from + usize::from(slot) % (to - from)) * SLOT_BYTES..][..SLOT_BYTES].fill(filler);
        }
        let frames = prefix_of(&old, &all).unwrap();
        prop_assert!(frames == known || frames == known + 1);
    }

    #[test]
    fn no_bytes_make_the_parser_panic(slots in proptest::collection::vec(any::<[u8; 40]>(), 0..20), next in 0_u64..3) {
        let mut bytes = vec![0; LOG_BYTES];
        for (at, head) in slots.iter().enumerate() {
            let slot = &mut bytes[at * SLOT_BYTES..][..SLOT_BYTES];
            slot[..40].copy_from_slice(head);
            // Small numbers with a right checksum get past the first checks.
            slot[..7].fill(0);
            slot[8..11].fill(0);
            slot[12] = 0;
            slot[14] = 0;
            let check = sum_of(&slot[..SLOT_BYTES - SUM_BYTES]);
            slot[SLOT_BYTES - SUM_BYTES..].copy_from_slice(&check);
        }
        if let Ok(found) = scan(&bytes, Height(next)) {
            prop_assert!(found.records.len() <= slots.len());
        }
        if let Ok(record) = Record::from_bytes(&bytes[..64]) {
            prop_assert_eq!(&record.to_bytes()[..], &bytes[..64]);
        }
    }
}
