//! Inclusion lists: what a validator has seen waiting and tells the others, so that no proposer can pass it over alone.
//!
//! In the spirit of EIP-7805 (FOCIL), by a rule of each voter rather than by a committee:
//!
//! 1. After each final header a validator tells the others a list of at most 64 leaves that wait here since [`ListRules::wait_ms`].
//! 2. A proposer includes what it has heard, the lists by turns, and says which leaves those are (`answers`).
//! 3. A voter refuses a header that leaves out a leaf that *it* has told, if it told it [`ListRules::early_ms`] before it heard the header
//!    and the header had room, in rounds 0 to f. In later rounds it does not insist. Both moments are of the voter's own clock: a proposer
//!    that sets its header's time back wins nothing.
//!
//! A list of another validator binds its own vote alone, so a list of junk costs room, 64 leaves of a header, and blocks nothing. Of f + 1
//! proposers in turn one is honest, so an honest voter's leaf is in, or the rule has done what it can: from then on a header that does
//! without is better than none. Who disagrees about when a leaf was told disagrees for f + 1 rounds at most (docs/decisions/0081).
//!
//! Always true: no list is longer than its bound, and of each validator the last alone is kept. Absent on purpose: clocks, and signatures
//! (a list comes over its validator's own connection and is evidence of nothing).

use std::collections::{BTreeMap, BTreeSet};

use bpi_protocol::consensus::bytes::{BytesError, Reader, Writer};
use bpi_protocol::consensus::ids::{Height, Round, ValidatorIndex};

use super::body::{first_unordered, read_list};
use super::leaf::{LEAF_BYTES, Leaf, LeafHash};

/// Version of the layout, the first byte.
const VERSION: u8 = 1;
/// Leaves of a list, at most: the lists of 64 validators fill a header.
pub const LIST_MAX: usize = 64;
/// Bytes of a list, at most.
pub const LIST_BYTES_MAX: usize = 1 + 8 + 2 + LIST_MAX * LEAF_BYTES;

/// What a validator tells the others after a final header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// The final header that it was made after.
    pub height: Height,
    /// Leaves that wait and have waited long, ascending, at most [`LIST_MAX`].
    pub leaves: Vec<Leaf>,
}

impl List {
    /// Canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(VERSION).u64(self.height.0).u16(self.leaves.len() as u16);
        self.leaves.iter().for_each(|leaf| leaf.write(&mut out));
        out.done()
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// When they are none, there are too many leaves, or they do not ascend.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            other => return Err(BytesError::Value { field: "version of an inclusion list", value: other.into() }),
        }
        let height = Height(reader.u64()?);
        let leaves = read_list(&mut reader, "inclusion list", LIST_MAX, Leaf::read)?;
        reader.end()?;
        match first_unordered(&leaves) {
            Some(at) => Err(BytesError::Value { field: "place of a leaf that does not ascend", value: at as u64 }),
            None => Ok(Self { height, leaves }),
        }
    }
}

/// The numbers of the lists' rules, in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListRules {
    /// How long a leaf waits before it is told: some headers, in which it should have come in by itself.
    pub wait_ms: u64,
    /// How long before a voter hears a header it has to have told a leaf to insist on it: more than the list takes to the proposer and the
    /// header takes back.
    pub early_ms: u64,
}

impl Default for ListRules {
    /// Eight headers of 250 ms, and two.
    fn default() -> Self {
        Self { wait_ms: 2_000, early_ms: 500 }
    }
}

/// What was told and heard.
#[derive(Clone, Debug)]
pub struct Lists {
    rules: ListRules,
    /// What this validator has told and not seen included, and when it first did; at most [`LIST_MAX`].
    told: BTreeMap<LeafHash, (Leaf, u64)>,
    /// The last list of each other validator.
    heard: BTreeMap<ValidatorIndex, List>,
}

impl Lists {
    /// Without lists.
    pub fn new(rules: ListRules) -> Self {
        Self { rules, told: BTreeMap::new(), heard: BTreeMap::new() }
    }

    /// Before this moment a leaf has to have come to be told now.
    pub fn seen_before_ms(&self, now_ms: u64) -> Option<u64> {
        now_ms.checked_sub(self.rules.wait_ms)
    }

    /// The list to tell after a final header: what was told and still waits, and of `waiting`, oldest first, as much as there is room for.
    pub fn tell(&mut self, height: Height, now_ms: u64, waiting: &[Leaf]) -> List {
        for leaf in waiting {
            if self.told.len() >= LIST_MAX {
                break;
            }
            self.told.entry(leaf.leaf_hash()).or_insert((*leaf, now_ms));
        }
        let leaves: BTreeSet<_> = self.told.values().map(|(leaf, _)| *leaf).collect();
        List { height, leaves: leaves.into_iter().collect() }
    }

    /// Keeps the list of another validator, unless a later one is known. `validators`: how many there are.
    pub fn hear(&mut self, from: ValidatorIndex, list: List, validators: usize) {
        let is_later = self.heard.get(&from).is_none_or(|known| known.height <= list.height);
        if from.at() < validators && is_later {
            self.heard.insert(from, list);
        }
    }

    /// Another set of validators: nobody's number is what it was.
    pub fn forget_heard(&mut self) {
        self.heard.clear();
    }

    /// What a proposer has to include: this validator's own list first, then of the others one leaf of each and round again.
    pub fn wanted(&self) -> Vec<(Leaf, LeafHash)> {
        let mut seen: BTreeSet<LeafHash> = self.told.keys().copied().collect();
        let mut wanted: Vec<_> = self.told.iter().map(|(hash, (leaf, _))| (*leaf, *hash)).collect();
        for turn in 0..LIST_MAX {
            for leaf in self.heard.values().filter_map(|list| list.leaves.get(turn)) {
                let hash = leaf.leaf_hash();
                if seen.insert(hash) {
                    wanted.push((*leaf, hash));
                }
            }
        }
        wanted
    }

    /// The first leaf that a voter insists on, of a header of this round heard at this moment, and that is not `included`. `faults`: how many validators
    /// may be faulty.
    pub fn left_out(
        &self,
        heard_ms: u64,
        round: Round,
        faults: usize,
        included: &BTreeSet<LeafHash>,
    ) -> Option<LeafHash> {
        if round.0 as usize > faults {
            return None;
        }
        let early =
            self.told.iter().filter(|(_, (_, told_ms))| told_ms.saturating_add(self.rules.early_ms) <= heard_ms);
        early.map(|(hash, _)| *hash).find(|hash| !included.contains(hash))
    }

    /// A leaf is final.
    pub fn remove(&mut self, hash: &LeafHash) {
        self.told.remove(hash);
    }

    /// Leaves that this validator has told and that still wait.
    pub fn told(&self) -> usize {
        self.told.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::contents::leaf::TenantId;

    const RULES: ListRules = ListRules { wait_ms: 1_000, early_ms: 100 };

    fn leaf(number: u16) -> Leaf {
        let mut hash = [0; 32];
        hash[..2].copy_from_slice(&number.to_be_bytes());
        Leaf { tenant: TenantId::default(), hash }
    }

    fn leaves(numbers: std::ops::Range<u16>) -> Vec<Leaf> {
        numbers.map(leaf).collect()
    }

    fn refused(lists: &Lists, heard_ms: u64, round: u32) -> bool {
        lists.left_out(heard_ms, Round(round), 3, &BTreeSet::new()).is_some()
    }

    #[test]
    fn a_voter_insists_only_on_what_it_told_early_enough_and_only_up_to_round_f() {
        let mut lists = Lists::new(RULES);
        lists.tell(Height(1), 5_000, &leaves(0..1));
        assert!(!refused(&lists, 5_099, 0));
        assert!((0..=3).all(|round| refused(&lists, 5_100, round)));
        assert!(!refused(&lists, 5_100, 4) && !refused(&lists, u64::MAX, u32::MAX));
        // Telling it again does not make it later.
        lists.tell(Height(2), 6_000, &leaves(0..1));
        assert!(refused(&lists, 5_100, 0));
        lists.remove(&leaf(0).leaf_hash());
        assert!(!refused(&lists, 5_100, 0));
    }

    #[test]
    fn what_others_tell_binds_no_vote_of_this_validator() {
        let mut lists = Lists::new(RULES);
        lists.hear(ValidatorIndex(2), List { height: Height(1), leaves: leaves(0..64) }, 4);
        assert!(!refused(&lists, u64::MAX, 0));
        assert_eq!(lists.wanted().len(), 64);
        lists.forget_heard();
        assert!(lists.wanted().is_empty());
    }

    #[test]
    fn a_later_list_takes_the_place_of_the_earlier_and_strangers_are_not_heard() {
        let mut lists = Lists::new(RULES);
        let list = |height, number| List { height: Height(height), leaves: leaves(number..number + 1) };
        lists.hear(ValidatorIndex(2), list(5, 1), 4);
        lists.hear(ValidatorIndex(2), list(4, 2), 4);
        lists.hear(ValidatorIndex(4), list(5, 3), 4);
        assert_eq!(lists.wanted(), [(leaf(1), leaf(1).leaf_hash())]);
        lists.hear(ValidatorIndex(2), list(6, 4), 4);
        assert_eq!(lists.wanted(), [(leaf(4), leaf(4).leaf_hash())]);
    }

    #[test]
    fn one_long_list_does_not_go_before_the_short_ones() {
        let mut lists = Lists::new(RULES);
        lists.hear(ValidatorIndex(0), List { height: Height(1), leaves: leaves(0..64) }, 4);
        lists.hear(ValidatorIndex(1), List { height: Height(1), leaves: leaves(100..101) }, 4);
        assert_eq!(lists.wanted()[1].0, leaf(100));
    }

    #[test]
    fn a_list_is_bounded_and_keeps_what_it_holds_until_that_is_final() {
        let mut lists = Lists::new(RULES);
        let first = lists.tell(Height(1), 0, &leaves(0..70));
        assert_eq!(first.leaves, leaves(0..64));
        assert_eq!(lists.tell(Height(2), 0, &leaves(100..200)).leaves, first.leaves);
        lists.remove(&leaf(3).leaf_hash());
        assert_eq!(lists.tell(Height(3), 0, &leaves(100..200)).leaves.len(), 64);
        assert!(first.to_bytes().len() == LIST_BYTES_MAX && lists.told() == LIST_MAX);
    }

    #[test]
    fn lists_that_are_too_long_or_do_not_ascend_are_refused() {
        let list = |leaves| List { height: Height(1), leaves }.to_bytes();
        let count = BytesError::Count { field: "inclusion list", count: 65, max: 64 };
        assert_eq!(List::from_bytes(&list(leaves(0..65))), Err(count));
        let order = BytesError::Value { field: "place of a leaf that does not ascend", value: 1 };
        assert_eq!(List::from_bytes(&list(vec![leaf(1), leaf(1)])), Err(order));
    }

    proptest! {
        #[test]
        fn a_list_is_read_as_it_was_written(numbers in prop::collection::btree_set(any::<u16>(), 0..LIST_MAX), height in any::<u64>()) {
            let list = List { height: Height(height), leaves: numbers.into_iter().map(leaf).collect() };
            prop_assert_eq!(List::from_bytes(&list.to_bytes()), Ok(list));
        }

        #[test]
        fn a_proposer_that_heard_a_voter_is_never_refused_by_it(
            told in prop::collection::btree_set(0_u16..500, 0..64), junk in prop::collection::btree_set(500_u16..900, 0..64), time in 0_u64..2_000,
        ) {
            let (mut voter, mut proposer) = (Lists::new(RULES), Lists::new(RULES));
            let told: Vec<_> = told.into_iter().map(leaf).collect();
            proposer.hear(ValidatorIndex(1), voter.tell(Height(1), 1_000, &told), 4);
            proposer.hear(ValidatorIndex(2), List { height: Height(1), leaves: junk.into_iter().map(leaf).collect() }, 4);
            let included: BTreeSet<_> = proposer.wanted().into_iter().map(|(_, hash)| hash).collect();
            prop_assert_eq!(voter.left_out(time, Round(0), 1, &included), None);
        }
    }
}
