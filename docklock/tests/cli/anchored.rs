//! The proof that evidence is final, by a chain of one validator.

use std::fs;

use bpi_protocol::consensus::bls::SecretKey;
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{Epoch, Round, TimeMs, ValidatorIndex};
use bpi_protocol::consensus::light::{chain_of, genesis};
use bpi_protocol::consensus::scheme::Signer as _;
use bpi_protocol::consensus::seal::{Seal, Votes};
use bpi_protocol::consensus::statement::{self, Place};
use bpi_protocol::consensus::validators::{Signers, Validator, ValidatorSet};
use bpi_protocol::evidence::Evidence;
use bpi_protocol::finality::Finality;
use bpi_protocol::log::Log;
use bpi_protocol::log::leaf::{Leaf, TenantId};

/// A chain whose first header has one receipt.
pub struct Anchored {
    pub proof: Finality,
}

impl Anchored {
    /// Anchors the receipt of a folder.
    pub fn new(evidence: &str) -> Self {
        let bundle = fs::read(format!("{evidence}/receipt.sigstore.json")).unwrap();
        let (tenant, evidence) = (TenantId([0x7e; 16]), Evidence::from_bytes(&bundle).unwrap());
        let secret = SecretKey::generate(&[7; 32]).unwrap();
        let member = Validator { key: secret.public_key(), possession: secret.prove_possession(), weight: 1 };
        let set = ValidatorSet::new(Epoch(0), vec![member]).unwrap();
        let genesis = genesis(&set, TimeMs(1_000));
        let mut log = Log::new();
        log.append(Leaf::of(tenant, evidence.receipt()).leaf_hash().0);
        let (height, parent) = (genesis.height.next(), genesis.digest());
        let header = Header { height, parent, time: TimeMs(1_250), receipts: log.head(), ..genesis };
        let (chain, round) = (chain_of(&genesis), Round(0));
        let signature = secret.sign(&statement::commit(Place { chain, height }, round, header.digest()));
        let seal = Seal::Votes(Votes { round, signers: Signers::one(ValidatorIndex(0)), signature });
        let inclusion = log.prove_inclusion(0, 1).unwrap();
        Self { proof: Finality { chain, tenant, header, seal, set, inclusion } }
    }

    /// What a trust file says of the chain.
    pub fn chains(&self) -> serde_json::Value {
        let (id, set) = (self.proof.chain.to_string(), self.proof.set.digest().to_string());
        serde_json::json!([{ "id": id, "validatorSets": [set] }])
    }
}
