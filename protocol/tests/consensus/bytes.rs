//! Canonical bytes: what is written is read the same, and nothing else is read.

use std::fmt::Debug;

use bpi_protocol::consensus::bytes::{BytesError, Reader, Writer};
use bpi_protocol::consensus::equivocation::{Equivocation, Said};
use bpi_protocol::consensus::header::{HEADER_BYTES, Header, InboxAnchor, LogHead, PohEnd, Seed};
use bpi_protocol::consensus::ids::{Epoch, HeaderDigest, Height, Round, SetDigest, TimeMs, ValidatorIndex};
use bpi_protocol::consensus::justification::{Justification, SignedRoundChange};
use bpi_protocol::consensus::message::{
    Body, Commit, Final, MESSAGE_BYTES_MAX, Message, Partials, Proposal, RoundChange, Vote,
};
use bpi_protocol::consensus::scheme::{PublicKey, Signature};
use bpi_protocol::consensus::seal::{Seal, Votes};
use bpi_protocol::consensus::statement::PreparedClaim;
use bpi_protocol::consensus::validators::{SetError, Signers, VALIDATORS_MAX, Validator, ValidatorSet};
use proptest::prelude::*;
use proptest::sample::Index;

fn hash() -> impl Strategy<Value = [u8; 32]> {
    any::<[u8; 32]>()
}

fn signature() -> impl Strategy<Value = Signature> {
    any::<[u8; 48]>().prop_map(Signature)
}

fn numbered() -> impl Strategy<Value = (u64, [u8; 32])> {
    (any::<u64>(), hash())
}

fn header() -> impl Strategy<Value = Header> {
    let place = (any::<u64>(), any::<u32>(), hash(), any::<u64>());
    let roots = (numbered(), hash(), hash(), numbered(), numbered());
    let voters = (prop::option::of(signature()), any::<u64>(), hash(), hash(), any::<u16>());
    (place, roots, voters).prop_map(|(place, roots, voters)| Header {
        height: Height(place.0),
        round: Round(place.1),
        parent: HeaderDigest(place.2),
        time: TimeMs(place.3),
        receipts: LogHead { size: roots.0.0, root: roots.0.1 },
        da_root: roots.1,
        inclusion_list_root: roots.2,
        inbox: InboxAnchor { height: roots.3.0, hash: roots.3.1 },
        poh: PohEnd { count: roots.4.0, hash: roots.4.1 },
        seed: voters.0.map_or(Seed::RoundRobin, Seed::Threshold),
        epoch: Epoch(voters.1),
        validators: SetDigest(voters.2),
        next_validators: SetDigest(voters.3),
        proposer: ValidatorIndex(voters.4),
    })
}

fn votes() -> impl Strategy<Value = Votes> {
    (any::<u32>(), any::<u128>(), signature()).prop_map(|(round, signers, signature)| Votes {
        round: Round(round),
        signers: Signers(signers),
        signature,
    })
}

fn seal() -> impl Strategy<Value = Seal> {
    let threshold =
        (any::<u32>(), signature()).prop_map(|(round, signature)| Seal::Threshold { round: Round(round), signature });
    prop_oneof![votes().prop_map(Seal::Votes), threshold]
}

fn claim() -> impl Strategy<Value = PreparedClaim> {
    (any::<u32>(), hash())
        .prop_map(|(round, digest)| PreparedClaim { round: Round(round), digest: HeaderDigest(digest) })
}

fn round_change() -> impl Strategy<Value = SignedRoundChange> {
    (any::<u16>(), any::<u32>(), prop::option::of(claim()), signature()).prop_map(
        |(sender, round, prepared, signature)| SignedRoundChange {
            sender: ValidatorIndex(sender),
            round: Round(round),
            prepared,
            signature,
        },
    )
}

fn justification() -> impl Strategy<Value = Justification> {
    (prop::collection::vec(round_change(), 0..12), prop::option::of(votes()))
        .prop_map(|(round_changes, prepared)| Justification { round_changes, prepared })
}

fn vote() -> impl Strategy<Value = Vote> {
    (any::<u16>(), any::<u32>(), hash(), signature()).prop_map(|(sender, round, digest, signature)| Vote {
        sender: ValidatorIndex(sender),
        round: Round(round),
        digest: HeaderDigest(digest),
        signature,
    })
}

fn body() -> impl Strategy<Value = Body> {
    let proposal = (any::<u16>(), any::<u32>(), header(), prop::option::of(justification()), signature());
    let partials = (signature(), signature()).prop_map(|(seal, seed)| Partials { seal, seed });
    prop_oneof![
        proposal.prop_map(|(sender, round, header, justification, signature)| {
            let (sender, round) = (ValidatorIndex(sender), Round(round));
            Body::Proposal(Box::new(Proposal { sender, round, header, justification, signature }))
        }),
        vote().prop_map(Body::Prepare),
        (vote(), prop::option::of(partials)).prop_map(|(vote, partials)| Body::Commit(Commit { vote, partials })),
        (round_change(), prop::option::of((header(), votes())))
            .prop_map(|(signed, prepared)| Body::RoundChange(Box::new(RoundChange { signed, prepared }))),
        Just(Body::Status),
        Just(Body::Request),
        (header(), seal()).prop_map(|(header, seal)| Body::Final(Box::new(Final { header, seal }))),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    (any::<u64>(), body()).prop_map(|(height, body)| Message { height: Height(height), body })
}

fn set() -> impl Strategy<Value = ValidatorSet> {
    let member = (any::<[u8; 96]>(), signature(), 1_u16..).prop_map(|(key, possession, weight)| Validator {
        key: PublicKey(key),
        possession,
        weight,
    });
    (any::<u64>(), prop::collection::vec(member, 1..20))
        .prop_map(|(epoch, members)| ValidatorSet::new(Epoch(epoch), members).unwrap())
}

fn said() -> impl Strategy<Value = Said> {
    let digest = || hash().prop_map(HeaderDigest);
    prop_oneof![
        prop::option::of(claim()).prop_map(Said::RoundChange),
        digest().prop_map(Said::Proposal),
        digest().prop_map(Said::Prepare),
        digest().prop_map(Said::Commit),
    ]
}

fn equivocation() -> impl Strategy<Value = Equivocation> {
    let one = || (said(), signature());
    (any::<u16>(), any::<u64>(), any::<u32>(), one(), one()).prop_map(|(sender, height, round, first, second)| {
        Equivocation {
            sender: ValidatorIndex(sender),
            height: Height(height),
            round: Round(round),
            both: [first, second],
        }
    })
}

/// Where bytes are cut and which bit is turned.
fn damage() -> impl Strategy<Value = (Index, Index, u8)> {
    (any::<Index>(), any::<Index>(), 0..8_u8)
}

fn whole<T>(
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, BytesError>,
) -> impl FnOnce(&[u8]) -> Result<T, BytesError> {
    |bytes| {
        let mut reader = Reader::new(bytes);
        let value = read(&mut reader)?;
        reader.end()?;
        Ok(value)
    }
}

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut out = Writer::new();
    write(&mut out);
    out.done()
}

/// The value is read from its bytes, not from fewer or more, and bytes with one bit turned are either refused or those of another value.
fn one_spelling<T: PartialEq + Debug, E: Debug>(
    value: &T,
    write: impl Fn(&T) -> Vec<u8>,
    read: impl Fn(&[u8]) -> Result<T, E>,
    (cut, turned, bit): (Index, Index, u8),
) -> Result<(), TestCaseError> {
    let mut bytes = write(value);
    let again = read(&bytes);
    prop_assert!(again.as_ref().is_ok_and(|again| again == value), "{again:?}");
    prop_assert!(read(&bytes[..cut.index(bytes.len())]).is_err());
    prop_assert!(read(&bytes[..bytes.len() - 1]).is_err());
    prop_assert!(read(&[&bytes[..], &[0]].concat()).is_err());
    let at = turned.index(bytes.len());
    bytes[at] ^= 1 << bit;
    if let Ok(other) = read(&bytes) {
        prop_assert_ne!(&other, value);
        prop_assert_eq!(write(&other), bytes);
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_header_has_one_spelling_of_one_length(header in header(), damage in damage()) {
        prop_assert_eq!(header.to_bytes().len(), HEADER_BYTES);
        one_spelling(&header, |header| header.to_bytes(), Header::from_bytes, damage)?;
    }

    #[test]
    fn a_message_of_any_kind_has_one_spelling(message in message(), damage in damage()) {
        one_spelling(&message, Message::to_bytes, Message::from_bytes, damage)?;
    }

    #[test]
    fn votes_and_seals_have_one_spelling(votes in votes(), seal in seal(), damage in damage()) {
        prop_assert_eq!(written(|out| votes.write(out)).len(), Votes::BYTES);
        let read = |bytes: &[u8]| whole(Votes::read)(bytes);
        one_spelling(&votes, |votes| written(|out| votes.write(out)), read, damage)?;
        let read = |bytes: &[u8]| whole(Seal::read)(bytes);
        one_spelling(&seal, |seal| written(|out| seal.write(out)), read, damage)?;
    }

    #[test]
    fn round_changes_and_justifications_have_one_spelling(
        change in round_change(), justification in justification(), damage in damage(),
    ) {
        let read = |bytes: &[u8]| whole(SignedRoundChange::read)(bytes);
        one_spelling(&change, |change| written(|out| change.write(out)), read, damage)?;
        let read = |bytes: &[u8]| whole(Justification::read)(bytes);
        one_spelling(&justification, |justification| written(|out| justification.write(out)), read, damage)?;
    }

    #[test]
    fn a_validator_set_has_one_spelling(set in set(), damage in damage()) {
        one_spelling(&set, ValidatorSet::to_bytes, ValidatorSet::from_bytes, damage)?;
    }

    #[test]
    fn evidence_of_equivocation_has_one_spelling(evidence in equivocation(), damage in damage()) {
        one_spelling(&evidence, |evidence| evidence.to_bytes(), Equivocation::from_bytes, damage)?;
    }

    #[test]
    fn bytes_that_are_no_message_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        // With a version and each kind before them, so that more than the first byte is looked at.
        for kind in 0..=8 {
            let bytes = [&[1, kind], bytes.as_slice()].concat();
            if let Ok(message) = Message::from_bytes(&bytes) {
                prop_assert_eq!(message.to_bytes(), bytes);
            }
        }
    }
}

#[test]
fn versions_and_kinds_that_are_not_known_are_refused() {
    let kind = |bytes: &[u8]| match Message::from_bytes(bytes) {
        Err(BytesError::Value { field, value }) => (field, value),
        other => panic!("{other:?}"),
    };
    let status = Message { height: Height(3), body: Body::Status }.to_bytes();
    for version in [0, 2, 255] {
        let mut bytes = status.clone();
        bytes[0] = version;
        assert_eq!(kind(&bytes), ("version of a message", version.into()));
        let mut bytes = Header::default().to_bytes();
        bytes[0] = version;
        let refused = BytesError::Value { field: "version of a header", value: version.into() };
        assert_eq!(Header::from_bytes(&bytes), Err(refused));
    }
    for unknown in [0, 8, 255] {
        let mut bytes = status.clone();
        bytes[1] = unknown;
        assert_eq!(kind(&bytes), ("kind of a message", unknown.into()));
    }
    for unknown in [0, 3, 255] {
        let refused = BytesError::Value { field: "kind of a seal", value: unknown.into() };
        assert_eq!(Seal::read(&mut Reader::new(&[unknown; 80])), Err(refused));
    }
    let (said, signature) = (Said::Commit(HeaderDigest::default()), Signature([0; 48]));
    let evidence = Equivocation {
        sender: ValidatorIndex(0),
        height: Height(1),
        round: Round(0),
        both: [(said, signature), (said, signature)],
    };
    for (at, value, field) in
        [(0, 0, "version of evidence"), (0, 2, "version of evidence"), (15, 5, "kind of a statement")]
    {
        let mut bytes = evidence.to_bytes();
        bytes[at] = value;
        let refused = BytesError::Value { field, value: value.into() };
        assert_eq!(Equivocation::from_bytes(&bytes), Err(refused));
    }
}

#[test]
fn a_header_without_a_seed_holds_no_signature_in_its_place() {
    let mut bytes = Header::default().to_bytes();
    let seed = HEADER_BYTES - 2 - 32 - 32 - 8 - 49;
    assert_eq!(bytes[seed], 0);
    bytes[seed + 20] = 1;
    assert_eq!(Header::from_bytes(&bytes), Err(BytesError::Value { field: "method of a seed", value: 0 }));
    bytes[seed] = 1;
    assert!(Header::from_bytes(&bytes).is_ok());
    bytes[seed] = 2;
    assert_eq!(Header::from_bytes(&bytes), Err(BytesError::Value { field: "method of a seed", value: 2 }));
}

#[test]
fn lists_are_no_longer_than_a_validator_set() {
    let count = |count: u16| count.to_be_bytes();
    let set = [&[0; 8][..], &count(129), &[0; 129 * 146]].concat();
    let refused = BytesError::Count { field: "validators", count: 129, max: VALIDATORS_MAX };
    assert_eq!(ValidatorSet::from_bytes(&set), Err(SetError::Bytes(refused)));
    let changes = [&count(129)[..], &[0; 129 * 55]].concat();
    let refused = BytesError::Count { field: "round changes", count: 129, max: VALIDATORS_MAX };
    assert_eq!(Justification::read(&mut Reader::new(&changes)), Err(refused));
}

#[test]
fn the_longest_message_may_be_sent_and_a_longer_one_is_not_read() {
    let claim = PreparedClaim { round: Round(8), digest: HeaderDigest([7; 32]) };
    let change = |sender| SignedRoundChange {
        sender: ValidatorIndex(sender),
        round: Round(9),
        prepared: Some(claim),
        signature: Signature([3; 48]),
    };
    let justification = Justification {
        round_changes: (0..VALIDATORS_MAX as u16).map(change).collect(),
        prepared: Some(Votes { round: Round(8), signers: Signers(u128::MAX), signature: Signature([4; 48]) }),
    };
    let proposal = Proposal {
        sender: ValidatorIndex(0),
        round: Round(9),
        header: Header { seed: Seed::Threshold(Signature([5; 48])), ..Header::default() },
        justification: Some(justification),
        signature: Signature([6; 48]),
    };
    let message = Message { height: Height(1), body: Body::Proposal(Box::new(proposal)) };
    let bytes = message.to_bytes();
    assert!(bytes.len() <= MESSAGE_BYTES_MAX, "{}", bytes.len());
    assert_eq!(Message::from_bytes(&bytes), Ok(message));
    let refused = BytesError::Count { field: "message", count: MESSAGE_BYTES_MAX + 1, max: MESSAGE_BYTES_MAX };
    assert_eq!(Message::from_bytes(&[1; MESSAGE_BYTES_MAX + 1]), Err(refused));
}
