//! The one thread that owns a node's state: it hears events and questions, steps the replica, and carries out what comes of it, in order.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bpi_keyfile::PeerKey;
use bpi_protocol::consensus::bytes::Writer;
use bpi_protocol::consensus::equivocation::Equivocation;
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{HeaderDigest, Height, Round, TimeMs, ValidatorIndex};
use bpi_protocol::consensus::message::{Body, Final, Message, Partials};
use bpi_protocol::consensus::seal::Seal;
use bpi_protocol::consensus::validators::Signers;
use bpi_protocol::mesh::validator::Request;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::agents::{Agent, AgentNumber};
use super::api::Ask;
use super::ceremonies::{Ceremonies, CeremoniesError};
use super::config::ProbeConfig;
use super::frame::{self, Frame};
use super::genesis::Genesis;
use super::inbox_source::InboxSource;
use super::metrics::Metrics;
use super::network::{Event, Events, Network};
use super::now_ms;
use super::schedule::{Plan, Timed};
use super::ticking::Ticking;
use crate::beacon::assembly::Assembly;
use crate::contents::application::{AdmitError, Application, ContentsError};
use crate::contents::body::Contents;
use crate::contents::held::{Held, HeldError};
use crate::contents::poh::Ticker;
use crate::core::{Core, Effect, Input, Peer};
use crate::durable::{Durable, DurableError, Found};
use crate::replica::{Act, Replica};

mod agents;
mod answers;
mod availability;
mod fetching;
mod group;

use availability::Availability;
use fetching::{Fetched, find_logged};

/// How long an answer is waited for before another peer is asked, in ms.
const PATIENCE_MS: u64 = 300;
/// Heights stand still after this long without a new one, in ms.
const STILL_MS: u64 = 10_000;
/// Between two looks at the inbox, in ms.
const INBOX_MS: u64 = 500;
/// How long a header that lacks its seed, or leaves of the log before it, waits before they are looked for again, in ms.
const LACKING_MS: u64 = 20;
/// Events that are looked at between two looks at the clock.
const EVENTS_AT_ONCE: usize = 64;
/// Proofs of equivocation that are kept, at most: one is enough to be heard.
const EVIDENCE_MAX: usize = 1_000;

/// Why a node cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A final header cannot be kept.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// What it commits to cannot be kept.
    #[error(transparent)]
    Contents(#[from] ContentsError),
    /// What a header commits to cannot be kept for the time until it is final.
    #[error(transparent)]
    Held(#[from] HeldError),
    /// What ceremonies have come to cannot be kept.
    #[error(transparent)]
    Ceremonies(#[from] CeremoniesError),
    /// A proof of a wrong encoding cannot be kept, or those that were cannot be read.
    #[error("could not keep or read proofs in {}: {source}", path.display())]
    Evidence {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The thread of the chain of hashes.
    #[error("could not start a thread: {0}")]
    Thread(io::Error),
}

/// What a node is made of.
pub struct Parts<N> {
    /// What the chain starts from.
    pub genesis: Arc<Genesis>,
    /// Who votes when.
    pub plan: Plan,
    /// The disk.
    pub durable: Durable,
    /// What the disk said.
    pub found: Found,
    /// What headers commit to.
    pub contents: Application<InboxSource>,
    /// The file of contents that wait for their header to become final ([`Held`]).
    pub held: PathBuf,
    /// Ceremonies of the validators' key.
    pub ceremonies: Ceremonies,
    /// The rules of consensus.
    pub core: Core<Timed>,
    /// The peers.
    pub network: N,
    /// The key of each peer, by number.
    pub peers: Vec<[u8; 32]>,
    /// Who may send receipts, by number.
    pub agents: Vec<Agent>,
    /// How often pinners are probed.
    pub probe: ProbeConfig,
    /// Signs checkpoints.
    pub peer_key: Arc<PeerKey>,
    /// Where proofs of equivocation and of wrong encodings go.
    pub evidence: PathBuf,
    /// The figures.
    pub metrics: Arc<Metrics>,
}

/// What an agent waits for an answer to, and its room.
type Asked = (AgentNumber, Box<Request>, Option<[OwnedSemaphorePermit; 2]>);

/// A moment of a height and a round.
type Due = (Height, Round, u64);

/// A node that runs.
pub struct Host<N> {
    genesis: Arc<Genesis>,
    plan: Plan,
    durable: Durable,
    contents: Application<InboxSource>,
    ceremonies: Ceremonies,
    assembly: Assembly,
    shelf: VecDeque<group::Parts>,
    replica: Replica<Timed>,
    ticking: Ticking,
    network: N,
    peers: Vec<[u8; 32]>,
    agents: Vec<Agent>,
    /// Bounded by the room that agents have.
    asked: VecDeque<Asked>,
    availability: Availability,
    peer_key: Arc<PeerKey>,
    evidence: PathBuf,
    metrics: Arc<Metrics>,
    timer: Option<Due>,
    proposal: Option<Due>,
    /// Headers whose contents have not come, and when each was heard.
    open: BTreeMap<HeaderDigest, (Header, u64)>,
    /// Contents that fit their headers.
    held: Held,
    /// The last contents that each peer has sent for a header not known yet.
    early: BTreeMap<Peer, (HeaderDigest, Arc<Contents>)>,
    /// When what is missing is asked for again.
    ask_again_ms: u64,
    /// The last header whose leaves the log has.
    logged: Header,
    /// What peers have sent of what is missing.
    fetched: Fetched,
    /// The header that is to be made waits for its seed, or for leaves before it.
    lacks_seed: bool,
    /// When ceremonies and signatures are looked after again.
    group_again_ms: u64,
    /// The last height with a seal by the group.
    sealed: Option<Height>,
    /// When the last height became final here.
    moved_ms: u64,
    round: Round,
    /// Why nothing is signed any more.
    trouble: Option<String>,
    /// Why the inbox is not read on.
    inbox_trouble: Option<String>,
    /// When the inbox is read again.
    read_inbox_ms: u64,
    /// Inputs that come of acts.
    inputs: VecDeque<Input>,
}

impl<N: Network> Host<N> {
    /// Goes on where the disk ends.
    ///
    /// # Errors
    /// [`HostError`] when something that should have been final cannot be kept.
    pub fn start(parts: Parts<N>) -> Result<Self, HostError> {
        let Parts { genesis, plan, durable, found, mut contents, held, ceremonies, .. } = parts;
        let Parts { core, network, peers, agents, probe, peer_key, evidence, metrics, .. } = parts;
        let now = now_ms();
        if found.torn_slots > 0 {
            tracing::warn!(slots = found.torn_slots, "an unfinished write at the end of the log of votes was cut off");
        }
        if let Some(through) = found.recovered.silent_through {
            tracing::warn!(%through, "the key has said what this node does not know of: nothing is signed up to this height");
        }
        let logged = find_logged(&durable, contents.ledger().size())?;
        let (held, torn_bytes) = Held::open(&held, logged.height)?;
        if torn_bytes > 0 {
            tracing::warn!(torn_bytes, "an unfinished write at the end of the contents that wait was cut off");
        }
        let (availability, wrong) =
            Availability::open(&durable, logged.height, &evidence, probe, &genesis.pinner_keys)?;
        for da_root in wrong {
            contents.refuse(da_root);
        }
        let ticking = Ticking::start(genesis.rules.rate(), Arc::clone(&metrics)).map_err(HostError::Thread)?;
        let tip = found.tip;
        let (replica, acts) = Replica::start(core, Box::new(plan.clone()), tip, found.recovered, now);
        let assembly = Assembly::new(genesis.chain);
        let mut host = Self {
            genesis,
            plan,
            durable,
            contents,
            ceremonies,
            assembly,
            shelf: VecDeque::new(),
            replica,
            ticking,
            network,
            peers,
            agents,
            asked: VecDeque::new(),
            availability,
            peer_key,
            evidence,
            metrics,
            timer: None,
            proposal: None,
            open: BTreeMap::new(),
            held,
            early: BTreeMap::new(),
            ask_again_ms: 0,
            logged,
            fetched: Fetched::default(),
            lacks_seed: false,
            group_again_ms: 0,
            sealed: None,
            moved_ms: now,
            round: Round::default(),
            trouble: None,
            inbox_trouble: None,
            read_inbox_ms: 0,
            inputs: VecDeque::new(),
        };
        host.find_sealed()?;
        host.ceremonies.begin(&logged)?;
        host.log_fetched(None)?;
        host.show_tip();
        host.carry_out(acts)?;
        host.settle()?;
        tracing::info!(height = %tip.height, chain = %host.genesis.chain, "started");
        Ok(host)
    }

    /// Runs until `stop` says so, or something that is final cannot be kept.
    ///
    /// # Errors
    /// [`HostError`].
    pub async fn run(
        mut self,
        mut events: Events,
        mut asks: mpsc::Receiver<Ask>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), HostError> {
        loop {
            let pause = Duration::from_millis(self.due_ms().saturating_sub(now_ms()));
            tokio::select! {
                stopped = stop.wait_for(|stop| *stop) => {
                    drop(stopped);
                    tracing::info!(height = %self.replica.tip().height, "stopped");
                    return Ok(());
                }
                event = events.recv() => {
                    let Some(event) = event else { return Ok(()) };
                    self.hear(event)?;
                    for _ in 1..EVENTS_AT_ONCE {
                        let Ok(event) = events.try_recv() else { break };
                        self.hear(event)?;
                    }
                }
                Some(ask) = asks.recv() => self.answer(ask)?,
                () = tokio::time::sleep(pause) => {}
            }
            self.tick()?;
        }
    }

    /// When the clock is looked at next, at the latest.
    fn due_ms(&self) -> u64 {
        let again = if self.open.is_empty() && !self.lags() { u64::MAX } else { self.ask_again_ms };
        let moments = [self.timer, self.proposal].into_iter().flatten().map(|(.., at)| at);
        let again = again.min(self.group_again_ms).min(self.availability.due_ms());
        if !self.asked.is_empty() {
            return 0;
        }
        // A clock that was set back is noticed within a second.
        moments.chain([again, now_ms() + 1_000]).min().unwrap_or_default()
    }

    fn tick(&mut self) -> Result<(), HostError> {
        let now = now_ms();
        if let Some((height, round, _)) = self.proposal.take_if(|(.., at)| *at <= now) {
            self.propose(height, round)?;
        }
        if let Some((height, round, _)) = self.timer.take_if(|(.., at)| *at <= now) {
            self.inputs.push_back(Input::Timer { height, round });
        }
        if now >= self.ask_again_ms && (self.lags() || !self.open.is_empty()) {
            self.ask_again_ms = now + PATIENCE_MS;
            for digest in self.open.keys() {
                self.network.broadcast(&Frame::ContentsWanted { digest: *digest });
            }
            self.fetch();
        }
        self.tick_group(now)?;
        self.tick_availability(now)?;
        self.tick_agents()?;
        self.metrics.peers.set(self.network.connected() as i64);
        if now >= self.read_inbox_ms {
            self.read_inbox_ms = now + INBOX_MS;
            self.read_inbox();
        }
        let figures = self.contents.figures();
        self.metrics.mempool.set(figures.waiting as i64);
        self.metrics.tenants.set(figures.tenants as i64);
        self.metrics.attestations.set(figures.attestations as i64);
        self.metrics.inbox_lag.set(figures.inbox_lag_blocks as i64);
        self.settle()
    }

    /// Reads what has come of the first layer. A file that cannot be read on is told once, and by health.
    fn read_inbox(&mut self) {
        let served = self.logged.inbox.height;
        match self.contents.inbox_mut().poll(served) {
            Ok(_) => self.inbox_trouble = None,
            Err(error) => {
                let error = error.to_string();
                if self.inbox_trouble.as_ref() != Some(&error) {
                    tracing::error!(error, "the inbox cannot be read on");
                }
                self.inbox_trouble = Some(error);
            }
        }
    }

    fn hear(&mut self, event: Event) -> Result<(), HostError> {
        match event {
            Event::Connected { peer } => self.inputs.push_back(Input::Connected { peer }),
            Event::Gone { peer } => drop(self.early.remove(&peer)),
            Event::Frame { from, frame, room } => {
                self.take(from, *frame)?;
                drop(room);
            }
            Event::Asked { agent, request, room } => self.asked.push_back((agent, request, room)),
            Event::Pinner { pinner, answer } => self.hear_pinner(pinner, &answer),
            Event::Wrong { proof, room } => {
                // Its pinner has seen for itself, and needs no answer.
                drop(self.take_wrong(None, &proof)?);
                drop(room);
            }
        }
        self.settle()
    }

    fn take(&mut self, from: Peer, frame: Frame) -> Result<(), HostError> {
        match frame {
            Frame::Consensus(message) => self.inputs.push_back(Input::Message { from, message }),
            Frame::Contents { digest, contents } => self.take_contents(from, digest, contents)?,
            Frame::ContentsWanted { digest } => {
                if let Some(contents) = self.held.get(&digest) {
                    self.network.send(from, &Frame::Contents { digest, contents: Arc::clone(contents) });
                }
            }
            Frame::Waiting(leaves) => {
                let now = now_ms();
                for leaf in leaves {
                    match self.contents.admit(leaf, now) {
                        Ok(_) => {}
                        Err(AdmitError::Refused(refusal)) => self.metrics.refused(refusal.name()),
                        Err(AdmitError::Ledger(error)) => return Err(ContentsError::from(error).into()),
                    }
                }
            }
            Frame::List(list) => {
                if let Some(validator) = self.validator_of(from) {
                    let validators = self.validators();
                    self.contents.hear(validator, list, validators);
                }
            }
            Frame::LogWanted { from: first } => {
                let upto = self.contents.ledger().size().min(first.saturating_add(frame::LEAVES_MAX as u64));
                if first < upto {
                    let leaves = self.contents.ledger().leaves(first, upto).map_err(ContentsError::from)?;
                    self.network.send(from, &Frame::Log { from: first, leaves });
                }
            }
            Frame::Log { from: first, leaves } => self.take_leaves(from, first, leaves)?,
            Frame::Ceremony(message) => self.hear_ceremony(from, message)?,
            Frame::DealerLog(log) => self.hear_log(from, log)?,
            Frame::DealerLogWanted { leaf } => {
                if let Some(log) = self.ceremonies.find(&leaf)? {
                    self.network.send(from, &Frame::DealerLog(log));
                }
            }
            Frame::Parts(message) => self.hear_parts(from, message)?,
            Frame::Attestations(attestations) => self.hear_attestations(from, attestations)?,
            Frame::AttestedWanted { height } => self.serve_attested(from, height)?,
            Frame::Attested { height, attestations } => self.take_attested(from, height, attestations)?,
            Frame::WrongEncoding(proof) => drop(self.take_wrong(Some(from), &proof)?),
        }
        Ok(())
    }

    /// Who a peer is among those who vote on the next height.
    fn validator_of(&self, peer: Peer) -> Option<ValidatorIndex> {
        let key = self.peers.get(peer.0 as usize)?;
        let at = self.plan.period(self.replica.tip())?.peers.iter().position(|other| other == key)?;
        u16::try_from(at).ok().map(ValidatorIndex)
    }

    /// Who votes on the next height: how many. None if the genesis here does not know them.
    fn validators(&self) -> usize {
        self.plan.period(self.replica.tip()).map_or(0, |period| period.set.len())
    }

    /// Steps the replica until nothing comes of it any more.
    fn settle(&mut self) -> Result<(), HostError> {
        while let Some(input) = self.inputs.pop_front() {
            let acts = self.replica.step(now_ms(), input);
            self.carry_out(acts)?;
        }
        if let Some(round) = self.replica.core().round()
            && round != self.round
        {
            if round > self.round {
                self.metrics.round_changes.inc();
                tracing::info!(height = %self.replica.tip().height.next(), %round, "a round ended without a header");
            }
            self.round = round;
            self.metrics.round.set(i64::from(round.0));
        }
        Ok(())
    }

    fn carry_out(&mut self, acts: Vec<Act>) -> Result<(), HostError> {
        let mut acts = acts.into_iter().peekable();
        while let Some(act) = acts.next() {
            match act {
                Act::Core(Effect::Persist(record)) => {
                    // A certificate and the vote that follows from it are one write.
                    let mut records = vec![record];
                    while let Some(Act::Core(Effect::Persist(record))) =
                        acts.next_if(|act| matches!(act, Act::Core(Effect::Persist(_))))
                    {
                        records.push(record);
                    }
                    let kept = Metrics::timed(&self.metrics.durable, || self.durable.persist_all(&records));
                    if let Err(error) = kept {
                        tracing::error!(%error, "a vote cannot be kept: nothing is signed any more");
                        self.trouble = Some(error.to_string());
                        // What follows it must not happen.
                        self.inputs.push_front(Input::Failed);
                        return Ok(());
                    }
                }
                Act::Core(Effect::Broadcast(message)) => self.network.broadcast(&Frame::Consensus(message)),
                Act::Core(Effect::Send { to, message }) => self.network.send(to, &Frame::Consensus(message)),
                Act::Core(Effect::SetTimer { height, round, at_ms }) => self.timer = Some((height, round, at_ms)),
                Act::Core(Effect::Propose { height, round, not_before_ms }) => {
                    self.ticking.begin(self.replica.tip());
                    self.proposal = Some((height, round, not_before_ms));
                    self.assemble_shelved(self.replica.tip().height)?;
                }
                Act::Core(Effect::Check(header)) => self.check(&header)?,
                Act::Core(Effect::Reject { from, reason }) => {
                    if reason.is_innocent() {
                        self.metrics.refused(reason.name());
                    } else {
                        tracing::debug!(peer = from.0, reason = reason.name(), "a message was refused");
                        self.network.blame(from, reason.name());
                    }
                }
                Act::Core(Effect::Evidence(evidence)) => self.keep_evidence(&evidence),
                // The replica carries these out.
                Act::Core(Effect::Finalise { .. } | Effect::Missing { .. }) => {}
                Act::Append { header, seal, partials } => self.append(&header, &seal, &partials)?,
                Act::Serve { to, height } => self.serve(to, height),
                Act::Stranded { height } => {
                    let trouble = format!("the genesis here does not know who votes at height {height}");
                    tracing::error!("{trouble}; bring the same genesis as the other nodes and start again");
                    self.trouble = Some(trouble);
                }
            }
        }
        Ok(())
    }

    /// Makes a header, or waits for what it needs: while the round lasts the turn is not lost.
    fn propose(&mut self, height: Height, round: Round) -> Result<(), HostError> {
        let parent = *self.replica.tip();
        if height != parent.height.next() {
            return Ok(());
        }
        let Some(proposer) = self.plan.place(&parent.next_validators) else { return Ok(()) };
        let Some(period) = self.plan.period(&parent) else { return Ok(()) };
        let now = now_ms();
        let seed = if self.lags() { None } else { self.seed_after(&parent) };
        self.lacks_seed = seed.is_none();
        let Some(seed) = seed else {
            // It comes with the votes, or is asked for, as leaves are.
            self.proposal = Some((height, round, now + LACKING_MS));
            return Ok(());
        };
        let time = TimeMs(now.max(parent.time.0 + 1));
        let rate = self.genesis.rules.rate();
        let ticker = self.ticking.finish().unwrap_or_else(|| Ticker::new(rate, &parent));
        let draft = Header {
            height,
            round,
            parent: parent.digest(),
            time,
            seed,
            epoch: period.set.epoch(),
            validators: period.set.digest(),
            proposer,
            ..Header::default()
        };
        let draft = Header { next_validators: self.ceremonies.announced(&draft), ..draft };
        let logs = self.ceremonies.logs_for(height);
        let (commitments, contents) = self.contents.assemble(&parent, time, &ticker, logs)?;
        let header = commitments.in_header(draft);
        let digest = header.digest();
        let contents = Arc::new(contents);
        Metrics::timed(&self.metrics.durable, || self.held.keep(height, digest, &contents))?;
        // Before the proposal: who hears that can look into it at once.
        self.network.broadcast(&Frame::Contents { digest, contents });
        self.inputs.push_back(Input::Proposed { round, header: Box::new(header) });
        Ok(())
    }

    /// Looks into a header, now or when its contents have come.
    fn check(&mut self, header: &Header) -> Result<(), HostError> {
        let digest = header.digest();
        if !self.lags() && !self.is_right(header) {
            self.open.remove(&digest);
            self.inputs.push_back(Input::Checked { digest, valid: false });
            return Ok(());
        }
        if self.held.get(&digest).is_some() {
            self.inputs.push_back(Input::Checked { digest, valid: true });
            return Ok(());
        }
        self.open.entry(digest).or_insert((*header, now_ms()));
        let early = self.early.iter().find(|(_, (known, _))| *known == digest);
        match early.map(|(peer, (_, contents))| (*peer, Arc::clone(contents))) {
            Some((peer, contents)) => self.judge(peer, digest, contents)?,
            None => self.ask_again_ms = now_ms() + PATIENCE_MS / 10,
        }
        Ok(())
    }

    fn take_contents(&mut self, from: Peer, digest: HeaderDigest, contents: Arc<Contents>) -> Result<(), HostError> {
        if self.open.contains_key(&digest) {
            return self.judge(from, digest, contents);
        }
        if self.held.get(&digest).is_none() {
            self.early.insert(from, (digest, contents));
        }
        Ok(())
    }

    /// Judges the contents that a peer has sent for an open header. If they are wrong, the header is, when they are its proposer's; if they
    /// are somebody else's, they may be none of it.
    fn judge(&mut self, from: Peer, digest: HeaderDigest, contents: Arc<Contents>) -> Result<(), HostError> {
        let Some((header, heard_ms)) = self.open.get(&digest).copied() else { return Ok(()) };
        if self.lags() {
            self.early.insert(from, (digest, contents));
            return Ok(());
        }
        let faults = bpi_protocol::consensus::validators::faults(self.validators());
        let checked = self.contents.check(self.replica.tip(), &header, &contents, heard_ms, faults);
        let checked = checked.and_then(|()| {
            let logs = self.ceremonies.check_logs(header.height, &contents.logs);
            logs.map_err(|error| ContentsError::Logs(error.to_string()))
        });
        match checked {
            Ok(()) => {
                self.open.remove(&digest);
                Metrics::timed(&self.metrics.durable, || self.held.keep(header.height, digest, &contents))?;
                self.inputs.push_back(Input::Checked { digest, valid: true });
            }
            Err(ContentsError::Ledger(error)) => return Err(ContentsError::from(error).into()),
            Err(error) => {
                self.metrics.refused(error.name());
                tracing::info!(peer = from.0, %error, height = %header.height, "contents were refused");
                if error.is_of_the_voter() {
                    // The header may become final without this vote, and these may be its contents.
                    self.early.insert(from, (digest, contents));
                } else {
                    self.early.remove(&from);
                }
                if error.is_of_the_voter() || self.validator_of(from) == Some(header.proposer) {
                    self.open.remove(&digest);
                    self.inputs.push_back(Input::Checked { digest, valid: false });
                } else {
                    self.network.blame(from, "contents");
                }
            }
        }
        Ok(())
    }

    /// Gives a header to the feed of relays: its proposer does, and the one after it, so that one of them may be gone.
    fn publish(&self, place: Option<ValidatorIndex>, header: &Header, seal: &Seal) {
        let Some(period) = self.genesis.period(&header.validators) else { return };
        let next = (header.proposer.at() + 1) % period.set.len().max(1);
        if place.is_some_and(|place| place == header.proposer || place.at() == next) {
            let mut body = Writer::new();
            body.bytes(&header.to_bytes());
            seal.write(&mut body);
            self.network.publish(header.height.0, &body.done());
        }
    }

    /// Keeps a final header and what it commits to: first the leaves, so that the log is never behind what is final without knowing.
    fn append(
        &mut self,
        header: &Header,
        seal: &Seal,
        partials: &[(ValidatorIndex, Partials)],
    ) -> Result<(), HostError> {
        if !self.lags() {
            self.log_known(header)?;
        }
        if header.next_validators != header.validators {
            self.contents.forget_heard();
        }
        Metrics::timed(&self.metrics.durable, || self.durable.append(header, seal))?;
        let now = now_ms();
        self.moved_ms = now;
        self.metrics.finalised(Duration::from_millis(now.saturating_sub(header.time.0)));
        let place = self.plan.place(&header.validators);
        if place == Some(header.proposer) {
            self.metrics.proposed.inc();
        }
        self.publish(place, header, seal);
        if let (Seal::Votes(votes), Some(period)) = (seal, self.genesis.period(&header.validators)) {
            self.metrics.participation.set(share(votes.signers, period.set.len()));
            self.metrics.diversity.set(period.diversity(votes.signers));
        }
        self.show_tip();
        self.open.clear();
        self.proposal = None;
        self.ticking.rest();
        tracing::debug!(height = %header.height, leaves = header.receipts.size, "final");
        if self.logged.height == header.height {
            self.has_logged(header)?;
        }
        // Most headers that were missed commit to nothing new.
        self.log_fetched(None)?;
        if self.lags() {
            self.ask_again_ms = self.ask_again_ms.min(now);
        } else {
            // Without votes it came from a peer: there may be more of them, and the last one is looked after in time.
            if !partials.is_empty() {
                self.shelve(header, seal, partials);
            }
            let list = self.contents.tell(header.height, now);
            if !list.leaves.is_empty() {
                self.network.broadcast(&Frame::List(list));
            }
        }
        Ok(())
    }

    fn show_tip(&self) {
        let tip = self.replica.tip();
        self.metrics.height.set(tip.height.0 as i64);
        self.metrics.epoch.set(tip.epoch.0 as i64);
        self.metrics.log.set(self.logged.receipts.size as i64);
    }

    fn serve(&self, to: Peer, height: Height) {
        match self.durable.get(height) {
            Ok(Some((header, Some(seal)))) => {
                let body = Body::Final(Box::new(Final { header, seal }));
                self.network.send(to, &Frame::Consensus(Message { height, body }));
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "a final header cannot be read"),
        }
    }

    fn keep_evidence(&self, evidence: &Equivocation) {
        self.metrics.evidence.inc();
        let (height, validator) = (evidence.height, evidence.sender);
        tracing::warn!(%height, %validator, "a validator has signed two things for one step");
        if let Err(error) = write_evidence(&self.evidence, evidence) {
            tracing::warn!(%error, "the proof of it could not be kept");
        }
    }
}

fn share(signers: Signers, validators: usize) -> f64 {
    signers.len() as f64 / validators.max(1) as f64
}

/// Keeps a proof in a file of its own, unless there are too many.
fn write_evidence(folder: &Path, evidence: &Equivocation) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("{}-{}.equivocation", evidence.height, evidence.sender));
    if path.exists() || fs::read_dir(folder)?.count() >= EVIDENCE_MAX {
        return Ok(());
    }
    let mut file = fs::File::create_new(path)?;
    file.write_all(&evidence.to_bytes())?;
    file.sync_all()
}
