//! Bytes that are too many for one message: sent in pieces, and gone on with from where it stopped, whichever end begins again.
//!
//! ```text
//! sender  ── Offer { digest, length } ──►  receiver
//!         ◄── From { digest, offset } ──       what it has on disk already
//!         ── Piece { digest, offset, bytes } ──► …
//!         ◄── From { digest, offset } ──       now and then; `offset = length`: whole, and its digest holds
//! ```
//!
//! Pure: both ends take a message and say what to send. The receiver's bytes are the caller's file, which it appends to in order and makes durable before it says so;
//! so an offset that was said is never taken back but by a digest that does not hold. Bounds: pieces under way, offers at a time, the length of what is taken.

use std::collections::BTreeMap;

use bpi_protocol::consensus::bytes::{BytesError, Reader, Writer};
use sha2::{Digest as _, Sha256};

/// Bytes of a piece.
pub const PIECE_BYTES: usize = 256 * 1024;
/// Pieces that are under way.
pub const PIECES_MAX: u64 = 8;
/// Bytes after which a receiver says how far it is.
const SAY_EVERY_BYTES: u64 = 2 * PIECE_BYTES as u64;

/// What is sent, by its SHA-256.
pub type Sum = [u8; 32];

/// What the ends say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bulk {
    /// "I have this."
    Offer {
        /// What.
        sum: Sum,
        /// How long, in bytes.
        length: u64,
    },
    /// "I want it from here on."
    From {
        /// What.
        sum: Sum,
        /// Bytes that are durable already.
        offset: u64,
    },
    /// A piece.
    Piece {
        /// Of what.
        sum: Sum,
        /// Where it begins.
        offset: u64,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// "I do not take this."
    Refuse {
        /// What.
        sum: Sum,
    },
}

impl Bulk {
    /// Its bytes, as a message.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        match self {
            Self::Offer { sum, length } => writer.u8(1).bytes(sum).u64(*length),
            Self::From { sum, offset } => writer.u8(2).bytes(sum).u64(*offset),
            Self::Piece { sum, offset, bytes } => writer.u8(3).bytes(sum).u64(*offset).bytes(bytes),
            Self::Refuse { sum } => writer.u8(4).bytes(sum),
        };
        writer.done()
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`BytesError`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u8()?;
        let sum: Sum = reader.array()?;
        let message = match kind {
            1 => Self::Offer { sum, length: reader.u64()? },
            2 => Self::From { sum, offset: reader.u64()? },
            3 => {
                let (offset, bytes) = (reader.u64()?, reader.rest());
                if bytes.is_empty() || bytes.len() > PIECE_BYTES {
                    return Err(BytesError::Count { field: "bytes of a piece", count: bytes.len(), max: PIECE_BYTES });
                }
                return Ok(Self::Piece { sum, offset, bytes: bytes.to_vec() });
            }
            4 => Self::Refuse { sum },
            other => return Err(BytesError::Value { field: "kind", value: other.into() }),
        };
        reader.end()?;
        Ok(message)
    }
}

/// What a sender wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// To send this.
    Say(Bulk),
    /// These bytes of the source, to be sent as a piece.
    Read {
        /// Where they begin.
        offset: u64,
        /// How many.
        length: usize,
    },
    /// It is at the other end, whole and durable.
    Done,
    /// The other end does not take it.
    Refused,
}

/// The end that has the bytes.
#[derive(Clone, Debug)]
pub struct Sender {
    sum: Sum,
    length: u64,
    /// What the other end has, and what was sent.
    durable: u64,
    sent: u64,
    over: bool,
}

impl Sender {
    /// Of bytes with this digest and length.
    pub fn new(sum: Sum, length: u64) -> Self {
        Self { sum, length, durable: 0, sent: 0, over: false }
    }

    /// What to say first, and again when the other end may have begun again.
    pub fn offer(&mut self) -> Bulk {
        self.sent = self.durable;
        Bulk::Offer { sum: self.sum, length: self.length }
    }

    /// Takes what the other end says.
    pub fn take(&mut self, message: &Bulk) -> Vec<Wanted> {
        match message {
            Bulk::From { sum, offset } if *sum == self.sum && *offset <= self.length && !self.over => {
                // It may have less than it said before: its digest did not hold, or its disk is another one.
                if *offset < self.durable || self.sent < *offset {
                    self.sent = *offset;
                }
                self.durable = *offset;
                if *offset == self.length {
                    self.over = true;
                    return vec![Wanted::Done];
                }
                self.more()
            }
            Bulk::Refuse { sum } if *sum == self.sum && !self.over => {
                self.over = true;
                vec![Wanted::Refused]
            }
            _ => Vec::new(),
        }
    }

    fn more(&mut self) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        let until = self.length.min(self.durable + PIECES_MAX * PIECE_BYTES as u64);
        while self.sent < until {
            let length = (self.length - self.sent).min(PIECE_BYTES as u64);
            wanted.push(Wanted::Read { offset: self.sent, length: length as usize });
            self.sent += length;
        }
        wanted
    }

    /// A piece of bytes that were read.
    pub fn piece(&self, offset: u64, bytes: Vec<u8>) -> Bulk {
        Bulk::Piece { sum: self.sum, offset, bytes }
    }
}

/// What a receiver wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// To append these bytes, and make them durable before what follows is said.
    Append {
        /// Of what.
        sum: Sum,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// To say this.
    Say(Bulk),
    /// It is whole, and its digest holds.
    Whole {
        /// What.
        sum: Sum,
    },
    /// Its digest does not hold: all of it is to be forgotten.
    Forget {
        /// What.
        sum: Sum,
    },
}

#[derive(Debug)]
struct Taking {
    length: u64,
    offset: u64,
    said: u64,
    digest: Sha256,
    /// Pieces that came before their turn: messages of a session have no order.
    early: BTreeMap<u64, Vec<u8>>,
}

/// The end that wants the bytes, of one peer.
#[derive(Debug)]
pub struct Receiver {
    taking: BTreeMap<Sum, Taking>,
    length_max: u64,
    offers_max: usize,
}

impl Receiver {
    /// That takes no more than so many bytes at a time, and so many offers.
    pub fn new(length_max: u64, offers_max: usize) -> Self {
        Self { taking: BTreeMap::new(), length_max, offers_max }
    }

    /// Takes what the peer says. `has`: what of an offer is durable here already; it is read again, once, to go on with its digest.
    pub fn take(&mut self, message: Bulk, has: &mut dyn FnMut(&Sum) -> Vec<u8>) -> Vec<Deed> {
        match message {
            Bulk::Offer { sum, length } => self.offered(sum, length, has),
            Bulk::Piece { sum, offset, bytes } => self.piece(sum, offset, bytes),
            Bulk::From { .. } | Bulk::Refuse { .. } => Vec::new(),
        }
    }

    fn offered(&mut self, sum: Sum, length: u64, has: &mut dyn FnMut(&Sum) -> Vec<u8>) -> Vec<Deed> {
        if let Some(known) = self.taking.get_mut(&sum) {
            known.said = known.offset;
            return vec![Deed::Say(Bulk::From { sum, offset: known.offset })];
        }
        if length > self.length_max || self.taking.len() >= self.offers_max {
            return vec![Deed::Say(Bulk::Refuse { sum })];
        }
        let mut deeds = Vec::new();
        let mut before = has(&sum);
        if before.len() as u64 > length {
            before.clear();
            deeds.push(Deed::Forget { sum });
        }
        let offset = before.len() as u64;
        let digest = Sha256::new().chain_update(&before);
        self.taking.insert(sum, Taking { length, offset, said: offset, digest, early: BTreeMap::new() });
        if offset < length {
            deeds.push(Deed::Say(Bulk::From { sum, offset }));
        }
        self.finish(sum, &mut deeds);
        deeds
    }

    fn piece(&mut self, sum: Sum, offset: u64, bytes: Vec<u8>) -> Vec<Deed> {
        let Some(taking) = self.taking.get_mut(&sum) else { return Vec::new() };
        let fits = offset.checked_add(bytes.len() as u64).is_some_and(|end| end <= taking.length);
        let near = offset >= taking.offset && offset - taking.offset < PIECES_MAX * PIECE_BYTES as u64;
        if !fits || !near || taking.early.len() as u64 >= PIECES_MAX {
            return Vec::new();
        }
        taking.early.insert(offset, bytes);
        let mut deeds = Vec::new();
        while let Some(bytes) = taking.early.remove(&taking.offset) {
            taking.digest.update(&bytes);
            taking.offset += bytes.len() as u64;
            deeds.push(Deed::Append { sum, bytes });
        }
        if taking.offset - taking.said >= SAY_EVERY_BYTES && taking.offset < taking.length {
            taking.said = taking.offset;
            deeds.push(Deed::Say(Bulk::From { sum, offset: taking.offset }));
        }
        self.finish(sum, &mut deeds);
        deeds
    }

    fn finish(&mut self, sum: Sum, deeds: &mut Vec<Deed>) {
        let Some(taking) = self.taking.get(&sum).filter(|taking| taking.offset == taking.length) else { return };
        let (found, length): (Sum, u64) = (taking.digest.clone().finalize().into(), taking.length);
        self.taking.remove(&sum);
        if found == sum {
            deeds.extend([Deed::Whole { sum }, Deed::Say(Bulk::From { sum, offset: length })]);
        } else {
            deeds.extend([Deed::Forget { sum }, Deed::Say(Bulk::Refuse { sum })]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum_of(bytes: &[u8]) -> Sum {
        Sha256::digest(bytes).into()
    }

    /// Both ends with a wire that mixes messages; either end may begin again at any step.
    fn transfer(source: &[u8], faults: &[u8]) -> Option<Vec<u8>> {
        let sum = sum_of(source);
        let (mut sender, mut receiver) = (Sender::new(sum, source.len() as u64), Receiver::new(1 << 30, 4));
        let mut disk = Vec::new();
        let mut to_receiver = vec![sender.offer()];
        let mut to_sender: Vec<Bulk> = Vec::new();
        let mut faults = faults.iter().copied();
        for _ in 0..10_000 {
            match faults.next().unwrap_or(255) {
                // The receiver's process ends, and what was under way is sent to the next one.
                0 => receiver = Receiver::new(1 << 30, 4),
                1 => {
                    sender = Sender::new(sum, source.len() as u64);
                    to_receiver.clear();
                    to_sender.clear();
                }
                fault => {
                    let at = usize::from(fault) % to_receiver.len().max(1);
                    if at < to_receiver.len() {
                        let message = Bulk::from_bytes(&to_receiver.remove(at).to_bytes()).ok()?;
                        let have = disk.clone();
                        for deed in receiver.take(message, &mut |_| have.clone()) {
                            match deed {
                                Deed::Append { bytes, .. } => disk.extend(bytes),
                                Deed::Say(message) => to_sender.push(message),
                                Deed::Whole { .. } => {}
                                Deed::Forget { .. } => disk.clear(),
                            }
                        }
                    }
                }
            }
            if to_receiver.is_empty() && to_sender.is_empty() {
                to_receiver.push(sender.offer());
            }
            for message in std::mem::take(&mut to_sender) {
                for wanted in sender.take(&message) {
                    match wanted {
                        Wanted::Say(message) => to_receiver.push(message),
                        Wanted::Read { offset, length } => {
                            let bytes = source[offset as usize..offset as usize + length].to_vec();
                            to_receiver.push(sender.piece(offset, bytes));
                        }
                        Wanted::Done => return Some(disk),
                        Wanted::Refused => return None,
                    }
                }
            }
        }
        None
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn bytes_come_whole_whichever_end_begins_again(
            length in 0_usize..3_000_000,
            faults in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let source: Vec<u8> = (0..length).map(|at| (at * 31 % 251) as u8).collect();
            prop_assert_eq!(transfer(&source, &faults), Some(source));
        }

        #[test]
        fn no_bytes_are_read_as_something_else(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(message) = Bulk::from_bytes(&bytes) {
                prop_assert_eq!(message.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn what_is_too_long_is_refused_and_bytes_of_another_digest_are_forgotten() {
        let mut receiver = Receiver::new(100, 1);
        let mut nothing = |_: &Sum| Vec::new();
        let refused = receiver.take(Bulk::Offer { sum: [1; 32], length: 101 }, &mut nothing);
        assert_eq!(refused, [Deed::Say(Bulk::Refuse { sum: [1; 32] })]);
        let sum = sum_of(b"abc");
        receiver.take(Bulk::Offer { sum, length: 3 }, &mut nothing);
        let refused = receiver.take(Bulk::Offer { sum: [2; 32], length: 3 }, &mut nothing);
        assert_eq!(refused, [Deed::Say(Bulk::Refuse { sum: [2; 32] })]);
        let deeds = receiver.take(Bulk::Piece { sum, offset: 0, bytes: b"abd".to_vec() }, &mut nothing);
        assert!(deeds.contains(&Deed::Forget { sum }) && !deeds.contains(&Deed::Whole { sum }));
        assert_eq!(receiver.take(Bulk::Piece { sum, offset: 0, bytes: b"abc".to_vec() }, &mut nothing), []);
    }
}
