//! One connection between a client and a relay, the same at both ends.
//!
//! Over QUIC a frame is a datagram when it fits and there is room, and goes over a stream otherwise; over TLS everything shares one stream.
//! Bounds: bytes that wait to be written, streams, the length of a message. A link ends when its neighbour's certificate does, since TLS never looks again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bpi_identity::Leaf;
use bpi_protocol::hop::{Code, FRAME_KIND, Hop, LENGTH_BYTES, MESSAGE_BYTES_MAX, frame_head};
use bytes::{Bytes, BytesMut};
use quinn::{Connection, ReadExactError, RecvStream, SendStream, VarInt};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufWriter};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::outbox::Outbox;

/// Bytes that wait for one neighbour: some messages of the longest kind.
pub const OUTBOX_BYTES_MAX: usize = 2 << 20;
/// Longest time that a certificate's end is slept to in one go; the clock may be set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What carries a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// QUIC.
    Quic,
    /// TLS 1.3 over TCP.
    Tls,
}

/// What to do with a neighbour after what it has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Read on.
    Go,
    /// Read on after a while.
    Wait(Duration),
    /// End the link.
    Close(Code),
}

/// Takes what comes over a link. Called from the task that reads, so it must not block.
pub trait Hear: Send + Sync + 'static {
    /// A frame has come.
    fn frame(&self, link: &Arc<Link>, frame: Bytes) -> Pace;

    /// A message has come.
    fn message(&self, link: &Arc<Link>, message: Hop) -> Pace;
}

/// Why a link has ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// This end has closed it.
    #[error("closed here: {0:?}")]
    Here(Code),
    /// QUIC says why.
    #[error("{0}")]
    Quic(#[from] quinn::ConnectionError),
    /// A stream has ended, or failed.
    #[error("the stream has ended: {0}")]
    Stream(#[source] std::io::Error),
    /// What came is no message.
    #[error("what came is no message: {0}")]
    Malformed(String),
}

/// One connection.
#[derive(Debug)]
pub struct Link {
    /// Differs between all links of a process.
    pub number: u64,
    /// What carries it.
    pub carrier: Carrier,
    /// Who is at the other end, if it has shown an SVID.
    pub peer: Option<Leaf>,
    quic: Option<Connection>,
    outbox: Outbox,
    closing: Notify,
    closed: AtomicBool,
    code: AtomicU32,
    dropped: AtomicU64,
}

static LINKS: AtomicU64 = AtomicU64::new(1);

impl Link {
    fn new(carrier: Carrier, peer: Option<Leaf>, quic: Option<Connection>) -> Arc<Self> {
        Arc::new(Self {
            number: LINKS.fetch_add(1, Ordering::Relaxed),
            carrier,
            peer,
            quic,
            outbox: Outbox::new(OUTBOX_BYTES_MAX),
            closing: Notify::new(),
            closed: AtomicBool::new(false),
            code: AtomicU32::new(0),
            dropped: AtomicU64::new(0),
        })
    }

    /// Over a QUIC connection.
    pub fn over_quic(connection: Connection, peer: Option<Leaf>) -> Arc<Self> {
        Self::new(Carrier::Quic, peer, Some(connection))
    }

    /// Over a QUIC connection that is itself carried by something else.
    pub fn over_quic_on(carrier: Carrier, connection: Connection, peer: Option<Leaf>) -> Arc<Self> {
        Self::new(carrier, peer, Some(connection))
    }

    /// Over a TLS stream, which [`Link::run_tls`] gets.
    pub fn over_tls(peer: Option<Leaf>) -> Arc<Self> {
        Self::new(Carrier::Tls, peer, None)
    }

    /// Sends a frame, or drops the oldest that waits for it. False when something was dropped.
    pub fn send(&self, frame: Bytes) -> bool {
        // Straight to QUIC while nothing waits: no task has to wake up for it.
        if let Some(quic) = &self.quic
            && quic.datagram_send_buffer_space() >= frame.len()
            && !self.outbox.has_frames()
            && quic.send_datagram(frame.clone()).is_ok()
        {
            return true;
        }
        let dropped = self.outbox.push(frame);
        self.dropped.fetch_add(dropped, Ordering::Relaxed);
        dropped == 0
    }

    /// Sends a message. One that cannot be taken any more ends the link.
    pub fn say(&self, message: &Hop) {
        if !self.outbox.say(message.to_wire().into()) {
            self.close(Code::Limit);
        }
    }

    /// Ends it.
    pub fn close(&self, code: Code) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.code.store(code as u32, Ordering::Release);
            self.closing.notify_one();
        }
    }

    /// Frames that were dropped because too much waited.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// UDP datagrams that have come; `None` over TLS.
    pub fn datagrams_heard(&self) -> Option<u64> {
        self.quic.as_ref().map(|quic| quic.stats().udp_rx.datagrams)
    }

    /// The connection, over QUIC.
    pub fn quic(&self) -> Option<&Connection> {
        self.quic.as_ref()
    }

    fn pace(&self, pace: Pace) -> Option<Duration> {
        match pace {
            Pace::Go => None,
            Pace::Wait(time) => Some(time),
            Pace::Close(code) => {
                self.close(code);
                None
            }
        }
    }

    /// Ends when this end wants it, or the neighbour's certificate does.
    async fn over(&self) -> Ended {
        loop {
            if self.closed.load(Ordering::Acquire) {
                return Ended::Here(code_of(self.code.load(Ordering::Acquire)));
            }
            let left = match &self.peer {
                Some(peer) => Duration::from_secs(peer.not_after_s).saturating_sub(unix_time()),
                None => LOOK_AGAIN,
            };
            if left.is_zero() {
                self.close(Code::Expired);
                continue;
            }
            tokio::select! {
                () = self.closing.notified() => {}
                () = tokio::time::sleep(left.min(LOOK_AGAIN)) => {}
            }
        }
    }

    /// Sends and hears over QUIC until the link ends. `control`: the stream for messages.
    pub async fn run_quic(self: &Arc<Self>, control: (SendStream, RecvStream), hear: &Arc<dyn Hear>) -> Ended {
        let Some(quic) = self.quic.clone() else { return Ended::Here(Code::Done) };
        let (say, listen) = control;
        let mut tasks = JoinSet::new();
        let (link, connection) = (Arc::clone(self), quic.clone());
        tasks.spawn(async move { link.write_quic(say, &connection).await });
        let (link, ears) = (Arc::clone(self), Arc::clone(hear));
        tasks.spawn(async move { link.hear_stream(listen, &ears).await });
        let (link, ears, connection) = (Arc::clone(self), Arc::clone(hear), quic.clone());
        tasks.spawn(async move { link.hear_datagrams(&connection, &ears).await });
        let (link, ears, connection) = (Arc::clone(self), Arc::clone(hear), quic.clone());
        tasks.spawn(async move { link.hear_lanes(&connection, ears).await });
        let ended = tokio::select! {
            ended = self.over() => ended,
            Some(ended) = tasks.join_next() => ended.unwrap_or(Ended::Here(Code::Done)),
        };
        let code = match &ended {
            Ended::Here(code) => *code,
            Ended::Malformed(_) => Code::Malformed,
            Ended::Quic(_) | Ended::Stream(_) => Code::Done,
        };
        quic.close(VarInt::from_u32(code as u32), b"");
        self.close(code);
        ended
    }

    async fn write_quic(&self, mut control: SendStream, quic: &Connection) -> Ended {
        let mut lane: Option<SendStream> = None;
        loop {
            let taken = self.outbox.take().await;
            for message in taken.messages {
                if let Err(error) = control.write_chunk(message).await {
                    return Ended::Stream(error.into());
                }
            }
            for frame in taken.frames {
                let fits = quic.max_datagram_size().is_some_and(|most| frame.len() <= most);
                if fits && quic.datagram_send_buffer_space() >= frame.len() && quic.send_datagram(frame.clone()).is_ok()
                {
                    continue;
                }
                if lane.is_none() {
                    match quic.open_uni().await {
                        Ok(opened) => lane = Some(opened),
                        Err(error) => return error.into(),
                    }
                }
                let Some(stream) = &mut lane else { continue };
                let head = Bytes::copy_from_slice(&frame_head(frame.len()));
                if let Err(error) = stream.write_all_chunks(&mut [head, frame]).await {
                    return Ended::Stream(error.into());
                }
            }
        }
    }

    async fn hear_datagrams(self: &Arc<Self>, quic: &Connection, hear: &Arc<dyn Hear>) -> Ended {
        loop {
            match quic.read_datagram().await {
                Ok(frame) => {
                    if let Some(time) = self.pace(hear.frame(self, frame)) {
                        tokio::time::sleep(time).await;
                    }
                }
                Err(error) => return error.into(),
            }
        }
    }

    async fn hear_lanes(self: &Arc<Self>, quic: &Connection, hear: Arc<dyn Hear>) -> Ended {
        let mut lanes = JoinSet::new();
        loop {
            tokio::select! {
                accepted = quic.accept_uni() => match accepted {
                    Ok(stream) => {
                        let (link, ears) = (Arc::clone(self), Arc::clone(&hear));
                        lanes.spawn(async move { link.hear_stream(stream, &ears).await });
                    }
                    Err(error) => return error.into(),
                },
                Some(ended) = lanes.join_next() => {
                    // A lane may end; nonsense on one ends the link.
                    if let Ok(malformed @ Ended::Malformed(_)) = ended {
                        return malformed;
                    }
                }
            }
        }
    }

    async fn hear_stream(self: &Arc<Self>, mut stream: RecvStream, hear: &Arc<dyn Hear>) -> Ended {
        loop {
            let mut length = [0; LENGTH_BYTES];
            let read = stream.read_exact(&mut length).await;
            let length = match (read, checked(length)) {
                (Ok(()), Ok(length)) => length,
                (Ok(()), Err(ended)) => return ended,
                (Err(error), _) => return of_exact(error),
            };
            let mut body = BytesMut::zeroed(length);
            if let Err(error) = stream.read_exact(&mut body).await {
                return of_exact(error);
            }
            if let Err(ended) = self.hear(body, hear).await {
                return ended;
            }
        }
    }

    async fn hear(self: &Arc<Self>, mut body: BytesMut, hear: &Arc<dyn Hear>) -> Result<(), Ended> {
        let pace = if body.first() == Some(&FRAME_KIND) {
            hear.frame(self, body.split_off(1).freeze())
        } else {
            let message = Hop::from_body(&body).map_err(|error| Ended::Malformed(error.to_string()))?;
            hear.message(self, message)
        };
        if let Some(time) = self.pace(pace) {
            tokio::time::sleep(time).await;
        }
        Ok(())
    }

    /// Sends and hears over TLS until the link ends.
    pub async fn run_tls(
        self: &Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send,
        hear: &Arc<dyn Hear>,
    ) -> Ended {
        let (reader, writer) = tokio::io::split(stream);
        tokio::select! {
            ended = self.over() => ended,
            ended = self.hear_tls(reader, hear) => ended,
            ended = self.write_tls(writer) => ended,
        }
    }

    async fn write_tls(&self, writer: impl AsyncWrite + Unpin) -> Ended {
        let mut writer = BufWriter::with_capacity(16 * 1024, writer);
        loop {
            let taken = self.outbox.take().await;
            let written = async {
                for message in taken.messages {
                    writer.write_all(&message).await?;
                }
                for frame in taken.frames {
                    writer.write_all(&frame_head(frame.len())).await?;
                    writer.write_all(&frame).await?;
                }
                writer.flush().await
            };
            if let Err(error) = written.await {
                return Ended::Stream(error);
            }
        }
    }

    async fn hear_tls(self: &Arc<Self>, mut reader: impl AsyncRead + Unpin, hear: &Arc<dyn Hear>) -> Ended {
        loop {
            let mut length = [0; LENGTH_BYTES];
            if let Err(error) = reader.read_exact(&mut length).await {
                return Ended::Stream(error);
            }
            let length = match checked(length) {
                Ok(length) => length,
                Err(ended) => return ended,
            };
            let mut body = BytesMut::zeroed(length);
            if let Err(error) = reader.read_exact(&mut body).await {
                return Ended::Stream(error);
            }
            if let Err(ended) = self.hear(body, hear).await {
                return ended;
            }
        }
    }
}

/// The length of a message, which may not be any.
fn checked(length: [u8; LENGTH_BYTES]) -> Result<usize, Ended> {
    match u32::from_be_bytes(length) as usize {
        length @ 1..=MESSAGE_BYTES_MAX => Ok(length),
        length => Err(Ended::Malformed(format!("a message of {length} bytes; 1 to {MESSAGE_BYTES_MAX} may be"))),
    }
}

fn of_exact(error: ReadExactError) -> Ended {
    let error = match error {
        ReadExactError::FinishedEarly(_) => std::io::ErrorKind::UnexpectedEof.into(),
        ReadExactError::ReadError(error) => error.into(),
    };
    Ended::Stream(error)
}

fn code_of(code: u32) -> Code {
    match code {
        1 => Code::Malformed,
        2 => Code::Refused,
        3 => Code::Limit,
        4 => Code::Expired,
        5 => Code::Drained,
        6 => Code::Replaced,
        _ => Code::Done,
    }
}

/// Time since 1970.
pub(crate) fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
