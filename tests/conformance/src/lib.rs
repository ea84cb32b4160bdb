//! Receipts made by our code for others to judge, and the same receipts made false in every way we could think of.
//!
//! [`story`] writes a small chain as a host would; [`mutants`] bends it; [`anchored`] puts a receipt under a header that validators of
//! [`cluster`] seal. The keys come from fixed seeds, so that every run gives the same bytes. Absent on purpose: judging; `protocol`'s tests and `receipts/run.py` do that.

pub mod anchored;
pub mod cluster;
pub mod mutants;
pub mod story;
