//! The protocol as its users see it.
#![allow(clippy::unwrap_used)]

mod anchored;
mod availability;
mod canonical;
mod chain;
mod checkpoint;
#[path = "../consensus/cluster.rs"]
mod cluster;
mod envelope;
mod evidence;
mod finality;
mod key;
mod log;
mod redaction;
mod trust;
mod vectors;
mod verify;
