//! Fairness: guarantees under floods, what is spare to whoever asks, and never more than the capacity.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bpi_relay::budget::{Crowd, Debt, Level, Pool, Rates, Share};
use bpi_relay::peer::{ConnId, Who};
use bpi_relay::score::Then;
use bpi_relay::switch::{Dropped, Settings, Switch, Verdict};
use bpi_relay::tally::DropReason;
use proptest::prelude::{ProptestConfig, prop_assert, proptest};

use crate::mesh::{at, fresh, key, who};

/// A frame of 1 000 bytes takes 100 µs: ten thousand a second.
const RATES: Rates = Rates {
    bytes_per_s: 10_000_000,
    frames_per_s: 1_000_000,
    burst_ms: 20,
    prefix_weight: 16,
    asn_weight: 64,
    prefix_guarantee_percent: 100,
    asn_guarantee_percent: 100,
};
const FRAME_BYTES: usize = 1000;
const FRAMES_PER_S: f64 = 10_000.0;

/// One sender in a simulation: it offers frames at a rate and counts what passes.
struct Sender {
    share: Share,
    group: usize,
    interval_us: u64,
    passed: u64,
    refused: u64,
}

struct Relay {
    pool: Pool,
    groups: Vec<(Debt, f64)>,
    senders: Vec<Sender>,
    /// When each offers its next frame.
    turns: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Relay {
    /// Senders of `(weight, group, frames a second)`, in prefixes that are ASNs too.
    fn new(rates: &Rates, senders: &[(u32, usize, f64)]) -> Self {
        let mut pool = Pool::new(rates);
        let mut groups = vec![(Debt::default(), 0.0); senders.iter().map(|sender| sender.1 + 1).max().unwrap_or(0)];
        let turns = (0..senders.len()).map(|number| Reverse((number as u64, number))).collect();
        let senders = senders
            .iter()
            .map(|(weight, group, frames_per_s)| {
                let share = Share::new(0, *weight);
                pool.join(&share);
                groups[*group].1 += f64::from(*weight);
                let interval_us = (1e6 / frames_per_s) as u64;
                Sender { share, group: *group, interval_us, passed: 0, refused: 0 }
            })
            .collect();
        Self { pool, groups, senders, turns }
    }

    /// Runs until a moment.
    fn until(&mut self, end_us: u64) {
        while let Some(Reverse((now_us, number))) = self.turns.peek().copied().filter(|turn| turn.0.0 < end_us) {
            self.turns.pop();
            let sender = &mut self.senders[number];
            self.turns.push(Reverse((now_us + sender.interval_us, number)));
            let (debt, weight) = &mut self.groups[sender.group];
            let crowd = Crowd { prefix: *weight, asn: None };
            match self.pool.spend(now_us, FRAME_BYTES, (&mut sender.share, crowd), debt, None) {
                Ok(()) => sender.passed += 1,
                Err(_) => sender.refused += 1,
            }
        }
    }

    /// Frames a second that pass of each, from four seconds on, when all has settled.
    fn settled(&mut self) -> Vec<f64> {
        self.until(4_000_000);
        let before: Vec<u64> = self.senders.iter().map(|sender| sender.passed).collect();
        self.until(6_000_000);
        self.senders.iter().zip(before).map(|(sender, before)| (sender.passed - before) as f64 / 2.0).collect()
    }
}

#[test]
fn a_flood_by_one_id_costs_an_honest_one_nothing_of_its_guarantee() {
    // Four of equal weight: 2 500 frames a second are guaranteed to each. One floods with four times the capacity.
    let mut relay = Relay::new(&RATES, &[(1, 0, 40_000.0), (1, 1, 2_400.0), (1, 2, 2_400.0), (1, 3, 100.0)]);
    let passed = relay.settled();
    assert!(relay.senders[1..].iter().all(|sender| sender.refused == 0), "not one frame is lost");
    let spare = FRAMES_PER_S - 2.0 * 2_400.0 - 100.0;
    assert!((passed[0] / spare - 1.0).abs() < 0.05, "what is spare is the flood's: {passed:?}");
}

#[test]
fn who_is_alone_has_all_the_relay_has() {
    for idle in [0, 1, 100] {
        let mut senders = vec![(1, 0, 40_000.0)];
        senders.extend((1..=idle).map(|group| (8, group, 0.001)));
        let passed = Relay::new(&RATES, &senders).settled();
        assert!((passed[0] / FRAMES_PER_S - 1.0).abs() < 0.02, "{idle} idle: {passed:?}");
    }
}

#[test]
fn what_is_spare_is_shared_by_weight_however_hard_each_asks() {
    // A fifth is guaranteed to somebody idle; the others flood with rates that have nothing to do with their weights.
    let senders = [(4, 0, 0.001), (1, 1, 40_000.0), (2, 2, 30_000.0), (4, 3, 12_000.0), (9, 4, 50_000.0)];
    let passed = Relay::new(&RATES, &senders).settled();
    for (sender, passed) in senders.iter().zip(&passed).skip(1) {
        let fair = FRAMES_PER_S * f64::from(sender.0) / 16.0;
        assert!((passed / fair - 1.0).abs() < 0.1, "of weight {}: {passed} and not {fair}", sender.0);
    }
}

#[test]
fn a_thousand_ids_of_one_prefix_together_are_guaranteed_no_more_than_its_part() {
    let rates = Rates { prefix_guarantee_percent: 25, prefix_weight: 1, ..RATES };
    let mut senders = vec![(1, 0, 5_000.0), (1, 1, 5_000.0)];
    senders.extend((0..300).map(|_| (1, 2, 1_000.0)));
    let mut relay = Relay::new(&rates, &senders);
    let passed = relay.settled();
    let crowd: f64 = passed[2..].iter().sum();
    assert!(crowd < FRAMES_PER_S * 0.6, "a quarter is guaranteed, and a third of the rest: {crowd}");
    assert!(passed[..2].iter().all(|passed| *passed > 1_900.0), "two prefixes with one id each: {:?}", &passed[..2]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn no_more_passes_than_the_capacity_and_two_bursts_and_nothing_guaranteed_is_refused(
        senders in proptest::collection::vec((1..64u32, 0..4usize, 10.0..20_000.0f64), 1..12),
        within in 0.2..0.99f64,
    ) {
        // The first keeps within its guarantee, whatever the others do.
        let mut senders = senders;
        let weight: u32 = senders.iter().map(|sender| sender.0).sum();
        senders[0].2 = FRAMES_PER_S * f64::from(senders[0].0) / f64::from(weight) * within;
        let mut relay = Relay::new(&RATES, &senders);
        relay.until(1_000_000);
        let passed: u64 = relay.senders.iter().map(|sender| sender.passed).sum();
        let burst = FRAMES_PER_S * f64::from(RATES.burst_ms) / 1000.0;
        prop_assert!(passed as f64 <= FRAMES_PER_S + 2.0 * burst + senders.len() as f64, "{}", passed);
        prop_assert!(relay.senders.iter().all(|sender| sender.share.debt().ns() >= 0.0));
        // Its bucket starts empty, so the first frame may find nothing; after it every one passes.
        prop_assert!(relay.senders[0].refused <= 1, "{} of {} refused", relay.senders[0].refused, relay.senders[0].passed);
        let offered: f64 = senders.iter().map(|sender| sender.2).sum();
        prop_assert!(passed as f64 >= 0.9 * offered.min(FRAMES_PER_S) - burst, "{} of {}", passed, offered);
    }
}

#[test]
fn many_small_frames_are_held_to_the_rate_of_frames() {
    let rates = Rates { frames_per_s: 1_000, ..RATES };
    let (mut pool, mut share, mut debt) = (Pool::new(&rates), Share::new(0, 1), Debt::default());
    pool.join(&share);
    let crowd = Crowd { prefix: 1.0, asn: None };
    let passed =
        (0..2_000_000u64).filter(|us| pool.spend(*us, 80, (&mut share, crowd), &mut debt, None).is_ok()).count();
    assert!((1_990..2_060).contains(&passed), "{passed}");
}

fn flood(switch: &mut Switch, us: u64, conn: u64, number: u64) -> Verdict {
    let mut now = at(us / 1000);
    now.us = us;
    switch.forward(now, ConnId(conn), &fresh(now, 7, number))
}

#[test]
fn through_the_whole_switch_a_flood_is_slowed_never_closed_and_others_do_not_feel_it() {
    let rates = Rates { bytes_per_s: 1_150_000, frames_per_s: 1_000, burst_ms: 50, ..RATES };
    let mut switch = Switch::new(Settings { rates, ..Settings::default() });
    (0..4).for_each(|peer| switch.connected(at(0), ConnId(u64::from(peer)), who(peer)).unwrap());
    drop(switch.register(at(0), ConnId(3), key(7), b"").unwrap());
    let (mut number, mut honest, mut refused) = (0, [0; 2], 0);
    for us in (0..4_000_000).step_by(50) {
        number += 1;
        match flood(&mut switch, us, 0, number) {
            Verdict::Dropped(Dropped { reason, then }) => {
                assert!(matches!(reason, DropReason::BudgetAccount | DropReason::BudgetRelay), "{reason:?}");
                assert!(matches!(then, Then::Slow { delay_ms: 1..=1000 }));
                refused += 1;
            }
            verdict => assert!(matches!(verdict, Verdict::HandOn { .. })),
        }
        // A quarter of the relay is 250 frames a second.
        if us % 4_200 == 0 {
            number += 1;
            honest[usize::from(matches!(flood(&mut switch, us, 1, number), Verdict::HandOn { .. }))] += 1;
        }
    }
    assert!(honest[0] <= 1 && honest[1] > 900, "{honest:?}");
    assert!(refused > 70_000);
}

#[test]
fn a_debt_is_not_paid_by_coming_back() {
    let rates = Rates { bytes_per_s: 1_150_000, frames_per_s: 1_000, burst_ms: 1_000, ..RATES };
    let mut switch = Switch::new(Settings { rates, ..Settings::default() });
    let same = |peer: u32| Who { weight: 1, ..who(peer) };
    (0..2).for_each(|peer| switch.connected(at(0), ConnId(u64::from(peer)), same(peer)).unwrap());
    drop(switch.register(at(0), ConnId(1), key(7), b"").unwrap());
    let mut conn = 2;
    let passed = (0..5_000)
        .filter(|number| {
            switch.disconnected(at(1), ConnId(if conn == 2 { 0 } else { conn - 1 }));
            switch.connected(at(1), ConnId(conn), same(0)).unwrap();
            conn += 1;
            matches!(flood(&mut switch, 1_000, conn - 1, *number), Verdict::HandOn { .. })
        })
        .count();
    // Full the pool holds 1 000 frames; the debt rises as it falls, and they meet half way.
    assert!((400..600).contains(&passed), "{passed}");
}

#[test]
fn the_level_that_refuses_is_named() {
    // Of those who borrow the lightest meets its bound first; when nothing is spare it is the relay's.
    let first = |account: u32, prefix_weight: u32, asn_weight: u32| {
        let rates = Rates { prefix_weight, asn_weight, burst_ms: 1_000, ..RATES };
        let (mut pool, mut share) = (Pool::new(&rates), Share::new(0, account));
        pool.join(&share);
        let (mut prefix, mut asn) = (Debt::default(), Debt::default());
        let crowd = Crowd { prefix: f64::from(account), asn: Some(f64::from(account)) };
        let mut spend = || pool.spend(0, FRAME_BYTES, (&mut share, crowd), &mut prefix, Some(&mut asn));
        (0..20_000).find_map(|_| spend().err()).map(|over| over.level)
    };
    assert_eq!(first(1, 2, 2), Some(Level::Account));
    assert_eq!(first(2, 1, 2), Some(Level::Prefix));
    assert_eq!(first(2, 2, 1), Some(Level::Asn));
    assert_eq!(first(64, 65_536, 65_536), Some(Level::Account));
    assert_eq!(first(u32::MAX, u32::MAX, u32::MAX), Some(Level::Relay));
}
