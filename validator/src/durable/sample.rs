//! Votes and headers for tests of what is kept. Nobody has signed them.
#![allow(clippy::unwrap_used)]

use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{HeaderDigest, Height, Round, ValidatorIndex};
use bpi_protocol::consensus::justification::{Justification, SignedRoundChange};
use bpi_protocol::consensus::message::{Body, Commit, Message, Proposal, RoundChange, Vote};
use bpi_protocol::consensus::scheme::Signature;
use bpi_protocol::consensus::seal::Votes;
use bpi_protocol::consensus::validators::Signers;

use super::position_of;
use crate::core::Record;
use crate::keys::KeyFingerprint;

pub const KEY: KeyFingerprint = KeyFingerprint([7; 32]);
const SIGNATURE: Signature = Signature([3; 48]);

/// The vote of a message.
pub fn vote_of(height: u64, body: Body) -> Record {
    let message = Message { height: Height(height), body };
    Record::Vote { position: position_of(&message).unwrap(), message: Box::new(message) }
}

fn vote(round: u32, seed: u8) -> Vote {
    Vote { sender: ValidatorIndex(1), round: Round(round), digest: HeaderDigest([seed; 32]), signature: SIGNATURE }
}

pub fn prepare(height: u64, round: u32, seed: u8) -> Record {
    vote_of(height, Body::Prepare(vote(round, seed)))
}

pub fn commit(height: u64, round: u32, seed: u8) -> Record {
    vote_of(height, Body::Commit(Commit { vote: vote(round, seed), partials: None }))
}

fn signed_change(round: u32) -> SignedRoundChange {
    SignedRoundChange { sender: ValidatorIndex(1), round: Round(round), prepared: None, signature: SIGNATURE }
}

pub fn round_change(height: u64, round: u32) -> Record {
    let prepared = Some((header(height, round), votes(round)));
    vote_of(height, Body::RoundChange(Box::new(RoundChange { signed: signed_change(round), prepared })))
}

/// A proposal with so many round changes: of 128 it has some 8 kB.
pub fn proposal(height: u64, round: u32, changes: usize) -> Record {
    let round_changes = vec![signed_change(round); changes];
    let justification = Some(Justification { round_changes, prepared: Some(votes(round)) });
    let header = header(height, round);
    let (sender, round) = (ValidatorIndex(1), Round(round));
    vote_of(height, Body::Proposal(Box::new(Proposal { sender, round, header, justification, signature: SIGNATURE })))
}

pub fn votes(round: u32) -> Votes {
    Votes { round: Round(round), signers: Signers(0b1011), signature: SIGNATURE }
}

fn header(height: u64, round: u32) -> Header {
    Header { height: Height(height), round: Round(round), ..Header::default() }
}

pub fn prepared(height: u64, round: u32) -> Record {
    Record::Prepared { header: Box::new(header(height, round)), votes: votes(round) }
}
