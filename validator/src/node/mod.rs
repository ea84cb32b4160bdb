//! A node: the core of consensus with everything around it that is not pure.
//!
//! ```text
//!  peers ⇄ network (TLS)  ──events──▶  host ──▶ replica ──▶ acts: keep, send, wait, propose, check
//!  agents ⇄    „          ──asked───▶   │
//!  people ⇄ api (HTTP)    ──asks────▶   │
//!                                       ├── durable    watermark, votes, headers
//!                                       └── contents   leaves, log, inbox, chain of hashes
//! ```
//!
//! The host is one thread that owns all of this and does one thing after another; network and API are tasks of another thread, and talk to it
//! through bounded channels.

pub mod agents;
pub mod api;
pub mod ceremonies;
pub mod config;
pub mod frame;
pub mod genesis;
pub mod host;
pub mod inbox_source;
pub mod metrics;
pub mod network;
pub mod run;
pub mod schedule;
pub mod ticking;

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970. A clock before that is a clock at it.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
