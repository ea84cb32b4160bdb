use bpi_protocol::log::{LEAVES_MAX, Log};
use proptest::prelude::*;

use super::*;
use crate::contents::leaf::TenantId;

fn leaves(numbers: std::ops::Range<u64>) -> Vec<(Leaf, LeafHash)> {
    let leaf = |number: u64| {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        Leaf { tenant: TenantId([number as u8; 16]), hash }
    };
    numbers.map(leaf).map(|leaf| (leaf, leaf.leaf_hash())).collect()
}

/// A folder with a ledger of so many leaves, and its twin in memory.
fn ledger(size: u64) -> (tempfile::TempDir, Ledger, Log) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    Ledger::create(&path).unwrap();
    let mut ledger = Ledger::open(&path, &LogHead::default()).unwrap();
    let mut log = Log::new();
    grow(&mut ledger, &mut log, size);
    (folder, ledger, log)
}

fn grow(ledger: &mut Ledger, log: &mut Log, size: u64) {
    let more = leaves(log.size()..size);
    for (_, hash) in &more {
        log.append(hash.0);
    }
    assert_eq!(ledger.head_with(more.iter().map(|(_, hash)| hash)), log.head());
    ledger.append(&more, &log.head()).unwrap();
}

#[test]
fn nodes_lie_one_after_the_other_as_appending_makes_them() {
    let mut frontier = Frontier::new();
    for size in 0..200 {
        let completed = completed_by(&frontier, LeafHash([size as u8; 32])).len() as u64;
        assert_eq!(nodes_before(size) + completed, nodes_before(size + 1));
        frontier.append([size as u8; 32]);
    }
    // The largest log does not overflow an offset.
    assert!(nodes_before(LEAVES_MAX).checked_mul(HASH_BYTES).is_some_and(|bytes| bytes < i64::MAX as u64));
}

#[test]
fn heads_and_proofs_are_those_of_the_log_in_memory_at_every_size() {
    let (_folder, ledger, log) = ledger(70);
    for size in 0..=70 {
        assert_eq!(ledger.head_at(size).unwrap(), log.head_at(size).unwrap());
        for (at, (_, hash)) in (0..size).zip(leaves(0..size)) {
            assert_eq!(ledger.prove_inclusion(&hash, size).unwrap(), Some(log.prove_inclusion(at, size).unwrap()));
        }
        for first in 0..=size {
            assert_eq!(ledger.prove_consistency(first, size).unwrap(), log.prove_consistency(first, size).unwrap());
        }
    }
    assert_eq!(ledger.prove_inclusion(&LeafHash([7; 32]), 70).unwrap(), None);
    let late = ledger.prove_inclusion(&leaves(69..70)[0].1, 69);
    assert!(matches!(late, Err(LedgerError::Log(LogError::Index { index: 69, size: 69 }))));
    assert!(matches!(ledger.head_at(71), Err(LedgerError::Log(LogError::Size { size: 71, leaves: 70 }))));
    assert_eq!(ledger.checkpoint("bpi.test/log").unwrap().head(), &log.head());
}

#[test]
fn leaves_that_do_not_lead_to_the_final_head_are_refused_and_nothing_is_written() {
    let (folder, mut ledger, log) = ledger(9);
    let wrong = ledger.append(&leaves(20..23), &LogHead { size: 12, root: [1; 32] });
    assert!(matches!(wrong, Err(LedgerError::Head { count: 3, size: 12 })), "{wrong:?}");
    assert_eq!(ledger.head(), log.head());
    drop(Ledger::open(&folder.path().join("ledger"), &log.head()).unwrap());
}

#[test]
fn a_ledger_is_never_replaced_and_never_made_by_opening() {
    let (folder, _, _) = ledger(1);
    let path = folder.path().join("ledger");
    assert!(matches!(Ledger::create(&path), Err(LedgerError::Exists { .. })));
    let missing = Ledger::open(&folder.path().join("none"), &LogHead::default());
    assert!(matches!(missing, Err(LedgerError::Missing { .. })), "{missing:?}");
}

#[test]
fn a_ledger_that_ends_before_the_last_header_or_has_another_root_is_refused() {
    let (folder, ledger, log) = ledger(20);
    drop(ledger);
    let path = folder.path().join("ledger");
    let short = Ledger::open(&path, &LogHead { size: 21, root: [0; 32] });
    assert!(matches!(short, Err(LedgerError::Short { found: 20, wanted: 21, .. })), "{short:?}");
    let root = Ledger::open(&path, &LogHead { size: 20, root: [0; 32] });
    assert!(matches!(root, Err(LedgerError::Root { size: 20, .. })), "{root:?}");
    // Neither attempt has cost anything.
    drop(Ledger::open(&path, &log.head()).unwrap());
}

#[test]
fn a_flipped_bit_at_the_end_is_found_at_the_start_and_one_anywhere_by_a_check() {
    let (folder, ledger, log) = ledger(6_000);
    drop(ledger);
    let path = folder.path().join("ledger");
    let flip = |name: &str, offset: u64| {
        let file = OpenOptions::new().read(true).write(true).open(path.join(name)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
    };
    for (name, offset) in [("leaves", 5_999 * 48 + 20), ("nodes", nodes_before(5_000) * 32)] {
        flip(name, offset);
        let damaged = Ledger::open(&path, &log.head());
        assert!(matches!(damaged, Err(LedgerError::Damaged { .. })), "{damaged:?}");
        flip(name, offset);
    }
    flip("nodes", nodes_before(100) * 32);
    let ledger = Ledger::open(&path, &log.head()).unwrap();
    assert!(matches!(ledger.check(), Err(LedgerError::Damaged { leaf: 90..=100, .. })));
    // Its neighbour's proof would be made of it, and does not leave.
    let proof = ledger.prove_inclusion(&leaves(101..102)[0].1, 6_000);
    assert!(matches!(proof, Err(LedgerError::Damaged { leaf: 101, .. })), "{proof:?}");
    flip("nodes", nodes_before(100) * 32);
    ledger.check().unwrap();
}

#[test]
fn without_its_index_a_ledger_finds_all_its_leaves_again() {
    let (folder, ledger, log) = ledger(5_000);
    drop(ledger);
    let path = folder.path().join("ledger");
    std::fs::remove_dir_all(path.join("index")).unwrap();
    let ledger = Ledger::open(&path, &log.head()).unwrap();
    for (at, (_, hash)) in (0..5_000).zip(leaves(0..5_000)).step_by(61) {
        assert_eq!(ledger.find(&hash).unwrap(), Some(at));
    }
}

#[test]
fn leaves_in_the_place_of_a_tail_that_was_cut_are_found_after_every_crash() {
    // The mark of the index is written at 4 096 leaves, and the last final header has 4 000.
    let (folder, mut ledger, mut log) = ledger(4_000);
    let path = folder.path().join("ledger");
    let head = log.head();
    grow(&mut ledger, &mut log, 4_200);
    drop(ledger);
    let mut ledger = Ledger::open(&path, &head).unwrap();
    assert_eq!((ledger.size(), ledger.find(&leaves(4_050..4_051)[0].1).unwrap()), (4_000, None));
    let table = std::fs::read(path.join("index/00")).unwrap();
    let others = leaves(9_000..9_090);
    let head = ledger.head_with(others.iter().map(|(_, hash)| hash));
    ledger.append(&others, &head).unwrap();
    assert_eq!(ledger.find(&leaves(4_050..4_051)[0].1).unwrap(), None, "its slot names a place that another has now");
    // A crash: what is not marked may be lost from the tables. Here all of it is.
    drop(ledger);
    std::fs::write(path.join("index/00"), table).unwrap();
    let ledger = Ledger::open(&path, &head).unwrap();
    for (at, (_, hash)) in (4_000..).zip(others) {
        assert_eq!(ledger.find(&hash).unwrap(), Some(at));
    }
}

#[test]
fn what_is_served_is_what_was_appended() {
    let (_folder, ledger, _) = ledger(6_000);
    let served = |range: std::ops::Range<u64>| leaves(range).into_iter().map(|(leaf, _)| leaf).collect::<Vec<_>>();
    assert_eq!(ledger.leaves(10, 13).unwrap(), served(10..13));
    assert_eq!(ledger.leaves(0, 6_000).unwrap(), served(0..5_120));
    assert_eq!(ledger.leaves(7, 7).unwrap(), []);
    assert!(matches!(ledger.leaves(0, 6_001), Err(LedgerError::Log(LogError::Size { .. }))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn whatever_is_torn_off_or_left_beyond_the_last_header_its_ledger_is_what_opens(
        headers in prop::collection::vec(0_u64..40, 1..8), extra in prop::collection::vec(any::<u8>(), 0..200), beyond in 0_u64..30,
    ) {
        let (folder, mut ledger, mut log) = ledger(0);
        for count in headers {
            let size = log.size() + count;
            grow(&mut ledger, &mut log, size);
        }
        let head = log.head();
        grow(&mut ledger, &mut log.clone(), head.size + beyond);
        drop(ledger);
        let path = folder.path().join("ledger");
        for name in ["leaves", "nodes"] {
            let mut file = OpenOptions::new().append(true).open(path.join(name)).unwrap();
            std::io::Write::write_all(&mut file, &extra).unwrap();
        }
        let mut ledger = Ledger::open(&path, &head).unwrap();
        prop_assert_eq!(ledger.head(), head);
        let length = |name| std::fs::metadata(path.join(name)).unwrap().len();
        prop_assert_eq!((length("leaves"), length("nodes")), (head.size * 48, nodes_before(head.size) * 32));
        ledger.check().unwrap();
        for (at, (_, hash)) in (0..).zip(leaves(0..head.size + beyond)) {
            prop_assert_eq!(ledger.find(&hash).unwrap(), (at < head.size).then_some(at));
        }
        grow(&mut ledger, &mut log, head.size + 5);
        ledger.check().unwrap();
    }
}

#[test]
fn a_tail_that_is_cut_is_gone_from_the_files_and_names_nothing_that_comes_in_its_place() {
    let (folder, ledger, log) = ledger(10);
    let path = folder.path().join("ledger");
    let (head, cut) = (log.head_at(6).unwrap(), leaves(6..10));
    drop(ledger);
    let mut ledger = Ledger::open(&path, &head).unwrap();
    let length = |file: &str| std::fs::metadata(path.join(file)).unwrap().len();
    assert_eq!((length("leaves"), length("nodes")), (6 * LEAF_BYTES as u64, nodes_before(6) * HASH_BYTES));
    let is_known = |ledger: &Ledger| cut.iter().any(|(_, hash)| ledger.find(hash).unwrap().is_some());
    assert!(!is_known(&ledger));

    // Other leaves take their places, where the index may still name those that were cut.
    let others = leaves(100..104);
    let head = ledger.head_with(others.iter().map(|(_, hash)| hash));
    ledger.append(&others, &head).unwrap();
    assert!(!is_known(&ledger));
    for (at, (_, hash)) in (6..).zip(&others) {
        assert_eq!(ledger.find(hash).unwrap(), Some(at));
    }
}
