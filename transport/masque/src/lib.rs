//! UDP proxied in HTTP (CONNECT-UDP, RFC 9298) with HTTP Datagrams (RFC 9297): the proxy and the client, over HTTP/3 and, where UDP is
//! blocked, over an upgrade of HTTP/1.1 on TLS.
//!
//! ```text
//! inner QUIC ─ Tunnel ─ QUIC datagrams of HTTP/3, or capsules ─ proxy ─ UDP ─ target
//! ```
//!
//! The HTTP/3 here is as small as a proxy needs: no dynamic table, no push, no priorities, no trailers. What always holds: everything that
//! waits has a limit in bytes, everything that is waited for has one in time, and what is dropped is counted with its reason. A peer that
//! breaks a protocol loses the connection or the stream as the RFC says; nothing it sends is met with a panic. Policy is the [`Host`]'s.
//!
//! Absent on purpose: 0-RTT, connection pools, proxying for other protocols, registered contexts other than 0, ICMP towards the target.

mod capsule;
mod client;
mod connection;
mod error;
mod frame;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod host;
mod huffman;
mod message;
mod mtu;
mod proxy;
mod qpack;
mod queue;
mod relay;
mod target;
mod tunnel;
mod varint;

pub use capsule::{CapsuleError, PAYLOAD_BYTES_MAX};
pub use client::Client;
pub use error::MasqueError;
pub use host::{DropReason, End, Event, Host, Limits, Page, Refusal};
pub use mtu::{INNER_MTU, OUTER_MTU, OVERHEAD, inner_transport, outer_transport};
pub use proxy::{serve_h1, serve_h3};
pub use target::{HOST_BYTES_MAX, PATH_PREFIX, Target, TargetError, is_public};
pub use tunnel::{Drops, Tunnel};
