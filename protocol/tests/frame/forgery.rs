//! Ten million frames that somebody else has made, bent, replayed or sealed by another key: none is delivered.

use bpi_protocol::frame::header::{HEADER_BYTES, Header};
use bpi_protocol::frame::{Input, Refusal};
use proptest::prelude::*;

use crate::world::{Chance, World, relay_id};

/// How many frames are tried of all kinds together.
const FORGERIES: u64 = 10_000_000;

/// A world in which node 0 has sent some messages to node 1, and every frame of it.
fn world() -> World {
    let mut world = World::new(11, 3, 1);
    world.keep_sent = true;
    for number in 0..64_u8 {
        world.send(0, 1, vec![number; 40 + usize::from(number)]);
        world.send(2, 1, vec![number; 40]);
        world.run_until(world.us + 5_000);
    }
    world.run_until(1_000_000);
    assert_eq!(world.delivered[1].len(), 128);
    world
}

#[test]
fn of_ten_million_forgeries_and_replays_none_is_delivered() {
    let mut world = world();
    let frames: Vec<Vec<u8>> = world.sent.iter().map(|(_, frame)| frame.to_vec()).collect();
    let delivered: Vec<usize> = world.delivered.iter().map(Vec::len).collect();
    let mut chance = Chance(12);
    let mut frame = Vec::new();
    for attempt in 0..FORGERIES {
        let of = &frames[chance.below(frames.len() as u64) as usize];
        frame.clear();
        frame.extend_from_slice(of);
        match attempt % 5 {
            // A replay.
            0 => {}
            // A bit is another one.
            1 => {
                let bit = chance.below(frame.len() as u64 * 8);
                frame[bit as usize / 8] ^= 1 << (bit % 8);
            }
            // A counter that has not been used, so that the window does not help.
            2 => {
                let seq = 1000 + chance.below(1 << 40);
                frame[44..52].copy_from_slice(&seq.to_be_bytes());
            }
            // The body of another frame under this header.
            3 => {
                let other = &frames[chance.below(frames.len() as u64) as usize];
                let seq = 1000 + chance.below(1 << 40);
                frame[44..52].copy_from_slice(&seq.to_be_bytes());
                for (byte, theirs) in frame[HEADER_BYTES..].iter_mut().zip(&other[HEADER_BYTES.min(other.len())..]) {
                    *byte = *theirs;
                }
            }
            // Another session's name, or another phase.
            _ => {
                let at = if chance.one_in(2) { 24 } else { 40 };
                frame[at..at + 4].copy_from_slice(&(chance.next() as u32).to_be_bytes());
            }
        }
        world.input(1, Input::Frame { via: relay_id(0), frame: &mut frame });
        if attempt % 4096 == 0 {
            world.effects.clear();
            world.us += 1;
        }
    }
    let after: Vec<usize> = world.delivered.iter().map(Vec::len).collect();
    assert_eq!(delivered, after);
    assert!(world.refused(Refusal::Forged) > FORGERIES / 10, "{:?}", world.refused);
    assert!(world.refused(Refusal::Duplicate) > FORGERIES / 10);
    // And the sessions have borne it.
    world.send(0, 1, vec![1; 100]);
    world.run_until(world.us + 1_000_000);
    assert_eq!(world.delivered[1].len(), delivered[1] + 1);
}

proptest! {
    #[test]
    fn no_bytes_make_an_endpoint_panic(
        head in prop::collection::vec(any::<u8>(), 0..64),
        tail in prop::collection::vec(any::<u8>(), 0..300),
        kind in 0_u8..6,
    ) {
        let mut world = World::new(13, 2, 1);
        world.send(0, 1, vec![1; 40]);
        world.run_until(100_000);
        let mut frame = [head.as_slice(), &tail].concat();
        world.input(1, Input::Frame { via: relay_id(0), frame: &mut frame });
        // And with all that makes it look like one.
        let mut header = [0; HEADER_BYTES];
        header[..head.len()].copy_from_slice(&head);
        header[..6].copy_from_slice(&[b'B', b'P', b'C', b'1', kind, 1]);
        header[8..16].copy_from_slice(&crate::world::NETWORK.to_be_bytes());
        header[16..24].copy_from_slice(&world.nodes[1].id().0);
        header[52..56].copy_from_slice(&(crate::world::UNIX_S as u32 + 30).to_be_bytes());
        let payload = tail.len().saturating_sub(if kind == 1 { 64 } else { 16 }) as u32;
        header[60..64].copy_from_slice(&payload.to_be_bytes());
        let mut frame = [header.as_slice(), &tail].concat();
        if let Ok(read) = Header::of_frame(&frame) {
            prop_assert_eq!(&read.to_bytes()[..], &frame[..HEADER_BYTES]);
        }
        world.input(1, Input::Frame { via: relay_id(0), frame: &mut frame });
        prop_assert!(world.delivered[1].len() <= 1);
    }
}
