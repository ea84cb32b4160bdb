//! The Istanbul BFT Consensus Algorithm (H. Moniz, arXiv 2002.03613), one height at a time.
//!
//! Each rule names the predicate of the machine-checked QBFT specification (Dafny, Consensys) that it carries out: `UponProposal`,
//! `UponPrepare`, `UponCommit`, `UponRoundChange`, `UponRoundTimeout`. The core is a function: [`Core::step`] takes a moment and an input and
//! gives effects, which its host carries out **in order**. When an effect fails the host drops the rest of them and says so
//! ([`Input::Failed`]): the core then signs nothing more until it is made anew.
//!
//! Always true:
//! - A vote is persisted before it is sent, and each is greater than the one before: (height, round, step).
//! - What was prepared is kept until the height is final, over every crash.
//! - Signers are counted, not messages; votes are checked all at once when there are enough, and those that are none are thrown out.
//!
//! Where it deviates, and why that is safe:
//! - A header keeps the round in which it was made ([`bpi_protocol::consensus::justification`]).
//! - Rounds end at moments that follow from the parent's time ([`timing`]), so validators that wake after an hour meet in one round. A node
//!   may be in any round at any time: the paper's safety does not rest on timers.
//! - COMMIT votes of earlier and later rounds count too, as in the paper; the Dafny specification looks at the present round alone.
//! - A justified proposal of any later round is accepted. The Dafny specification takes one only if the present round has one.

mod ballots;
mod ingest;
mod instance;
mod rules;
mod state;
pub mod timing;

use bpi_protocol::consensus::equivocation::{Equivocation, Step};
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{HeaderDigest, Height, Round, ValidatorIndex};
use bpi_protocol::consensus::message::{Message, Partials};
use bpi_protocol::consensus::seal::{Seal, Votes};

pub use instance::Instance;
pub use state::{Core, Recovered, Shares};

/// A peer, by a number that its host gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer(pub u32);

/// How far a validator has spoken. Of two votes the later has the greater position; there is none twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// At which height.
    pub height: Height,
    /// In which round.
    pub round: Round,
    /// Which step of the round.
    pub step: Step,
}

/// What the core hears.
#[derive(Clone, Debug)]
pub enum Input {
    /// A peer has sent this.
    Message {
        /// Who.
        from: Peer,
        /// What, about this height or the next.
        message: Message,
    },
    /// The moment that [`Effect::SetTimer`] asked for has come.
    Timer {
        /// Of which height.
        height: Height,
        /// Of which round.
        round: Round,
    },
    /// The header that [`Effect::Propose`] asked for.
    Proposed {
        /// For which round.
        round: Round,
        /// The header.
        header: Box<Header>,
    },
    /// The answer to [`Effect::Check`].
    Checked {
        /// Which header.
        digest: HeaderDigest,
        /// Whether its contents are right and available.
        valid: bool,
    },
    /// A peer is connected (again): it may have missed what was said.
    Connected {
        /// Who.
        peer: Peer,
    },
    /// An effect failed, and those after it were dropped.
    Failed,
}

/// What the core asks of its host.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Keep this, durably, before the effects that follow.
    Persist(Record),
    /// Send to every other validator.
    Broadcast(Message),
    /// Send to one peer.
    Send {
        /// To whom.
        to: Peer,
        /// What.
        message: Message,
    },
    /// Call [`Input::Timer`] at a moment, in ms since 1970. It replaces the timer before.
    SetTimer {
        /// Of which height.
        height: Height,
        /// Of which round.
        round: Round,
        /// When.
        at_ms: u64,
    },
    /// Make a header for this round, not before a moment.
    Propose {
        /// At which height.
        height: Height,
        /// For which round.
        round: Round,
        /// Not before, in ms since 1970.
        not_before_ms: u64,
    },
    /// Look into what a header commits to.
    Check(Box<Header>),
    /// This header is final. The core rests until it is started again.
    Finalise {
        /// The header.
        header: Box<Header>,
        /// Why.
        seal: Seal,
        /// The shares that came with the COMMIT votes, unchecked.
        partials: Vec<(ValidatorIndex, Partials)>,
    },
    /// Others have voted for a header that this node has not seen: it is to be fetched.
    Missing {
        /// At which height.
        height: Height,
    },
    /// A message was dropped.
    Reject {
        /// Whose.
        from: Peer,
        /// Why.
        reason: Reason,
    },
    /// A validator has signed two different votes for one step.
    Evidence(Box<Equivocation>),
}

/// What must outlive a crash.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A vote, before it is sent. It is refused if its position is not greater than that of the last one.
    Vote {
        /// How far it goes.
        position: Position,
        /// The vote.
        message: Box<Message>,
    },
    /// A header has been prepared, before the COMMIT vote for it.
    Prepared {
        /// The header.
        header: Box<Header>,
        /// Its certificate.
        votes: Votes,
    },
}

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Its height is past.
    StaleHeight,
    /// Its height is beyond the next one.
    FutureHeight,
    /// Its round is past.
    StaleRound,
    /// Its round is too far ahead.
    FutureRound,
    /// Nobody of the set has sent it.
    Stranger,
    /// It is not signed by its sender.
    Signature,
    /// The proposer of the round is another one.
    NotProposer,
    /// It is not justified, or its claim is not proved.
    Justification,
    /// The header does not follow the last one.
    Continuity,
    /// The header's contents are wrong.
    Contents,
    /// It says what was known.
    Duplicate,
    /// Its sender has said something else before.
    Equivocation,
    /// It is no message of consensus.
    Kind,
}

impl Reason {
    /// For counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::StaleHeight => "stale-height",
            Self::FutureHeight => "future-height",
            Self::StaleRound => "stale-round",
            Self::FutureRound => "future-round",
            Self::Stranger => "stranger",
            Self::Signature => "signature",
            Self::NotProposer => "not-proposer",
            Self::Justification => "justification",
            Self::Continuity => "continuity",
            Self::Contents => "contents",
            Self::Duplicate => "duplicate",
            Self::Equivocation => "equivocation",
            Self::Kind => "kind",
        }
    }

    /// True for what an honest peer may send: it was late, or early.
    pub fn is_innocent(self) -> bool {
        matches!(self, Self::StaleHeight | Self::FutureHeight | Self::StaleRound | Self::FutureRound | Self::Duplicate)
    }
}
