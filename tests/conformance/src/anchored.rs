//! Evidence that is anchored: the receipt is in the log of a header that a quorum has sealed, and its data are kept by pinners.

use bpi_protocol::availability::attestation::{Acknowledgement, Attestation, Batch, ShardSet};
use bpi_protocol::availability::coding::Coding;
use bpi_protocol::availability::proof::Availability;
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{Height, Round, TimeMs};
use bpi_protocol::consensus::light::{chain_of, genesis};
use bpi_protocol::consensus::scheme::Signer as _;
use bpi_protocol::consensus::seal::Seal;
use bpi_protocol::consensus::statement::Place;
use bpi_protocol::evidence::Evidence;
use bpi_protocol::finality::Finality;
use bpi_protocol::log::leaf::{Leaf, TenantId};
use bpi_protocol::log::proof::Inclusion;
use bpi_protocol::log::{Log, leaf_hash};
use bpi_protocol::trust::Trust;
use bpi_protocol::verify::{Level, Report, verify};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::json;

use crate::cluster::{Cluster, secret, signers};
use crate::mutants::Truth;

/// Whose receipts they are.
pub const TENANT: TenantId = TenantId([0x7e; 16]);

/// A chain of nine validators (quorum 6) whose header of height 7 has the receipt as leaf 4 of 9.
pub struct Anchored {
    /// The validators.
    pub cluster: Cluster,
    /// The receipt, without proofs.
    pub evidence: Evidence,
    /// That it is in the log of a final header.
    pub proof: Finality,
}

impl Anchored {
    /// The chain, and the receipt in it.
    pub fn story() -> Self {
        let evidence = Evidence::of(&Truth::default().records).expect("values of this story");
        let cluster = Cluster::new(0, 1, 9);
        let genesis = genesis(&cluster.set, TimeMs(1_000));
        let mut log = Log::new();
        for other in 0..9_u8 {
            let receipt = Leaf::of(TENANT, evidence.receipt()).leaf_hash().0;
            log.append(if other == 4 { receipt } else { leaf_hash(&[other]) });
        }
        let header = Header { height: Height(7), receipts: log.head(), ..genesis };
        let (inclusion, set) = (log.prove_inclusion(4, 9).expect("values of this story"), cluster.set.clone());
        let seal = Seal::Threshold { round: Round(0), signature: secret(1).sign(&[]) };
        let proof = Finality { chain: chain_of(&genesis), tenant: TENANT, header, seal, set, inclusion };
        let mut made = Self { cluster, evidence, proof };
        made.proof.seal = made.seal(made.proof.header);
        made
    }

    /// The seal of another header, by the same six.
    pub fn seal(&self, header: Header) -> Seal {
        let place = Place { chain: self.proof.chain, height: header.height };
        self.cluster.seal(place, Round(0), &header, signers(0..6))
    }

    /// The trust file of the evidence, with the chain as it is given.
    pub fn trust(chains: serde_json::Value) -> Trust {
        Trust::parse(&trust_file(chains)).expect("values of this story")
    }

    /// The chain as a trust file names it.
    pub fn chain(&self) -> serde_json::Value {
        json!([{ "id": self.proof.chain.to_string(), "validatorSets": [self.cluster.set.digest().to_string()] }])
    }

    /// What is said of it with another proof, read from its files.
    pub fn judge(&self, proof: Finality, trust: &Trust) -> Report {
        // Through bytes, as it comes from a folder.
        let files = self.evidence.clone().with_finality(proof).to_files();
        verify(&Evidence::from_files(files).expect("sound files"), trust, Level::Included)
    }
}

/// The bytes of that file.
pub fn trust_file(chains: serde_json::Value) -> Vec<u8> {
    let mut file: serde_json::Value =
        serde_json::from_slice(&Truth::default().trust_json()).expect("values of this story");
    file["chains"] = chains;
    serde_json::to_vec(&file).expect("values of this story")
}

/// When the header was made, in s since 1970.
pub const MADE_S: u64 = 1_700_000_000;
const MONTH_S: u64 = 30 * 86_400;

/// A receipt of a final header that commits to its batch, which three pinners keep.
pub struct Available {
    /// The receipt and its header.
    pub anchored: Anchored,
    /// That its data can be had.
    pub proof: Availability,
    /// Who has signed for them.
    pub pinners: Vec<SigningKey>,
}

impl Available {
    /// The batch, spread and committed to.
    pub fn story() -> Self {
        let mut anchored = Anchored::story();
        let mut receipts = Log::new();
        receipts.append(leaf_hash(b"another"));
        receipts.append(anchored.proof.leaf_hash(anchored.evidence.receipt()).0);
        let coding = Coding::new(4, 12, 9_000).expect("values of this story");
        let receipts_root = receipts.head().root;
        let batch = Batch { tenant: TENANT, coding, da_root: [5; 32], receipts: 2, receipts_root };
        let mut pinners: Vec<_> = (1..4).map(|seed| SigningKey::from_bytes(&[seed; 32])).collect();
        pinners.sort_by_key(|key| key.verifying_key().to_bytes());
        let mut proof = Availability {
            attestation: Attestation { batch, acknowledgements: Vec::new() },
            attested: Inclusion { index: 0, size: 1, path: Vec::new() },
            receipt: receipts.prove_inclusion(1, 2).expect("values of this story"),
            sealed: None,
        };
        for (key, first) in pinners.iter().zip([0, 3, 6]) {
            let shards: ShardSet = (first..first + 3).collect();
            let until_s = MADE_S + MONTH_S;
            let statement = Acknowledgement::statement(anchored.proof.chain, &batch, shards, until_s);
            let (pinner, signature) = (key.verifying_key().to_bytes(), key.sign(&statement).to_bytes());
            proof.attestation.acknowledgements.push(Acknowledgement { pinner, shards, until_s, signature });
        }
        anchored.proof.header.time = TimeMs(MADE_S * 1000);
        let mut made = Self { anchored, proof, pinners };
        made.commit();
        made
    }

    /// The header commits to the attestation beside another one, and is sealed again.
    pub fn commit(&mut self) {
        let mut tree = Log::new();
        tree.append(leaf_hash(b"another batch"));
        tree.append(self.proof.attestation.leaf_hash());
        self.proof.attested = tree.prove_inclusion(1, 2).expect("values of this story");
        self.anchored.proof.header.da_root = tree.head().root;
        self.anchored.proof.seal = self.anchored.seal(self.anchored.proof.header);
    }

    /// Whom to believe.
    pub fn trust(&self) -> Trust {
        Anchored::trust(self.anchored.chain())
    }

    /// What is said of it with another proof, read from its files.
    pub fn judge(&self, proof: &Availability, trust: &Trust) -> Report {
        let evidence = self.anchored.evidence.clone().with_finality(self.anchored.proof.clone());
        let files = evidence.with_availability(proof.clone()).to_files();
        verify(&Evidence::from_files(files).expect("sound files"), trust, Level::Final)
    }
}
