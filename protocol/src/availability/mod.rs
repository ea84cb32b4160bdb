//! That the data of receipts can be had: what is coded, what commits to it, who keeps it, and who says so.
//!
//! ```text
//! receipts of a tenant ─ CAR ─ sealed ─ coded (k of n) ─ shards ─► pinners ─ Acknowledgement ─┐
//!        └ receipts root                      └ da_root                                       ▼
//!                                               Batch ──────────────────────────────► Attestation ─► header.da_root
//! ```
//!
//! Always true: bytes have one reading and one writing, and nothing is longer than its bound. Absent on purpose: coding itself, which needs the
//! processor's vectors (bpi-availability), and trust: who counts as a pinner is the caller's to say.

pub mod attestation;
pub mod coding;
pub mod field;
pub mod opening;
pub mod placement;
pub mod proof;
pub mod tree;
pub mod wrong;
