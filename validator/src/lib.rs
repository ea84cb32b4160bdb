//! A validator of a mainnet-mini: it agrees with its peers on headers, and keeps them.
//!
//! - [`core`]: the consensus of one height after another, pure: no clock, no randomness, no disk, no network.
//! - [`replica`]: the chain around it: which height is next, who has missed one, what is kept.
//! - [`contents`]: what a header commits to, made, checked and kept: the log of receipts, inclusion lists, the inbox, the chain of hashes.
//! - [`durable`]: the disk: how far the key has spoken, what was said at this height, final headers.
//! - `beacon`: the key that all validators share, its signatures, and the proposers that they draw.
//! - [`probe`]: random looks at what pinners keep, pure.
//! - [`keys`]: the key file that votes.
//! - `node`: everything around that is not pure: configuration, network, API, the loop.

#[cfg(feature = "beacon")]
pub mod beacon;
pub mod contents;
pub mod core;
pub mod durable;
pub mod keys;
#[cfg(feature = "node")]
pub mod node;
pub mod probe;
pub mod replica;
