//! What a responder says of what has come: which frames, and by which relays. The one way to notice a relay that drops in silence.

use crate::consensus::bytes::{BytesError, Reader, Writer};
use crate::key::PublicKey;

use super::key::{SIGNATURE_BYTES, Signer};
use super::window::{WINDOW, Window};

/// Relays that a receipt tells of, at most.
pub const RELAYS_MAX: usize = 8;
const WORDS_MAX: usize = (WINDOW / 64) as usize;
const DOMAIN: &[u8] = b"bpci/1 receipt";

/// What ends of a session call a relay: the first bytes of a digest of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayId(pub [u8; 8]);

/// How many frames of a session a relay has brought, copies of others among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Which relay.
    pub relay: RelayId,
    /// Frames of the session since it was opened.
    pub frames: u64,
}

/// What of a session has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// All counters below have come.
    pub complete: u64,
    /// Which of those from there on, the lowest bit first.
    pub seen: Vec<u64>,
    /// How long it waited before it was sent, in µs.
    pub delay_us: u32,
    /// Relays that the responder is connected to.
    pub carried: Vec<Carried>,
    /// The responder's over all that; one in a second has it, to be shown to others.
    pub signature: Option<[u8; SIGNATURE_BYTES]>,
}

impl Receipt {
    /// Of a window.
    pub fn of(window: &Window, delay_us: u32, carried: &[Carried]) -> Self {
        let complete = window.complete();
        let words = window.next().saturating_sub(complete).div_ceil(64).min(WORDS_MAX as u64);
        let word = |at: u64| {
            (0..64).filter(|bit| window.has(complete + at * 64 + bit)).fold(0_u64, |word, bit| word | 1 << bit)
        };
        let carried = carried.iter().copied().take(RELAYS_MAX).collect();
        Self { complete, seen: (0..words).map(word).collect(), delay_us, carried, signature: None }
    }

    /// Whether a counter has come.
    pub fn has(&self, seq: u64) -> bool {
        let Some(at) = seq.checked_sub(self.complete) else { return true };
        self.seen.get((at / 64) as usize).is_some_and(|word| word & 1 << (at % 64) != 0)
    }

    /// The highest counter that has come, plus one.
    pub fn next(&self) -> u64 {
        let word = self.seen.iter().rposition(|word| *word != 0);
        let bits = word.map_or(0, |at| at as u64 * 64 + (64 - u64::from(self.seen[at].leading_zeros())));
        self.complete + bits
    }

    fn content(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u64(self.complete).u8(self.seen.len() as u8);
        self.seen.iter().for_each(|word| {
            writer.u64(*word);
        });
        writer.u32(self.delay_us).u8(self.carried.len() as u8);
        self.carried.iter().for_each(|carried| {
            writer.bytes(&carried.relay.0).u64(carried.frames);
        });
        writer.done()
    }

    /// Signs it for the session whose INIT has this digest.
    pub fn sign(&mut self, signer: &impl Signer, session: &[u8; 32]) {
        self.signature = Some(signer.sign(&[DOMAIN, session, &self.content()].concat()));
    }

    /// Whether it is signed by an identity, for a session.
    pub fn is_signed_by(&self, identity: &[u8; 32], session: &[u8; 32]) -> bool {
        let Some(signature) = &self.signature else { return false };
        let message = [DOMAIN, session, &self.content()].concat();
        PublicKey::from_raw(identity).is_ok_and(|key| key.verify(&message, signature).is_ok())
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.content();
        bytes.push(self.signature.is_some().into());
        bytes.extend(self.signature.iter().flatten());
        bytes
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`BytesError`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let mut reader = Reader::new(bytes);
        let complete = reader.u64()?;
        let words = short(&mut reader, "seen", WORDS_MAX)?;
        let seen = (0..words).map(|_| reader.u64()).collect::<Result<_, _>>()?;
        let delay_us = reader.u32()?;
        let relays = short(&mut reader, "carried", RELAYS_MAX)?;
        let carried = (0..relays)
            .map(|_| Ok(Carried { relay: RelayId(reader.array()?), frames: reader.u64()? }))
            .collect::<Result<_, BytesError>>()?;
        let signature = if reader.flag("signed")? { Some(reader.array()?) } else { None };
        reader.end()?;
        if complete > u64::MAX - WINDOW {
            return Err(BytesError::Value { field: "complete", value: complete });
        }
        Ok(Self { complete, seen, delay_us, carried, signature })
    }
}

fn short(reader: &mut Reader<'_>, field: &'static str, max: usize) -> Result<usize, BytesError> {
    let count = usize::from(reader.u8()?);
    if count > max { Err(BytesError::Count { field, count, max }) } else { Ok(count) }
}
