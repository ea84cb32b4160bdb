//! Frames that other implementations must open, pinned in `tests/vectors/frame.json`: a session from its first frame to its end.
//!
//! With `BPI_VECTORS=write` the file is written anew; that is a decision record.

use std::convert::Infallible;
use std::sync::Arc;

use bpi_protocol::frame::endpoint::Endpoint;
use bpi_protocol::frame::key::Signer as _;
use bpi_protocol::frame::{Effect, Input, Moment, RelayId};
use bpi_protocol::hop::{Hello, Hop};
use rand_core::{TryCryptoRng, TryRng};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::world::{Chance, Key, NETWORK, UNIX_S, settings};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/frame.json");

/// Chance whose every draw of 32 bytes is written down: they are the secret keys of the session, in the order in which they are made.
struct Recorded(Chance, Vec<String>);

impl TryRng for Recorded {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.0.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0.try_next_u64()
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.try_fill_bytes(bytes)?;
        if bytes.len() == 32 {
            self.1.push(hex::encode(&bytes));
        }
        Ok(())
    }
}

impl TryCryptoRng for Recorded {}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Vectors {
    note: String,
    network: String,
    unix_s: u64,
    /// Ed25519 seeds.
    initiator_seed: String,
    responder_seed: String,
    /// X25519.
    prekey_secret: String,
    /// X25519, of the reply.
    fresh_secret: String,
    prekey: String,
    /// What is sent, in order: the two messages of the initiator.
    messages: Vec<String>,
    /// Frames in the order in which they are sent.
    frames: Vec<Sent>,
    /// Of a hop: what the TLS session exports, and the greeting.
    exported: String,
    hello: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sent {
    by: String,
    frame: String,
}

/// One session of two messages, the second of two frames.
fn story() -> Vectors {
    let mut rng = Recorded(Chance(0x00b1_c1b1), Vec::new());
    let (initiator, responder) = (Key::of(1), Key::of(2));
    let mut ends = [
        Endpoint::new(initiator.clone(), settings(), &mut rng),
        Endpoint::new(responder.clone(), settings(), &mut rng),
    ];
    let messages: Vec<Vec<u8>> =
        vec![b"a message that fits a datagram".to_vec(), (0..20_000_u32).map(|at| (at % 251) as u8).collect()];
    let mut frames = Vec::new();
    let mut us = 0;
    let mut prekey = None;
    let mut wire: Vec<(usize, Arc<[u8]>)> = Vec::new();
    let mut delivered: Vec<Vec<u8>> = Vec::new();
    let mut inputs: Vec<(usize, Option<Vec<u8>>)> = vec![(1, None)];
    let mut tags = 0;
    for _ in 0..60 {
        us += 5_000;
        let now = Moment { us, unix_s: UNIX_S };
        let mut out = Vec::new();
        for (end, frame) in inputs.drain(..) {
            let mut told = Vec::new();
            match frame {
                Some(mut frame) => {
                    let via = RelayId(*b"relay-01");
                    ends[end].step(now, Input::Frame { via, frame: &mut frame }, &mut rng, &mut told);
                }
                None => ends[end].step(now, Input::Time, &mut rng, &mut told),
            }
            out.extend(told.into_iter().map(|effect| (end, effect)));
        }
        if let (Some(prekey), true) = (prekey, tags < messages.len()) {
            let message = Arc::new(Zeroizing::new(messages[tags].clone()));
            tags += 1;
            let mut told = Vec::new();
            ends[0].step(now, Input::Send { to: responder.identity(), tag: tags as u64, message }, &mut rng, &mut told);
            ends[0].step(now, Input::Prekey(prekey), &mut rng, &mut told);
            out.extend(told.into_iter().map(|effect| (0, effect)));
        }
        if us == 250_000 {
            let mut told = Vec::new();
            ends[0].close(now, 7, &mut told);
            out.extend(told.into_iter().map(|effect| (0, effect)));
        }
        for (end, effect) in out {
            match effect {
                Effect::Transmit { frame, .. } => wire.push((end, frame)),
                Effect::Announce(made) if end == 1 && prekey.is_none() => prekey = Some(made),
                Effect::Deliver { message, .. } => delivered.push(message.to_vec()),
                _ => {}
            }
        }
        for (end, frame) in wire.drain(..) {
            let by = if end == 0 { "initiator" } else { "responder" };
            frames.push(Sent { by: by.to_owned(), frame: hex::encode(&frame) });
            inputs.push((1 - end, Some(frame.to_vec())));
        }
        inputs.extend([(0, None), (1, None)]);
    }
    assert_eq!(delivered, messages);
    let exported = [9; 32];
    let prekey = prekey.unwrap().to_bytes();
    // Draws of 32 bytes: the prekeys of both, what HPKE makes its key of, the initiator's ephemeral key, the responder's fresh one.
    let [prekey_secret, .., fresh_secret] = rng.1.as_slice() else { panic!("some keys are drawn") };
    Vectors {
        note: "Pinned: regenerating this is a decision record. See protocol/tests/frame/vectors.rs.".to_owned(),
        network: format!("{NETWORK:016x}"),
        unix_s: UNIX_S,
        initiator_seed: hex::encode(initiator.0.to_bytes()),
        responder_seed: hex::encode(responder.0.to_bytes()),
        prekey_secret: prekey_secret.clone(),
        fresh_secret: fresh_secret.clone(),
        prekey: hex::encode(&prekey),
        messages: messages.iter().map(hex::encode).collect(),
        frames,
        exported: hex::encode(exported),
        hello: hex::encode(Hop::Hello(Hello::new(&responder, NETWORK, &exported, prekey)).to_wire()),
    }
}

#[test]
fn a_session_is_byte_for_byte_the_pinned_one() {
    let made = story();
    if std::env::var("BPI_VECTORS").is_ok_and(|value| value == "write") {
        std::fs::write(FILE, serde_json::to_string_pretty(&made).unwrap() + "\n").unwrap();
    }
    let pinned: Vectors = serde_json::from_str(&std::fs::read_to_string(FILE).unwrap()).unwrap();
    assert!(made == pinned, "the frames of this session are not those of {FILE}");
    let kinds: Vec<u8> = pinned.frames.iter().map(|sent| hex::decode(&sent.frame[8..10]).unwrap()[0]).collect();
    assert!([1, 2, 3, 4].iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
}
