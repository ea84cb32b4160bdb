//! The relay: it hands sealed frames from those who send to those who have shown that a destination key is theirs, and learns nothing else.
//!
//! [`switch::Switch`] decides and is pure: it has no socket, no clock and no source of chance; time and a seed are arguments, and what is to
//! be done comes back as data. [`serve`] is the edge where sockets live. What always holds: every table has a maximum, a frame is handed on
//! byte for byte or not at all, and what one peer sends costs the others no more than the capacity that nobody has a claim to.
//!
//! Absent on purpose: keys, decryption, signatures (the edge checks who registers), and any order between frames.

#![deny(unsafe_code)]

pub mod budget;
pub mod config;
pub mod envelope;
pub mod feed;
pub mod fingerprint;
pub mod keys;
pub mod metrics;
pub mod peer;
pub mod roster;
pub mod score;
pub mod seeded;
pub mod serve;
pub mod store;
pub mod switch;
pub mod tally;
pub mod targets;
