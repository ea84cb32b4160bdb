//! What both ends of an HTTP/3 connection do alike (RFC 9114, section 6.2): the control stream that is sent, and the peer's streams that
//! go one way.
//!
//! The peer's control stream is read for its settings, its QPACK streams to see that they say nothing, others are stopped. Neither
//! QPACK stream is opened from here, for nothing would be said on it (RFC 9204, section 4.2).

use bytes::Bytes;
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, WriteError};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::MasqueError;
use crate::frame::{Code, Fault, Frame, Frames, Settings};
use crate::varint;

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// Streams one way that are read at a time: three have a meaning, the others come to show that they may.
const STREAMS_MAX: usize = 8;
/// Largest piece that is read of a stream.
pub(crate) const PIECE_BYTES_MAX: usize = 4096;
/// Longest SETTINGS frame.
const SETTINGS_BYTES_MAX: usize = 1024;
/// Types of streams one way.
const CONTROL: u64 = 0x0;
const PUSH: u64 = 0x1;
const QPACK_ENCODER: u64 = 0x2;
const QPACK_DECODER: u64 = 0x3;
/// The one instruction of an encoder that a capacity of 0 allows: to set it to 0 (RFC 9204, section 4.3.1).
const CAPACITY_0: u8 = 0x20;

/// Opens the control stream. It has to be kept: dropped, it would end, and with it the connection.
pub(crate) async fn open_control(
    connection: &quinn::Connection,
    role: Role,
    head_bytes: usize,
) -> Result<SendStream, MasqueError> {
    // Without QUIC datagrams there are no HTTP Datagrams outside of streams (RFC 9297, section 2.1.1).
    let datagrams = connection.max_datagram_size().is_some();
    let settings = Settings { connect_protocol: role == Role::Server, datagrams };
    let mut control = connection.open_uni().await.map_err(MasqueError::Lost)?;
    let mut bytes = Vec::new();
    varint::write(CONTROL, &mut bytes);
    bytes.extend(settings.frame(head_bytes));
    control.write_all(&bytes).await.map_err(lost_in_write)?;
    Ok(control)
}

/// Reads the peer's streams that go one way, until one of them breaks the protocol or the connection ends.
pub(crate) async fn read_streams(
    connection: &quinn::Connection,
    role: Role,
    settings: watch::Sender<Option<Settings>>,
) -> MasqueError {
    let mut streams = JoinSet::new();
    // Each kind may come once.
    let mut seen = [false; 4];
    loop {
        tokio::select! {
            accepted = connection.accept_uni() => match accepted {
                Ok(mut stream) if streams.len() >= STREAMS_MAX => {
                    let _ = stream.stop(Code::StreamCreation.into());
                }
                Ok(stream) => {
                    streams.spawn(read_kind(stream));
                }
                Err(lost) => return MasqueError::Lost(lost),
            },
            Some(ended) = streams.join_next() => match ended {
                Ok(Ok(Read::Kind(kind, stream, rest))) => {
                    if let Some(seen) = seen.get_mut(kind as usize)
                        && std::mem::replace(seen, true)
                    {
                        return Fault::new(Code::StreamCreation, "a stream that may be there once came twice").into();
                    }
                    let settings = settings.clone();
                    match (kind, role) {
                        (CONTROL, _) => drop(streams.spawn(async move { read_control(stream, rest, settings).await })),
                        (PUSH, Role::Server) => {
                            return Fault::new(Code::StreamCreation, "a client has opened a push stream").into();
                        }
                        (PUSH, Role::Client) => return Fault::new(Code::Id, "a push that was never allowed").into(),
                        (QPACK_ENCODER, _) => drop(streams.spawn(read_qpack(stream, rest, true))),
                        (QPACK_DECODER, _) => drop(streams.spawn(read_qpack(stream, rest, false))),
                        _ => {
                            let mut stream = stream;
                            let _ = stream.stop(Code::StreamCreation.into());
                        }
                    }
                }
                Ok(Ok(Read::Ended)) | Err(_) => {}
                Ok(Err(fault)) => return fault,
            },
        }
    }
}

enum Read {
    /// The stream is of this kind; what came behind the kind is given too.
    Kind(u64, RecvStream, Bytes),
    /// The stream ended where it may.
    Ended,
}

async fn read_kind(mut stream: RecvStream) -> Result<Read, MasqueError> {
    let mut kept: Vec<u8> = Vec::new();
    loop {
        // A stream may end before its kind has come (RFC 9114, section 6.2).
        let Ok(Some(piece)) = stream.read_chunk(PIECE_BYTES_MAX, true).await else { return Ok(Read::Ended) };
        kept.extend_from_slice(&piece.bytes);
        if let Some((kind, bytes)) = varint::read(&kept) {
            return Ok(Read::Kind(kind, stream, Bytes::from(kept).slice(bytes..)));
        }
    }
}

async fn read_control(
    mut stream: RecvStream,
    mut input: Bytes,
    settings: watch::Sender<Option<Settings>>,
) -> Result<Read, MasqueError> {
    let mut frames = Frames::new(SETTINGS_BYTES_MAX);
    loop {
        while let Some(frame) = frames.next(&mut input)? {
            let known = settings.borrow().is_some();
            match frame {
                Frame::Settings(payload) if !known => {
                    settings.send_replace(Some(Settings::read(payload)?));
                }
                Frame::Control if known => {}
                _ if !known => {
                    return Err(Fault::new(Code::MissingSettings, "the first frame is not the settings").into());
                }
                _ => return Err(Fault::new(Code::FrameUnexpected, "a frame of a request on the control stream").into()),
            }
        }
        input = match next_piece(&mut stream).await? {
            Some(piece) => piece,
            None => return Err(Fault::new(Code::ClosedCriticalStream, "the control stream has ended").into()),
        };
    }
}

async fn read_qpack(mut stream: RecvStream, mut input: Bytes, encoder: bool) -> Result<Read, MasqueError> {
    loop {
        if encoder && input.iter().any(|byte| *byte != CAPACITY_0) {
            return Err(Fault::new(Code::QpackEncoderStream, "an entry for a table without capacity").into());
        }
        input = match next_piece(&mut stream).await? {
            Some(piece) => piece,
            None => return Err(Fault::new(Code::ClosedCriticalStream, "a stream of QPACK has ended").into()),
        };
    }
}

/// The next piece of a critical stream. `None`: it has ended or was reset.
async fn next_piece(stream: &mut RecvStream) -> Result<Option<Bytes>, MasqueError> {
    match stream.read_chunk(PIECE_BYTES_MAX, true).await {
        Ok(piece) => Ok(piece.map(|piece| piece.bytes)),
        Err(ReadError::ConnectionLost(lost)) => Err(MasqueError::Lost(lost)),
        Err(_) => Ok(None),
    }
}

/// Ends the connection for what the peer did.
pub(crate) fn close(connection: &quinn::Connection, error: &MasqueError) {
    if let MasqueError::Fault { code, what } = error {
        connection.close(quinn::VarInt::from_u32(*code), what.as_bytes());
    }
}

pub(crate) fn lost_in_write(error: WriteError) -> MasqueError {
    match error {
        WriteError::ConnectionLost(lost) => MasqueError::Lost(lost),
        _ => MasqueError::Reset,
    }
}

pub(crate) fn lost_in_read(error: ReadError) -> MasqueError {
    match error {
        ReadError::ConnectionLost(lost) => MasqueError::Lost(lost),
        _ => MasqueError::Reset,
    }
}

/// Whether a connection ended as connections do.
pub(crate) fn is_orderly(lost: &ConnectionError) -> bool {
    match lost {
        ConnectionError::ApplicationClosed(close) => {
            [0, u64::from(Code::None as u32)].contains(&close.error_code.into_inner())
        }
        ConnectionError::LocallyClosed | ConnectionError::TimedOut => true,
        _ => false,
    }
}
