//! Random looks at what pinners keep: which leaf of which shard is asked for, of whom, and what the answer is worth. Pure: dice and time are arguments.
//!
//! ```text
//! attestation + dice ─ choose ─► Probe ─► pinner ─► Answer ─ judge ─► Verdict
//!                                  └── nothing in time ─ expire ─────► Verdict::Unanswered
//! ```
//!
//! Who sees m of n shards gone is fooled by one probe with (n - m) / n; what is worth an alert is how the figures move over thousands of probes, so there
//! are figures here and no thresholds. A pinner that refuses has promised, and refuses: that counts against it, by its own name.
//!
//! Always true: a leaf is asked for only of a pinner whose acknowledgement has its shard and lasts; an answer counts once, only from who was asked, and is
//! right only if it leads to `da_root`; no more than [`OUTSTANDING_MAX`] probes are out.

use std::collections::BTreeMap;

use bpi_protocol::availability::attestation::{Attestation, ShardSet};
use bpi_protocol::availability::coding::Coding;
use bpi_protocol::availability::opening::Opening;
use bpi_protocol::log::Hash;
use bpi_protocol::mesh::pinner::{Answer, Request};

/// Probes without an answer, at most.
pub const OUTSTANDING_MAX: usize = 1024;

/// Which leaf of which shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leaf {
    /// Of which batch.
    pub da_root: Hash,
    /// Of which shard.
    pub shard: u8,
    /// Which.
    pub leaf: u64,
}

/// What is asked of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Whom.
    pub pinner: [u8; 32],
    /// What.
    pub leaf: Leaf,
    /// How the batch is coded.
    pub coding: Coding,
}

/// What came of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// The leaf came, and is of the batch.
    Right,
    /// Something else came.
    Wrong,
    /// The pinner says no.
    Refused,
    /// Nothing came in time.
    Unanswered,
}

impl Verdict {
    /// For counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Wrong => "wrong",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
        }
    }
}

/// What came of all probes of a pinner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// See [`Verdict::Right`].
    pub right: u64,
    /// See [`Verdict::Wrong`].
    pub wrong: u64,
    /// See [`Verdict::Refused`].
    pub refused: u64,
    /// See [`Verdict::Unanswered`].
    pub unanswered: u64,
}

impl Figures {
    /// Probes with a verdict.
    pub fn probes(&self) -> u64 {
        self.right + self.wrong + self.refused + self.unanswered
    }

    fn count(&mut self, verdict: Verdict) {
        *match verdict {
            Verdict::Right => &mut self.right,
            Verdict::Wrong => &mut self.wrong,
            Verdict::Refused => &mut self.refused,
            Verdict::Unanswered => &mut self.unanswered,
        } += 1;
    }
}

impl Probe {
    /// A leaf of an attested batch, each shard that a pinner keeps still at `now_s` (since 1970) as likely as the others, and each leaf of it. `None`: nobody
    /// has to keep any.
    pub fn choose(attestation: &Attestation, dice: [u64; 3], now_s: u64) -> Option<Self> {
        let lasting = || attestation.acknowledgements.iter().filter(|each| each.until_s > now_s);
        let kept = lasting().fold(ShardSet::default(), |all, each| all.union(each.shards));
        let shards: Vec<u8> = kept.iter().collect();
        let shard = *shards.get(place(dice[0], shards.len() as u64)? as usize)?;
        let keepers: Vec<[u8; 32]> =
            lasting().filter(|each| each.shards.contains(shard)).map(|each| each.pinner).collect();
        let pinner = *keepers.get(place(dice[1], keepers.len() as u64)? as usize)?;
        let coding = attestation.batch.coding;
        let leaf = place(dice[2], coding.leaves())?;
        Some(Self { pinner, leaf: Leaf { da_root: attestation.batch.da_root, shard, leaf }, coding })
    }

    /// What is sent.
    pub fn request(&self) -> Request {
        let Leaf { da_root, shard, leaf } = self.leaf;
        Request::Probe { da_root, shard, leaf }
    }

    fn judge(&self, opening: &[u8]) -> Verdict {
        let Leaf { da_root, shard, leaf } = self.leaf;
        let is_asked_for = |opening: &Opening| opening.shard == shard && u64::from(opening.leaf) == leaf;
        let opening = Opening::from_bytes(opening).ok().filter(is_asked_for);
        match opening.is_some_and(|opening| opening.check(&self.coding, &da_root).is_ok()) {
            true => Verdict::Right,
            false => Verdict::Wrong,
        }
    }
}

/// One of so many places by a die of 64 bits: the bias is below 2^-40 for fewer than 2^24 places. `None`: there is none.
fn place(die: u64, places: u64) -> Option<u64> {
    die.checked_rem(places)
}

/// Probes that are out, and what came of those before.
#[derive(Debug)]
pub struct Prober {
    wait_ms: u64,
    out: BTreeMap<([u8; 32], Leaf), (Probe, u64)>,
    figures: BTreeMap<[u8; 32], Figures>,
}

impl Prober {
    /// Waits so long for an answer, in ms. Every pinner has figures from the start.
    pub fn new(pinners: impl IntoIterator<Item = [u8; 32]>, wait_ms: u64) -> Self {
        let figures = pinners.into_iter().map(|pinner| (pinner, Figures::default())).collect();
        Self { wait_ms, out: BTreeMap::new(), figures }
    }

    /// What came of the probes of each pinner.
    pub fn figures(&self) -> &BTreeMap<[u8; 32], Figures> {
        &self.figures
    }

    /// Probes that are out.
    pub fn outstanding(&self) -> usize {
        self.out.len()
    }

    /// Takes a probe down, to be sent. False: too many are out, or this very one.
    pub fn begin(&mut self, probe: Probe, now_ms: u64) -> bool {
        let key = (probe.pinner, probe.leaf);
        if self.out.len() >= OUTSTANDING_MAX || self.out.contains_key(&key) {
            return false;
        }
        self.out.insert(key, (probe, now_ms.saturating_add(self.wait_ms)));
        true
    }

    /// Judges what a pinner says. `None`: nobody has asked it for that.
    pub fn hear(&mut self, pinner: [u8; 32], answer: &Answer) -> Option<Verdict> {
        let verdict = match answer {
            Answer::Opening { da_root, shard, leaf, opening } => {
                let leaf = Leaf { da_root: *da_root, shard: *shard, leaf: *leaf };
                self.out.remove(&(pinner, leaf))?.0.judge(opening)
            }
            // It does not say which leaf: the first of the batch that is out.
            Answer::Refused { da_root, .. } => {
                let first = Leaf { da_root: *da_root, shard: 0, leaf: 0 };
                let key = self.out.range((pinner, first)..).next().map(|(key, _)| *key);
                let key = key.filter(|(asked, leaf)| *asked == pinner && leaf.da_root == *da_root)?;
                self.out.remove(&key)?;
                Verdict::Refused
            }
            _ => return None,
        };
        self.count(pinner, verdict);
        Some(verdict)
    }

    /// Gives up probes that were answered by nothing, and says whose they were.
    pub fn expire(&mut self, now_ms: u64) -> Vec<[u8; 32]> {
        let late = self.out.extract_if(.., |_, (_, due_ms)| *due_ms <= now_ms);
        let late: Vec<[u8; 32]> = late.map(|((pinner, _), _)| pinner).collect();
        late.iter().for_each(|pinner| self.count(*pinner, Verdict::Unanswered));
        late
    }

    fn count(&mut self, pinner: [u8; 32], verdict: Verdict) {
        self.figures.entry(pinner).or_default().count(verdict);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use bpi_protocol::availability::attestation::{Acknowledgement, Batch};
    use bpi_protocol::availability::tree::{ShardTree, da_root};
    use bpi_protocol::log::leaf::TenantId;
    use bpi_protocol::mesh::pinner::Reason;

    use super::*;

    const PINNERS: [[u8; 32]; 3] = [[1; 32], [2; 32], [3; 32]];

    /// A batch of any bytes, each pinner with four shards, the last of them until 50 s.
    fn batch() -> (Attestation, Vec<Vec<u8>>) {
        let coding = Coding::new(4, 12, 9_000).unwrap();
        let shards: Vec<Vec<u8>> = (0..12).map(|number| vec![number; coding.shard_bytes() as usize]).collect();
        let roots: Vec<Hash> = shards.iter().map(|shard| ShardTree::of(shard).root()).collect();
        let (tenant, da_root) = (TenantId::default(), da_root(&coding, &roots));
        let acknowledge = |(at, pinner): (u8, [u8; 32])| Acknowledgement {
            pinner,
            shards: (4 * at..4 * at + 4).collect(),
            until_s: if at == 2 { 50 } else { 100 },
            signature: [0; 64],
        };
        let acknowledgements = (0..).zip(PINNERS).map(acknowledge).collect();
        let batch = Batch { tenant, coding, da_root, receipts: 1, receipts_root: [0; 32] };
        (Attestation { batch, acknowledgements }, shards)
    }

    fn open(probe: &Probe, shards: &[Vec<u8>]) -> Answer {
        let Leaf { da_root, shard, leaf } = probe.leaf;
        let roots: Vec<Hash> = shards.iter().map(|shard| ShardTree::of(shard).root()).collect();
        let bytes = &shards[usize::from(shard)][leaf as usize * 1024..][..1024];
        let tree = ShardTree::of(&shards[usize::from(shard)]);
        let opening = tree.open(shard, &roots, leaf, bytes).unwrap().to_bytes();
        Answer::Opening { da_root, shard, leaf, opening }
    }

    #[test]
    fn every_leaf_of_every_shard_that_somebody_has_to_keep_comes_up_at_its_keeper() {
        let (attestation, _) = batch();
        let chosen = |now_s| -> BTreeSet<_> {
            let dice = (0..12).flat_map(|shard| (0..3).map(move |leaf| [shard, 7, leaf]));
            let probes: Vec<_> = dice.filter_map(|dice| Probe::choose(&attestation, dice, now_s)).collect();
            assert!(probes.iter().all(|probe| probe.pinner == PINNERS[usize::from(probe.leaf.shard / 4)]));
            probes.iter().map(|probe| (probe.leaf.shard, probe.leaf.leaf)).collect()
        };
        assert_eq!((chosen(49).len(), chosen(50).len(), chosen(100).len()), (36, 24, 0));
    }

    #[test]
    fn only_the_leaf_that_was_asked_for_is_right_and_an_answer_counts_once() {
        let (attestation, shards) = batch();
        let mut prober = Prober::new(PINNERS, 1_000);
        let probe = Probe::choose(&attestation, [5, 0, 1], 0).unwrap();
        assert_eq!((probe.pinner, probe.leaf.shard, probe.leaf.leaf), (PINNERS[1], 5, 1));
        let right = open(&probe, &shards);
        assert_eq!(prober.hear(PINNERS[1], &right), None, "nobody asked");
        assert!(prober.begin(probe, 0) && !prober.begin(probe, 0));
        assert_eq!(prober.hear(PINNERS[0], &right), None, "another was asked");
        assert_eq!(prober.hear(PINNERS[1], &right), Some(Verdict::Right));
        assert_eq!(prober.hear(PINNERS[1], &right), None, "it has counted");

        let mut changed = right.clone();
        let Answer::Opening { opening, .. } = &mut changed else { return };
        opening[500] ^= 1;
        let mut other = open(&Probe { leaf: Leaf { leaf: 0, ..probe.leaf }, ..probe }, &shards);
        let Answer::Opening { leaf, .. } = &mut other else { return };
        *leaf = 1;
        for wrong in [changed, other] {
            assert!(prober.begin(probe, 0));
            assert_eq!(prober.hear(PINNERS[1], &wrong), Some(Verdict::Wrong));
        }
        let (da_root, reason, sentence) = (probe.leaf.da_root, Reason::Missing, String::new());
        let refused = Answer::Refused { da_root, reason, sentence };
        assert_eq!(prober.hear(PINNERS[1], &refused), None);
        assert!(prober.begin(probe, 0));
        assert_eq!(prober.hear(PINNERS[1], &refused), Some(Verdict::Refused));
        assert_eq!(prober.figures()[&PINNERS[1]], Figures { right: 1, wrong: 2, refused: 1, unanswered: 0 });
    }

    #[test]
    fn what_is_not_answered_in_time_counts_and_makes_room() {
        let (attestation, shards) = batch();
        let mut prober = Prober::new(PINNERS, 1_000);
        let probe = Probe::choose(&attestation, [0, 0, 0], 0).unwrap();
        for leaf in 0..OUTSTANDING_MAX as u64 {
            assert!(prober.begin(Probe { leaf: Leaf { leaf, ..probe.leaf }, ..probe }, 5));
        }
        assert!(!prober.begin(Probe { leaf: Leaf { leaf: u64::MAX, ..probe.leaf }, ..probe }, 5));
        assert_eq!(prober.expire(1_004).len(), 0);
        assert_eq!((prober.expire(1_005).len(), prober.outstanding()), (OUTSTANDING_MAX, 0));
        assert_eq!(prober.hear(PINNERS[0], &open(&probe, &shards)), None, "too late");
        assert_eq!(prober.figures()[&PINNERS[0]].probes(), OUTSTANDING_MAX as u64);
    }
}
