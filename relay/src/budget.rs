//! Who may use how much: everybody a share that nobody can take away, and what is left over to whoever asks, in proportion to weight.
//!
//! One currency for bytes and frames: the *time of the relay* a frame takes, the larger of its bytes over `bytes_per_s` and of one over
//! `frames_per_s`. Who keeps within the sum of these times keeps within both rates.
//!
//! - **Guaranteed.** An account's bucket fills at its weight over the weight of all accounts that are connected. A prefix or an ASN with too
//!   many accounts has their guarantees scaled down until all of them together have its part. A frame within the guarantee always passes.
//! - **Borrowed.** The common pool fills at the whole capacity; everything that passes is taken from it, guaranteed frames even below zero.
//!   A frame beyond its guarantee passes while the pool has something and the debt of its account, its prefix and its ASN is each at most
//!   `level of the pool × weight × capacity × memory`. Debts fade over that memory. So the more a borrower has had for its weight, the
//!   fuller the pool must be: borrowers who all want more settle at rates in proportion to their weights, and a lone one gets all that is
//!   spare. (The rule for shared buffers of Choudhury and Hahne, IEEE/ACM Trans. Networking 6(2), 1998, with debts in place of queues.)
//!
//! What always holds: over any span of time, what passes is at most the capacity times the span and two bursts. All figures are floats of
//! nanoseconds: a bucket that is filled every microsecond with a three-thousandth of it would lose everything to integers.

/// Over how long a debt fades, in seconds.
const MEMORY_S: f64 = 1.0;
const NS: f64 = 1e9;
/// Longest pause that is proposed to a sender over its budget, in ms.
const WAIT_MS_MAX: f64 = 1000.0;

/// The capacity and how it is shared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Bytes that the relay takes in, a second.
    pub bytes_per_s: u64,
    /// Frames that the relay takes in, a second.
    pub frames_per_s: u64,
    /// How much unused capacity may be caught up with at once, in ms.
    pub burst_ms: u32,
    /// The weight of a prefix when spare capacity is short; an account's is 1 and more.
    pub prefix_weight: u32,
    /// The weight of an ASN when spare capacity is short.
    pub asn_weight: u32,
    /// The part of the capacity that is guaranteed to the accounts of one prefix together, in percent.
    pub prefix_guarantee_percent: u32,
    /// The part of the capacity that is guaranteed to the accounts of one ASN together, in percent.
    pub asn_guarantee_percent: u32,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            bytes_per_s: 125_000_000,
            frames_per_s: 300_000,
            burst_ms: 100,
            prefix_weight: 16,
            asn_weight: 64,
            prefix_guarantee_percent: 25,
            asn_guarantee_percent: 50,
        }
    }
}

/// Which budget a frame was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// That of its account, the SPIFFE id.
    Account,
    /// That of its prefix.
    Prefix,
    /// That of its ASN.
    Asn,
    /// That of the relay: nothing is spare.
    Relay,
}

/// A frame that does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// Which budget it was over.
    pub level: Level,
    /// When the account's guarantee will bear one, in ms.
    pub wait_ms: u64,
}

/// What was borrowed and has not faded.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Debt {
    ns: f64,
    at_us: u64,
}

impl Debt {
    fn fade(&mut self, now_us: u64) -> f64 {
        let age_s = now_us.saturating_sub(self.at_us) as f64 / 1e6 / MEMORY_S;
        self.at_us = self.at_us.max(now_us);
        // Below a thousandth the first term is as good as the exponential, and that is the case under load.
        self.ns *= if age_s < 1e-3 { 1.0 - age_s } else { (-age_s).exp() };
        self.ns
    }

    /// What is owed, in ns of the relay's time.
    pub fn ns(&self) -> f64 {
        self.ns
    }
}

/// An account's part of the relay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    weight: f64,
    tokens_ns: f64,
    at_us: u64,
    debt: Debt,
}

impl Share {
    /// Of an account of this weight. It starts with nothing, so coming back gains nothing.
    pub fn new(now_us: u64, weight: u32) -> Self {
        Self { weight: f64::from(weight.max(1)), tokens_ns: 0.0, at_us: now_us, debt: Debt::default() }
    }

    /// An account that had no connection has one again, perhaps with another weight. For the time between it is owed nothing.
    pub fn rejoin(&mut self, now_us: u64, weight: u32) {
        self.weight = f64::from(weight.max(1));
        self.tokens_ns = self.tokens_ns.min(0.0);
        self.at_us = now_us;
    }

    /// Its weight.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// What it has borrowed.
    pub fn debt(&self) -> Debt {
        self.debt
    }
}

/// The weights of connected accounts that bound one account's guarantee.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crowd {
    /// Of those in its prefix, itself included.
    pub prefix: f64,
    /// Of those in its ASN, itself included, when that is known.
    pub asn: Option<f64>,
}

/// The relay's capacity.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    ns_per_byte: f64,
    ns_per_frame: f64,
    burst_ns: f64,
    prefix_weight: f64,
    asn_weight: f64,
    prefix_part: f64,
    asn_part: f64,
    weight: f64,
    level_ns: f64,
    at_us: u64,
}

impl Pool {
    /// Full, with nobody connected.
    pub fn new(rates: &Rates) -> Self {
        let burst_ns = f64::from(rates.burst_ms.max(1)) * 1e6;
        Self {
            ns_per_byte: NS / rates.bytes_per_s.max(1) as f64,
            ns_per_frame: NS / rates.frames_per_s.max(1) as f64,
            burst_ns,
            prefix_weight: f64::from(rates.prefix_weight.max(1)),
            asn_weight: f64::from(rates.asn_weight.max(1)),
            prefix_part: f64::from(rates.prefix_guarantee_percent) / 100.0,
            asn_part: f64::from(rates.asn_guarantee_percent) / 100.0,
            weight: 0.0,
            level_ns: burst_ns,
            at_us: 0,
        }
    }

    /// An account connects.
    pub fn join(&mut self, share: &Share) {
        self.weight += share.weight;
    }

    /// An account has no connection any more.
    pub fn part(&mut self, share: &Share) {
        self.weight = (self.weight - share.weight).max(0.0);
    }

    /// The relay's time that so many bytes in one frame take, in ns.
    pub fn cost_ns(&self, bytes: usize) -> f64 {
        (bytes as f64 * self.ns_per_byte).max(self.ns_per_frame)
    }

    /// The part of the capacity that an account is guaranteed, of one.
    pub fn guarantee(&self, share: &Share, crowd: Crowd) -> f64 {
        let own = share.weight / self.weight.max(share.weight);
        let prefix = share.weight * self.prefix_part / crowd.prefix.max(share.weight);
        let asn = crowd.asn.map_or(1.0, |asn| share.weight * self.asn_part / asn.max(share.weight));
        own.min(prefix).min(asn)
    }

    /// Takes what a frame costs from its sender's guarantee, else from what is spare.
    ///
    /// # Errors
    /// [`Over`], and nothing is taken.
    pub fn spend(
        &mut self,
        now_us: u64,
        bytes: usize,
        (share, crowd): (&mut Share, Crowd),
        prefix: &mut Debt,
        asn: Option<&mut Debt>,
    ) -> Result<(), Over> {
        let cost_ns = self.cost_ns(bytes);
        self.level_ns =
            (self.level_ns + now_us.saturating_sub(self.at_us) as f64 * 1e3).clamp(-self.burst_ns, self.burst_ns);
        self.at_us = self.at_us.max(now_us);
        let guarantee = self.guarantee(share, crowd);
        let filled_ns = share.tokens_ns + now_us.saturating_sub(share.at_us) as f64 * 1e3 * guarantee;
        share.tokens_ns = filled_ns.min(self.burst_ns * guarantee);
        share.at_us = share.at_us.max(now_us);
        // A bucket that has anything bears one frame, of whatever length, and owes the rest: else long frames would never fit a small share.
        if share.tokens_ns > 0.0 {
            share.tokens_ns -= cost_ns;
            self.level_ns -= cost_ns;
            return Ok(());
        }
        let wait_ms = ((-share.tokens_ns / guarantee / 1e6).clamp(1.0, WAIT_MS_MAX)) as u64;
        let over = |level| Over { level, wait_ms };
        if self.level_ns <= 0.0 {
            return Err(over(Level::Relay));
        }
        let bound_ns = self.level_ns / self.burst_ns * MEMORY_S * NS;
        if share.debt.fade(now_us) > bound_ns * share.weight {
            return Err(over(Level::Account));
        }
        if prefix.fade(now_us) > bound_ns * self.prefix_weight {
            return Err(over(Level::Prefix));
        }
        if let Some(asn) = asn {
            if asn.fade(now_us) > bound_ns * self.asn_weight {
                return Err(over(Level::Asn));
            }
            asn.ns += cost_ns;
        }
        self.level_ns -= cost_ns;
        share.debt.ns += cost_ns;
        prefix.ns += cost_ns;
        Ok(())
    }
}
