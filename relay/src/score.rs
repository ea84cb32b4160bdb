//! How much a peer is borne: each fault takes some of its credit, time gives it back; with half of it gone the peer is slowed, with all of
//! it gone it is closed and stays out for a while.
//!
//! What is over its budget is dropped and its sender slowed, but that is no fault: who fills a link cannot know where its end is.

/// Credit of a peer without a fault.
const FULL: u32 = 1000;
/// Credit that comes back in a second.
const BACK_PER_S: u64 = 10;
/// Below this a peer is slowed, two milliseconds for each point.
const SLOW_BELOW: u32 = FULL / 2;
/// How long a peer without credit stays out, in ms.
pub const CUT_OFF_MS: u64 = 30_000;
/// Longest pause that is asked of a connection, in ms.
pub const DELAY_MS_MAX: u64 = 1000;

/// What a peer can do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Bytes that are no frame, or no message of the hop.
    Malformed,
    /// A registration or announcement whose signature is not its key's.
    Signature,
    /// Something that its role may not do.
    NotAllowed,
    /// A frame for a network that is not served here.
    WrongNetwork,
    /// A frame that would live for longer than any may.
    FarExpiry,
    /// A frame that came too late.
    Expired,
}

impl Fault {
    /// What it costs. Ten forgeries in a row close a connection; a clock that is off takes two hundred frames.
    fn cost(self) -> u32 {
        match self {
            Self::Malformed | Self::Signature | Self::NotAllowed => 100,
            Self::WrongNetwork => 50,
            Self::FarExpiry => 20,
            Self::Expired => 5,
        }
    }
}

/// Why a connection is closed: the application's error code of the hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseCode {
    /// The relay is about to end; another one will do.
    Draining = 1,
    /// Too many faults.
    Misbehaved = 2,
    /// A bound on connections.
    Refused = 3,
}

/// What is to be done with the connection that something came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    Go,
    /// Read nothing from it for a while.
    Slow {
        /// For so long.
        delay_ms: u64,
    },
    /// Close it.
    Close {
        /// With this code.
        code: CloseCode,
    },
}

/// A peer's credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Score {
    credit: u32,
    at_us: u64,
    cut_off_until_us: u64,
}

impl Default for Score {
    fn default() -> Self {
        Self { credit: FULL, at_us: 0, cut_off_until_us: 0 }
    }
}

impl Score {
    /// The credit at a moment.
    pub fn credit(self, now_us: u64) -> u32 {
        let back = now_us.saturating_sub(self.at_us).saturating_mul(BACK_PER_S) / 1_000_000;
        self.credit.saturating_add(u32::try_from(back).unwrap_or(FULL)).min(FULL)
    }

    /// Takes what a fault costs, and says what follows.
    pub fn blame(&mut self, now_us: u64, fault: Fault) -> Then {
        let credit = self.credit(now_us);
        // Only whole points have come back: the time that is on its way to the next one stays.
        let back = u64::from(credit - self.credit);
        self.at_us = if credit == FULL { now_us } else { self.at_us + back * (1_000_000 / BACK_PER_S) };
        self.credit = credit.saturating_sub(fault.cost());
        match self.credit {
            0 => {
                (self.credit, self.at_us) = (FULL / 2, now_us);
                self.cut_off_until_us = now_us.saturating_add(CUT_OFF_MS * 1000);
                Then::Close { code: CloseCode::Misbehaved }
            }
            credit if credit < SLOW_BELOW => {
                Then::Slow { delay_ms: (u64::from(SLOW_BELOW - credit) * 2).min(DELAY_MS_MAX) }
            }
            _ => Then::Go,
        }
    }

    /// For how long the peer is still out, in ms. `None`: it may come.
    pub fn cut_off_ms(self, now_us: u64) -> Option<u64> {
        (now_us < self.cut_off_until_us).then(|| (self.cut_off_until_us - now_us).div_ceil(1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    #[test]
    fn a_liar_is_slowed_and_then_closed_and_may_come_back_after_a_while() {
        let mut score = Score::default();
        let said: Vec<_> = (0..10).map(|_| score.blame(5, Fault::Signature)).collect();
        assert_eq!(said[..5], [Then::Go; 5]);
        assert_eq!(said[5], Then::Slow { delay_ms: 200 });
        assert_eq!(said[9], Then::Close { code: CloseCode::Misbehaved });
        assert_eq!(score.cut_off_ms(5), Some(CUT_OFF_MS));
        assert_eq!(score.cut_off_ms(5 + CUT_OFF_MS * 1000), None);
    }

    #[test]
    fn one_fault_in_ten_seconds_never_closes_a_connection() {
        let mut score = Score::default();
        assert!((0..1000).all(|at| score.blame(at * 10 * S, Fault::Malformed) == Then::Go));
        assert_eq!(score.credit(u64::MAX), 1000);
    }

    #[test]
    fn faults_faster_than_a_point_of_credit_do_not_stop_its_return() {
        let mut score = Score::default();
        // One a second costs 5 and brings 10 back, in whatever steps.
        assert!((0..10_000).all(|at| score.blame(at * S + at % 7, Fault::Expired) == Then::Go));
    }
}
