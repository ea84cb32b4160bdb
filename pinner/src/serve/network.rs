//! What comes over BPCI, sorted: offers and pieces to the writer, questions to the reader, answers of other pinners to who repairs.
//!
//! Always true: who is nobody here costs a bounded part of the reader and nothing of the writer; pieces wait in bounded memory, each agent's apart. What is
//! too much is dropped and counted: whoever misses an answer asks again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use bpi_protocol::mesh::pinner::{Answer, Reason, Request};
use bpi_transport::mesh::{Event, Mesh};
use tokio::sync::{Semaphore, mpsc};
use zeroize::Zeroizing;

use super::limits::Limits;
use super::work::{Question, Work};
use crate::config::AnswersConfig;
use crate::metrics::Metrics;
use crate::store::ShardKey;

/// Bytes of pieces that wait for the writer: of all agents, and of one, twice what BPCI lets wait at its sender.
const PIECES_BYTES_MAX: usize = 32 << 20;
const AGENT_PIECES_BYTES_MAX: usize = 8 << 20;
/// What is answered to members, by how much more than to a stranger.
const MEMBER_TIMES: u64 = 64;
/// Answers of pinners begin at this kind; requests are below.
const FIRST_ANSWER: u8 = 17;

/// Who is who.
#[derive(Clone, Debug, Default)]
pub struct Members {
    /// They bring batches.
    pub agents: BTreeSet<[u8; 32]>,
    /// Other pinners.
    pub peers: BTreeSet<[u8; 32]>,
    /// Validators.
    pub validators: BTreeSet<[u8; 32]>,
}

impl Members {
    fn knows(&self, who: &[u8; 32]) -> bool {
        self.agents.contains(who) || self.peers.contains(who) || self.validators.contains(who)
    }
}

/// Where what comes is brought.
#[derive(Debug)]
pub struct Channels {
    /// The writer.
    pub work: mpsc::Sender<Work>,
    /// The reader.
    pub questions: mpsc::Sender<([u8; 32], Question)>,
    /// Who repairs.
    pub answers: SyncSender<([u8; 32], Answer)>,
}

/// Sorts what comes.
#[derive(Debug)]
pub struct Sorter {
    members: Members,
    channels: Channels,
    mesh: Mesh,
    metrics: Arc<Metrics>,
    rooms: BTreeMap<[u8; 32], Arc<Semaphore>>,
    room: Arc<Semaphore>,
    strangers: Limits,
    friends: Limits,
    chunks: Limits,
    began: Instant,
}

impl Sorter {
    /// Nothing has come yet.
    pub fn new(
        members: Members,
        channels: Channels,
        mesh: Mesh,
        answers: AnswersConfig,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (one, all) = (u64::from(answers.per_s), u64::from(answers.per_s_in_all));
        let room = |agent: &[u8; 32]| (*agent, Arc::new(Semaphore::new(AGENT_PIECES_BYTES_MAX)));
        Self {
            rooms: members.agents.iter().map(room).collect(),
            room: Arc::new(Semaphore::new(PIECES_BYTES_MAX)),
            members,
            channels,
            mesh,
            metrics,
            strangers: Limits::new(one, all),
            friends: Limits::new(one * MEMBER_TIMES, all * MEMBER_TIMES),
            chunks: Limits::new(answers.bytes_per_s, answers.bytes_per_s * 4),
            began: Instant::now(),
        }
    }

    /// Sorts until the mesh ends.
    pub async fn run(mut self, mut told: mpsc::Receiver<Event>) {
        while let Some(event) = told.recv().await {
            match event {
                Event::Message { from, message } => self.message(from, &message),
                // So that the first answer does not wait for a handshake.
                Event::Met { peer, .. } if self.members.knows(&peer) => self.mesh.open(peer),
                _ => {}
            }
        }
    }

    fn message(&mut self, from: [u8; 32], message: &Zeroizing<Vec<u8>>) {
        if message.first().is_some_and(|kind| *kind >= FIRST_ANSWER) {
            return self.answer(from, message);
        }
        match Request::from_bytes(message) {
            Err(error) => {
                tracing::debug!(%error, from = hex::encode(from), "what has come is no request");
                self.metrics.request("any", "malformed");
            }
            Ok(Request::Offer(offer)) => {
                let da_root = offer.batch.da_root;
                if !self.members.agents.contains(&from) {
                    return self.stranger(from, da_root, "only agents that this pinner knows may offer shards");
                }
                self.give(Work::Offer(from, offer));
            }
            Ok(Request::Piece(piece)) => {
                let Some(room) = self.rooms.get(&from) else { return self.metrics.request("piece", "stranger") };
                let bytes = piece.bytes.len() as u32;
                let own = Arc::clone(room).try_acquire_many_owned(bytes);
                let (Ok(own), Ok(all)) = (own, Arc::clone(&self.room).try_acquire_many_owned(bytes)) else {
                    return self.metrics.request("piece", "too-much");
                };
                self.give(Work::Piece(from, piece, [own, all]));
            }
            Ok(Request::Probe { da_root, shard, leaf }) => {
                self.ask(from, "probe", Question::Probe(ShardKey { da_root, shard }, leaf));
            }
            Ok(Request::Describe { da_root }) => self.ask(from, "describe", Question::Describe(da_root)),
            Ok(Request::Fetch { da_root, shard, stripe }) => {
                if !self.members.knows(&from) {
                    return self.stranger(
                        from,
                        da_root,
                        "only agents, pinners and validators that this pinner knows may fetch",
                    );
                }
                let now_ms = self.now_ms();
                // What a chunk costs is known when it is read; the commonest one is a quarter of a MiB.
                if !self.chunks.take(now_ms, &from, 256 * 1024) {
                    return self.metrics.request("fetch", "too-much");
                }
                self.ask(from, "fetch", Question::Fetch(ShardKey { da_root, shard }, stripe));
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn answer(&self, from: [u8; 32], message: &[u8]) {
        if !self.members.peers.contains(&from) {
            // Validators answer to proofs, and that is all there is to say.
            return;
        }
        match Answer::from_bytes(message) {
            Ok(answer) => {
                if self.channels.answers.try_send((from, answer)).is_err() {
                    self.metrics.request("answer", "too-much");
                }
            }
            Err(_) => self.metrics.request("answer", "malformed"),
        }
    }

    fn give(&self, work: Work) {
        if self.channels.work.try_send(work).is_err() {
            self.metrics.request("any", "too-much");
        }
    }

    fn ask(&mut self, from: [u8; 32], kind: &'static str, question: Question) {
        let now_ms = self.now_ms();
        let limits = if self.members.knows(&from) { &mut self.friends } else { &mut self.strangers };
        if !limits.take(now_ms, &from, 1) || self.channels.questions.try_send((from, question)).is_err() {
            self.metrics.request(kind, "too-much");
        }
    }

    fn stranger(&mut self, from: [u8; 32], da_root: [u8; 32], sentence: &str) {
        self.metrics.request("any", "stranger");
        let now_ms = self.now_ms();
        if self.strangers.take(now_ms, &from, 1) {
            let answer = Answer::Refused { da_root, reason: Reason::Stranger, sentence: sentence.to_owned() };
            self.mesh.send(from, Arc::new(Zeroizing::new(answer.to_bytes())));
        }
    }
}
