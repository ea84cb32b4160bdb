//! What an agent is asked on its own host (`agent/proto/bpi/agent/v1/agent.proto`): the generated messages, a client, and a server to fill in.
//!
//! Always true: the socket is its owner's alone from the moment it has its name; nothing crosses the network. Absent on purpose: TLS and tokens, which a
//! unix socket of mode 0600 has no use for, and any knowledge of what the answers mean.

mod client;
#[cfg(feature = "server")]
mod server;

/// Generated from `agent.proto`, which says what each of it means.
#[allow(missing_docs, clippy::all, clippy::unwrap_used)]
pub mod v1 {
    tonic::include_proto!("bpi.agent.v1");
}

pub use client::{AskError, Client, connect, of_container, of_record};
#[cfg(feature = "server")]
pub use server::{ListenError, bind, serve};
pub use tonic;

/// Bytes of a part of a file of evidence, at most.
pub const PART_BYTES_MAX: usize = 1 << 20;
