//! Every message once, whatever relays do, as long as one of them carries.

use std::collections::HashMap;

use bpi_protocol::frame::{Effect, Input, Refusal};
use proptest::prelude::*;

use crate::world::{Relay, World, relay_id};

const SECOND_US: u64 = 1_000_000;

fn number_of(message: &[u8]) -> u64 {
    u64::from_be_bytes(message[..8].try_into().unwrap())
}

fn numbered(number: u64, length: usize) -> Vec<u8> {
    let mut message = number.to_be_bytes().to_vec();
    message.resize(length.max(8), number as u8);
    message
}

fn each_came_once(world: &World, node: usize, sent: u64) {
    let mut counts: HashMap<u64, u64> = HashMap::new();
    for (_, message, _) in &world.delivered[node] {
        assert!(message[8..].iter().all(|byte| *byte == number_of(message) as u8), "a message is what was sent");
        *counts.entry(number_of(message)).or_default() += 1;
    }
    assert!(counts.values().all(|count| *count == 1), "none came twice");
    assert_eq!(counts.len() as u64, sent, "all came");
}

#[test]
fn a_message_opens_a_session_and_comes() {
    let mut world = World::new(1, 2, 3);
    let tag = world.send(0, 1, numbered(7, 100));
    world.run_until(SECOND_US);
    assert_eq!(world.delivered[1].len(), 1);
    assert_eq!(world.delivered[1][0].0, world.identity(0));
    assert!(world.acknowledged.contains(&(0, tag)));
    assert!(world.effects.iter().any(|(node, effect)| *node == 1 && matches!(effect, Effect::Met { new: true, .. })));
}

#[test]
fn five_percent_loss_with_reorder_and_a_relay_that_dies_lose_and_double_nothing() {
    for seed in 0..20 {
        let mut world = World::new(seed, 2, 3);
        let relay = Relay { loss_one_in: 20, delay_us: (5_000, 15_000), copies_one_in: 10, ..Relay::default() };
        world.relays = vec![relay; 3];
        let sent = 400;
        for number in 0..sent {
            let length = if number % 17 == 0 { 40_000 } else { 20 + (number as usize * 37) % 1500 };
            world.send(0, 1, numbered(number, length));
            world.run_until(world.us + 1_000);
            if number == 150 {
                world.relays[1].alive = false;
            }
        }
        world.run_until(world.us + 5 * SECOND_US);
        each_came_once(&world, 1, sent);
        assert_eq!(world.acknowledged.len() as u64, sent);
        assert!(world.lost.is_empty());
    }
}

#[test]
fn nothing_stalls_for_more_than_two_round_trips_when_a_relay_dies() {
    let mut world = World::new(3, 2, 3);
    world.relays = vec![Relay { delay_us: (10_000, 12_000), ..Relay::default() }; 3];
    for number in 0..200 {
        if number == 100 {
            world.relays[0].alive = false;
        }
        world.send(0, 1, numbered(number, 200));
        world.run_until(world.us + 5_000);
    }
    world.run_until(world.us + SECOND_US);
    each_came_once(&world, 1, 200);
    let times: Vec<u64> = world.delivered[1].iter().map(|(.., at)| *at).collect();
    let longest = times[5..].windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest <= 24_000, "{longest} µs between two messages");
}

#[test]
fn one_relay_that_carries_is_enough_and_receipts_tell_which() {
    let mut world = World::new(4, 2, 3);
    world.relays[0].silent = true;
    world.relays[1].silent = true;
    for number in 0..100 {
        world.send(0, 1, numbered(number, 200));
        world.run_until(world.us + 5_000);
    }
    world.run_until(world.us + 2 * SECOND_US);
    each_came_once(&world, 1, 100);
    let carried = world.effects.iter().rev().find_map(|(node, effect)| match effect {
        Effect::Carried { carried, .. } if *node == 0 => Some(carried.clone()),
        _ => None,
    });
    let carried: Vec<u64> = carried.unwrap().iter().map(|carried| carried.frames).collect();
    assert_eq!(carried, [0, 0, 100]);
    assert!(world.effects.iter().any(|(_, effect)| matches!(effect, Effect::Carried { signed: true, .. })));
}

#[test]
fn what_a_process_had_not_acknowledged_goes_to_its_next_life() {
    let mut world = World::new(5, 2, 2);
    world.send(0, 1, numbered(0, 100));
    world.run_until(SECOND_US);
    world.relays.iter_mut().for_each(|relay| relay.alive = false);
    for number in 1..20 {
        world.send(0, 1, numbered(number, 3_000));
    }
    world.run_until(2 * SECOND_US);
    world.restart(1);
    world.relays.iter_mut().for_each(|relay| relay.alive = true);
    world.delivered[1].clear();
    // The new life says hello by opening a session of its own.
    world.send(1, 0, numbered(99, 10));
    world.run_until(4 * SECOND_US);
    each_came_once(&world, 1, 19);
    assert_eq!(world.delivered[0].len(), 1);
}

#[test]
fn a_life_that_says_nothing_is_reached_too_when_the_opening_has_failed() {
    let mut world = World::new(6, 2, 2);
    world.send(0, 1, numbered(0, 100));
    world.run_until(SECOND_US);
    world.restart(1);
    world.delivered[1].clear();
    world.send(0, 1, numbered(1, 100));
    world.run_until(200 * SECOND_US);
    // The session is of no use, and after a minute that is known; the message may have come, so it is told as lost.
    world.send(0, 1, numbered(2, 100));
    world.run_until(260 * SECOND_US);
    each_came_once(&world, 1, 1);
    assert_eq!(world.lost.len(), 1);
    assert!(world.refused(Refusal::Session) > 0);
}

#[test]
fn a_session_that_is_being_opened_with_a_prekey_of_an_earlier_life_is_opened_anew_at_once() {
    let mut world = World::new(9, 2, 2);
    world.run_until(1_000);
    let old = world.nodes[1].prekey().unwrap();
    world.us += 3 * SECOND_US;
    world.restart(1);
    world.send(0, 1, numbered(0, 100));
    world.run_until(world.us + 5_000);
    // A relay that has not heard of the new life yet gives out the old prekey, before and after.
    world.input(0, Input::Prekey(old));
    world.run_until(world.us + 2 * SECOND_US);
    each_came_once(&world, 1, 1);
}

#[test]
fn lives_that_begin_again_and_again_are_reached_within_a_second() {
    for seed in 0..10 {
        let mut world = World::new(seed, 2, 3);
        let relay = Relay { delay_us: (5_000, 15_000), ..Relay::default() };
        world.relays = vec![relay; 3];
        for life in 0..20 {
            let node = (life % 2) as usize;
            world.send(0, 1, numbered(life, 200));
            world.send(1, 0, numbered(life, 200));
            world.run_until(world.us + 30_000 * (life % 5));
            world.restart(node);
            let other = world.identity(1 - node);
            world.input(node, Input::Open { to: other });
            world.delivered[node].clear();
            world.send(1 - node, node, numbered(1_000 + life, 200));
            world.run_until(world.us + SECOND_US);
            let reached = world.delivered[node].iter().any(|(_, message, _)| number_of(message) == 1_000 + life);
            assert!(reached, "seed {seed}, life {life}");
        }
    }
}

#[test]
fn keys_go_on_by_age_and_old_prekeys_are_replaced() {
    let mut world = World::new(7, 2, 2);
    for hour in 0..5 {
        for number in 0..4 {
            world.send(0, 1, numbered(hour * 4 + number, 100));
            world.run_until(world.us + SECOND_US);
        }
        world.run_until((hour + 1) * 3_700 * SECOND_US);
    }
    each_came_once(&world, 1, 20);
    let announced = world.effects.iter().filter(|(node, effect)| *node == 1 && matches!(effect, Effect::Announce(_)));
    assert!(announced.count() >= 10);
}

#[test]
fn too_much_that_waits_loses_the_oldest_and_says_so() {
    let mut world = World::new(8, 2, 1);
    world.relays[0].alive = false;
    for number in 0..10 {
        world.send(0, 1, numbered(number, 1 << 19));
    }
    assert_eq!(world.lost.len(), 2);
    world.relays[0].alive = true;
    world.run_until(60 * SECOND_US);
    assert_eq!(world.delivered[1].len(), 8);
    world.send(0, 1, Vec::new());
    world.send(0, 1, vec![0; (1 << 20) + 1]);
    assert_eq!(world.lost.len(), 4);
}

#[test]
fn an_opening_of_a_life_that_is_over_comes_late_and_brings_nothing_twice() {
    let mut world = World::new(9, 2, 1);
    world.keep_sent = true;
    world.run_until(SECOND_US);
    // The first life opens a session, and a relay holds that back until another life is there.
    world.relays[0].alive = false;
    let (first, second) = (world.identity(0), world.identity(1));
    world.input(1, Input::Open { to: first });
    let (_, held) = world.sent.last().cloned().unwrap();
    world.restart(1);
    world.relays[0].alive = true;
    world.input(1, Input::Open { to: first });
    world.input(0, Input::Open { to: second });
    world.run_until(3 * SECOND_US);
    // It has come, and its receipt has not left yet.
    let tag = world.send(0, 1, numbered(1, 100));
    world.run_until(3 * SECOND_US + 5_000);
    assert_eq!(world.delivered[1].len(), 1);
    world.input(0, Input::Frame { via: relay_id(0), frame: &mut held.to_vec() });
    world.run_until(10 * SECOND_US);
    assert_eq!((world.delivered[1].len(), &world.lost[..]), (1, &[(0, tag)][..]));
    world.send(0, 1, numbered(2, 100));
    world.run_until(12 * SECOND_US);
    assert_eq!(world.delivered[1].len(), 2);
}

#[test]
fn an_opening_of_a_life_that_is_over_does_not_end_the_session_of_the_one_that_is_there() {
    let mut world = World::new(10, 2, 1);
    world.keep_sent = true;
    world.run_until(SECOND_US);
    world.relays[0].alive = false;
    let first = world.identity(0);
    world.input(1, Input::Open { to: first });
    let (_, held) = world.sent.last().cloned().unwrap();
    world.restart(1);
    world.relays[0].alive = true;
    world.send(1, 0, numbered(1, 100));
    world.run_until(3 * SECOND_US);
    world.input(0, Input::Frame { via: relay_id(0), frame: &mut held.to_vec() });
    let tag = world.send(1, 0, numbered(2, 100));
    world.run_until(4 * SECOND_US);
    each_came_once(&world, 0, 2);
    assert!(world.acknowledged.contains(&(1, tag)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_relays_do_each_message_comes_once(
        seed in any::<u64>(),
        faults in prop::collection::vec((0_u64..6, 0_u64..5, 500_u64..30_000, 0_u64..40_000), 2..5),
        lengths in prop::collection::vec(8_usize..60_000, 1..60),
    ) {
        let mut world = World::new(seed, 3, faults.len());
        for (relay, (loss, copies, least, spread)) in world.relays.iter_mut().zip(&faults) {
            *relay = Relay {
                loss_one_in: if *loss > 1 { *loss } else { 0 },
                copies_one_in: *copies,
                delay_us: (*least, least + spread),
                ..Relay::default()
            };
        }
        for (number, length) in (0..).zip(&lengths) {
            world.send(0, 1, numbered(number, *length));
            world.send(2, 1, numbered(1_000_000 + number, length / 3));
            world.run_until(world.us + 2_000);
        }
        world.run_until(world.us + 40 * SECOND_US);
        each_came_once(&world, 1, 2 * lengths.len() as u64);
        prop_assert!(world.lost.is_empty());
    }
}
