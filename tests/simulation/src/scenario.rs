//! What goes wrong in one history: all of it follows from the seed.

use crate::rng::Rng;

/// How a faulty node behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It says nothing.
    Silent,
    /// Two nodes with one key, each of which talks to some of the others (Twins, arXiv 2004.10617).
    Twins,
    /// It changes what it says, for each of the others anew, and signs that too.
    Liar,
    /// Its disk says that bytes are safe that are not: it forgets what it has signed.
    Forgetful,
}

/// One history's conditions. Chances are per mille, times in ms.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Validators of a set.
    pub validators: usize,
    /// Faulty nodes and how, at most [`bpi_protocol::consensus::validators::faults`] of them.
    pub faulty: Vec<(usize, Fault)>,
    /// Messages that get lost before the network heals.
    pub loss: u64,
    /// Messages that come twice.
    pub twice: u64,
    /// Messages that come much later.
    pub late: u64,
    /// Usual delay of a message.
    pub delay_ms: (u64, u64),
    /// Delay of a late one.
    pub late_ms: u64,
    /// How often the links change.
    pub cut_every_ms: u64,
    /// Chance that a link is cut in one direction while they are.
    pub one_way: u64,
    /// How often somebody crashes.
    pub crash_every_ms: u64,
    /// How long a crashed node is down, at most.
    pub down_ms: u64,
    /// Chance that a crash takes all nodes.
    pub crash_all: u64,
    /// How far clocks are apart.
    pub skew_ms: u64,
    /// Length of an epoch, in heights.
    pub epoch: u64,
    /// When everything heals.
    pub heal_ms: u64,
    /// How long a host takes to make or to check a header, at most.
    pub host_ms: u64,
    /// Chance that a timer that has been replaced runs out all the same: it was on its way.
    pub old_timers: u64,
}

impl Scenario {
    /// The conditions of a seed.
    pub fn of(seed: u64, validators: usize) -> Self {
        let mut rng = Rng::new(seed ^ 0x5ce7_a210 ^ (validators as u64) << 48);
        let most = bpi_protocol::consensus::validators::faults(validators);
        let nodes = validators + 1;
        let mut faulty: Vec<(usize, Fault)> = Vec::new();
        let wanted = rng.between(0, most as u64) as usize;
        while faulty.len() < wanted {
            let node = rng.below(nodes as u64) as usize;
            let fault =
                *rng.pick(&[Fault::Silent, Fault::Twins, Fault::Twins, Fault::Liar, Fault::Liar, Fault::Forgetful]);
            if faulty.iter().all(|(other, _)| *other != node) {
                faulty.push((node, fault));
            }
        }
        let calm = rng.chance(150);
        let often = |rng: &mut Rng, most: u64| if calm || rng.chance(300) { 0 } else { rng.between(1, most) };
        Self {
            validators,
            faulty,
            loss: often(&mut rng, 300),
            twice: often(&mut rng, 200),
            late: often(&mut rng, 200),
            delay_ms: (rng.between(0, 5), rng.between(5, 120)),
            late_ms: rng.between(200, 6000),
            cut_every_ms: if calm || rng.chance(400) { 0 } else { rng.between(200, 4000) },
            one_way: rng.between(0, 500),
            crash_every_ms: if calm || rng.chance(400) { 0 } else { rng.between(300, 5000) },
            down_ms: rng.between(1, 6000),
            crash_all: rng.between(0, 300),
            skew_ms: if rng.chance(500) { 0 } else { rng.between(1, 400) },
            epoch: rng.between(2, 6),
            heal_ms: rng.between(4_000, 30_000),
            host_ms: if rng.chance(500) { 2 } else { rng.between(2, 400) },
            old_timers: if rng.chance(500) { 0 } else { rng.between(1, 500) },
        }
    }

    /// The fault of a node.
    pub fn fault(&self, node: usize) -> Option<Fault> {
        self.faulty.iter().find(|(faulty, _)| *faulty == node).map(|(_, fault)| *fault)
    }
}
