//! What waits: against a model, and by its bounds.

use std::collections::BTreeSet;

use bpi_relay::fingerprint::Fingerprint;
use bpi_relay::store::{ENTRY_BYTES, Evicted, Store, StoreBounds};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use crate::mesh::key;

const BOUNDS: StoreBounds = StoreBounds { key_bytes: 8_000, sender_bytes: 5_000, total_bytes: 20_000, keep_s: 60 };

proptest! {
    #[test]
    fn bounds_hold_and_every_frame_is_given_once_or_named_as_gone(
        steps in proptest::collection::vec((any::<u8>(), 0..6u64, 0..8u64, 1..1500usize, 0..90u64), 1..500)
    ) {
        let mut store = Store::new(BOUNDS);
        let (mut now_s, mut inside) = (1000u64, BTreeSet::new());
        for (number, (step, to, sender, bytes, life_s)) in steps.into_iter().enumerate() {
            now_s += u64::from(step % 4 == 0);
            let gone = match step {
                0..200 => {
                    let mut frame = vec![0; bytes.max(8)];
                    frame[..8].copy_from_slice(&number.to_be_bytes());
                    let print = Fingerprint::of(&frame);
                    let evicted = store.keep(now_s, (key(to), sender, now_s + life_s), print, &frame).unwrap();
                    prop_assert!(inside.insert(print) && store.holds(&print));
                    evicted.sender + evicted.key + evicted.total
                }
                200..230 => {
                    let (frames, late) = store.take(now_s, key(to));
                    prop_assert_eq!(store.key_bytes(key(to)), 0);
                    for (print, frame) in &frames {
                        prop_assert_eq!(*print, Fingerprint::of(frame));
                        prop_assert!(inside.remove(print) && !store.holds(print), "given once");
                    }
                    late
                }
                _ => store.expire(now_s, 1000),
            };
            let entered = inside.len() as u64;
            inside.retain(|print| store.holds(print));
            prop_assert_eq!(entered - inside.len() as u64, gone);
            prop_assert_eq!(store.len(), inside.len());
            prop_assert!(store.bytes() <= BOUNDS.total_bytes);
            prop_assert!((0..6).all(|to| store.key_bytes(key(to)) <= BOUNDS.key_bytes));
            prop_assert!((0..8).all(|sender| store.sender_bytes(sender) <= BOUNDS.sender_bytes));
            prop_assert_eq!((0..6).map(|to| store.key_bytes(key(to))).sum::<usize>(), store.bytes());
            prop_assert_eq!((0..8).map(|sender| store.sender_bytes(sender)).sum::<usize>(), store.bytes());
        }
        prop_assert_eq!(store.expire(u64::MAX, usize::MAX), inside.len() as u64);
        prop_assert_eq!((store.len(), store.bytes()), (0, 0));
    }
}

#[test]
fn a_sender_that_sends_without_end_pushes_out_only_its_own() {
    let mut store = Store::new(BOUNDS);
    let mut keep = |sender: u64, number: u64| {
        let frame = [number.to_be_bytes(); 20].concat();
        store.keep(0, (key(1), sender, 50), Fingerprint::of(&frame), &frame).unwrap()
    };
    (0..3).for_each(|number| assert_eq!(keep(1, number), Evicted::default()));
    let evicted = (3..10_000)
        .map(|number| keep(2, number))
        .fold([0; 3], |[a, b, c], evicted| [a + evicted.sender, b + evicted.key, c + evicted.total]);
    assert!(evicted[0] > 9_000 && evicted[1..] == [0, 0], "{evicted:?}");
    let (frames, _) = store.take(0, key(1));
    assert!((0..3u64).all(|number| frames[number as usize].1[..8] == number.to_be_bytes()), "in the order they came");
}

#[test]
fn what_is_larger_than_a_bound_is_refused_and_pushes_nothing_out() {
    let mut store = Store::new(BOUNDS);
    let mut keep = |bytes: usize| {
        let frame = vec![1; bytes];
        store.keep(0, (key(1), 1, 50), Fingerprint::of(&frame), &frame)
    };
    assert_eq!(keep(100), Some(Evicted::default()));
    assert_eq!(keep(BOUNDS.sender_bytes - ENTRY_BYTES + 1), None);
    assert_eq!(keep(BOUNDS.sender_bytes - ENTRY_BYTES), Some(Evicted { sender: 1, key: 0, total: 0 }));
    assert_eq!(store.len(), 1);
}
