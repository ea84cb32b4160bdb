//! Leaves, and logs of dealers, that final headers have and this node has missed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::Height;

use super::super::frame::{self, Frame};
use super::super::metrics::Metrics;
use super::super::network::Network;
use super::super::now_ms;
use super::{Host, HostError};
use crate::contents::application::ContentsError;
use crate::contents::dealings::{is_of_log, leaf_of};
use crate::contents::leaf::{Leaf, LeafHash};
use crate::core::Peer;
use crate::durable::{Durable, DurableError};

/// Leaves that are fetched ahead of the header that they belong to, at most.
const FETCHED_MAX: usize = 16 * frame::LEAVES_MAX;

/// What peers have sent of what is missing.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// Leaves after the last of the log.
    leaves: VecDeque<Leaf>,
    /// Who was asked last.
    asked: Option<Peer>,
    /// Logs of dealers that stand for leaves of the next header, and those that are still wanted.
    logs: BTreeMap<LeafHash, Vec<u8>>,
    wanted: BTreeSet<LeafHash>,
}

impl<N: Network> Host<N> {
    /// True while the log misses leaves of final headers.
    pub(super) fn lags(&self) -> bool {
        self.logged.height < self.durable.tip().height
    }

    /// Appends the leaves of the header after the last logged one, if what it commits to is known here. Logs of dealers come before their
    /// leaves, as leaves before their header. True if they were.
    pub(super) fn log_known(&mut self, header: &Header) -> Result<bool, HostError> {
        let digest = header.digest();
        let early = self.early.values().filter(|(known, _)| *known == digest).map(|(_, contents)| contents);
        let known: Vec<_> = self.held.get(&digest).into_iter().chain(early).map(Arc::clone).collect();
        for contents in known {
            // What was not judged may be about anything.
            if !self.contents.is_about(header, &contents)? {
                continue;
            }
            self.ceremonies.include(header.height, &contents.logs)?;
            self.keep_attestations(header, &contents.attestations)?;
            Metrics::timed(&self.metrics.durable, || self.contents.finalise(header, &contents))?;
            self.early.retain(|_, (known, _)| *known != digest);
            self.logged = *header;
            return Ok(true);
        }
        Ok(false)
    }

    /// Asks a peer for what final headers have and is not here, each time another one.
    pub(super) fn fetch(&mut self) {
        if !self.lags() || self.peers.is_empty() {
            return;
        }
        let next = self.fetched.asked.map_or(now_ms() as usize, |peer| peer.0 as usize + 1) % self.peers.len();
        let peer = Peer(next as u32);
        self.fetched.asked = Some(peer);
        self.ask_for_logs(peer);
        if self.fetched.leaves.len() < FETCHED_MAX {
            let from = self.contents.ledger().size() + self.fetched.leaves.len() as u64;
            self.network.send(peer, &Frame::LogWanted { from });
        }
    }

    fn ask_for_logs(&self, peer: Peer) {
        for leaf in &self.fetched.wanted {
            self.network.send(peer, &Frame::DealerLogWanted { leaf: *leaf });
        }
    }

    pub(super) fn take_leaves(&mut self, from: Peer, first: u64, leaves: Vec<Leaf>) -> Result<(), HostError> {
        let next = self.contents.ledger().size() + self.fetched.leaves.len() as u64;
        if !self.lags() || first != next || self.fetched.leaves.len() + leaves.len() > FETCHED_MAX {
            return Ok(());
        }
        self.fetched.leaves.extend(leaves);
        self.log_fetched(Some(from))?;
        if self.lags() {
            let from = self.contents.ledger().size() + self.fetched.leaves.len() as u64;
            if let Some(peer) = self.fetched.asked {
                self.network.send(peer, &Frame::LogWanted { from });
            }
        }
        Ok(())
    }

    /// Takes a dealer's log if a leaf stands for it that is waited for. False: none does.
    pub(super) fn take_wanted_log(&mut self, from: Peer, log: &[u8]) -> Result<bool, HostError> {
        let hash = leaf_of(log).leaf_hash();
        let is_wanted = self.fetched.wanted.remove(&hash);
        if is_wanted {
            self.fetched.logs.insert(hash, log.to_vec());
            self.log_fetched(Some(from))?;
        }
        Ok(is_wanted)
    }

    /// Appends what was fetched to the log, header by header, as far as it goes.
    pub(super) fn log_fetched(&mut self, from: Option<Peer>) -> Result<(), HostError> {
        if !self.lags() {
            return Ok(());
        }
        while let Some((header, _)) = self.durable.get(self.logged.height.next())? {
            if self.log_known(&header)? {
                self.fetched = Fetched { asked: self.fetched.asked, ..Fetched::default() };
                self.has_logged(&header)?;
                continue;
            }
            let count = header.receipts.size.saturating_sub(self.contents.ledger().size()) as usize;
            if count > self.fetched.leaves.len() {
                return Ok(());
            }
            let leaves: Vec<(Leaf, LeafHash)> =
                self.fetched.leaves.iter().take(count).map(|leaf| (*leaf, leaf.leaf_hash())).collect();
            // Before logs are asked for: whoever invents leaves invents some that stand for none.
            if !self.contents.leads_to(&header, leaves.iter().map(|(_, hash)| hash)) {
                tracing::info!(peer = from.map(|peer| peer.0), height = %header.height, "leaves were refused");
                from.iter().for_each(|peer| self.network.blame(*peer, "leaves"));
                self.fetched.leaves.clear();
                return Ok(());
            }
            let Some(logs) = self.logs_of(&leaves)? else {
                if let Some(peer) = self.fetched.asked {
                    self.ask_for_logs(peer);
                }
                return Ok(());
            };
            self.ceremonies.include(header.height, &logs)?;
            self.contents.catch_up(&header, &leaves).map_err(ContentsError::from)?;
            self.misses_attestations(&header);
            self.fetched.leaves.drain(..count);
            self.fetched.logs.clear();
            self.logged = header;
            self.has_logged(&header)?;
        }
        self.fetched = Fetched { asked: self.fetched.asked, ..Fetched::default() };
        self.show_tip();
        // Headers that waited for the log can be looked into.
        let open: Vec<_> = self.open.values().copied().collect();
        open.iter().try_for_each(|(header, _)| self.check(header))
    }

    /// The log has the leaves of the next header, which is final and kept.
    pub(super) fn has_logged(&mut self, header: &Header) -> Result<(), HostError> {
        self.ceremonies.advance(header)?;
        Ok(self.held.forget(header.height)?)
    }

    /// The logs that some of these leaves stand for. `None`: some are not here yet.
    fn logs_of(&mut self, leaves: &[(Leaf, LeafHash)]) -> Result<Option<Vec<Vec<u8>>>, HostError> {
        let mut logs = Vec::new();
        for (_, hash) in leaves.iter().filter(|(leaf, _)| is_of_log(leaf)) {
            let log = match self.fetched.logs.get(hash) {
                Some(log) => Some(log.clone()),
                None => self.ceremonies.find(hash)?,
            };
            match log {
                Some(log) => logs.push(log),
                None => {
                    self.fetched.wanted.insert(*hash);
                }
            }
        }
        Ok(self.fetched.wanted.is_empty().then_some(logs))
    }
}

/// The last header whose leaves a log of this size has.
pub(super) fn find_logged(durable: &Durable, size: u64) -> Result<Header, DurableError> {
    let mut header = *durable.tip();
    while header.receipts.size > size {
        match durable.get(Height(header.height.0.saturating_sub(1)))? {
            Some((earlier, _)) => header = earlier,
            None => break,
        }
    }
    Ok(header)
}
