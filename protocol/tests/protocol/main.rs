//! The protocol as its users see it.
#![allow(clippy::unwrap_used)]

mod canonical;
mod chain;
mod checkpoint;
mod envelope;
mod evidence;
mod key;
mod log;
mod trust;
mod verify;
