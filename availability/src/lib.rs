//! How a tenant's records become shards, and shards records again.
//!
//! ```text
//! records ─ car ─► CAR ─ sealing ─► sealed bytes ─ codec ─► n shards, their roots, da_root ─► pinners
//!    ▲                                                                                           │ any k
//!    └──────── car ◄─────────── sealing (keyslot, reader's key) ◄───────── codec::Rebuild ◄──────┘
//! ```
//!
//! [`batch`] is the first half of that as one deed. Always true: what comes from outside is checked by hash before anything is computed of it, and a
//! refusal names the shard, block or record. Absent on purpose: files, network, clock and entropy, which are the caller's (but for a reader's key file).

pub mod batch;
pub mod car;
pub mod codec;
pub mod sealing;
