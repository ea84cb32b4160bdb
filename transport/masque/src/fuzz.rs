//! What reads bytes of a peer, for the fuzzer: each as the connection uses it, without one.
//!
//! Streams come in pieces of `piece_bytes`, so that the fuzzer can ask whether a cut changes what is read. That a reader keeps no more than its
//! limit is asserted here, where its insides are seen. Absent on purpose: any use beside tests/fuzz.

use bytes::{Bytes, BytesMut};

use crate::capsule::{self, Capsules, Datagram};
use crate::client::{Answer, judge};
use crate::error::MasqueError;
use crate::frame::{Frame, Frames, Settings, frame};
use crate::host::Refusal;
use crate::message::{Request, of_fields, of_head};
use crate::qpack::{self, Field};
use crate::target::Target;
use crate::varint;

/// A field: name and value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Pieces of a stream, at least one byte each.
fn pieces(stream: &[u8], piece_bytes: usize) -> impl Iterator<Item = Bytes> {
    stream.chunks(piece_bytes.max(1)).map(Bytes::copy_from_slice)
}

/// The datagrams of a stream of capsules up to its end or its first fault, and whether it ends where it may.
pub fn capsules(stream: &[u8], piece_bytes: usize) -> (Vec<Bytes>, bool) {
    let (mut capsules, mut datagrams) = (Capsules::new(), Vec::new());
    for mut piece in pieces(stream, piece_bytes) {
        loop {
            match capsules.next(&mut piece) {
                Ok(Some(datagram)) => datagrams.push(datagram),
                Ok(None) => break,
                Err(_) => return (datagrams, false),
            }
        }
        assert!(piece.is_empty(), "what is no datagram is consumed");
    }
    (datagrams, capsules.end().is_ok())
}

/// The UDP payload of an HTTP Datagram, if it is one.
pub fn payload(value: Bytes) -> Option<Bytes> {
    match capsule::datagram(value) {
        Datagram::Udp(payload) => Some(payload),
        Datagram::UnknownContext | Datagram::TooLong | Datagram::Malformed => None,
    }
}

/// A payload as a capsule.
pub fn capsule(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    capsule::write(payload, &mut out);
    assert_eq!(out.len(), capsule::bytes_of(payload));
    out
}

/// What a stream of HTTP/3 holds up to its end or its first fault, with content joined, and whether it ends where it may. Each frame by its name.
pub fn frames(stream: &[u8], piece_bytes: usize, section_bytes_max: usize) -> (Vec<(&'static str, Vec<u8>)>, bool) {
    let mut frames = Frames::new(section_bytes_max);
    let mut all: Vec<(&'static str, Vec<u8>)> = Vec::new();
    for mut piece in pieces(stream, piece_bytes) {
        loop {
            let (name, bytes) = match frames.next(&mut piece) {
                Ok(None) => break,
                Ok(Some(Frame::Headers(section))) => ("headers", section),
                Ok(Some(Frame::Settings(payload))) => ("settings", payload),
                Ok(Some(Frame::Data(piece))) => ("data", piece),
                Ok(Some(Frame::Control)) => ("control", Bytes::new()),
                Ok(Some(Frame::HeadersTooLong)) => {
                    all.push(("too-long", Vec::new()));
                    return (all, false);
                }
                Err(_) => return (all, false),
            };
            assert!(name == "data" || bytes.len() <= section_bytes_max, "what is kept is within its limit");
            match all.last_mut() {
                Some(("data", before)) if name == "data" => before.extend_from_slice(&bytes),
                _ => all.push((name, bytes.into())),
            }
        }
        assert!(piece.is_empty(), "what is no frame is consumed");
    }
    (all, frames.end().is_ok())
}

/// A HEADERS frame of a section.
pub fn headers(section: &[u8]) -> Vec<u8> {
    frame(crate::frame::HEADERS, section)
}

/// The settings of a frame's payload, if they are any: extended CONNECT, HTTP Datagrams.
pub fn settings(payload: &[u8]) -> Option<(bool, bool)> {
    let Settings { connect_protocol, datagrams } = Settings::read(Bytes::copy_from_slice(payload)).ok()?;
    Some((connect_protocol, datagrams))
}

/// The frame of these settings.
pub fn settings_frame((connect_protocol, datagrams): (bool, bool), section_bytes_max: usize) -> Vec<u8> {
    Settings { connect_protocol, datagrams }.frame(section_bytes_max)
}

/// The fields of a section, if it is one of at most so many bytes.
pub fn fields(section: &[u8], bytes_max: usize) -> Option<Vec<Pair>> {
    let fields = qpack::decode(section, bytes_max).ok()?;
    Some(fields.into_iter().map(|Field { name, value }| (name, value)).collect())
}

/// The section of fields.
pub fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    qpack::encode(fields)
}

/// What fields ask for: a target, or a page.
///
/// # Errors
/// The status that they are refused with.
pub fn request(fields: &[Pair]) -> Result<Option<Target>, u16> {
    of_request(of_fields(&of_pairs(fields)))
}

fn of_pairs(fields: &[Pair]) -> Vec<Field> {
    fields.iter().map(|(name, value)| Field { name: name.clone(), value: value.clone() }).collect()
}

/// What a head of HTTP/1.1 asks for; `None`: it is not there as a whole, or none.
pub fn head(text: &[u8]) -> Option<Result<Option<Target>, u16>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(text) {
        Ok(httparse::Status::Complete(_)) => Some(of_request(of_head(&request))),
        Ok(httparse::Status::Partial) | Err(_) => None,
    }
}

fn of_request(judged: Result<Request, Refusal>) -> Result<Option<Target>, u16> {
    match judged {
        Ok(Request::Tunnel(target)) => Ok(Some(target)),
        Ok(Request::Page { path, .. }) => {
            assert!(!path.is_empty() && !path.contains(['\r', '\n', '\0']), "a path is one line");
            Ok(None)
        }
        Err(refusal) => Err(refusal.status()),
    }
}

/// The integer at the start of bytes, and how many it took.
pub fn integer(bytes: &[u8]) -> Option<(u64, usize)> {
    varint::read(bytes)
}

/// Whether an answer of a proxy gives the tunnel; false: another answer will come.
///
/// # Errors
/// When it refuses, or is none.
pub fn answer(fields: &[Pair]) -> Result<bool, MasqueError> {
    Ok(judge(&of_pairs(fields))? == Answer::Accepted)
}

/// Type and length of a capsule or frame, given byte by byte. At most 15 bytes wait.
pub fn type_and_length(bytes: &[u8]) -> Option<(u64, u64)> {
    let mut kept = BytesMut::new();
    for byte in bytes {
        let mut one = Bytes::copy_from_slice(&[*byte]);
        if let Some(both) = capsule::read_head(&mut kept, &mut one) {
            assert!(kept.is_empty());
            return Some(both);
        }
        assert!(kept.len() <= 15, "16 bytes hold both");
    }
    None
}
