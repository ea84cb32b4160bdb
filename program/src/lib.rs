//! What all programs of the mesh do alike, so that an operator learns it once: their version, their one TOML file, what they print, their log, and where
//! they tell how they do.
//!
//! Absent on purpose: anything that one of them alone needs, and what their files say: each has its own fields and judges them.

#[cfg(feature = "program")]
pub mod api;
#[cfg(feature = "program")]
pub mod config;
#[cfg(feature = "program")]
pub mod log;
#[cfg(feature = "program")]
pub mod output;
pub mod version;
