//! What every part of the mesh must agree on, byte for byte.
//!
//! A receipt travels as `run.json` → run-hash → Statement → signed envelope → chain → evidence, and each of those words is one
//! module here. The crate is pure: no file, no clock, no network, no randomness. It is the same code in the shim that seals a
//! receipt, in `docklock verify` that judges one, and in a web page.
//!
//! Always true: bytes that are hashed or signed are RFC 8785 canonical JSON, and a parser refuses bytes that are not the
//! canonical form of what it read, so one document has one digest.

pub mod availability;
pub mod canonical;
pub mod chain;
pub mod checkpoint;
pub mod claim;
pub mod consensus;
pub mod digest;
pub mod envelope;
pub mod evidence;
pub mod explain;
pub mod finality;
#[cfg(feature = "frame")]
pub mod frame;
#[cfg(feature = "frame")]
pub mod hop;
pub mod key;
pub mod log;
pub mod mesh;
pub mod receipt;
pub mod redaction;
pub mod run;
pub mod schema;
pub mod statement;
pub mod trust;
pub mod verify;
