//! What validators agree on: its bytes, its signatures, and the client that follows it.
#![allow(clippy::unwrap_used)]

mod bls;
mod bytes;
mod light;
mod vectors;
