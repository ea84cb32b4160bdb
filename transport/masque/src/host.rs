//! What a proxy asks of the program around it: who may go where, which pages there are, what is counted, and what the limits are.
//!
//! The proxy itself knows no policy. It proxies wherever the host says, loopback and private networks included: a host that does not want
//! that asks [`is_public`](crate::is_public) about the address it has resolved, not about the name.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

use crate::Target;

/// The program around a proxy, for one connection: it knows who the peer is.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// Judges `target` and finds its address; a name is resolved here. Ended after [`Limits::request`].
    ///
    /// # Errors
    /// Why the peer is refused; it is told by the status.
    async fn authorize(&self, target: &Target) -> Result<SocketAddr, Refusal>;

    /// What GET of `path` shows. `None`: there is no such page.
    fn page(&self, path: &str) -> Option<Page> {
        let _ = path;
        None
    }

    /// Takes note of `event`. Called for each datagram, so it must not wait.
    fn count(&self, event: Event) {
        let _ = event;
    }

    /// What this peer may use. Asked once for a connection.
    fn limits(&self) -> Limits {
        Limits::default()
    }
}

/// A page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its media type.
    pub content_type: &'static str,
    /// Its content.
    pub body: Bytes,
}

/// What one connection may use.
///
/// Memory of a connection, at most: `tunnels` × (`queue_bytes` + one datagram of 64 KiB in each of the queue's excess, the socket's buffer,
/// the capsules being written with 16 KiB more, and the one being read), that is 8.3 MiB by default, with capsules. With QUIC datagrams
/// nothing is queued here, and [`outer_transport`](crate::outer_transport) bounds what QUIC holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tunnels at a time. HTTP/1.1 has one.
    pub tunnels: usize,
    /// Requests at a time, tunnels included; those above are rejected and may be tried again.
    pub requests: usize,
    /// Bytes that wait in a tunnel towards the client.
    pub queue_bytes: usize,
    /// Bytes of a request's fields.
    pub head_bytes: usize,
    /// Time to send a request, to judge it and to take its answer; each.
    pub request: Duration,
    /// Silence in both directions after which a tunnel ends: at least two minutes but in tests (RFC 9298, section 3.1).
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tunnels: 16,
            requests: 24,
            queue_bytes: 256 << 10,
            head_bytes: 8 << 10,
            request: Duration::from_secs(10),
            idle: Duration::from_secs(120),
        }
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The request breaks HTTP or the template.
    #[error("the request is malformed")]
    Malformed,
    /// This peer may not go there, or nowhere.
    #[error("the peer may not use the target")]
    Forbidden,
    /// The target's address is not one that is proxied to.
    #[error("the target's address is not proxied to")]
    Prohibited,
    /// There is no such page, and the path is not of the template.
    #[error("there is nothing at the path")]
    NotFound,
    /// Pages are only read.
    #[error("the method is neither GET, HEAD nor an extended CONNECT")]
    Method,
    /// The peer has to say who it is: a connection with a client certificate.
    #[error("the peer has shown no identity")]
    Unauthenticated,
    /// The peer uses all it may.
    #[error("the peer has all the tunnels it may have")]
    TooMany,
    /// The fields take more than they may.
    #[error("the request's fields are too large")]
    HeadTooLarge,
    /// A protocol other than connect-udp.
    #[error("the protocol is not connect-udp")]
    NotImplemented,
    /// The name has no address.
    #[error("the target's name does not resolve")]
    Unresolved,
    /// There is no way to the address.
    #[error("the target cannot be reached")]
    Unreachable,
    /// The proxy takes no new tunnels now.
    #[error("the proxy takes no new tunnels")]
    Unavailable,
    /// The host took too long to judge.
    #[error("the target was not found in time")]
    TimedOut,
}

impl Refusal {
    /// The status (RFC 9110, section 15).
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Forbidden | Self::Prohibited => 403,
            Self::NotFound => 404,
            Self::Method => 405,
            Self::Unauthenticated => 407,
            Self::TooMany => 429,
            Self::HeadTooLarge => 431,
            Self::NotImplemented => 501,
            Self::Unresolved | Self::Unreachable => 502,
            Self::Unavailable => 503,
            Self::TimedOut => 504,
        }
    }

    /// The error of the Proxy-Status field (RFC 9209, section 2.3), where one fits.
    pub(crate) fn proxy_error(self) -> Option<&'static str> {
        match self {
            Self::Forbidden => Some("http_request_denied"),
            Self::Prohibited => Some("destination_ip_prohibited"),
            Self::Unresolved => Some("dns_error"),
            Self::Unreachable => Some("destination_ip_unroutable"),
            Self::Unavailable => Some("destination_unavailable"),
            Self::TimedOut => Some("dns_timeout"),
            _ => None,
        }
    }
}

/// What happened, for counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A tunnel was opened.
    Opened,
    /// A tunnel ended.
    Ended(End),
    /// A request was refused.
    Refused(Refusal),
    /// A page was shown.
    Shown,
    /// A payload of so many bytes went to the target.
    Sent(usize),
    /// A payload of so many bytes went to the client.
    Received(usize),
    /// A datagram was dropped.
    Dropped(DropReason),
}

/// Why a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client ended it.
    Closed,
    /// Nothing came in either direction.
    Idle,
    /// The client broke the protocol.
    Fault,
    /// The connection, or the task that served it, ended.
    Lost,
}

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// There was no room where it would have waited.
    Full,
    /// It does not fit what carries it (RFC 9298, section 6.1): a QUIC datagram, or a packet to the target.
    TooLarge,
    /// Its context was never registered (RFC 9298, section 5).
    UnknownContext,
    /// It belongs to no tunnel: not yet or no longer (RFC 9297, section 2.1).
    NoTunnel,
    /// The operating system did not send or deliver it, most often because the target's port is closed.
    Socket,
}
