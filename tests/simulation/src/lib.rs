//! Whole clusters of the real validator core and the real codecs on one thread. One seed is one history, for ever.
//!
//! A history has a bad time, in which messages are lost, doubled, late and cut off, nodes crash with torn logs, disks lie, clocks differ and
//! some validators are traitors; then everything heals. No two headers may be final at a height, no honest validator may sign two things for
//! one step, and after the healing nobody may be stuck.

pub mod adversary;
#[cfg(feature = "beacon")]
pub mod beacon;
pub mod campaign;
pub mod disk;
pub mod model;
pub mod oracle;
pub mod rng;
pub mod scenario;
pub mod scheme;
pub mod sets;
pub mod twins;
pub mod world;
