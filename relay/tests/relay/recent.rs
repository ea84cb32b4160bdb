//! Duplicates against a model that remembers everything.

use std::collections::BTreeMap;

use bpi_relay::fingerprint::{Fingerprint, Recent};
use bpi_relay::seeded::Seeded;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use proptest::prop_oneof;
use proptest::strategy::Strategy;

#[derive(Clone, Debug)]
enum Step {
    Frame(u8, u8),
    Lost(u8),
    Wait(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (any::<u8>(), 1..=4u8).prop_map(|(number, copies)| Step::Frame(number, copies)),
        3 => any::<u8>().prop_map(Step::Lost),
        1 => (0..1500u16).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..400)
}

fn print(number: u8) -> Fingerprint {
    Fingerprint::of(&[number])
}

proptest! {
    #[test]
    fn what_is_remembered_is_out_and_what_went_out_in_this_period_is_remembered(steps in steps(), count_max in 1..64usize) {
        let mut recent = Recent::new(count_max, 1000, Seeded::new([7; 16]));
        // Number of a frame: copies that are out, when it was taken, how many others were taken until then.
        let mut model = BTreeMap::<u8, (u8, u64, usize)>::new();
        let (mut now_us, mut taken) = (0u64, 0usize);
        for step in steps {
            match step {
                Step::Wait(ms) => now_us += u64::from(ms) * 1000,
                Step::Frame(number, copies) => {
                    let known = model.get(&number).copied();
                    match recent.copies(now_us, &print(number)) {
                        Some(left) => prop_assert_eq!(known.map(|(copies, ..)| copies), Some(left), "no frame is dropped that is not out"),
                        None => {
                            if let Some((_, at_us, then)) = known {
                                // A generation lasts until its count or its period is full, and the next begins with it.
                                prop_assert!(now_us - at_us >= 1_000_000 || taken - then >= count_max, "forgotten too early");
                            }
                            recent.remember(now_us, print(number), copies);
                            taken += 1;
                            model.insert(number, (copies, now_us, taken));
                        }
                    }
                }
                Step::Lost(number) => {
                    let left = recent.lost(&print(number));
                    if let Some((copies, ..)) = model.get_mut(&number) {
                        *copies = copies.saturating_sub(1);
                        prop_assert!(left == *copies || left == 0);
                        if left == 0 {
                            model.remove(&number);
                        }
                    }
                }
            }
            prop_assert!(recent.len() <= 2 * count_max);
        }
    }
}

#[test]
fn after_two_periods_nothing_is_remembered_and_memory_is_what_it_was() {
    let mut recent = Recent::new(1000, 60_000, Seeded::new([7; 16]));
    let bytes = recent.bytes();
    for number in 0..100_000u32 {
        recent.remember(u64::from(number), Fingerprint::of(&number.to_be_bytes()), 1);
    }
    assert_eq!(recent.bytes(), bytes);
    assert_eq!(recent.copies(1, &Fingerprint::of(&99_999u32.to_be_bytes())), Some(1));
    assert_eq!(recent.copies(200_000_000, &Fingerprint::of(&99_999u32.to_be_bytes())), None);
    assert!(recent.is_empty());
}
