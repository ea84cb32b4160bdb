//! BPCI's frames and sessions from outside: through relays that lose, reorder, copy and die, and against who forges.
#![allow(clippy::unwrap_used, missing_docs)]

mod delivery;
mod forgery;
mod oracle;
mod vectors;
mod world;
