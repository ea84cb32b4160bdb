//! Bytes that other implementations must arrive at, pinned in `tests/vectors/consensus.json`.
//!
//! What is pinned is what was signed: a change of one byte splits the mesh, so regenerating a vector is a decision record. Then
//! `BPI_VECTORS=write cargo test -p bpi-protocol --test consensus every_byte` writes the file.

use bpi_protocol::consensus::bls::{DST, POP_DST};
use bpi_protocol::consensus::bytes::{Reader, Writer};
use bpi_protocol::consensus::equivocation::{Equivocation, Said};
use bpi_protocol::consensus::header::{Header, InboxAnchor, PohEnd, Seed};
use bpi_protocol::consensus::ids::{ChainId, Epoch, Height, Round, TimeMs, ValidatorIndex};
use bpi_protocol::consensus::justification::{Justification, SignedRoundChange, check_proposal, check_round_change};
use bpi_protocol::consensus::light::{chain_of, genesis};
use bpi_protocol::consensus::message::{Body, Commit, Final, Message, Partials, Proposal, RoundChange, Vote};
use bpi_protocol::consensus::scheme::{PublicKey, Scheme as _, Signature, Signer as _};
use bpi_protocol::consensus::seal::{Seal, Votes};
use bpi_protocol::consensus::statement::{self, Place, PreparedClaim};
use bpi_protocol::consensus::validators::{Signers, ValidatorSet};
use bpi_protocol::log::proof::{Consistency, Inclusion};
use bpi_protocol::log::{Hash, Log, leaf_hash};
use serde::{Deserialize, Serialize};

use bpi_conformance::cluster::{Cluster, secret, signers};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/consensus.json");

/// All bytes are lower-case hexadecimal.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Vectors {
    note: String,
    dst: String,
    possession_dst: String,
    chain: String,
    genesis: Named,
    header: Named,
    set: Named,
    validators: Vec<Member>,
    group: Member,
    /// Each statement signed by one validator.
    statements: Vec<Signed>,
    /// Each statement signed by several.
    sums: Vec<Signed>,
    seals: Vec<Named>,
    messages: Vec<Named>,
    equivocation: Named,
    log: LogVectors,
}

/// Bytes, and their digest where they have one.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Named {
    name: String,
    bytes: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Member {
    secret: String,
    key: String,
    possession: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Signed {
    name: String,
    /// Indices; the group's where there is none.
    signers: Vec<u16>,
    statement: String,
    signature: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct LogVectors {
    leaves: Vec<String>,
    /// The root of the first 0, 1, … leaves.
    roots: Vec<String>,
    inclusion: Vec<String>,
    consistency: Vec<String>,
}

fn named(name: &str, bytes: &[u8], digest: Option<[u8; 32]>) -> Named {
    Named { name: name.to_owned(), bytes: hex::encode(bytes), digest: digest.map(hex::encode) }
}

fn signed(name: &str, signers: Signers, statement: &[u8], signature: &Signature) -> Signed {
    let signers = signers.iter().map(|index| index.0).collect();
    Signed { name: name.to_owned(), signers, statement: hex::encode(statement), signature: hex::encode(signature.0) }
}

fn member(number: u8) -> Member {
    let secret = secret(number);
    Member {
        secret: hex::encode(secret.to_bytes()),
        key: hex::encode(secret.public_key().0),
        possession: hex::encode(secret.prove_possession().0),
    }
}

/// The story that the vectors tell: at height 1, validators 0, 1 and 3 of four prepare a header in round 0; the round is changed, it is
/// proposed again in round 1, sealed there, and validator 2 has voted for two headers.
struct Story {
    cluster: Cluster,
    chain: ChainId,
    genesis: Header,
    header: Header,
    log: Log,
}

const QUORUM: [u16; 3] = [0, 1, 3];

impl Story {
    fn new() -> Self {
        let cluster = Cluster::new(0, 1, 4);
        let genesis = genesis(&cluster.set, TimeMs(1_700_000_000_000));
        let mut log = Log::new();
        for leaf in Self::leaves() {
            log.append(leaf_hash(&leaf));
        }
        let header = Header {
            height: Height(1),
            round: Round(0),
            parent: genesis.digest(),
            time: TimeMs(1_700_000_000_250),
            receipts: log.head(),
            da_root: [0xda; 32],
            inclusion_list_root: [0x11; 32],
            inbox: InboxAnchor { height: 20_000_000, hash: [0x1b; 32] },
            poh: PohEnd { count: 250_000, hash: [0x90; 32] },
            seed: Seed::Threshold(secret(99).sign(b"epoch and height")),
            proposer: ValidatorIndex(1),
            ..genesis
        };
        Self { cluster, chain: chain_of(&genesis), genesis, header, log }
    }

    fn leaves() -> Vec<Vec<u8>> {
        (0..11_u8).map(|leaf| format!("receipt {leaf}").into_bytes()).collect()
    }

    fn place(&self) -> Place {
        Place { chain: self.chain, height: Height(1) }
    }

    fn votes(&self, round: Round, statement: &[u8]) -> Votes {
        let signers = signers(QUORUM);
        Votes { round, signers, signature: self.cluster.aggregate(signers, statement) }
    }

    fn certificate(&self) -> Votes {
        self.votes(Round(0), &statement::prepare(self.place(), Round(0), self.header.digest()))
    }

    fn claim(&self) -> PreparedClaim {
        PreparedClaim { round: Round(0), digest: self.header.digest() }
    }

    fn change(&self, sender: u16, prepared: Option<PreparedClaim>) -> SignedRoundChange {
        let signature = self.cluster.sign(sender, &statement::round_change(self.place(), Round(1), prepared));
        SignedRoundChange { sender: ValidatorIndex(sender), round: Round(1), prepared, signature }
    }

    fn justification(&self) -> Justification {
        let round_changes = vec![self.change(0, Some(self.claim())), self.change(1, None), self.change(2, None)];
        Justification { round_changes, prepared: Some(self.certificate()) }
    }

    fn seals(&self) -> [(&'static str, Seal); 2] {
        let round = Round(1);
        let commit = statement::commit(self.place(), round, self.header.digest());
        let threshold = Seal::Threshold { round, signature: secret(99).sign(&commit) };
        [("votes", Seal::Votes(self.votes(round, &commit))), ("threshold", threshold)]
    }

    fn vote(&self, sender: u16, statement: &[u8]) -> Vote {
        let digest = self.header.digest();
        let signature = self.cluster.sign(sender, statement);
        Vote { sender: ValidatorIndex(sender), round: Round(1), digest, signature }
    }

    fn messages(&self) -> Vec<(&'static str, Body)> {
        let (place, round, digest) = (self.place(), Round(1), self.header.digest());
        let proposal = |sender, round, justification| Proposal {
            sender: ValidatorIndex(sender),
            round,
            header: self.header,
            justification,
            signature: self.cluster.sign(sender, &statement::proposal(place, round, digest)),
        };
        let commit = |partials| Commit { vote: self.vote(3, &statement::commit(place, round, digest)), partials };
        let shares =
            Partials { seal: secret(98).sign(b"share of the seal"), seed: secret(98).sign(b"share of the seed") };
        let change = |prepared: Option<(Header, Votes)>| RoundChange {
            signed: self.change(0, prepared.as_ref().map(|_| self.claim())),
            prepared,
        };
        let [(_, votes), (_, threshold)] = self.seals();
        let last = |seal| Body::Final(Box::new(Final { header: self.header, seal }));
        vec![
            ("proposal of the first round", Body::Proposal(Box::new(proposal(1, Round(0), None)))),
            ("proposal of a later round", Body::Proposal(Box::new(proposal(2, round, Some(self.justification()))))),
            ("prepare", Body::Prepare(self.vote(3, &statement::prepare(place, round, digest)))),
            ("commit", Body::Commit(commit(None))),
            ("commit with partials", Body::Commit(commit(Some(shares)))),
            ("round change", Body::RoundChange(Box::new(change(None)))),
            (
                "round change with a prepared header",
                Body::RoundChange(Box::new(change(Some((self.header, self.certificate()))))),
            ),
            ("status", Body::Status),
            ("request", Body::Request),
            ("final by votes", last(votes)),
            ("final by threshold", last(threshold)),
        ]
    }

    fn equivocation(&self) -> Equivocation {
        let one = |header: &Header| {
            let said = Said::Prepare(header.digest());
            (said, self.cluster.sign(2, &said.statement(self.place(), Round(0))))
        };
        let both = [one(&self.header), one(&self.genesis)];
        Equivocation { sender: ValidatorIndex(2), height: Height(1), round: Round(0), both }
    }

    fn vectors(&self) -> Vectors {
        let (place, digest) = (self.place(), self.header.digest());
        let one = |name, sender, statement: Vec<u8>| {
            signed(name, signers([sender]), &statement, &self.cluster.sign(sender, &statement))
        };
        let commit = statement::commit(place, Round(1), digest);
        let seals = self.seals();
        let sealed = |seal: &Seal| match seal {
            Seal::Votes(votes) => signed("seal by votes", votes.signers, &commit, &votes.signature),
            Seal::Threshold { signature, .. } => signed("seal by threshold", Signers::default(), &commit, signature),
        };
        let certificate = self.certificate();
        let prepare = statement::prepare(place, Round(0), digest);
        let sums = [signed("prepared certificate", certificate.signers, &prepare, &certificate.signature)];
        let seal_bytes = |seal: &Seal| {
            let mut out = Writer::new();
            seal.write(&mut out);
            out.done()
        };
        let size = self.log.size();
        let inclusion = |(index, size)| hex::encode(self.log.prove_inclusion(index, size).unwrap().to_bytes());
        let consistency = |(first, second)| hex::encode(self.log.prove_consistency(first, second).unwrap().to_bytes());
        Vectors {
            note: "Pinned: regenerating one of these is a decision record. See protocol/tests/consensus/vectors.rs."
                .to_owned(),
            dst: String::from_utf8(DST.to_vec()).unwrap(),
            possession_dst: String::from_utf8(POP_DST.to_vec()).unwrap(),
            chain: hex::encode(self.chain.0),
            genesis: named("genesis", &self.genesis.to_bytes(), Some(self.genesis.digest().0)),
            header: named("header of height 1", &self.header.to_bytes(), Some(digest.0)),
            set: named("four validators of epoch 0", &self.cluster.set.to_bytes(), Some(self.cluster.set.digest().0)),
            validators: (1..=4).map(member).collect(),
            group: member(99),
            statements: vec![
                one("proposal", 2, statement::proposal(place, Round(1), digest)),
                one("prepare", 3, statement::prepare(place, Round(1), digest)),
                one("commit", 3, commit.clone()),
                one("round change", 0, statement::round_change(place, Round(1), None)),
                one("round change with a claim", 0, statement::round_change(place, Round(1), Some(self.claim()))),
                one("seed", 1, statement::seed(place, Epoch(7))),
            ],
            sums: sums.into_iter().chain(seals.iter().map(|(_, seal)| sealed(seal))).collect(),
            seals: seals.iter().map(|(name, seal)| named(name, &seal_bytes(seal), None)).collect(),
            messages: self
                .messages()
                .into_iter()
                .map(|(name, body)| named(name, &message(body).to_bytes(), None))
                .collect(),
            equivocation: named("two prepares", &self.equivocation().to_bytes(), None),
            log: LogVectors {
                leaves: Self::leaves().iter().map(hex::encode).collect(),
                roots: (0..=size).map(|size| hex::encode(self.log.head_at(size).unwrap().root)).collect(),
                inclusion: [(0, 1), (0, 8), (3, 7), (6, 7), (10, 11), (7, 11)].into_iter().map(inclusion).collect(),
                consistency: [(0, 11), (1, 11), (3, 7), (4, 8), (6, 11), (11, 11)]
                    .into_iter()
                    .map(consistency)
                    .collect(),
            },
        }
    }
}

fn message(body: Body) -> Message {
    Message { height: Height(1), body }
}

fn text(vectors: &Vectors) -> String {
    serde_json::to_string_pretty(vectors).unwrap() + "\n"
}

fn pinned() -> Vectors {
    serde_json::from_str(&std::fs::read_to_string(FILE).unwrap()).unwrap()
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    hex::decode(hexadecimal).unwrap()
}

fn array<const N: usize>(hexadecimal: &str) -> [u8; N] {
    bytes(hexadecimal).try_into().unwrap()
}

#[test]
fn every_byte_is_the_one_that_was_pinned() {
    let made = text(&Story::new().vectors());
    if std::env::var("BPI_VECTORS").is_ok_and(|value| value == "write") {
        std::fs::write(FILE, &made).unwrap();
    }
    let pinned = std::fs::read_to_string(FILE).unwrap();
    for (number, (made, pinned)) in made.lines().zip(pinned.lines()).enumerate() {
        assert_eq!(made, pinned, "line {}: another vector is a decision record", number + 1);
    }
    assert_eq!(made, pinned);
}

#[test]
fn pinned_bytes_are_read_and_written_the_same() {
    let (vectors, story) = (pinned(), Story::new());
    let header = Header::from_bytes(&bytes(&vectors.header.bytes)).unwrap();
    assert_eq!(header, story.header);
    assert_eq!(Some(header.digest().to_string()), vectors.header.digest);
    assert_eq!(ValidatorSet::from_bytes(&bytes(&vectors.set.bytes)).unwrap(), story.cluster.set);
    for (pinned, (_, body)) in vectors.messages.iter().zip(story.messages()) {
        assert_eq!(Message::from_bytes(&bytes(&pinned.bytes)), Ok(message(body)), "{}", pinned.name);
    }
    for (pinned, (_, seal)) in vectors.seals.iter().zip(story.seals()) {
        assert_eq!(Seal::read(&mut Reader::new(&bytes(&pinned.bytes))), Ok(seal), "{}", pinned.name);
    }
    let evidence = Equivocation::from_bytes(&bytes(&vectors.equivocation.bytes)).unwrap();
    assert_eq!(evidence, story.equivocation());
}

#[test]
fn pinned_signatures_certificates_and_proofs_hold() {
    let (vectors, story) = (pinned(), Story::new());
    let keys = story.cluster.keys.clone().with_group(&PublicKey(array(&vectors.group.key))).unwrap();
    for pinned in vectors.statements.iter().chain(&vectors.sums) {
        let (statement, signature) = (bytes(&pinned.statement), Signature(array(&pinned.signature)));
        let holds = match pinned.signers.as_slice() {
            [] => keys.verify_group(&statement, &signature),
            all => keys.verify_aggregate(signers(all.iter().copied()), &statement, &signature),
        };
        assert!(holds, "{}", pinned.name);
    }
    let (set, place, digest) = (&story.cluster.set, story.place(), story.header.digest());
    for (name, seal) in story.seals() {
        assert_eq!(seal.check(place, &story.header, set, &keys), Ok(()), "{name}");
    }
    assert_eq!(story.equivocation().check(story.chain, &keys), Ok(()));
    let again = check_proposal(place, Round(1), digest, &story.justification(), set, &keys);
    assert_eq!(again, Ok(true), "prepared before");
    let change = story.change(0, Some(story.claim()));
    assert_eq!(check_round_change(place, &change, Some(&story.certificate()), set, &keys), Ok(()));

    let root = |size: u64| -> Hash { array(&vectors.log.roots[size as usize]) };
    let head = |size| bpi_protocol::consensus::header::LogHead { size, root: root(size) };
    for pinned in &vectors.log.inclusion {
        let proof = Inclusion::from_bytes(&bytes(pinned)).unwrap();
        let leaf = leaf_hash(&bytes(&vectors.log.leaves[proof.index as usize]));
        assert_eq!(proof.check(&leaf, &head(proof.size)), Ok(()), "{proof:?}");
    }
    for pinned in &vectors.log.consistency {
        let proof = Consistency::from_bytes(&bytes(pinned)).unwrap();
        assert_eq!(proof.check(&head(proof.first), &head(proof.second)), Ok(()), "{proof:?}");
    }
}
