//! Answers to what the API asks.

use bpi_protocol::checkpoint::{Note, NoteKey};
use bpi_protocol::consensus::ids::Height;
use bpi_protocol::consensus::light::LightProof;
use bpi_protocol::finality::Finality;
use bpi_protocol::key::PublicKey;
use bpi_protocol::log::Hash;
use bpi_protocol::mesh::validator::Answer;

use super::super::api::{Ask, Consistency, Inclusion, Light, Pinned, Refused, Status, Submitted, root_of};
use super::super::frame::{self, Frame};
use super::super::genesis::Pinner;
use super::super::network::Network;
use super::super::now_ms;
use super::{Host, HostError, STILL_MS};
use crate::contents::application::AdmitError;
use crate::contents::leaf::{Leaf, TenantId};
use crate::contents::ledger::LedgerError;
use crate::probe::Figures;

impl<N: Network> Host<N> {
    /// Answers a question. Who asked may have gone: then nobody hears it.
    ///
    /// # Errors
    /// Those of making what is asked for, and keeping it.
    pub(super) fn answer(&mut self, ask: Ask) -> Result<(), HostError> {
        match ask {
            Ask::Status(answer) => drop(answer.send(self.status())),
            Ask::Submit(leaves, answer) => drop(answer.send(self.submit(leaves))),
            Ask::Header(height, answer) => {
                let height = height.unwrap_or(self.replica.tip().height);
                drop(answer.send(self.durable.get(height).map_err(|error| error.to_string())));
            }
            Ask::Light(height, answer) => {
                // An older one was made if this node proposed next, or was asked.
                self.assemble_shelved(height.unwrap_or(self.logged.height))?;
                drop(answer.send(self.light(height)));
            }
            Ask::Checkpoint(answer) => drop(answer.send(self.checkpoint())),
            Ask::Inclusion(leaf, size, answer) => drop(answer.send(self.inclusion(&leaf, size))),
            Ask::Finality(leaf, answer) => drop(answer.send(self.finality(&leaf))),
            Ask::Availability(da_root, tenant, answer) => {
                let proof = self.availability_of(&da_root, tenant).map_err(|error| error.to_string());
                drop(answer.send(proof));
            }
            Ask::Consistency(first, second, answer) => drop(answer.send(self.consistency(first, second))),
        }
        Ok(())
    }

    fn status(&self) -> Status {
        let tip = self.replica.tip();
        let still_ms = now_ms().saturating_sub(self.moved_ms);
        let reason = match self.trouble.as_ref().or(self.inbox_trouble.as_ref()) {
            Some(trouble) => trouble.clone(),
            None if still_ms > STILL_MS => format!("no height has become final for {} s", still_ms / 1000),
            None => String::new(),
        };
        let votes = match () {
            () if self.trouble.is_some() => "no: something failed",
            () if self.durable.silent_through().is_some_and(|through| tip.height.next() <= through) => {
                "no: the key has said what this node does not know of"
            }
            () if self.replica.core().is_silent() => "no: it observes",
            () => "yes",
        };
        Status {
            healthy: reason.is_empty(),
            reason,
            chain: self.genesis.chain.to_string(),
            name: self.genesis.name.clone(),
            height: tip.height.0,
            digest: hex::encode(tip.digest().0),
            time_ms: tip.time.0,
            round: self.round.0,
            votes,
            validators: self.validators(),
            epoch: tip.epoch.0,
            group_key: self
                .ceremonies
                .sharing_at(tip.height)
                .map(|sharing| hex::encode(sharing.group().public_key().0)),
            ceremony: self.ceremonies.stage(tip.height),
            peers: self.network.connected(),
            waiting: self.contents.figures().waiting,
            log: [self.logged.receipts.size, tip.receipts.size],
            attestations: self.contents.figures().attestations,
            pinners: self.pinned(),
        }
    }

    fn pinned(&self) -> Vec<Pinned> {
        let figures = self.availability.prober.figures();
        let of = |pinner: &Pinner| {
            let mut key = [0; 32];
            // It was read from there.
            hex::decode_to_slice(&pinner.identity, &mut key).ok()?;
            let Figures { right, wrong, refused, unanswered } = *figures.get(&key)?;
            let (identity, region) = (pinner.identity.clone(), pinner.region.clone());
            Some(Pinned { identity, region, right, wrong, refused, unanswered })
        };
        self.genesis.pinners.iter().filter_map(of).collect()
    }

    fn availability_of(&self, da_root: &Hash, tenant: Option<TenantId>) -> Result<Option<Vec<u8>>, HostError> {
        let is_wanted = |found: &TenantId| tenant.is_none_or(|wanted| wanted == *found);
        let (attested, sealed) = (self.prove_attested(da_root, is_wanted)?, self.sealed_header(self.logged.height)?);
        Ok(attested.zip(sealed).map(|(attested, sealed)| {
            Answer::Proofs { sealed: Box::new(sealed), leaves: Vec::new(), batches: vec![attested] }.to_bytes()
        }))
    }

    /// Takes leaves in and tells the peers, who may propose before this node does.
    fn submit(&mut self, leaves: Vec<Leaf>) -> Submitted {
        let now = now_ms();
        let mut taken = Vec::with_capacity(leaves.len());
        let mut submitted = Submitted::default();
        for leaf in leaves {
            let error = match self.contents.admit(leaf, now) {
                Ok(_) => {
                    taken.push(leaf);
                    continue;
                }
                Err(error) => error,
            };
            let reason = match &error {
                AdmitError::Refused(refusal) => refusal.name(),
                AdmitError::Ledger(_) => "ledger",
            };
            self.metrics.refused(reason);
            submitted.refused.push(Refused { leaf: hex::encode(leaf.hash), reason, message: error.to_string() });
        }
        submitted.accepted = taken.len();
        taken.chunks(frame::LEAVES_MAX).for_each(|leaves| self.network.broadcast(&Frame::Waiting(leaves.to_vec())));
        submitted
    }

    fn light(&self, height: Option<Height>) -> Result<Option<Light>, String> {
        let told = |error: crate::durable::DurableError| error.to_string();
        let Some(height) = height.or(self.sealed) else { return Ok(None) };
        let (kept, seal) = (self.durable.get(height).map_err(told)?, self.durable.group_seal(height).map_err(told)?);
        let proof = kept.zip(seal).and_then(|((header, _), seal)| LightProof::new(header, &seal));
        let group = self.ceremonies.sharing_at(self.logged.height).map(|sharing| sharing.group().public_key());
        Ok(proof.zip(group).map(|(proof, group)| Light {
            height: proof.header.height.0,
            digest: hex::encode(proof.header.digest().0),
            proof: hex::encode(proof.to_bytes()),
            group_key: hex::encode(group.0),
        }))
    }

    fn checkpoint(&self) -> Result<String, String> {
        let origin = format!("bpi.local/{}", self.genesis.name);
        let checkpoint = self.contents.ledger().checkpoint(&origin).map_err(|error| error.to_string())?;
        let key = PublicKey::from_raw(&self.peer_key.public()).map_err(|error| error.to_string())?;
        let key = NoteKey::new(&origin, key).map_err(|error| error.to_string())?;
        let sign = |message: &[u8]| Ok::<_, std::convert::Infallible>(self.peer_key.sign(message));
        let Ok(note) = Note::sign(&checkpoint, &key, sign);
        Ok(note.to_string())
    }

    fn inclusion(&self, leaf: &Leaf, size: Option<u64>) -> Result<Option<Inclusion>, String> {
        let size = size.unwrap_or(self.logged.receipts.size);
        let ledger = self.contents.ledger();
        let told = |error: LedgerError| error.to_string();
        let Some(proof) = ledger.prove_inclusion(&leaf.leaf_hash(), size).map_err(told)? else { return Ok(None) };
        let head = ledger.head_at(size).map_err(told)?;
        Ok(Some(Inclusion {
            index: proof.index,
            size: head.size,
            root: root_of(&head),
            path: proof.path.iter().map(hex::encode).collect(),
        }))
    }

    /// By the last header whose leaves the log has.
    fn finality(&self, leaf: &Leaf) -> Result<Option<Vec<u8>>, String> {
        let header = self.logged;
        let proof = self.contents.ledger().prove_inclusion(&leaf.leaf_hash(), header.receipts.size);
        let Some(inclusion) = proof.map_err(|error| error.to_string())? else { return Ok(None) };
        let kept = self.durable.get(header.height).map_err(|error| error.to_string())?;
        let period = self.genesis.period(&header.validators).ok_or("the genesis here does not know who sealed it")?;
        // The first header has no leaves.
        let Some((_, Some(seal))) = kept else { return Ok(None) };
        let (chain, tenant, set) = (self.genesis.chain, leaf.tenant, period.set.as_ref().clone());
        Ok(Some(Finality { chain, tenant, header, seal, set, inclusion }.to_bytes()))
    }

    fn consistency(&self, first: u64, second: u64) -> Result<Consistency, String> {
        let ledger = self.contents.ledger();
        let told = |error: LedgerError| error.to_string();
        let proof = ledger.prove_consistency(first, second).map_err(told)?;
        let heads = [ledger.head_at(first).map_err(told)?, ledger.head_at(second).map_err(told)?];
        Ok(Consistency {
            sizes: heads.map(|head| head.size),
            roots: heads.map(|head| root_of(&head)),
            path: proof.path.iter().map(hex::encode).collect(),
        })
    }
}
