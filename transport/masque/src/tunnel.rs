//! A tunnel at the client: what carries QUIC to one target, in the place of a UDP socket.
//!
//! Towards the proxy, datagrams go into QUIC at once while it has room, and otherwise wait in a queue with a limit; when that is full, the
//! connection inside the tunnel is told to wait, so nothing it sends is dropped here. From the proxy, what finds the queue full is
//! dropped and counted: the sender's congestion control has to see it. When the tunnel ends, whoever reads from it gets an error, so that
//! the endpoint inside ends too; what is sent then is dropped without a word, because an error would leave quinn's connections hanging.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::Target;
use crate::capsule::{self, Datagram};
use crate::client::Client;
use crate::error::MasqueError;
use crate::queue::{NotTaken, Queue};
use crate::relay::Way;
use crate::varint;

/// Bytes that wait in a tunnel, in each direction.
pub(crate) const QUEUE_BYTES_MAX: usize = 256 << 10;
/// The address that stands for a target given by name: of the range for documentation (RFC 5737), so no real peer has it.
const NAMED: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Datagrams that a tunnel has dropped at the client, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// From the proxy: nobody has read for too long.
    pub full: u64,
    /// Too large for the outer connection, or for the buffer of who reads.
    pub too_large: u64,
    /// From the proxy, of a context that was never registered.
    pub unknown_context: u64,
}

/// The two ends that share a tunnel: the socket that quinn sees, and the task that moves datagrams.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) incoming: Queue,
    /// With a quarter stream id and context in front where QUIC datagrams carry them, bare where capsules do.
    pub(crate) outgoing: Queue,
    way: Way,
    prefix: Vec<u8>,
    ended: watch::Sender<Option<MasqueError>>,
    full: AtomicU64,
    too_large: AtomicU64,
    unknown_context: AtomicU64,
}

impl Shared {
    pub(crate) fn new(way: Way) -> Self {
        let mut prefix = Vec::new();
        if let Way::Datagrams { quarter, .. } = way {
            varint::write(quarter, &mut prefix);
            prefix.push(0);
        }
        Self {
            incoming: Queue::new(QUEUE_BYTES_MAX),
            outgoing: Queue::new(QUEUE_BYTES_MAX),
            way,
            prefix,
            ended: watch::Sender::new(None),
            full: AtomicU64::new(0),
            too_large: AtomicU64::new(0),
            unknown_context: AtomicU64::new(0),
        }
    }

    /// Takes an HTTP Datagram from the proxy.
    ///
    /// # Errors
    /// When it is none of UDP.
    pub(crate) fn take(&self, datagram: Bytes) -> Result<(), MasqueError> {
        match capsule::datagram(datagram) {
            Datagram::Udp(payload) => {
                if self.incoming.push(payload) == Err(NotTaken::Full) {
                    self.full.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }
            Datagram::UnknownContext => {
                self.unknown_context.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Datagram::TooLong | Datagram::Malformed => Err(MasqueError::Datagram),
        }
    }

    pub(crate) fn reason(&self) -> Option<MasqueError> {
        self.ended.borrow().clone()
    }

    /// Ends the tunnel; the first reason stays.
    pub(crate) fn end(&self, error: MasqueError) {
        self.ended.send_if_modified(|reason| {
            let first = reason.is_none();
            reason.get_or_insert(error);
            first
        });
        self.incoming.close();
        self.outgoing.close();
    }

    /// Sends one payload, or says that there is no room.
    fn send(&self, payload: &[u8]) -> Result<(), NotTaken> {
        let mut datagram = BytesMut::with_capacity(self.prefix.len() + payload.len());
        datagram.put_slice(&self.prefix);
        datagram.put_slice(payload);
        let datagram = datagram.freeze();
        if let Way::Datagrams { connection, .. } = &self.way {
            if connection.max_datagram_size().is_some_and(|bytes_max| datagram.len() > bytes_max) {
                self.too_large.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            if self.outgoing.is_empty() && connection.datagram_send_buffer_space() >= datagram.len() {
                // That it is lost is seen by who reads.
                let _ = connection.send_datagram(datagram);
                return Ok(());
            }
        }
        self.outgoing.push(datagram)
    }

    /// Sends what waits, as QUIC has room.
    pub(crate) async fn pump(&self, connection: &quinn::Connection) -> MasqueError {
        while let Some(datagram) = self.outgoing.pop().await {
            match connection.send_datagram_wait(datagram).await {
                Ok(()) => {}
                Err(quinn::SendDatagramError::ConnectionLost(lost)) => return MasqueError::Lost(lost),
                Err(_) => {
                    self.too_large.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        MasqueError::Closed
    }
}

/// A way to one target through a proxy. Ends when dropped.
///
/// As an [`AsyncUdpSocket`] it carries a QUIC endpoint whose only peer is [`Tunnel::peer`]; the connection needs
/// [`inner_transport`](crate::inner_transport).
pub struct Tunnel {
    shared: Arc<Shared>,
    peer: SocketAddr,
    task: AbortHandle,
    /// The connection that carries it, kept as long as it is used.
    _client: Option<Client>,
}

impl Tunnel {
    pub(crate) fn new(shared: Arc<Shared>, target: &Target, task: AbortHandle, client: Option<Client>) -> Self {
        let peer = SocketAddr::new(target.ip().unwrap_or(NAMED), target.port());
        Self { shared, peer, task, _client: client }
    }

    /// The address that stands for the target inside the tunnel: its own, or one for documentation when it was given by name.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What was dropped so far.
    pub fn drops(&self) -> Drops {
        Drops {
            full: self.shared.full.load(Ordering::Relaxed),
            too_large: self.shared.too_large.load(Ordering::Relaxed),
            unknown_context: self.shared.unknown_context.load(Ordering::Relaxed),
        }
    }

    /// Bytes that wait, towards the proxy and from it. Each direction has at most 256 KiB and one datagram.
    pub fn queued(&self) -> (usize, usize) {
        (self.shared.outgoing.bytes(), self.shared.incoming.bytes())
    }

    /// Waits for the end of the tunnel, and tells why.
    pub async fn ended(&self) -> MasqueError {
        let mut ended = self.shared.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(MasqueError::Closed),
            Err(_) => MasqueError::Closed,
        }
    }

    /// Why the tunnel has ended. `None`: it has not.
    pub fn reason(&self) -> Option<MasqueError> {
        self.shared.reason()
    }

    /// Sends one payload to the target, waiting for room.
    ///
    /// # Errors
    /// Why the tunnel has ended.
    pub async fn send(&self, payload: &[u8]) -> Result<(), MasqueError> {
        loop {
            std::future::poll_fn(|context| self.shared.outgoing.poll_room(context)).await;
            if let Some(reason) = self.reason() {
                return Err(reason);
            }
            if self.shared.send(payload).is_ok() {
                return Ok(());
            }
        }
    }

    /// The next payload from the target. Only one task may read.
    ///
    /// # Errors
    /// Why the tunnel has ended.
    pub async fn receive(&self) -> Result<Bytes, MasqueError> {
        match self.shared.incoming.pop().await {
            Some(payload) => Ok(payload),
            None => Err(self.reason().unwrap_or(MasqueError::Closed)),
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("peer", &self.peer).field("reason", &self.reason()).finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for Tunnel {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room(Arc::clone(&self.shared)))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // There is one peer; what is meant for another (a reset for a stranger's packet) goes nowhere.
        if transmit.destination.ip().to_canonical() != self.peer.ip() || transmit.destination.port() != self.peer.port()
        {
            return Ok(());
        }
        let segment_bytes = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for segment in transmit.contents.chunks(segment_bytes) {
            match self.shared.send(segment) {
                Ok(()) | Err(NotTaken::Closed) => {}
                Err(NotTaken::Full) => return Err(io::ErrorKind::WouldBlock.into()),
            }
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut filled = 0;
        while filled < buffers.len().min(meta.len()) {
            let payload = match self.shared.incoming.poll_pop(context) {
                Poll::Ready(Some(payload)) => payload,
                Poll::Ready(None) if filled == 0 => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
                Poll::Pending if filled == 0 => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            };
            let Some(place) = buffers[filled].get_mut(..payload.len()) else {
                self.shared.too_large.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            place.copy_from_slice(&payload);
            let (len, stride) = (payload.len(), payload.len());
            meta[filled] = RecvMeta { addr: self.peer, len, stride, ecn: None, dst_ip: None };
            filled += 1;
        }
        Poll::Ready(Ok(filled))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(match self.peer {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        })
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// Waits for room in a tunnel.
#[derive(Debug)]
struct Room(Arc<Shared>);

impl UdpPoller for Room {
    fn poll_writable(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.outgoing.poll_room(context).map(Ok)
    }
}
