//! A chain of heights: the core of each, in turn, and final headers from peers for who has missed one.

use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{Height, ValidatorIndex};
use bpi_protocol::consensus::light::check_continuity;
use bpi_protocol::consensus::message::{Body, Final, Message, Partials};
use bpi_protocol::consensus::scheme::Scheme;
use bpi_protocol::consensus::seal::Seal;

use crate::core::{Core, Effect, Input, Instance, Peer, Reason, Recovered};

/// How long an answer to a request is waited for, in ms.
const PATIENCE_MS: u64 = 300;

/// Who decides a height, by the final header before it.
pub trait Schedule<S> {
    /// The instance after a header, and this node's place in its set. `None`: the set that it announces is not known here.
    fn instance(&self, parent: &Header) -> Option<(Instance<S>, Option<ValidatorIndex>)>;
}

/// What a replica asks of its host, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Of the core.
    Core(Effect),
    /// Keep a final header, durably, before what follows.
    Append {
        /// The header.
        header: Box<Header>,
        /// Why it is final.
        seal: Seal,
        /// The shares that came with it, unchecked.
        partials: Vec<(ValidatorIndex, Partials)>,
    },
    /// Send a peer the final header of a height, from the store.
    Serve {
        /// To whom.
        to: Peer,
        /// Which.
        height: Height,
    },
    /// The set of the next height is not known: this node cannot go on.
    Stranded {
        /// At which height.
        height: Height,
    },
}

/// A node's view of its chain.
pub struct Replica<S> {
    core: Core<S>,
    schedule: Box<dyn Schedule<S> + Send>,
    tip: Header,
    instance: Option<Instance<S>>,
    /// [`Recovered::silent_through`].
    silent_through: Option<Height>,
    /// The height that was asked for last, and when.
    asked: Option<(Height, u64)>,
}

impl<S: Scheme + Clone> Replica<S> {
    /// Goes on from the last final header, with what the log kept of the height after it.
    pub fn start(
        core: Core<S>,
        schedule: Box<dyn Schedule<S> + Send>,
        tip: Header,
        recovered: Recovered,
        now_ms: u64,
    ) -> (Self, Vec<Act>) {
        let silent_through = recovered.silent_through;
        let mut replica = Self { core, schedule, tip, instance: None, silent_through, asked: None };
        let mut out = Vec::new();
        replica.begin(now_ms, recovered, &mut out);
        (replica, out)
    }

    /// The last final header.
    pub fn tip(&self) -> &Header {
        &self.tip
    }

    /// The core of the present height.
    pub fn core(&self) -> &Core<S> {
        &self.core
    }

    /// One input, and what comes of it.
    pub fn step(&mut self, now_ms: u64, input: Input) -> Vec<Act> {
        let mut out = Vec::new();
        match input {
            Input::Message { from, message } => self.hear(now_ms, from, message, &mut out),
            Input::Connected { peer } => {
                let message = Message { height: self.tip.height.next(), body: Body::Status };
                out.push(Act::Core(Effect::Send { to: peer, message }));
                let effects = self.core.step(now_ms, Input::Connected { peer });
                self.take(now_ms, effects, &mut out);
            }
            other => {
                let round_is_over = matches!(other, Input::Timer { .. });
                let effects = self.core.step(now_ms, other);
                let says_nothing = !effects.iter().any(|effect| matches!(effect, Effect::Broadcast(_)));
                self.take(now_ms, effects, &mut out);
                if round_is_over && says_nothing {
                    // An observer that has missed something must be heard of too.
                    let message = Message { height: self.tip.height.next(), body: Body::Status };
                    out.push(Act::Core(Effect::Broadcast(message)));
                }
            }
        }
        out
    }

    fn hear(&mut self, now_ms: u64, from: Peer, message: Message, out: &mut Vec<Act>) {
        let next = self.tip.height.next();
        match &message.body {
            Body::Request => {
                if message.height < next {
                    out.push(Act::Serve { to: from, height: message.height });
                }
            }
            Body::Final(last) if message.height == next => {
                match self.catch_up(now_ms, last, out) {
                    // Who has this one may have the next.
                    Ok(()) => self.ask(now_ms, from, out),
                    Err(reason) => out.push(Act::Core(Effect::Reject { from, reason })),
                }
            }
            Body::Final(_) => {}
            _ => {
                if message.height < next {
                    // It works on what is final: that is what it misses.
                    out.push(Act::Serve { to: from, height: message.height });
                } else if message.height > next {
                    self.ask(now_ms, from, out);
                }
                if message.body != Body::Status && message.height >= next {
                    let effects = self.core.step(now_ms, Input::Message { from, message });
                    self.take(now_ms, effects, out);
                }
            }
        }
    }

    /// Asks a peer for the next final header, unless that was asked a moment ago.
    fn ask(&mut self, now_ms: u64, to: Peer, out: &mut Vec<Act>) {
        let height = self.tip.height.next();
        if self.asked.is_none_or(|(asked, at)| asked != height || now_ms >= at.saturating_add(PATIENCE_MS)) {
            self.asked = Some((height, now_ms));
            out.push(Act::Core(Effect::Send { to, message: Message { height, body: Body::Request } }));
        }
    }

    /// `UponNewBlock`: a final header from a peer.
    fn catch_up(&mut self, now_ms: u64, last: &Final, out: &mut Vec<Act>) -> Result<(), Reason> {
        let Some(instance) = &self.instance else { return Err(Reason::FutureHeight) };
        check_continuity(&self.tip, &last.header, &instance.set).map_err(|_| Reason::Continuity)?;
        last.seal
            .check(instance.place(), &last.header, &instance.set, &instance.scheme)
            .map_err(|_| Reason::Signature)?;
        self.finish(now_ms, last.header, last.seal, Vec::new(), out);
        Ok(())
    }

    fn take(&mut self, now_ms: u64, effects: Vec<Effect>, out: &mut Vec<Act>) {
        for effect in effects {
            match effect {
                Effect::Finalise { header, seal, partials } => self.finish(now_ms, *header, seal, partials, out),
                Effect::Missing { height } => {
                    let message = Message { height, body: Body::Request };
                    out.push(Act::Core(Effect::Broadcast(message)));
                }
                other => out.push(Act::Core(other)),
            }
        }
    }

    fn finish(
        &mut self,
        now_ms: u64,
        header: Header,
        seal: Seal,
        partials: Vec<(ValidatorIndex, Partials)>,
        out: &mut Vec<Act>,
    ) {
        self.tip = header;
        out.push(Act::Append { header: Box::new(header), seal, partials });
        let recovered = Recovered { silent_through: self.silent_through, ..Recovered::default() };
        self.begin(now_ms, recovered, out);
    }

    fn begin(&mut self, now_ms: u64, recovered: Recovered, out: &mut Vec<Act>) {
        let Some((instance, me)) = self.schedule.instance(&self.tip) else {
            self.instance = None;
            out.push(Act::Stranded { height: self.tip.height.next() });
            return;
        };
        self.instance = Some(instance.clone());
        let effects = self.core.start(now_ms, instance, me, recovered);
        self.take(now_ms, effects, out);
    }
}
