//! The agent: from records on this host's disk to evidence that anybody can check.
//!
//! ```text
//! spool ─ packing ─► batch on disk, cursor in db.class ─ outbox ─┬─► pinners ─ acknowledgements ─┐
//!                                                                └─► validators ─ proofs ────────┴─► db.class ─ evidence
//! ```
//!
//! Always true: a record is in one batch, and a batch goes on from where it was after whatever end; what is told as final was shown to be. Absent on
//! purpose: signing receipts (DockLock's), and judging evidence (`docklock verify`'s).

pub mod api;
pub mod config;
pub mod evidence;
pub mod judge;
pub mod metrics;
pub mod outbox;
pub mod packing;
pub mod reconcile;
pub mod restore;
pub mod run;
pub mod scribe;
pub mod spool;
pub mod status;
