//! Who decides the next height: the set that the last header announces, in the order that its seed gives.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{ChainId, SetDigest, ValidatorIndex};
use bpi_protocol::consensus::scheme::PublicKey;
use bpi_protocol::consensus::validators::ValidatorSet;

use super::order::proposers;
use crate::core::Instance;
use crate::replica::Schedule;

/// Sets that are kept: the present one, the next, and some to look back at.
const SETS_MAX: usize = 8;

/// A set, and what checks its signatures.
type Known<S> = (Arc<ValidatorSet>, S);

/// Validator sets by digest. A copy is the same roster: the host fills it in while a replica looks sets up.
#[derive(Clone, Debug)]
pub struct Roster<S>(Arc<RwLock<BTreeMap<SetDigest, Known<S>>>>);

impl<S> Default for Roster<S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<S: Clone> Roster<S> {
    /// Knows a set from now on. Beyond eight the oldest epoch is forgotten.
    pub fn learn(&self, set: ValidatorSet, scheme: S) {
        let mut sets = self.0.write().unwrap_or_else(PoisonError::into_inner);
        sets.insert(set.digest(), (Arc::new(set), scheme));
        while sets.len() > SETS_MAX {
            let oldest = sets.iter().min_by_key(|(_, (set, _))| set.epoch()).map(|(digest, _)| *digest);
            oldest.and_then(|digest| sets.remove(&digest));
        }
    }

    /// A set that is known.
    pub fn get(&self, digest: &SetDigest) -> Option<Known<S>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }
}

/// The schedule of a node whose proposers are drawn by the beacon, or in turn while there is none.
#[derive(Clone, Debug)]
pub struct BeaconSchedule<S> {
    chain: ChainId,
    /// This node's key. `None`: it observes.
    me: Option<PublicKey>,
    roster: Roster<S>,
}

impl<S> BeaconSchedule<S> {
    /// Of a node and the sets that it knows.
    pub fn new(chain: ChainId, me: Option<PublicKey>, roster: Roster<S>) -> Self {
        Self { chain, me, roster }
    }
}

impl<S: Clone> Schedule<S> for BeaconSchedule<S> {
    fn instance(&self, parent: &Header) -> Option<(Instance<S>, Option<ValidatorIndex>)> {
        let (set, scheme) = self.roster.get(&parent.next_validators)?;
        let me = self.me.and_then(|me| set.position(&me));
        let order = proposers(parent, &set);
        Some((Instance { chain: self.chain, parent: *parent, set, scheme, order }, me))
    }
}

#[cfg(test)]
mod tests {
    use bpi_protocol::consensus::header::Seed;
    use bpi_protocol::consensus::ids::{Epoch, Height, Round};
    use bpi_protocol::consensus::scheme::Signature;
    use bpi_protocol::consensus::validators::Validator;

    use super::*;

    fn set(epoch: u64, numbers: impl Iterator<Item = u8>) -> ValidatorSet {
        let member = |number| Validator { key: PublicKey([number; 96]), possession: Signature([0; 48]), weight: 1 };
        ValidatorSet::new(Epoch(epoch), numbers.map(member).collect()).unwrap()
    }

    #[test]
    fn the_parent_says_which_set_decides_and_its_seed_in_which_order() {
        let (first, second) = (set(0, 0..9), set(1, 5..12));
        let roster = Roster::default();
        let schedule = BeaconSchedule::new(ChainId([1; 32]), Some(PublicKey([6; 96])), roster.clone());
        let parent = Header { height: Height(4), next_validators: second.digest(), ..Header::default() };
        assert!(schedule.instance(&parent).is_none(), "not known yet");
        roster.learn(first.clone(), "first");
        roster.learn(second.clone(), "second");
        let (instance, me) = schedule.instance(&parent).unwrap();
        assert_eq!((instance.scheme, me), ("second", Some(ValidatorIndex(1))));
        assert_eq!(
            [0, 1, 7].map(|round| instance.proposer(Round(round))),
            [5, 6, 5].map(|index| Some(ValidatorIndex(index)))
        );

        let drawn = Header { seed: Seed::Threshold(Signature([9; 48])), next_validators: first.digest(), ..parent };
        let (instance, me) = schedule.instance(&drawn).unwrap();
        assert_eq!((instance.scheme, me), ("first", Some(ValidatorIndex(6))));
        assert_eq!(instance.order, super::super::order::shuffle(&Signature([9; 48]), &[1; 9]));
        let observer = BeaconSchedule::new(ChainId([1; 32]), None, roster);
        assert_eq!(observer.instance(&drawn).unwrap().1, None);
    }

    #[test]
    fn a_roster_forgets_the_oldest_epochs() {
        let roster = Roster::default();
        let sets: Vec<_> = (0..10).map(|epoch| set(epoch, 0..4)).collect();
        sets.iter().for_each(|set| roster.learn(set.clone(), ()));
        let known: Vec<_> = sets.iter().map(|set| roster.get(&set.digest()).is_some()).collect();
        assert_eq!(known, [[false; 2].as_slice(), &[true; 8]].concat());
    }
}
