//! What becomes of a frame, a connection, a registration, a header.

use bpi_relay::envelope::NetworkId;
use bpi_relay::fingerprint::Fingerprint;
use bpi_relay::metrics::{Handshake, Metrics, Transport};
use bpi_relay::peer::{ConnId, Role, Who};
use bpi_relay::score::{CUT_OFF_MS, CloseCode, Fault, Then};
use bpi_relay::switch::{Drain, Dropped, KEYS_PER_CONNECTION, Limits, Refusal, Settings, Switch, Verdict};
use bpi_relay::tally::DropReason;

use crate::mesh::{NETWORK, at, frame, fresh, key, switch, who};

fn reason(verdict: Verdict) -> Option<DropReason> {
    match verdict {
        Verdict::Dropped(Dropped { reason, .. }) => Some(reason),
        _ => None,
    }
}

fn recipients(verdict: Verdict) -> Vec<u64> {
    match verdict {
        Verdict::HandOn { to, .. } => to.into_iter().map(|conn| conn.0).collect(),
        other => panic!("handed on: {other:?}"),
    }
}

#[test]
fn a_frame_goes_to_every_connection_that_takes_its_key_and_a_copy_of_it_to_nobody() {
    let mut switch = switch(Settings::default(), 5);
    (1..4).for_each(|conn| drop(switch.register(at(0), ConnId(conn), key(7), b"cert").unwrap()));
    let frame = fresh(at(1000), 7, 1);
    assert_eq!(recipients(switch.forward(at(1000), ConnId(0), &frame)), [1, 2, 3]);
    assert_eq!(reason(switch.forward(at(1001), ConnId(0), &frame)), Some(DropReason::Duplicate));
    assert_eq!(reason(switch.forward(at(1001), ConnId(4), &frame)), Some(DropReason::Duplicate));
    let tally = switch.take_tally();
    assert_eq!((tally.frames_in, tally.frames_taken, tally.frames_out, tally.bytes_out), (3, 1, 3, 3 * 1150));
    assert_eq!(tally.dropped(DropReason::Duplicate), 2);
}

#[test]
fn what_is_wrong_with_a_frame_has_a_name() {
    let settings = Settings { networks: vec![NETWORK], ..Settings::default() };
    let mut switch = switch(settings, 2);
    drop(switch.register(at(0), ConnId(1), key(7), b"").unwrap());
    let now = at(10_000);
    let mut say = |frame: &bytes::Bytes, conn| reason(switch.forward(now, ConnId(conn), frame));
    assert_eq!(say(&bytes::Bytes::from_static(b"hello"), 0), Some(DropReason::Malformed));
    assert_eq!(say(&frame(key(7), 1, now.unix_s, 100), 0), Some(DropReason::Expired));
    assert_eq!(say(&frame(key(7), 1, now.unix_s + 126, 100), 0), Some(DropReason::FarExpiry));
    assert_eq!(say(&frame(key(7), 1, now.unix_s + 125, 100), 0), None);
    assert_eq!(say(&frame(key(8), 1, now.unix_s + 9, 100), 0), Some(DropReason::NoRoute));
    assert_eq!(say(&fresh(now, 7, 2), 9), Some(DropReason::UnknownConnection));
    let mut other = fresh(now, 7, 3).to_vec();
    other[8] = 1;
    assert_eq!(say(&other.into(), 0), Some(DropReason::WrongNetwork));
}

#[test]
fn a_frame_that_every_queue_refused_is_welcome_again() {
    let mut switch = switch(Settings::default(), 3);
    (1..3).for_each(|conn| drop(switch.register(at(0), ConnId(conn), key(7), b"").unwrap()));
    let frame = fresh(at(0), 7, 1);
    let Verdict::HandOn { print, .. } = switch.forward(at(1000), ConnId(0), &frame) else { panic!("handed on") };
    assert_eq!(switch.undelivered(&print), 1, "the other one has it");
    assert_eq!(reason(switch.forward(at(1000), ConnId(0), &frame)), Some(DropReason::Duplicate));
    assert_eq!(switch.undelivered(&print), 0);
    assert_eq!(recipients(switch.forward(at(1000), ConnId(0), &frame)), [1, 2]);
    assert_eq!(switch.take_tally().dropped(DropReason::Undelivered), 2);
}

#[test]
fn what_a_sender_sends_again_because_it_was_lost_behind_the_relay_passes() {
    let mut switch = switch(Settings::default(), 2);
    drop(switch.register(at(0), ConnId(1), key(7), b"").unwrap());
    let frame = fresh(at(0), 7, 1);
    assert_eq!(recipients(switch.forward(at(1000), ConnId(0), &frame)), [1]);
    assert_eq!(reason(switch.forward(at(1020), ConnId(0), &frame)), Some(DropReason::Duplicate));
    assert_eq!(recipients(switch.forward(at(1060), ConnId(0), &frame)), [1]);
}

#[test]
fn a_frame_waits_for_who_was_here_within_a_minute_and_not_for_strangers() {
    let mut switch = switch(Settings::default(), 2);
    drop(switch.register(at(0), ConnId(1), key(7), b"cert").unwrap());
    switch.disconnected(at(1000), ConnId(1));
    let first = fresh(at(2000), 7, 1);
    assert_eq!(switch.forward(at(2000), ConnId(0), &first), Verdict::Stored);
    assert_eq!(reason(switch.forward(at(2900), ConnId(0), &first)), Some(DropReason::Duplicate));
    let second = frame(key(7), 2, at(3000).unix_s + 2, 200);
    assert_eq!(switch.forward(at(3000), ConnId(0), &second), Verdict::Stored);
    assert_eq!(reason(switch.forward(at(3000), ConnId(0), &fresh(at(0), 9, 3))), Some(DropReason::NoRoute));
    switch.connected(at(6000), ConnId(5), who(1)).unwrap();
    assert_eq!(
        switch.register(at(6000), ConnId(5), key(7), b"cert").unwrap(),
        std::slice::from_ref(&first),
        "the second is late"
    );
    assert_eq!(reason(switch.forward(at(6001), ConnId(0), &first)), Some(DropReason::Duplicate));
    switch.disconnected(at(10_000), ConnId(5));
    assert_eq!(switch.forward(at(69_999), ConnId(0), &fresh(at(69_000), 7, 4)), Verdict::Stored);
    assert_eq!(reason(switch.forward(at(70_000), ConnId(0), &fresh(at(70_000), 7, 5))), Some(DropReason::NoRoute));
    switch.tick(at(140_000));
    assert_eq!((switch.sizes().stored, switch.sizes().stored_bytes), (0, 0));
    assert_eq!(switch.take_tally().dropped(DropReason::StoreExpired), 2);
}

#[test]
fn a_frame_that_left_the_store_unsent_is_welcome_again() {
    let mut switch = switch(Settings::default(), 2);
    drop(switch.register(at(0), ConnId(1), key(7), b"").unwrap());
    switch.disconnected(at(1000), ConnId(1));
    // More than one sender may have waiting: its oldest goes.
    let frames: Vec<_> = (0..600).map(|number| fresh(at(2000), 7, number)).collect();
    let mut now = at(2000);
    for frame in &frames {
        now.us += 50_000;
        assert_eq!(switch.forward(now, ConnId(0), frame), Verdict::Stored);
    }
    assert!(switch.take_tally().dropped(DropReason::StoreSender) > 100);
    switch.connected(now, ConnId(5), who(1)).unwrap();
    let waited = switch.register(now, ConnId(5), key(7), b"").unwrap();
    assert_eq!(waited.last(), frames.last(), "the newest were kept");
    assert_eq!(recipients(switch.forward(now, ConnId(0), &frames[0])), [5]);
    assert_eq!(reason(switch.forward(now, ConnId(0), &frames[599])), Some(DropReason::Duplicate));
}

#[test]
fn an_announcement_can_be_asked_for_until_an_hour_after_its_key_left() {
    let mut switch = switch(Settings::default(), 1);
    assert_eq!(switch.announcement(at(0), key(7)), None);
    drop(switch.register(at(0), ConnId(0), key(7), b"first").unwrap());
    drop(switch.register(at(0), ConnId(0), key(7), b"second").unwrap());
    switch.disconnected(at(1000), ConnId(0));
    assert_eq!(switch.announcement(at(3_600_999), key(7)).unwrap(), "second");
    assert_eq!(switch.announcement(at(3_601_000), key(7)), None);
    switch.tick(at(3_601_001));
    assert_eq!(switch.sizes().keys, 0);
}

#[test]
fn connections_and_registrations_are_bounded_in_every_direction() {
    let limits = Limits { connections: 6, per_account: 2, per_prefix: 3, per_asn: 4, keys: 17, ..Limits::default() };
    let mut switch = Switch::new(Settings { limits, ..Settings::default() });
    let mut connect = |conn: u64, who: Who| switch.connected(at(0), ConnId(conn), who);
    let near = |number: u32| Who { addr: who(0).addr, asn: Some(0), ..who(number) };
    connect(0, near(0)).unwrap();
    connect(1, near(0)).unwrap();
    assert_eq!(connect(1, near(1)), Err(Refusal::ConnectionKnown { conn: ConnId(1) }));
    assert_eq!(connect(2, near(0)), Err(Refusal::PerAccount { spiffe: who(0).spiffe, limit: 2 }));
    connect(2, near(1)).unwrap();
    assert!(matches!(connect(3, near(2)), Err(Refusal::PerPrefix { limit: 3, .. })));
    connect(3, Who { asn: Some(0), ..who(3) }).unwrap();
    assert_eq!(connect(4, Who { asn: Some(0), ..who(4) }), Err(Refusal::PerAsn { asn: 0, limit: 4 }));
    connect(4, who(4)).unwrap();
    connect(5, Who { asn: None, ..who(5) }).unwrap();
    assert_eq!(connect(6, who(6)), Err(Refusal::Connections { limit: 6 }));
    assert_eq!(connect(6, Who { spiffe: "x".repeat(256), ..who(6) }), Err(Refusal::SpiffeId { bytes: 256 }));
    let mut register = |conn: u64, number: u64, bytes: usize| {
        switch.register(at(0), ConnId(conn), key(number), &vec![0; bytes]).map(|frames| frames.len())
    };
    for number in 0..KEYS_PER_CONNECTION as u64 {
        register(0, number, 512).unwrap();
    }
    assert_eq!(register(0, 99, 0), Err(Refusal::KeysPerConnection { limit: 16 }));
    register(0, 3, 0).unwrap();
    assert_eq!(register(1, 16, 513), Err(Refusal::Announcement { bytes: 513 }));
    register(1, 16, 0).unwrap();
    assert_eq!(register(1, 17, 0), Err(Refusal::Keys { limit: 17 }));
    assert_eq!(register(6, 0, 0), Err(Refusal::ConnectionUnknown { conn: ConnId(6) }));
    switch.disconnected(at(1), ConnId(0));
    drop(switch.register(at(2), ConnId(1), key(17), b"").unwrap());
    assert_eq!(switch.sizes().keys, 17, "a key that was left made room");
}

#[test]
fn of_more_than_four_connections_for_a_key_the_oldest_is_relieved() {
    let mut switch = switch(Settings::default(), 6);
    (1..6).for_each(|conn| drop(switch.register(at(0), ConnId(conn), key(7), b"").unwrap()));
    assert_eq!(recipients(switch.forward(at(1000), ConnId(0), &fresh(at(0), 7, 1))), [2, 3, 4, 5]);
    (0..KEYS_PER_CONNECTION as u64).for_each(|number| {
        drop(switch.register(at(0), ConnId(1), key(100 + number), b"").unwrap());
    });
    switch.unregister(at(0), ConnId(3), key(7));
    switch.disconnected(at(0), ConnId(2));
    assert_eq!(recipients(switch.forward(at(1000), ConnId(0), &fresh(at(0), 7, 2))), [4, 5]);
}

#[test]
fn who_sends_nonsense_is_slowed_then_closed_and_kept_out_however_it_comes_back() {
    let mut switch = switch(Settings::default(), 2);
    switch.connected(at(0), ConnId(9), who(0)).unwrap();
    let nonsense = bytes::Bytes::from_static(&[1; 200]);
    let said: Vec<_> = (0..10)
        .map(|step| match switch.forward(at(1000 + step), ConnId(0), &nonsense) {
            Verdict::Dropped(Dropped { then, .. }) => then,
            other => panic!("dropped: {other:?}"),
        })
        .collect();
    assert_eq!(said[0], Then::Go);
    assert!(matches!(said[6], Then::Slow { delay_ms: 1.. }));
    let close = Then::Close { code: CloseCode::Misbehaved };
    assert_eq!(said[9], close);
    let cut_off = Verdict::Dropped(Dropped { reason: DropReason::CutOff, then: close });
    assert_eq!(switch.forward(at(1020), ConnId(9), &fresh(at(0), 7, 1)), cut_off, "its other connection too");
    switch.disconnected(at(1030), ConnId(0));
    switch.disconnected(at(1030), ConnId(9));
    assert!(matches!(switch.connected(at(1040), ConnId(10), who(0)), Err(Refusal::CutOff { left_ms: 29_000.., .. })));
    switch.tick(at(1010 + CUT_OFF_MS));
    switch.connected(at(1010 + CUT_OFF_MS), ConnId(10), who(0)).unwrap();
    assert_eq!(switch.blame(at(0), ConnId(1), Fault::Signature), Then::Go);
    assert_eq!(switch.take_tally().closed, 1);
}

#[test]
fn only_validators_publish_and_followers_are_told() {
    let settings = Settings { networks: vec![NETWORK], ..Settings::default() };
    let mut switch = switch(settings, 3);
    switch.connected(at(0), ConnId(5), Who { role: Role::Validator, ..who(5) }).unwrap();
    assert!(switch.subscribe(ConnId(1), NETWORK).unwrap().is_empty());
    assert_eq!(switch.publish(at(1000), ConnId(5), (NETWORK, 1), b"one").unwrap(), [ConnId(1)]);
    assert_eq!(switch.take(ConnId(1), NETWORK).bodies, ["one"]);
    assert_eq!(switch.subscribe(ConnId(2), NETWORK).unwrap(), ["one"]);
    assert!(switch.publish(at(1000), ConnId(5), (NETWORK, 1), b"one").unwrap().is_empty());
    let dropped = |result: Result<Vec<ConnId>, Dropped>| result.unwrap_err().reason;
    assert_eq!(dropped(switch.publish(at(1000), ConnId(0), (NETWORK, 2), b"x")), DropReason::NotAllowed);
    assert_eq!(dropped(switch.publish(at(1000), ConnId(5), (NETWORK, 2), &[0; 4097])), DropReason::Malformed);
    let other = NetworkId([1; 8]);
    assert_eq!(dropped(switch.publish(at(1000), ConnId(5), (other, 2), b"x")), DropReason::WrongNetwork);
    assert_eq!(switch.subscribe(ConnId(2), other), Err(Refusal::Network { network: other }));
    switch.disconnected(at(1000), ConnId(1));
    assert_eq!(switch.publish(at(1000), ConnId(5), (NETWORK, 2), b"two").unwrap(), [ConnId(2)]);
}

#[test]
fn a_draining_relay_takes_nothing_new_and_hands_on_what_comes() {
    let mut switch = switch(Settings::default(), 2);
    drop(switch.register(at(0), ConnId(1), key(7), b"").unwrap());
    assert_eq!(switch.drained(at(0)), None);
    switch.drain(at(1000), 30_000);
    switch.drain(at(2000), 90_000);
    assert_eq!(switch.connected(at(1000), ConnId(5), who(5)), Err(Refusal::Draining));
    assert_eq!(switch.register(at(1000), ConnId(1), key(8), b""), Err(Refusal::Draining));
    assert_eq!(recipients(switch.forward(at(1000), ConnId(0), &fresh(at(0), 7, 1))), [1]);
    assert_eq!(switch.drained(at(21_000)), Some(Drain::Waiting { connections: 2, left_ms: 10_000 }));
    switch.disconnected(at(22_000), ConnId(0));
    assert_eq!(switch.drained(at(31_000)), Some(Drain::Deadline { connections: 1 }));
    switch.disconnected(at(31_000), ConnId(1));
    assert_eq!(switch.drained(at(31_000)), Some(Drain::Empty));
}

#[test]
fn a_decision_in_two_steps_is_the_decision_in_one() {
    let (mut one, mut two) = (switch(Settings::default(), 3), switch(Settings::default(), 3));
    for switch in [&mut one, &mut two] {
        drop(switch.register(at(0), ConnId(1), key(7), b"").unwrap());
    }
    for step in 0..2000 {
        let (now, to) = (at(1000 + step), 7 + step % 3);
        let frame = fresh(now, to, step % 500);
        let parts = match two.admit(now, ConnId(step % 4), &frame) {
            Ok(admitted) => two.hand_on(now, admitted, Fingerprint::of(&frame), &frame),
            Err(dropped) => Verdict::Dropped(dropped),
        };
        assert_eq!(one.forward(now, ConnId(step % 4), &frame), parts);
    }
    assert_eq!(one.take_tally(), two.take_tally());
}

#[test]
fn figures_name_reasons_roles_and_transports_and_nothing_from_outside() {
    let metrics = Metrics::new();
    let mut switch = switch(Settings::default(), 2);
    metrics.connected(Role::Validator, Transport::Quic);
    metrics.shaken(Handshake::Done);
    drop(switch.register(at(0), ConnId(1), key(7), b"").unwrap());
    let frame = fresh(at(0), 7, 1);
    let Verdict::HandOn { print, .. } = switch.forward(at(1000), ConnId(0), &frame) else { panic!("handed on") };
    let _ = switch.forward(at(1000), ConnId(0), &fresh(at(0), 7, 2));
    let _ = switch.forward(at(1000), ConnId(0), &frame);
    switch.undelivered(&print);
    metrics.look(&mut switch);
    let text = metrics.text().unwrap();
    for line in [
        "bpi_relay_frames_in_total 3",
        "bpi_relay_frame_bytes_out_total 2300",
        "bpi_relay_delivery_ratio 0.5",
        "bpi_relay_drops_total{reason=\"duplicate\"} 1",
        "bpi_relay_drops_total{reason=\"budget_asn\"} 0",
        "bpi_relay_connections{role=\"validator\",transport=\"quic\"} 1",
        "bpi_relay_connections{role=\"agent\",transport=\"tcp\"} 0",
        "bpi_relay_handshakes_total{outcome=\"done\"} 1",
        "bpi_relay_keys_registered 1",
        "bpi_relay_store_bytes 0",
    ] {
        assert!(text.lines().any(|said| said == line), "{line} in\n{text}");
    }
    assert!(!text.contains("spiffe") && text.contains("bpi_relay_memory_bytes "));
    metrics.look(&mut switch);
    assert!(metrics.text().unwrap().contains("bpi_relay_frames_in_total 3\n"), "a tally is taken once");
}
