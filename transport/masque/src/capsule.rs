//! HTTP Datagrams: as capsules on a stream (RFC 9297, section 3) and with the context of a tunnel (RFC 9298, section 5).
//!
//! Of capsules only DATAGRAM has a meaning here; others are skipped as they come, whatever length they claim, and nothing of them is kept.
//! A reader keeps at most one datagram.

use bytes::{Buf as _, BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::varint;

/// Longest UDP payload (RFC 9298, section 5): what IPv6 carries without jumbograms, less the UDP header.
pub const PAYLOAD_BYTES_MAX: usize = 65_527;
/// Longest value of a DATAGRAM capsule: that payload after the longest form of a context.
const VALUE_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + varint::BYTES_MAX;
/// Type of the DATAGRAM capsule.
const DATAGRAM: u64 = 0;
/// Context of UDP payloads. No other is registered here.
const UDP_PAYLOAD: u64 = 0;

/// Why a stream of capsules cannot go on.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CapsuleError {
    /// Longer than any UDP payload.
    #[error("a datagram capsule of {bytes} bytes; at most {VALUE_BYTES_MAX} are taken")]
    TooLong {
        /// What it claims.
        bytes: u64,
    },
    /// The stream ended inside a capsule.
    #[error("the stream ends inside a capsule")]
    Truncated,
}

/// What an HTTP Datagram of a tunnel is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Datagram {
    /// A UDP payload.
    Udp(Bytes),
    /// Of a context that was never registered: dropped without a word (RFC 9298, section 5).
    UnknownContext,
    /// A payload longer than UDP has: the stream is aborted.
    TooLong,
    /// Too short for a context: the stream is aborted.
    Malformed,
}

/// The context in front and the payload behind it.
pub(crate) fn datagram(mut value: Bytes) -> Datagram {
    match varint::read(&value) {
        None => Datagram::Malformed,
        Some((UDP_PAYLOAD, bytes)) if value.len() - bytes <= PAYLOAD_BYTES_MAX => {
            value.advance(bytes);
            Datagram::Udp(value)
        }
        Some((UDP_PAYLOAD, _)) => Datagram::TooLong,
        Some(_) => Datagram::UnknownContext,
    }
}

/// Appends `payload` with its context, as a DATAGRAM capsule.
pub(crate) fn write(payload: &[u8], out: &mut impl BufMut) {
    varint::write(DATAGRAM, out);
    varint::write(payload.len() as u64 + 1, out);
    varint::write(UDP_PAYLOAD, out);
    out.put_slice(payload);
}

/// Bytes of the capsule of a payload.
pub(crate) fn bytes_of(payload: &[u8]) -> usize {
    let length = match payload.len() + 1 {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        _ => 4,
    };
    1 + length + 1 + payload.len()
}

#[derive(Debug)]
enum State {
    /// In type and length; what has come of them.
    Head,
    /// In a datagram of which so many bytes are missing.
    Value(usize),
    /// In something else of which so many bytes are missing.
    Skip(u64),
}

/// Reads capsules from pieces of a stream.
#[derive(Debug)]
pub(crate) struct Capsules {
    state: State,
    kept: BytesMut,
}

impl Capsules {
    pub(crate) fn new() -> Self {
        Self { state: State::Head, kept: BytesMut::new() }
    }

    /// The next datagram of `input`, which is consumed up to its end. `None`: all of `input` is consumed, more is needed.
    ///
    /// # Errors
    /// When a datagram claims to be longer than any may be.
    pub(crate) fn next(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, CapsuleError> {
        loop {
            match self.state {
                State::Head => {
                    let Some((kind, length)) = read_head(&mut self.kept, input) else { return Ok(None) };
                    self.state = match kind {
                        DATAGRAM if length > VALUE_BYTES_MAX as u64 => {
                            return Err(CapsuleError::TooLong { bytes: length });
                        }
                        DATAGRAM => State::Value(length as usize),
                        _ => State::Skip(length),
                    };
                }
                // Most capsules lie in one piece: those are not copied.
                State::Value(missing) if self.kept.is_empty() && input.len() >= missing => {
                    self.state = State::Head;
                    return Ok(Some(input.split_to(missing)));
                }
                State::Value(missing) => {
                    let piece = input.split_to(missing.min(input.len()));
                    self.kept.extend_from_slice(&piece);
                    if piece.len() < missing {
                        self.state = State::Value(missing - piece.len());
                        return Ok(None);
                    }
                    self.state = State::Head;
                    return Ok(Some(self.kept.split().freeze()));
                }
                State::Skip(missing) => {
                    let skipped = missing.min(input.len() as u64);
                    input.advance(skipped as usize);
                    self.state = match missing - skipped {
                        0 => State::Head,
                        missing => State::Skip(missing),
                    };
                    if matches!(self.state, State::Skip(_)) {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Judges that the stream ends here.
    ///
    /// # Errors
    /// When it ends inside a capsule (RFC 9297, section 3.3).
    pub(crate) fn end(&self) -> Result<(), CapsuleError> {
        match self.state {
            State::Head if self.kept.is_empty() => Ok(()),
            _ => Err(CapsuleError::Truncated),
        }
    }
}

/// Type and length, two integers, from what is kept of them and `input`. `None`: all of `input` is kept, more is needed.
/// At most 15 bytes are ever kept, for 16 hold both.
pub(crate) fn read_head(kept: &mut BytesMut, input: &mut Bytes) -> Option<(u64, u64)> {
    let both = |bytes: &[u8]| {
        let (kind, first) = varint::read(bytes)?;
        let (length, second) = varint::read(&bytes[first..])?;
        Some((kind, length, first + second))
    };
    if kept.is_empty()
        && let Some((kind, length, bytes)) = both(input)
    {
        input.advance(bytes);
        return Some((kind, length));
    }
    while input.has_remaining() {
        kept.put_u8(input.get_u8());
        if let Some((kind, length, _)) = both(kept) {
            kept.clear();
            return Some((kind, length));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All datagrams of `stream`, given in pieces that end at `cuts`.
    fn read(stream: &[u8], cuts: &[usize]) -> Result<Vec<Bytes>, CapsuleError> {
        let mut capsules = Capsules::new();
        let mut datagrams = Vec::new();
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).chain([stream.len()]).collect();
        ends.sort_unstable();
        let mut start = 0;
        for end in ends {
            let mut piece = Bytes::copy_from_slice(&stream[start..end]);
            start = end;
            while let Some(datagram) = capsules.next(&mut piece)? {
                datagrams.push(datagram);
            }
            assert!(piece.is_empty(), "what is not a datagram is consumed");
            assert!(capsules.kept.len() <= VALUE_BYTES_MAX);
        }
        capsules.end().map(|()| datagrams)
    }

    #[test]
    fn a_datagram_longer_than_udp_has_is_refused_before_it_comes() {
        let mut head = Vec::new();
        varint::write(DATAGRAM, &mut head);
        varint::write(VALUE_BYTES_MAX as u64 + 1, &mut head);
        assert_eq!(read(&head, &[]), Err(CapsuleError::TooLong { bytes: VALUE_BYTES_MAX as u64 + 1 }));
        let longest = Bytes::from(vec![0; PAYLOAD_BYTES_MAX + 1]);
        assert!(matches!(datagram(longest), Datagram::Udp(_)));
        assert_eq!(datagram(Bytes::from(vec![0; PAYLOAD_BYTES_MAX + 2])), Datagram::TooLong);
    }

    #[test]
    fn a_capsule_that_is_not_known_is_skipped_however_long() {
        let mut stream = Vec::new();
        varint::write(0x2b, &mut stream);
        varint::write(100_000, &mut stream);
        stream.extend(vec![7; 100_000]);
        write(b"after", &mut stream);
        assert_eq!(read(&stream, &[3, 50_000]), Ok(vec![Bytes::from_static(b"\0after")]));
    }

    #[test]
    fn contexts_that_nobody_registered_are_told_apart() {
        assert_eq!(datagram(Bytes::from_static(&[2, 1])), Datagram::UnknownContext);
        assert_eq!(datagram(Bytes::from_static(&[])), Datagram::Malformed);
        assert_eq!(datagram(Bytes::from_static(&[0x40])), Datagram::Malformed);
        assert_eq!(datagram(Bytes::from_static(&[0])), Datagram::Udp(Bytes::new()));
        assert_eq!(datagram(Bytes::from_static(&[0x40, 0, 9])), Datagram::Udp(Bytes::from_static(&[9])));
    }

    proptest! {
        #[test]
        fn capsules_come_back_however_they_are_cut(
            payloads in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..8),
            cuts in proptest::collection::vec(any::<usize>(), 0..12),
        ) {
            let mut stream = Vec::new();
            let mut expected = Vec::new();
            for (known, payload) in payloads {
                if known {
                    let before = stream.len();
                    write(&payload, &mut stream);
                    prop_assert_eq!(stream.len() - before, bytes_of(&payload));
                    expected.push(Datagram::Udp(Bytes::from(payload)));
                } else {
                    varint::write(0x1d, &mut stream);
                    varint::write(payload.len() as u64, &mut stream);
                    stream.extend(payload);
                }
            }
            let read = read(&stream, &cuts).unwrap();
            prop_assert_eq!(read.into_iter().map(datagram).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn any_bytes_are_read_the_same_however_they_are_cut(
            stream in proptest::collection::vec(prop_oneof![3 => 0_u8..4, 1 => any::<u8>()], 0..200),
            cuts in proptest::collection::vec(any::<usize>(), 0..12),
        ) {
            prop_assert_eq!(read(&stream, &cuts), read(&stream, &[]));
        }
    }
}
