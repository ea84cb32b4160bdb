//! What agents ask, a little between two looks at everything else: an agent that asks much waits, and consensus does not.

use bpi_protocol::availability::attestation::Attestation;
use bpi_protocol::consensus::ids::Height;
use bpi_protocol::log::Hash;
use bpi_protocol::log::leaf::{LeafHash, TenantId};
use bpi_protocol::mesh::validator::{Answer, Attested, Reason, Request, Sealed};

use super::super::agents::{Agent, AgentNumber, cost_of};
use super::super::frame::Frame;
use super::super::network::Network;
use super::super::now_ms;
use super::{Host, HostError};
use crate::contents::application::{AdmitError, ContentsError};
use crate::contents::attestations::{self, AttestationRefusal};
use crate::contents::leaf::Leaf;
use crate::contents::ledger::LedgerError;
use crate::contents::mempool::Refusal;
use crate::durable::DurableError;

/// What requests between two looks at the clock may cost, in lookups of a leaf: a few ms, and one request more.
const COST_PER_TICK: usize = 256;

impl<N: Network> Host<N> {
    /// Answers some of what agents have asked.
    pub(super) fn tick_agents(&mut self) -> Result<(), HostError> {
        let mut cost = 0;
        while cost < COST_PER_TICK {
            let Some((agent, request, room)) = self.asked.pop_front() else { return Ok(()) };
            cost += cost_of(&request);
            if let Some(answer) = self.answer_agent(agent, *request)? {
                self.network.answer(agent, &answer);
            }
            drop(room);
        }
        Ok(())
    }

    fn answer_agent(&mut self, agent: AgentNumber, request: Request) -> Result<Option<Answer>, HostError> {
        let Some(known) = self.agents.get(agent.0 as usize) else { return Ok(None) };
        Ok(match request {
            Request::Submit { tenant, leaves } => {
                let speaks = known.speaks_for(&tenant);
                Some(self.submit_for(tenant, leaves, speaks)?)
            }
            Request::Attest(attestation) => {
                let (da_root, speaks) = (attestation.batch.da_root, known.speaks_for(&attestation.batch.tenant));
                let reason = if speaks { self.attest(*attestation)? } else { Reason::Tenant };
                Some(Answer::Attest { da_root, reason })
            }
            Request::Wanted { leaves, batches } => self.proofs(known, &leaves, &batches)?,
            Request::Wrong(proof) => self.take_wrong(None, &proof)?,
        })
    }

    fn submit_for(&mut self, tenant: TenantId, hashes: Vec<Hash>, speaks: bool) -> Result<Answer, HostError> {
        let now = now_ms();
        let (mut taken, mut refused) = (Vec::with_capacity(hashes.len()), Vec::new());
        for hash in hashes {
            let leaf = Leaf { tenant, hash };
            let reason = match speaks.then(|| self.contents.admit(leaf, now)) {
                None => Reason::Tenant,
                Some(Ok(_)) => {
                    taken.push(leaf);
                    continue;
                }
                Some(Err(AdmitError::Refused(refusal))) => {
                    self.metrics.refused(refusal.name());
                    match refusal {
                        Refusal::Full { .. } | Refusal::TenantFull { .. } => Reason::Full,
                        Refusal::Duplicate => Reason::Waiting,
                        Refusal::Reserved => Reason::Reserved,
                        Refusal::Included { .. } => Reason::Included,
                    }
                }
                Some(Err(AdmitError::Ledger(error))) => return Err(ContentsError::from(error).into()),
            };
            refused.push((hash, reason));
        }
        let accepted = taken.len() as u16;
        if !taken.is_empty() {
            self.network.broadcast(&Frame::Waiting(taken));
        }
        Ok(Answer::Submitted { tenant, accepted, refused })
    }

    /// Takes an attestation in and tells the peers, who may propose before this node does.
    fn attest(&mut self, attestation: Attestation) -> Result<Reason, HostError> {
        let refusal = match self.admit_attestation(attestation.clone())? {
            None => {
                self.network.broadcast(&Frame::Attestations(vec![attestation]));
                return Ok(Reason::Taken);
            }
            Some(refusal) => refusal,
        };
        tracing::debug!(da_root = hex::encode(attestation.batch.da_root), %refusal, "an attestation was refused");
        Ok(match refusal {
            AttestationRefusal::Full | AttestationRefusal::TenantFull => Reason::Full,
            AttestationRefusal::Duplicate => Reason::Waiting,
            AttestationRefusal::Included { .. } => Reason::Included,
            AttestationRefusal::Wrong => Reason::Wrong,
            AttestationRefusal::False(_) => Reason::False,
        })
    }

    /// Leaves by the last header whose leaves the log has, and batches by the headers that commit to them. `None`: no header has a seal yet.
    fn proofs(&self, agent: &Agent, leaves: &[LeafHash], batches: &[Hash]) -> Result<Option<Answer>, HostError> {
        let Some(sealed) = self.sealed_header(self.logged.height)? else { return Ok(None) };
        let (mut proved, mut attested) = (Vec::new(), Vec::new());
        for leaf in leaves {
            match self.contents.ledger().prove_inclusion(leaf, sealed.header.receipts.size) {
                Ok(Some(inclusion)) => proved.push((*leaf, inclusion)),
                // It is not there, or of a later header.
                Ok(None) | Err(LedgerError::Log(_)) => {}
                Err(error) => return Err(ContentsError::from(error).into()),
            }
        }
        for da_root in batches {
            attested.extend(self.prove_attested(da_root, |tenant| agent.speaks_for(tenant))?);
        }
        Ok(Some(Answer::Proofs { sealed: Box::new(sealed), leaves: proved, batches: attested }))
    }

    /// A final header with what makes it final. `None`: it is the first, or not known here.
    pub(super) fn sealed_header(&self, height: Height) -> Result<Option<Sealed>, HostError> {
        let Some((header, Some(seal))) = self.durable.get(height)? else { return Ok(None) };
        let set = self.genesis.period(&header.validators).map(|period| period.set.as_ref().clone());
        Ok(set.map(|set| Sealed { header, seal, set }))
    }

    /// Where a batch of a tenant that is wanted is committed to. `None`: nowhere that is known here.
    pub(super) fn prove_attested(
        &self,
        da_root: &Hash,
        is_wanted: impl Fn(&TenantId) -> bool,
    ) -> Result<Option<Attested>, HostError> {
        let Some((height, index)) = self.attested_of_root(da_root, is_wanted)? else { return Ok(None) };
        let all = self.durable.headers().attestations(height).map_err(DurableError::from)?.unwrap_or_default();
        let (Some(attestation), Some(sealed)) = (all.get(usize::from(index)), self.sealed_header(height)?) else {
            return Ok(None);
        };
        let proof = attestations::prove(&all, index.into()).ok();
        Ok(proof.map(|inclusion| Attested { sealed, attestation: attestation.clone(), inclusion }))
    }
}
