//! BPCI between hosts: connections to relays, and the sessions that go over them.
//!
//! ```text
//! Mesh ─ Endpoint (bpi_protocol::frame) ─ Spread ─┬─ Way ─ Link (QUIC) ─► relay
//!                                                 ├─ Way ─ Link (TLS)  ─► relay
//!                                                 └─ Way …
//! ```
//!
//! A [`link::Link`] is one connection, with a relay at one end. A [`way::Way`] keeps a client connected to one relay, by QUIC when that works and
//! by TLS over TCP when it does not. A [`mesh::Mesh`] sends and takes messages of one identity over several ways. Always true: nothing here waits
//! for a peer without a bound in bytes or time; what is dropped is counted. Absent on purpose: what a relay does with frames (bpi-relay).

pub mod bulk;
pub mod config;
pub mod detour;
pub mod link;
pub mod mesh;
mod outbox;
pub mod settings;
pub mod spread;
pub mod way;
