//! A pinner of the BPI Mesh: it keeps shards of batches, shows that it has them, and makes anew what has gone bad.
//!
//! ```text
//! serve ─┬─ keeper ──┬─ store (shards: files, or a bucket) ─ disk
//!        ├─ answers ─┤
//!        └─ repair   └─ catalogue (records, log) ─ table ─ index (RocksDB)
//! ```
//!
//! Always true: what is acknowledged is durable before the signature exists; nothing is given out that does not lead to the root it was asked under; an error
//! of fsync ends the process. Absent on purpose: what is in a batch: it is sealed, and a pinner has no key.

#![deny(unsafe_code)]

pub mod answers;
pub mod catalogue;
pub mod config;
pub mod disk;
pub mod export;
pub mod index;
pub mod journal;
pub mod keeper;
pub mod metrics;
pub mod repair;
pub mod serve;
pub mod store;
pub mod table;
