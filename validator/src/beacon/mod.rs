//! The key that all validators of an epoch share: how they get it, what they sign with it, and the proposers that its signatures draw.
//!
//! ```text
//! ceremony ─► sharing, and each its share ─► parts on COMMIT votes ─┬─► seal of the header       one signature, checked with one key
//!    ▲                │                                             └─► seed in the next header ─► proposers of the one after
//!    └── reshares ◄───┘  (the key stays)
//! ```
//!
//! One sharing serves both signatures, and a quorum of shares, ceil(2N/3), makes either. For the seal it must be so: fewer shares would let
//! fewer than a quorum say that a header is final. For the seed f+1 would do, and is not wanted: a second ceremony, and any f+1 members
//! could know proposers ahead. A quorum of honest members is always there (N - f is at least ceil(2N/3)), and each signs the seed of the
//! next height when it votes COMMIT, or when it learns that the height is final. So parts that are withheld delay nothing but
//! themselves, and there is no other seed to fall back to: a fallback would be a choice, and a choice can be ground.
//!
//! Always true:
//! - what a share signs is the statement itself, in the domain of all votes: the group's signature is an ordinary BLS signature, and
//!   [`bpi_protocol::consensus::bls`] checks it without knowing of shares;
//! - a share is secret, kept durably before it is used, and forgotten when its epoch is;
//! - nothing here knows a clock or a network; files are touched by [`share_file`] and [`journal`] alone.
//!
//! The polynomials are `commonware-cryptography`'s; what is agreed, kept, bounded and refused is ours.

pub mod assembly;
pub mod ceremony;
pub mod journal;
mod member;
pub mod message;
pub mod order;
pub mod partials;
pub mod plan;
pub mod seed;
pub mod share;
pub mod share_file;
pub mod sharing;

#[cfg(test)]
mod tests;
