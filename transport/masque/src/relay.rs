//! A tunnel of the proxy: a stream of the client on one side, a connected UDP socket on the other.
//!
//! A payload towards the target is given to the socket at once; where the operating system has no room it is dropped. A payload towards
//! the client is dropped where QUIC has no room, or waits in a queue with a limit where capsules carry it. So nothing waits without a
//! bound, and a slow end costs its own datagrams. ECN marks end here in both directions (RFC 9298, section 6.2). No ICMP is sent.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use quinn::SendDatagramError;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::capsule::{self, Capsules, Datagram, PAYLOAD_BYTES_MAX};
use crate::error::MasqueError;
use crate::frame::{self, Code, Fault, Frame, Frames};
use crate::host::{DropReason, End, Event, Host, Limits};
use crate::queue::{NotTaken, Queue};
use crate::varint;

/// How capsules lie in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// As they are: after an upgrade of HTTP/1.1.
    Bare,
    /// In DATA frames of HTTP/3.
    Data,
}

/// How payloads reach the other end.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// In QUIC datagrams with this quarter stream id.
    Datagrams { connection: quinn::Connection, quarter: u64 },
    /// In capsules.
    Capsules,
}

/// When something last passed.
#[derive(Debug)]
pub(crate) struct Activity {
    start: Instant,
    last_ms: AtomicU64,
}

impl Activity {
    pub(crate) fn new(start: Instant) -> Self {
        Self { start, last_ms: AtomicU64::new(0) }
    }

    fn touch(&self, now: Instant) {
        let since = now.saturating_duration_since(self.start).as_millis();
        self.last_ms.fetch_max(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When it has been silent for `idle`, if nothing passes until then.
    fn silent_at(&self, idle: Duration) -> Instant {
        self.start + Duration::from_millis(self.last_ms.load(Ordering::Relaxed)) + idle
    }
}

/// The way from the client to the target.
pub(crate) struct Uplink {
    socket: UdpSocket,
    host: Arc<dyn Host>,
    activity: Activity,
    /// The client has sent what ends a tunnel, outside of its stream.
    broken: Notify,
}

impl Uplink {
    /// A socket that takes nothing but what comes from `target`.
    pub(crate) async fn connect(target: SocketAddr, host: Arc<dyn Host>) -> io::Result<Self> {
        let any: SocketAddr = match target {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(target).await?;
        // Until the runtime has seen it once, a new socket counts as one without room.
        socket.writable().await?;
        Ok(Self { socket, host, activity: Activity::new(Instant::now()), broken: Notify::new() })
    }

    fn dropped(&self, why: DropReason) {
        self.host.count(Event::Dropped(why));
    }

    /// Takes an HTTP Datagram that came outside of the stream.
    pub(crate) fn take(&self, datagram: Bytes) {
        if self.send(datagram).is_err() {
            self.broken.notify_one();
        }
    }

    /// Sends the payload of an HTTP Datagram, or drops it.
    fn send(&self, datagram: Bytes) -> Result<(), MasqueError> {
        let payload = match capsule::datagram(datagram) {
            Datagram::Udp(payload) => payload,
            Datagram::UnknownContext => {
                self.dropped(DropReason::UnknownContext);
                return Ok(());
            }
            Datagram::TooLong | Datagram::Malformed => return Err(MasqueError::Datagram),
        };
        let mut outcome = self.socket.try_send(&payload);
        // The first error may be of a packet before, told by ICMP: this one was not tried then.
        if outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            self.dropped(DropReason::Socket);
            outcome = self.socket.try_send(&payload);
        }
        match outcome {
            Ok(bytes) => {
                self.activity.touch(Instant::now());
                self.host.count(Event::Sent(bytes));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.dropped(DropReason::Full),
            Err(error) if is_too_large(&error) => self.dropped(DropReason::TooLarge),
            Err(_) => self.dropped(DropReason::Socket),
        }
        Ok(())
    }

    /// The next payload from the target into `buffer`, behind `prefix`. False: it was longer than `payload_bytes_max`.
    async fn receive(&self, buffer: &mut BytesMut, prefix: &[u8], payload_bytes_max: usize) -> bool {
        loop {
            buffer.clear();
            buffer.reserve(prefix.len() + payload_bytes_max + 1);
            buffer.put_slice(prefix);
            match self.socket.recv_buf(&mut (&mut *buffer).limit(payload_bytes_max + 1)).await {
                Ok(bytes) => return bytes <= payload_bytes_max,
                // Each tells of one packet that went before, so this loop is no faster than the client.
                Err(_) => self.dropped(DropReason::Socket),
            }
        }
    }

    fn received(&self, payload_bytes: usize) {
        self.activity.touch(Instant::now());
        self.host.count(Event::Received(payload_bytes));
    }

    async fn silent(&self, idle: Duration) {
        loop {
            let at = self.activity.silent_at(idle);
            if Instant::now() >= at {
                return;
            }
            sleep_until(at).await;
        }
    }
}

/// EMSGSIZE: the packet is longer than the path to the target, or than UDP over IPv4, allows.
fn is_too_large(error: &io::Error) -> bool {
    const EMSGSIZE: i32 = 90;
    error.raw_os_error() == Some(EMSGSIZE)
}

/// Carries a tunnel until it ends. `early` came behind the request.
///
/// # Errors
/// What the client did wrong, or how the stream was lost.
pub(crate) async fn relay(
    mut reader: impl AsyncRead + Unpin,
    writer: &mut (impl AsyncWrite + Unpin),
    early: Bytes,
    framing: Framing,
    uplink: &Uplink,
    way: &Way,
    limits: &Limits,
) -> (End, Option<MasqueError>) {
    let queue = Queue::new(limits.queue_bytes);
    let down = async {
        match way {
            Way::Datagrams { connection, quarter } => down_in_datagrams(uplink, connection, *quarter).await,
            Way::Capsules => tokio::select! {
                never = fill(uplink, &queue) => never,
                error = write_capsules(&queue, writer, framing) => error,
            },
        }
    };
    let up = read_capsules(&mut reader, early, framing, |datagram| uplink.send(datagram));
    let outcome = tokio::select! {
        outcome = up => outcome,
        error = down => Err(error),
        () = uplink.broken.notified() => Err(MasqueError::Datagram),
        () = uplink.silent(limits.idle) => return (End::Idle, None),
    };
    match outcome {
        Ok(()) => (End::Closed, None),
        Err(error @ (MasqueError::Fault { .. } | MasqueError::Capsule(_) | MasqueError::Datagram)) => {
            (End::Fault, Some(error))
        }
        // A reset is how clients that have no more to say may end, too.
        Err(MasqueError::Reset) => (End::Closed, None),
        Err(error) => (End::Lost, Some(error)),
    }
}

/// From the target to the client, in QUIC datagrams.
async fn down_in_datagrams(uplink: &Uplink, connection: &quinn::Connection, quarter: u64) -> MasqueError {
    let mut prefix = Vec::with_capacity(varint::BYTES_MAX + 1);
    varint::write(quarter, &mut prefix);
    prefix.push(0);
    let mut buffer = BytesMut::new();
    loop {
        let Some(datagram_bytes_max) = connection.max_datagram_size() else { return MasqueError::Reset };
        let payload_bytes_max = datagram_bytes_max.saturating_sub(prefix.len());
        if !uplink.receive(&mut buffer, &prefix, payload_bytes_max).await {
            uplink.dropped(DropReason::TooLarge);
            continue;
        }
        let datagram = buffer.split().freeze();
        // quinn would make room by dropping what waits longest, of whichever tunnel, and not tell.
        if connection.datagram_send_buffer_space() < datagram.len() {
            uplink.dropped(DropReason::Full);
            continue;
        }
        let payload_bytes = datagram.len() - prefix.len();
        match connection.send_datagram(datagram) {
            Ok(()) => uplink.received(payload_bytes),
            Err(SendDatagramError::ConnectionLost(lost)) => return MasqueError::Lost(lost),
            Err(_) => uplink.dropped(DropReason::TooLarge),
        }
    }
}

/// From the target into the queue of capsules.
async fn fill(uplink: &Uplink, queue: &Queue) -> MasqueError {
    let mut buffer = BytesMut::new();
    loop {
        if !uplink.receive(&mut buffer, &[], PAYLOAD_BYTES_MAX).await {
            uplink.dropped(DropReason::TooLarge);
            continue;
        }
        // The buffer is as long as the longest payload: what waits is a copy, so that it holds what it is counted with.
        match queue.push(Bytes::copy_from_slice(&buffer)) {
            Ok(()) => uplink.received(buffer.len()),
            Err(NotTaken::Full | NotTaken::Closed) => uplink.dropped(DropReason::Full),
        }
    }
}

/// Bytes that are written at once, about; and so the capsules that share a record of TLS.
const WRITE_BYTES: usize = 16 << 10;

/// Writes what is in `queue` as capsules, until it is closed or the stream fails.
pub(crate) async fn write_capsules(
    queue: &Queue,
    writer: &mut (impl AsyncWrite + Unpin),
    framing: Framing,
) -> MasqueError {
    let failed = |error: io::Error| stream_error("written", &error);
    let mut out = BytesMut::new();
    while let Some(first) = queue.pop().await {
        let mut next = Some(first);
        while let Some(payload) = next {
            if framing == Framing::Data {
                varint::write(frame::DATA, &mut out);
                varint::write(capsule::bytes_of(&payload) as u64, &mut out);
            }
            capsule::write(&payload, &mut out);
            next = if out.len() < WRITE_BYTES { queue.try_pop() } else { None };
        }
        if let Err(error) = writer.write_all(&out).await {
            return failed(error);
        }
        if let Err(error) = writer.flush().await {
            return failed(error);
        }
        out.clear();
    }
    MasqueError::Closed
}

/// Reads capsules and gives their HTTP Datagrams to `take`, until the stream ends where it may.
///
/// # Errors
/// When the peer breaks a protocol or the stream fails.
pub(crate) async fn read_capsules(
    reader: &mut (impl AsyncRead + Unpin),
    early: Bytes,
    framing: Framing,
    take: impl Fn(Bytes) -> Result<(), MasqueError>,
) -> Result<(), MasqueError> {
    let piece_bytes = if framing == Framing::Bare { WRITE_BYTES } else { crate::connection::PIECE_BYTES_MAX };
    let mut frames = Frames::new(0);
    let mut capsules = Capsules::new();
    let mut input = early;
    let mut buffer = BytesMut::new();
    loop {
        while !input.is_empty() {
            let mut content = match framing {
                Framing::Bare => input.split_to(input.len()),
                Framing::Data => match frames.next(&mut input)? {
                    Some(Frame::Data(content)) => content,
                    Some(_) => {
                        return Err(Fault::new(Code::FrameUnexpected, "a frame other than DATA in a tunnel").into());
                    }
                    None => break,
                },
            };
            while let Some(datagram) = capsules.next(&mut content)? {
                take(datagram)?;
            }
        }
        buffer.reserve(piece_bytes);
        match reader.read_buf(&mut (&mut buffer).limit(piece_bytes)).await {
            Ok(0) => break,
            Ok(_) => input = buffer.split().freeze(),
            Err(error) => return Err(stream_error("read", &error)),
        }
        // A peer whose bytes are always there already shall not keep others waiting.
        tokio::task::coop::consume_budget().await;
    }
    frames.end()?;
    Ok(capsules.end()?)
}

/// What an error of a stream says, of QUIC or of TLS.
fn stream_error(doing: &'static str, error: &io::Error) -> MasqueError {
    match error.get_ref() {
        Some(inner) if inner.is::<quinn::ReadError>() => inner
            .downcast_ref::<quinn::ReadError>()
            .cloned()
            .map_or(MasqueError::Reset, crate::connection::lost_in_read),
        Some(inner) if inner.is::<quinn::WriteError>() => inner
            .downcast_ref::<quinn::WriteError>()
            .cloned()
            .map_or(MasqueError::Reset, crate::connection::lost_in_write),
        _ => MasqueError::Stream { doing, kind: error.kind() },
    }
}

/// Tunnels of a connection by quarter stream id, so that QUIC datagrams find theirs.
pub(crate) type Table<T> = Mutex<std::collections::BTreeMap<u64, T>>;

/// A place in a table, given back when dropped.
pub(crate) struct Place<T> {
    table: Arc<Table<T>>,
    quarter: u64,
}

impl<T> Place<T> {
    pub(crate) fn take(table: &Arc<Table<T>>, quarter: u64, of: T) -> Self {
        table.lock().unwrap_or_else(PoisonError::into_inner).insert(quarter, of);
        Self { table: Arc::clone(table), quarter }
    }
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.quarter);
    }
}

/// Greatest quarter stream id (RFC 9297, section 2.1).
const QUARTER_MAX: u64 = (1 << 60) - 1;

/// Gives each QUIC datagram of `connection` to its tunnel; `None` in `take`: there is none. Ends with the connection, or with a fault.
pub(crate) async fn read_datagrams<T: Clone>(
    connection: &quinn::Connection,
    table: &Table<T>,
    take: impl Fn(Option<T>, Bytes),
) -> MasqueError {
    loop {
        let mut datagram = match connection.read_datagram().await {
            Ok(datagram) => datagram,
            Err(lost) => return MasqueError::Lost(lost),
        };
        let Some((quarter @ ..=QUARTER_MAX, bytes)) = varint::read(&datagram) else {
            return Fault::new(Code::Datagram, "a datagram without a quarter stream id").into();
        };
        tokio::task::coop::consume_budget().await;
        let of = table.lock().unwrap_or_else(PoisonError::into_inner).get(&quarter).cloned();
        take(of, datagram.split_off(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_is_silent_after_its_last_datagram() {
        let start = std::time::Instant::now().into();
        let activity = Activity::new(start);
        let idle = Duration::from_secs(120);
        assert_eq!(activity.silent_at(idle), start + idle);
        activity.touch(start + Duration::from_secs(50));
        activity.touch(start + Duration::from_secs(40));
        assert_eq!(activity.silent_at(idle), start + Duration::from_secs(170));
    }
}
