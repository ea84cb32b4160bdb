//! What a validator signs: one layout for the four kinds, so that no signature of one kind is one of another, of another chain, height or
//! round.
//!
//! ```text
//! "bpi.ibft.v1" | kind 1 | chain 32 | height 8 | round 4 | subject
//! subject: the header's digest (32), or of a round change 0, or 1 | prepared round 4 | prepared digest 32
//! ```
//!
//! And what all sign together with the key that they share, besides COMMIT: the seed of a height.
//!
//! ```text
//! "bpi.seed.v1" | chain 32 | epoch 8 | height 8
//! ```

use super::bytes::Writer;
use super::ids::{ChainId, Epoch, HeaderDigest, Height, Round};

const DOMAIN: &[u8] = b"bpi.ibft.v1";
const SEED_DOMAIN: &[u8] = b"bpi.seed.v1";

/// Where an instance of consensus stands: part of every statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of which chain.
    pub chain: ChainId,
    /// At which height.
    pub height: Height,
}

/// The header that a round change carries on, and the round in which a quorum prepared it (`preparedRound`, `preparedValue` of the paper).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PreparedClaim {
    /// `pr`: before the round that is changed to.
    pub round: Round,
    /// `pv`.
    pub digest: HeaderDigest,
}

/// PRE-PREPARE: the proposer's word for a header in a round.
pub fn proposal(place: Place, round: Round, digest: HeaderDigest) -> Vec<u8> {
    on_header(place, 1, round, digest)
}

/// PREPARE: a validator has accepted the proposal of a round.
pub fn prepare(place: Place, round: Round, digest: HeaderDigest) -> Vec<u8> {
    on_header(place, 2, round, digest)
}

/// COMMIT: a quorum has prepared it. A quorum of these is the seal.
pub fn commit(place: Place, round: Round, digest: HeaderDigest) -> Vec<u8> {
    on_header(place, 3, round, digest)
}

/// ROUND-CHANGE: a validator goes to a round, and takes along what was prepared.
pub fn round_change(place: Place, round: Round, prepared: Option<PreparedClaim>) -> Vec<u8> {
    let mut out = start(place, 4, round);
    match prepared {
        None => out.u8(0),
        Some(claim) => out.u8(1).u32(claim.round.0).bytes(&claim.digest.0),
    };
    out.done()
}

/// The seed in the header of a height. `epoch` is that of who signs: the validators of the height before. Nothing that a proposer chooses
/// is in it.
pub fn seed(place: Place, epoch: Epoch) -> Vec<u8> {
    let mut out = Writer::new();
    out.bytes(SEED_DOMAIN).bytes(&place.chain.0).u64(epoch.0).u64(place.height.0);
    out.done()
}

fn on_header(place: Place, kind: u8, round: Round, digest: HeaderDigest) -> Vec<u8> {
    let mut out = start(place, kind, round);
    out.bytes(&digest.0);
    out.done()
}

fn start(place: Place, kind: u8, round: Round) -> Writer {
    let mut out = Writer::new();
    out.bytes(DOMAIN).u8(kind).bytes(&place.chain.0).u64(place.height.0).u32(round.0);
    out
}
