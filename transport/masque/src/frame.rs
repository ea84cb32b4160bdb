//! Frames of HTTP/3 (RFC 9114, section 7) and the faults that end a connection or a stream.
//!
//! Only HEADERS and SETTINGS are kept whole, and only up to a limit that is judged by the length they claim, before any of it comes.
//! DATA passes through in the pieces it comes in; everything else is skipped in place.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::capsule::read_head;
use crate::varint;

/// Error codes (RFC 9114, section 8.1; RFC 9204, section 6; RFC 9297, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Code {
    Datagram = 0x33,
    None = 0x100,
    StreamCreation = 0x103,
    ClosedCriticalStream = 0x104,
    FrameUnexpected = 0x105,
    Frame = 0x106,
    ExcessiveLoad = 0x107,
    Id = 0x108,
    Settings = 0x109,
    MissingSettings = 0x10a,
    RequestRejected = 0x10b,
    RequestCancelled = 0x10c,
    RequestIncomplete = 0x10d,
    Message = 0x10e,
    QpackDecompression = 0x200,
    QpackEncoderStream = 0x201,
}

impl From<Code> for quinn::VarInt {
    fn from(code: Code) -> Self {
        Self::from_u32(code as u32)
    }
}

/// What the peer did that ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: Code,
    pub(crate) what: &'static str,
}

impl Fault {
    pub(crate) const fn new(code: Code, what: &'static str) -> Self {
        Self { code, what }
    }
}

pub(crate) const DATA: u64 = 0x0;
pub(crate) const HEADERS: u64 = 0x1;
pub(crate) const SETTINGS: u64 = 0x4;

/// A frame, or the next piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A field section.
    Headers(Bytes),
    /// A field section longer than the limit; what comes of the stream after it means nothing.
    HeadersTooLong,
    /// A piece of content, never empty.
    Data(Bytes),
    /// The settings.
    Settings(Bytes),
    /// GOAWAY, CANCEL_PUSH or MAX_PUSH_ID: legal where there are settings, and without a meaning here.
    Control,
}

#[derive(Debug)]
enum State {
    Head,
    Data(u64),
    Kept { kind: u64, missing: usize },
    Skip { missing: u64, control: bool },
}

/// Reads frames from pieces of a stream.
#[derive(Debug)]
pub(crate) struct Frames {
    state: State,
    kept: BytesMut,
    section_bytes_max: usize,
}

impl Frames {
    /// A field section or the settings may take `section_bytes_max`.
    pub(crate) fn new(section_bytes_max: usize) -> Self {
        Self { state: State::Head, kept: BytesMut::new(), section_bytes_max }
    }

    /// The next frame of `input`, which is consumed up to its end. `None`: all of `input` is consumed, more is needed.
    ///
    /// # Errors
    /// When a frame is forbidden anywhere, or the settings are longer than any peer's.
    pub(crate) fn next(&mut self, input: &mut Bytes) -> Result<Option<Frame>, Fault> {
        loop {
            match self.state {
                State::Head => {
                    let Some((kind, length)) = read_head(&mut self.kept, input) else { return Ok(None) };
                    let fits = usize::try_from(length).ok().filter(|length| *length <= self.section_bytes_max);
                    self.state = match (kind, fits) {
                        (DATA, _) => State::Data(length),
                        (HEADERS | SETTINGS, Some(missing)) => State::Kept { kind, missing },
                        (HEADERS, None) => return Ok(Some(Frame::HeadersTooLong)),
                        (SETTINGS, None) => return Err(Fault::new(Code::ExcessiveLoad, "the settings are too long")),
                        // CANCEL_PUSH, GOAWAY, MAX_PUSH_ID.
                        (0x3 | 0x7 | 0xd, _) => State::Skip { missing: length, control: true },
                        // PUSH_PROMISE is never asked for; the others were of HTTP/2 (RFC 9114, section 7.2.8).
                        (0x5 | 0x2 | 0x6 | 0x8 | 0x9, _) => {
                            return Err(Fault::new(Code::FrameUnexpected, "a frame of a type that may not be sent"));
                        }
                        _ => State::Skip { missing: length, control: false },
                    };
                }
                State::Data(0) => self.state = State::Head,
                State::Data(_) if input.is_empty() => return Ok(None),
                State::Data(missing) => {
                    let piece = input.split_to(missing.min(input.len() as u64) as usize);
                    self.state = State::Data(missing - piece.len() as u64);
                    return Ok(Some(Frame::Data(piece)));
                }
                State::Kept { kind, missing } => {
                    let piece = input.split_to(missing.min(input.len()));
                    self.kept.extend_from_slice(&piece);
                    if piece.len() < missing {
                        self.state = State::Kept { kind, missing: missing - piece.len() };
                        return Ok(None);
                    }
                    self.state = State::Head;
                    let kept = self.kept.split().freeze();
                    return Ok(Some(if kind == HEADERS { Frame::Headers(kept) } else { Frame::Settings(kept) }));
                }
                State::Skip { missing, control } => {
                    let skipped = missing.min(input.len() as u64);
                    input.advance(skipped as usize);
                    if skipped < missing {
                        self.state = State::Skip { missing: missing - skipped, control };
                        return Ok(None);
                    }
                    self.state = State::Head;
                    if control {
                        return Ok(Some(Frame::Control));
                    }
                }
            }
        }
    }

    /// Judges that the stream ends here.
    ///
    /// # Errors
    /// When it ends inside a frame (RFC 9114, section 7.1).
    pub(crate) fn end(&self) -> Result<(), Fault> {
        match self.state {
            State::Head if self.kept.is_empty() => Ok(()),
            State::Data(0) => Ok(()),
            _ => Err(Fault::new(Code::Frame, "the stream ends inside a frame")),
        }
    }
}

/// What a peer's settings say, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Extended CONNECT is understood (RFC 9220, section 3).
    pub(crate) connect_protocol: bool,
    /// HTTP Datagrams are taken in QUIC datagrams (RFC 9297, section 2.1.1).
    pub(crate) datagrams: bool,
}

const QPACK_MAX_TABLE_CAPACITY: u64 = 0x1;
const MAX_FIELD_SECTION_SIZE: u64 = 0x6;
const ENABLE_CONNECT_PROTOCOL: u64 = 0x8;
const H3_DATAGRAM: u64 = 0x33;
/// Different settings that a peer may name: twenty are registered.
const SETTINGS_MAX: usize = 64;

impl Settings {
    /// The settings of a SETTINGS frame's `payload`.
    ///
    /// # Errors
    /// When it is cut off, names one twice, names one of HTTP/2, or gives a switch another value than 0 or 1.
    pub(crate) fn read(mut payload: Bytes) -> Result<Self, Fault> {
        let mut settings = Self::default();
        let mut seen = Vec::new();
        while payload.has_remaining() {
            let head = read_head(&mut BytesMut::new(), &mut payload);
            let (id, value) = head.ok_or(Fault::new(Code::Frame, "the settings end inside one"))?;
            if seen.contains(&id) || (0x2..=0x5).contains(&id) {
                return Err(Fault::new(Code::Settings, "a setting is named twice or belongs to HTTP/2"));
            }
            if seen.len() == SETTINGS_MAX {
                return Err(Fault::new(Code::ExcessiveLoad, "more settings than there are"));
            }
            seen.push(id);
            let switch = || match value {
                0 | 1 => Ok(value == 1),
                _ => Err(Fault::new(Code::Settings, "a switch has another value than 0 or 1")),
            };
            match id {
                ENABLE_CONNECT_PROTOCOL => settings.connect_protocol = switch()?,
                H3_DATAGRAM => settings.datagrams = switch()?,
                _ => {}
            }
        }
        Ok(settings)
    }

    /// The SETTINGS frame of this side: no dynamic table, HTTP Datagrams, and as a server extended CONNECT.
    pub(crate) fn frame(self, section_bytes_max: usize) -> Vec<u8> {
        let mut payload = Vec::new();
        for (id, value) in [
            (QPACK_MAX_TABLE_CAPACITY, 0),
            (MAX_FIELD_SECTION_SIZE, section_bytes_max as u64),
            (ENABLE_CONNECT_PROTOCOL, self.connect_protocol.into()),
            (H3_DATAGRAM, self.datagrams.into()),
        ] {
            varint::write(id, &mut payload);
            varint::write(value, &mut payload);
        }
        frame(SETTINGS, &payload)
    }
}

/// A frame of `kind`.
pub(crate) fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 2 * varint::BYTES_MAX);
    varint::write(kind, &mut out);
    varint::write(payload.len() as u64, &mut out);
    out.extend_from_slice(payload);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All frames of `stream`, given in pieces that end at `cuts`; neighbouring content is joined.
    fn read(stream: &[u8], cuts: &[usize]) -> Result<Vec<Frame>, Fault> {
        let mut frames = Frames::new(64);
        let mut all: Vec<Frame> = Vec::new();
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).chain([stream.len()]).collect();
        ends.sort_unstable();
        let mut start = 0;
        for end in ends {
            let mut piece = Bytes::copy_from_slice(&stream[start..end]);
            start = end;
            while let Some(frame) = frames.next(&mut piece)? {
                assert!(frames.kept.len() <= 64);
                match (all.last_mut(), frame) {
                    (_, Frame::HeadersTooLong) => {
                        all.push(Frame::HeadersTooLong);
                        return Ok(all);
                    }
                    (Some(Frame::Data(before)), Frame::Data(piece)) => {
                        *before = [before.as_ref(), &piece].concat().into()
                    }
                    (_, frame) => all.push(frame),
                }
            }
            assert!(piece.is_empty());
        }
        frames.end().map(|()| all)
    }

    #[test]
    fn a_long_section_is_told_before_it_comes() {
        assert_eq!(read(&[1, 0x40, 65], &[]), Ok(vec![Frame::HeadersTooLong]));
        assert_eq!(read(&[4, 0x40, 65], &[]).map_err(|fault| fault.code), Err(Code::ExcessiveLoad));
    }

    #[test]
    fn settings_are_read_back() {
        let ours = Settings { connect_protocol: true, datagrams: true };
        let [Frame::Settings(payload)] = &read(&ours.frame(4096), &[2, 3]).unwrap()[..] else { panic!("one frame") };
        assert_eq!(Settings::read(payload.clone()), Ok(ours));
        for (payload, code) in [
            (&[0x33, 2][..], Code::Settings),
            (&[8, 1, 8, 1], Code::Settings),
            (&[2, 0], Code::Settings),
            (&[8], Code::Frame),
        ] {
            assert_eq!(Settings::read(Bytes::copy_from_slice(payload)).map_err(|fault| fault.code), Err(code));
        }
    }

    #[test]
    fn frames_of_http_2_are_refused_and_unknown_ones_skipped() {
        assert_eq!(read(&[6, 0], &[]).map_err(|fault| fault.code), Err(Code::FrameUnexpected));
        assert_eq!(
            read(&[0x21, 2, 9, 9, 7, 1, 0, 0, 1, 5], &[3]),
            Ok(vec![Frame::Control, Frame::Data(Bytes::from_static(&[5]))])
        );
        assert_eq!(read(&[0, 2, 5], &[]).map_err(|fault| fault.code), Err(Code::Frame));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_the_same_however_they_are_cut(
            stream in proptest::collection::vec(prop_oneof![3 => 0_u8..8, 1 => any::<u8>()], 0..150),
            cuts in proptest::collection::vec(any::<usize>(), 0..12),
        ) {
            prop_assert_eq!(read(&stream, &cuts), read(&stream, &[]));
        }

        #[test]
        fn any_settings_are_judged(payload in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Settings::read(payload.into());
        }
    }
}
