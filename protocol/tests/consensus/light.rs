//! The light client: it follows what is final, step by step, and nothing else.

use bpi_protocol::consensus::bls::{Keys, VerifyingKey};
use bpi_protocol::consensus::header::{Header, InboxAnchor, LogHead, PohEnd};
use bpi_protocol::consensus::ids::{ChainId, HeaderDigest, Height, Round, TimeMs, ValidatorIndex};
use bpi_protocol::consensus::light::{LightClient, LightProof, StepError, chain_of, genesis};
use bpi_protocol::consensus::scheme::{Signature, Signer as _};
use bpi_protocol::consensus::seal::{Seal, SealError, Votes, VotesError};
use bpi_protocol::consensus::statement::{self, Place};

use bpi_conformance::cluster::{Cluster, secret, signers};

/// A cluster of nine (quorum 6), its genesis, and a client that trusts that.
struct Chain {
    cluster: Cluster,
    genesis: Header,
    id: ChainId,
    client: LightClient<Keys>,
}

impl Chain {
    fn new() -> Self {
        let cluster = Cluster::new(0, 1, 9);
        let genesis = genesis(&cluster.set, TimeMs(1_000));
        let id = chain_of(&genesis);
        let client = LightClient::new(id, genesis, cluster.set.clone(), cluster.keys.clone()).unwrap();
        Self { cluster, genesis, id, client }
    }

    fn place(&self, header: &Header) -> Place {
        Place { chain: self.id, height: header.height }
    }

    /// A seal by validators 0 to 5 in round 0.
    fn seal(&self, header: &Header) -> Seal {
        self.cluster.seal(self.place(header), Round(0), header, signers(0..6))
    }

    fn step(&mut self, header: Header) -> Result<(), StepError> {
        let seal = self.seal(&header);
        self.client.step(header, &seal, None)
    }
}

/// The next header, as a proposer makes it.
fn after(parent: &Header) -> Header {
    Header {
        height: parent.height.next(),
        parent: parent.digest(),
        time: TimeMs(parent.time.0 + 250),
        receipts: LogHead { size: parent.receipts.size + 5, root: [9; 32] },
        inbox: InboxAnchor { height: parent.inbox.height + 1, hash: [1; 32] },
        poh: PohEnd { count: parent.poh.count + 250_000, hash: [2; 32] },
        validators: parent.next_validators,
        ..*parent
    }
}

#[test]
fn a_client_follows_headers_that_a_quorum_has_sealed() {
    let mut chain = Chain::new();
    for height in 1..=5 {
        let header = after(chain.client.trusted());
        assert_eq!(chain.step(header), Ok(()));
        assert_eq!((chain.client.trusted(), header.height), (&header, Height(height)));
    }
}

#[test]
fn a_client_starts_only_with_the_set_that_its_header_announces() {
    let (chain, other) = (Chain::new(), Cluster::new(0, 50, 9));
    let refused = LightClient::new(chain.id, chain.genesis, other.set, other.keys).map(|_| ());
    assert_eq!(refused, Err(StepError::Validators));
}

#[test]
fn a_header_that_does_not_follow_its_parent_is_refused_whoever_sealed_it() {
    let mut chain = Chain::new();
    let trusted = after(&chain.genesis);
    chain.step(trusted).unwrap();
    let good = after(&trusted);
    let parent = trusted.digest();
    let named = HeaderDigest([7; 32]);
    let stranger = Cluster::new(0, 50, 9).set.digest();
    let cases = [
        (Header { height: Height(3), ..good }, StepError::Height { header: 3, parent: 1 }),
        (Header { height: Height(1), ..good }, StepError::Height { header: 1, parent: 1 }),
        (Header { parent: named, ..good }, StepError::Parent { parent, named }),
        (Header { time: trusted.time, ..good }, StepError::Time { header: 1_250, parent: 1_250 }),
        (Header { validators: stranger, ..good }, StepError::Validators),
        (Header { next_validators: stranger, ..good }, StepError::Validators),
        (Header { epoch: good.epoch.next(), ..good }, StepError::Epoch { header: 1, set: 0 }),
        (
            Header { receipts: LogHead { size: 4, root: [9; 32] }, ..good },
            StepError::Backwards { what: "log of receipts", from: 5, to: 4 },
        ),
        (Header { inbox: InboxAnchor::default(), ..good }, StepError::Backwards { what: "inbox", from: 1, to: 0 }),
        (
            Header { poh: PohEnd { count: 249_999, hash: [0; 32] }, ..good },
            StepError::Backwards { what: "chain of hashes", from: 250_000, to: 249_999 },
        ),
        (Header { proposer: ValidatorIndex(9), ..good }, StepError::Proposer { proposer: 9, validators: 9 }),
    ];
    for (header, refused) in cases {
        assert_eq!(chain.step(header), Err(refused));
        assert_eq!(chain.client.trusted(), &trusted, "a refused step changes nothing");
    }
    assert_eq!(chain.step(good), Ok(()));
}

#[test]
fn a_header_without_the_seal_of_a_quorum_is_not_final() {
    let mut chain = Chain::new();
    let header = Header { round: Round(2), ..after(&chain.genesis) };
    let place = chain.place(&header);
    let quorum = signers(0..6);
    let votes = |error| StepError::Seal(SealError::Votes(error));
    let sealed = |round, header: &Header, signers| chain.cluster.seal(place, Round(round), header, signers);
    let Seal::Votes(good) = sealed(2, &header, quorum) else { unreachable!() };
    let other = Cluster::new(0, 50, 9);
    let elsewhere = Place { chain: ChainId([7; 32]), ..place };
    let prepared = chain.cluster.aggregate(quorum, &statement::prepare(place, Round(2), header.digest()));
    let cases = [
        (sealed(2, &header, signers(0..5)), votes(VotesError::Few { signers: 5, quorum: 6 })),
        (sealed(1, &header, quorum), StepError::Seal(SealError::Early { seal: 1, header: 2 })),
        (
            Seal::Votes(Votes { signers: signers((0..5).chain([9])), ..good }),
            votes(VotesError::Stranger { validators: 9 }),
        ),
        (Seal::Votes(Votes { signers: signers(1..7), ..good }), votes(VotesError::Signature)),
        (Seal::Votes(Votes { round: Round(3), ..good }), votes(VotesError::Signature)),
        (sealed(2, &Header { time: TimeMs(9_999), ..header }, quorum), votes(VotesError::Signature)),
        (other.seal(place, Round(2), &header, quorum), votes(VotesError::Signature)),
        (chain.cluster.seal(elsewhere, Round(2), &header, quorum), votes(VotesError::Signature)),
        // PREPARE votes of a quorum are a certificate and no seal.
        (Seal::Votes(Votes { signature: prepared, ..good }), votes(VotesError::Signature)),
        (Seal::Threshold { round: Round(2), signature: good.signature }, votes(VotesError::Signature)),
    ];
    for (seal, refused) in cases {
        assert_eq!(chain.client.step(header, &seal, None), Err(refused));
        assert_eq!(chain.client.trusted(), &chain.genesis);
    }
    // Sealed in a later round than it was made in, unchanged.
    let later = chain.cluster.seal(place, Round(7), &header, quorum);
    assert_eq!(chain.client.step(header, &later, None), Ok(()));
}

#[test]
fn the_end_of_an_epoch_hands_over_to_the_set_that_was_announced() {
    let mut chain = Chain::new();
    let next = Cluster::new(1, 20, 4);
    let last = Header { next_validators: next.set.digest(), ..after(&chain.genesis) };
    let seal = chain.seal(&last);
    let announced = |cluster: &Cluster| Some((cluster.set.clone(), cluster.keys.clone()));
    for handed in [None, announced(&chain.cluster), announced(&Cluster::new(1, 20, 5))] {
        assert_eq!(chain.client.step(last, &seal, handed), Err(StepError::Validators));
    }
    // An epoch is not left out, even by a header that announces it.
    let leap = Cluster::new(2, 20, 4);
    let leaping = Header { next_validators: leap.set.digest(), ..last };
    let leaping_seal = chain.seal(&leaping);
    assert_eq!(chain.client.step(leaping, &leaping_seal, announced(&leap)), Err(StepError::Validators));

    assert_eq!(chain.client.step(last, &seal, announced(&next)), Ok(()));
    let first = Header { epoch: last.epoch.next(), ..after(&last) };
    let place = chain.place(&first);
    let old = chain.cluster.seal(place, Round(0), &first, signers(0..6));
    let refused = SealError::Votes(VotesError::Stranger { validators: 4 });
    assert_eq!(chain.client.step(first, &old, None), Err(StepError::Seal(refused)));
    let new = next.seal(place, Round(0), &first, signers([0, 1, 3]));
    assert_eq!(chain.client.step(first, &new, announced(&next)), Err(StepError::Validators), "nothing was announced");
    assert_eq!(chain.client.step(first, &new, None), Ok(()));
}

#[test]
fn a_threshold_seal_needs_the_groups_key_and_nothing_else() {
    let chain = Chain::new();
    let group = secret(99);
    let keys = chain.cluster.keys.clone().with_group(&group.public_key()).unwrap();
    let mut client = LightClient::new(chain.id, chain.genesis, chain.cluster.set.clone(), keys).unwrap();
    let header = after(&chain.genesis);
    let commit = |round| group.sign(&statement::commit(chain.place(&header), Round(round), header.digest()));
    let seal = |round, signature| Seal::Threshold { round: Round(round), signature };
    let refused = Err(StepError::Seal(SealError::Votes(VotesError::Signature)));
    assert_eq!(client.step(header, &seal(1, commit(0)), None), refused);
    assert_eq!(client.step(header, &seal(0, Signature([0; 48])), None), refused);
    assert_eq!(client.step(header, &seal(0, commit(0)), None), Ok(()));
}

#[test]
fn a_light_proof_of_any_height_is_412_bytes_and_needs_the_groups_key_and_the_chain() {
    let chain = Chain::new();
    let group = secret(99);
    let key = VerifyingKey::new(&group.public_key()).unwrap();
    let header = Header { height: Height(9_000_000), round: Round(1), ..after(&chain.genesis) };
    let sealed = |round| {
        let signature = group.sign(&statement::commit(chain.place(&header), round, header.digest()));
        LightProof::new(header, &Seal::Threshold { round, signature }).unwrap()
    };
    let bytes = sealed(Round(2)).to_bytes();
    assert_eq!((bytes.len(), LightProof::BYTES), (412, 412));
    let proof = LightProof::from_bytes(&bytes).unwrap();
    assert_eq!(proof.check(chain.id, &key), Ok(&header));
    assert!(LightProof::from_bytes(&bytes[..411]).is_err());
    assert!(LightProof::from_bytes(&[&bytes[..], &[0]].concat()).is_err());

    let refused = Err(SealError::Votes(VotesError::Signature));
    assert_eq!(proof.check(ChainId([1; 32]), &key), refused);
    assert_eq!(proof.check(chain.id, &VerifyingKey::new(&secret(98).public_key()).unwrap()), refused);
    assert_eq!(LightProof { round: Round(3), ..proof }.check(chain.id, &key), refused);
    let other = Header { da_root: [1; 32], ..header };
    assert_eq!(LightProof { header: other, ..proof }.check(chain.id, &key), refused);
    assert_eq!(sealed(Round(0)).check(chain.id, &key), Err(SealError::Early { seal: 0, header: 1 }));
    let votes = chain.cluster.seal(chain.place(&header), Round(1), &header, signers(0..6));
    assert_eq!(LightProof::new(header, &votes), None, "votes need the set");
}

#[test]
fn a_seal_is_checked_at_the_height_of_its_header() {
    let chain = Chain::new();
    let header = after(&chain.genesis);
    let place = Place { height: Height(2), ..chain.place(&header) };
    let seal = chain.cluster.seal(place, Round(0), &header, signers(0..6));
    let refused = seal.check(place, &header, &chain.cluster.set, &chain.cluster.keys);
    assert_eq!(refused, Err(SealError::Height { header: 1, place: 2 }));
}
