//! The validators' key in the loop: ceremonies, and the two signatures of each final header.
//!
//! Making the two takes as long as deciding on the header, and most nodes need neither: who proposes next needs the seed, the others check it
//! in the header. So parts lie on a shelf until this node is to propose, is asked for a light proof, hears that a peer lacks parts, or the
//! next height is late.

use bpi_protocol::consensus::header::{Header, Seed};
use bpi_protocol::consensus::ids::{Height, ValidatorIndex};
use bpi_protocol::consensus::message::Partials;
use bpi_protocol::consensus::scheme::PublicKey;
use bpi_protocol::consensus::seal::Seal;

use super::super::ceremonies::{LogsError, Said};
use super::super::frame::Frame;
use super::super::network::Network;
use super::super::now_ms;
use super::{Host, HostError};
use crate::beacon::assembly::{Act, HEIGHTS_MAX, PartsMessage};
use crate::beacon::ceremony::{LogError, Refused};
use crate::beacon::message::CeremonyMessage;
use crate::beacon::seed::check_seed;
use crate::core::Peer;

/// A final header, and what came with the COMMIT votes for it.
#[derive(Debug)]
pub(super) struct Parts {
    header: Header,
    seal: Option<Seal>,
    partials: Vec<(ValidatorIndex, Partials)>,
}

/// Heights before the last that are looked through for the last seal at a start.
const SEALS_LOOKED_AT: u64 = 64;
/// Between two times that what is lacking is said again, in ms.
const AGAIN_MS: u64 = 400;

impl<N: Network> Host<N> {
    /// Says again what ceremonies and signatures lack.
    pub(super) fn tick_group(&mut self, now: u64) -> Result<(), HostError> {
        if now < self.group_again_ms {
            return Ok(());
        }
        self.group_again_ms = now + AGAIN_MS;
        let said = self.ceremonies.tick(self.logged.height)?;
        self.say(said);
        let tip = *self.replica.tip();
        if !self.lags() && !self.assembly.holds(tip.height) && now >= self.moved_ms.saturating_add(AGAIN_MS) {
            // The next height is late; or this one came at a start, or from a peer, and has no parts here.
            let parts =
                self.take_from_shelf(tip.height).unwrap_or(Parts { header: tip, seal: None, partials: Vec::new() });
            self.assemble(parts)?;
        }
        let acts = self.assembly.tick();
        self.carry_parts(None, acts)
    }

    /// Puts the parts of a final header where they are found when they are needed.
    pub(super) fn shelve(&mut self, header: &Header, seal: &Seal, partials: &[(ValidatorIndex, Partials)]) {
        self.shelf.push_back(Parts { header: *header, seal: Some(*seal), partials: partials.to_vec() });
        while self.shelf.len() > HEIGHTS_MAX {
            self.shelf.pop_front();
        }
    }

    fn take_from_shelf(&mut self, height: Height) -> Option<Parts> {
        let at = self.shelf.iter().position(|parts| parts.header.height == height)?;
        self.shelf.remove(at)
    }

    /// Makes the signatures of a height, if its parts are on the shelf.
    pub(super) fn assemble_shelved(&mut self, height: Height) -> Result<(), HostError> {
        self.take_from_shelf(height).map_or(Ok(()), |parts| self.assemble(parts))
    }

    fn assemble(&mut self, Parts { header, seal, partials }: Parts) -> Result<(), HostError> {
        let sharing = self.ceremonies.sharing_at(header.height).cloned();
        let share = self.ceremonies.book().at(header.height);
        let acts = self.assembly.finalise(&header, seal.as_ref(), &partials, sharing.as_ref(), share.as_deref());
        self.carry_parts(None, acts)
    }

    pub(super) fn hear_parts(&mut self, from: Peer, message: PartsMessage) -> Result<(), HostError> {
        self.assemble_shelved(message.height)?;
        let acts = self.assembly.hear(message);
        self.carry_parts(Some(from), acts)
    }

    fn carry_parts(&mut self, from: Option<Peer>, acts: Vec<Act>) -> Result<(), HostError> {
        for act in acts {
            match act {
                Act::Broadcast(message) => self.network.broadcast(&Frame::Parts(message)),
                Act::Answer(message) => from.iter().for_each(|to| self.network.send(*to, &Frame::Parts(message))),
                Act::Drawn { .. } => {
                    // A header may wait for it.
                    if let Some((_, _, at)) = self.proposal.as_mut().filter(|_| self.lacks_seed) {
                        *at = now_ms();
                    }
                }
                Act::Sealed { height, seal } => {
                    self.durable.keep_group_seal(height, &seal)?;
                    self.sealed = self.sealed.max(Some(height));
                }
            }
        }
        Ok(())
    }

    /// The seed of the header after `parent`. `None`: it is not known yet.
    pub(super) fn seed_after(&self, parent: &Header) -> Option<Seed> {
        match self.ceremonies.sharing_at(parent.height) {
            None => Some(Seed::RoundRobin),
            Some(_) => self.assembly.seed_after(parent.height).copied().map(Seed::Threshold),
        }
    }

    /// Whether a header has the seed and announces the set that it must. The log has its parent's leaves.
    pub(super) fn is_right(&self, header: &Header) -> bool {
        let parent = self.replica.tip();
        if header.next_validators != self.ceremonies.announced(header) {
            tracing::info!(height = %header.height, "a header announces another set than it must");
            return false;
        }
        // There is only one, so who knows it has nothing to check.
        if self.seed_after(parent).is_some_and(|seed| seed == header.seed) {
            return true;
        }
        let group = self.ceremonies.sharing_at(parent.height).map(|sharing| sharing.group());
        let checked = check_seed(self.genesis.chain, parent, header, group);
        if let Err(error) = &checked {
            tracing::info!(%error, "a header has a wrong seed");
        }
        checked.is_ok()
    }

    fn say(&self, said: Vec<Said>) {
        for said in said {
            match said {
                Said::To { member, message } => {
                    if let Some(peer) = self.peer_of(&member) {
                        self.network.send(peer, &Frame::Ceremony(message));
                    }
                }
                Said::Log(log) => self.network.broadcast(&Frame::DealerLog(log)),
            }
        }
    }

    pub(super) fn hear_ceremony(&mut self, from: Peer, message: CeremonyMessage) -> Result<(), HostError> {
        let mut heard = Err(Refused::Stranger { deed: "take part" });
        // A peer may have another key in the set to come.
        for key in self.keys_of(from) {
            heard = self.ceremonies.hear(&key, message.clone())?;
            if heard.is_ok() {
                break;
            }
        }
        match heard {
            Ok(said) => self.say(said),
            // It is ahead, or behind.
            Err(Refused::Ceremony) => self.metrics.refused("ceremony-other"),
            Err(refused) => {
                tracing::debug!(peer = from.0, %refused, "a message of a ceremony was refused");
                self.network.blame(from, "ceremony");
            }
        }
        Ok(())
    }

    pub(super) fn hear_log(&mut self, from: Peer, log: Vec<u8>) -> Result<(), HostError> {
        if self.take_wanted_log(from, &log)? {
            return Ok(());
        }
        match self.ceremonies.take(log) {
            Ok(()) => {}
            // It is ahead, or behind.
            Err(LogsError::Closed | LogsError::Log(LogError::Twice)) => self.metrics.refused("dealer-log-late"),
            Err(error) if self.lags() => {
                tracing::debug!(peer = from.0, %error, "a dealer's log is of another ceremony")
            }
            Err(error) => {
                tracing::debug!(peer = from.0, %error, "a dealer's log was refused");
                self.network.blame(from, "dealer-log");
            }
        }
        Ok(())
    }

    /// Keys by which a peer is a validator, of any set.
    fn keys_of(&self, peer: Peer) -> Vec<PublicKey> {
        let mut keys = Vec::new();
        for period in &self.genesis.periods {
            let at = self.peers.get(peer.0 as usize).and_then(|key| period.peers.iter().position(|other| other == key));
            let key = at.and_then(|at| period.set.members().get(at)).map(|member| member.key);
            keys.extend(key.filter(|key| !keys.contains(key)));
        }
        keys
    }

    fn peer_of(&self, key: &PublicKey) -> Option<Peer> {
        let peer = self.genesis.periods.iter().find_map(|period| {
            let at = period.set.position(key)?;
            period.peers.get(at.at())
        })?;
        self.peers.iter().zip(0..).find(|(known, _)| *known == peer).map(|(_, number)| Peer(number))
    }

    /// The last height whose header has a seal by the group.
    pub(super) fn find_sealed(&mut self) -> Result<(), HostError> {
        let tip = self.durable.tip().height.0;
        for height in (tip.saturating_sub(SEALS_LOOKED_AT)..=tip).rev().map(Height) {
            if self.durable.group_seal(height)?.is_some() {
                self.sealed = Some(height);
                return Ok(());
            }
        }
        Ok(())
    }
}
