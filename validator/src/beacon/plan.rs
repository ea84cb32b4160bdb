//! What a ceremony is for, and when it is held.

use std::sync::Arc;

use bpi_protocol::consensus::ids::{ChainId, Height};
use bpi_protocol::consensus::validators::ValidatorSet;
use commonware_cryptography::bls12381::dkg::feldman_desmedt as library;
use commonware_cryptography::bls12381::primitives::sharing::Mode;
use commonware_cryptography::bls12381::primitives::variant::MinSig;
use commonware_utils::TryCollect as _;
use commonware_utils::ordered::Set;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::member::{Absent, Member};
use super::message::{CeremonyId, plan_bytes};
use super::sharing::Sharing;

pub(super) type Info = library::Info<MinSig, Member>;

const NAMESPACE: &[u8] = b"bpi.ceremony.v1";

/// What a ceremony is for. Two with the same plan are the same ceremony.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of which chain.
    pub chain: ChainId,
    /// The height at which it begins. A ceremony that failed is held again from another one.
    pub start: Height,
    /// Who deals: those who vote at that height.
    pub dealers: Arc<ValidatorSet>,
    /// Who gets shares.
    pub players: Arc<ValidatorSet>,
    /// What the dealers share. `None`: nothing yet.
    pub previous: Option<Arc<Sharing>>,
}

impl Plan {
    /// Its name.
    pub fn id(&self) -> CeremonyId {
        let sets = [&self.dealers.digest().0, &self.players.digest().0];
        let previous = self.previous.as_ref().map(|sharing| sharing.digest());
        let bytes = plan_bytes(&self.chain.0, self.start.0, sets, previous);
        CeremonyId(
            Sha256::new().chain_update("bpi.ceremony.v1").chain_update([0]).chain_update(bytes).finalize().into(),
        )
    }

    pub(super) fn info(&self) -> Result<Info, PlanError> {
        if self.previous.as_ref().is_some_and(|sharing| sharing.set() != self.dealers.digest()) {
            return Err(PlanError::Dealers);
        }
        let members = |set: &ValidatorSet| -> Result<Set<Member>, PlanError> {
            set.members().iter().map(|member| Member::of(&member.key)).try_collect().map_err(|_| PlanError::Members)
        };
        let previous = self.previous.as_ref().map(|sharing| sharing.output().clone());
        let (dealers, players) = (members(&self.dealers)?, members(&self.players)?);
        let reveal = library::Reveal::V1;
        // One for the life of a chain, as the library asks for; its signatures cover start, keys and what was shared besides.
        let namespace = [NAMESPACE, &self.chain.0].concat();
        Info::new::<Absent>(&namespace, self.start.0, previous, Mode::NonZeroCounter, reveal, dealers, players)
            .map_err(|_| PlanError::Members)
    }
}

/// Why there can be no such ceremony.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// Others have the shares.
    #[error("the dealers are not those who share the key")]
    Dealers,
    /// The library refuses the sets.
    #[error("the sets cannot hold a ceremony")]
    Members,
    /// The share is another one's, or of another set.
    #[error("this node's share is not its own of what the dealers share")]
    Share,
    /// Kept dealings are not what this node acknowledged.
    #[error("a dealing that was kept does not fit the ceremony")]
    Kept,
}

/// Which part of an epoch a ceremony takes: dealings until a height, logs in blocks until another, and time left to learn what came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calendar {
    /// From here on it is dealt ([`super::ceremony::Ceremony::deal`]).
    pub start: Height,
    /// After this header the logs are closed ([`super::ceremony::Ceremony::close`]).
    pub close: Height,
    /// After this header it is over ([`super::ceremony::Ceremony::conclude`]): a log in a later one is wrong.
    pub conclude: Height,
}

impl Calendar {
    /// For `heights` from `start` on: the first half for dealings, a quarter for logs. `None` for fewer than 8.
    pub fn new(start: Height, heights: u64) -> Option<Self> {
        let after = |part| start.0.checked_add(part).map(Height);
        (heights >= 8).then_some(())?;
        Some(Self { start, close: after(heights / 2)?, conclude: after(heights / 2 + heights / 4)? })
    }
}
