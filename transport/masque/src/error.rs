//! Why a tunnel is not there, or no longer.

use std::io;

use thiserror::Error;

use crate::capsule::CapsuleError;
use crate::frame::Fault;
use crate::target::TargetError;

/// Why a tunnel or a connection has ended, or never was.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum MasqueError {
    /// The QUIC connection is gone.
    #[error("the connection has ended: {0}")]
    Lost(quinn::ConnectionError),
    /// The TCP connection is gone.
    #[error("the stream has failed while it was {doing}: {kind}")]
    Stream {
        /// What was being done.
        doing: &'static str,
        /// Of the operating system or TLS.
        kind: io::ErrorKind,
    },
    /// The proxy refuses.
    #[error("the proxy answers {status}{}", error.as_ref().map(|error| format!(" ({error})")).unwrap_or_default())]
    Refused {
        /// The status of the answer.
        status: u16,
        /// The error of its Proxy-Status field (RFC 9209), if there is one of letters, digits, hyphens and underscores.
        error: Option<String>,
    },
    /// The other end speaks HTTP/3 but does not know extended CONNECT.
    #[error("the peer does not offer extended CONNECT")]
    NoProxy,
    /// The answer is none of HTTP.
    #[error("the answer is malformed: {what}")]
    Answer {
        /// What is wrong.
        what: &'static str,
    },
    /// The answer did not come.
    #[error("no answer within {limit_ms} ms")]
    TimedOut {
        /// How long was waited.
        limit_ms: u64,
    },
    /// The authority is no host and port.
    #[error(
        "the authority of {bytes} bytes is empty, longer than {} bytes, or has characters that none has",
        crate::client::AUTHORITY_BYTES_MAX
    )]
    Authority {
        /// Its length.
        bytes: usize,
    },
    /// The target is none.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The peer broke HTTP/3.
    #[error("the peer breaks HTTP/3: {what}")]
    Fault {
        /// The error that the connection is closed with (RFC 9114, section 8.1).
        code: u32,
        /// What it did.
        what: &'static str,
    },
    /// The peer broke the capsule protocol.
    #[error("the peer breaks the capsule protocol: {0}")]
    Capsule(#[from] CapsuleError),
    /// An HTTP Datagram is too short for its context or too long for UDP.
    #[error("an HTTP datagram is too short for a context or too long for UDP")]
    Datagram,
    /// The peer gave the stream up.
    #[error("the peer has reset the stream")]
    Reset,
    /// The peer ended the tunnel.
    #[error("the peer has ended the tunnel")]
    Closed,
}

impl From<Fault> for MasqueError {
    fn from(fault: Fault) -> Self {
        Self::Fault { code: fault.code as u32, what: fault.what }
    }
}
