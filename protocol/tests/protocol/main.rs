//! The protocol as its users see it.
#![allow(clippy::unwrap_used)]

mod availability;
mod canonical;
mod chain;
mod checkpoint;
mod envelope;
mod evidence;
mod finality;
mod key;
mod log;
mod redaction;
mod trust;
mod vectors;
mod verify;
