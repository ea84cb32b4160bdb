//! Who may send receipts and attestations over BPCI, and for whom: agents of the configuration.

use std::collections::BTreeSet;

use bpi_protocol::mesh::validator::Request;

use crate::contents::leaf::TenantId;

/// An agent, by its place in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentNumber(pub u32);

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its Ed25519 key.
    pub key: [u8; 32],
    /// For whom it speaks.
    pub tenants: Tenants,
}

/// Tenants that an agent speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tenants {
    /// Whoever there is.
    All,
    /// These.
    These(BTreeSet<TenantId>),
}

impl Agent {
    /// Whether it speaks for a tenant.
    pub fn speaks_for(&self, tenant: &TenantId) -> bool {
        match &self.tenants {
            Tenants::All => true,
            Tenants::These(tenants) => tenants.contains(tenant),
        }
    }
}

/// For counters.
pub fn name_of(request: &Request) -> &'static str {
    match request {
        Request::Submit { .. } => "submit",
        Request::Attest(_) => "attest",
        Request::Wanted { .. } => "wanted",
        Request::Wrong(_) => "wrong",
    }
}

/// What a request costs to answer, in lookups of a leaf ([`super::frame::Frame::cost`]): a proof of inclusion reads and hashes as many nodes as the log has
/// levels, twice; an attestation has a signature for each pinner, and its proof some more hashes.
pub fn cost_of(request: &Request) -> usize {
    match request {
        Request::Submit { leaves, .. } => leaves.len().max(1),
        Request::Attest(attestation) => 1 + attestation.acknowledgements.len() / 4,
        Request::Wanted { leaves, batches } => (4 * leaves.len() + 16 * batches.len()).max(1),
        Request::Wrong(_) => 64,
    }
}
