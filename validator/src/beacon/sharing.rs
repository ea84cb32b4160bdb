//! What a ceremony gives to everybody: the key that all share, and the public half of each share.

use std::num::NonZeroU32;

use bpi_protocol::consensus::bls::VerifyingKey;
use bpi_protocol::consensus::bytes::{BytesError, Reader, Writer};
use bpi_protocol::consensus::ids::{Epoch, SetDigest, ValidatorIndex};
use bpi_protocol::consensus::scheme::{PublicKey, Signature};
use bpi_protocol::consensus::validators::{Signers, VALIDATORS_MAX, ValidatorSet};
use commonware_codec::{Copying, Decode as _, DecodeExt as _, Encode as _};
use commonware_cryptography::bls12381::dkg::feldman_desmedt;
use commonware_cryptography::bls12381::primitives::ops::threshold;
use commonware_cryptography::bls12381::primitives::sharing::ModeVersion;
use commonware_cryptography::bls12381::primitives::variant::{MinSig, PartialSignature, Variant};
use commonware_parallel::Sequential;
use commonware_utils::Participant;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::member::Member;

pub(super) type Output = feldman_desmedt::Output<MinSig, Member>;
type G1 = <MinSig as Variant>::Signature;

/// Version of the layout, the first byte.
const VERSION: u8 = 1;
/// What the library may allocate for: the largest set.
pub(super) const MEMBERS_MAX: NonZeroU32 = NonZeroU32::new(VALIDATORS_MAX as u32).unwrap();

/// Why a sharing is none of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SharingError {
    /// Another epoch or other members.
    #[error("the sharing is of another validator set")]
    Set,
    /// It takes more or fewer shares than votes.
    #[error("{shares} shares make a signature, and {quorum} votes a seal")]
    Quorum {
        /// Shares that it takes.
        shares: usize,
        /// The set's quorum.
        quorum: usize,
    },
    /// A share's public half is no key. No ceremony of honest members ends so.
    #[error("the public half of a share, or of their sum, is no point of G2")]
    Point,
    /// The library's bytes are none.
    #[error("the bytes of the polynomial are none")]
    Polynomial,
    /// Neither are those around them.
    #[error(transparent)]
    Bytes(#[from] BytesError),
}

/// The public polynomial of a validator set: the constant term is the group's key, and a validator's share is its value at the validator's
/// point, which is one more than the rank of its key among the set's keys.
#[derive(Clone, Debug)]
pub struct Sharing {
    epoch: Epoch,
    set: SetDigest,
    group: VerifyingKey,
    /// By validator: its point, and the public half of its share.
    shares: Vec<(Participant, VerifyingKey)>,
    revealed: Signers,
    output: Output,
}

impl PartialEq for Sharing {
    fn eq(&self, other: &Self) -> bool {
        (self.epoch, self.set, &self.output) == (other.epoch, other.set, &other.output)
    }
}

impl Sharing {
    pub(super) fn new(set: &ValidatorSet, output: Output) -> Result<Self, SharingError> {
        let public = output.public();
        let shares = usize::try_from(public.required()).unwrap_or(usize::MAX);
        if shares != set.quorum() {
            return Err(SharingError::Quorum { shares, quorum: set.quorum() });
        }
        if output.players().len() != set.len() || public.total().get() as usize != set.len() {
            return Err(SharingError::Set);
        }
        let key = |point: &[u8]| {
            let bytes = <[u8; 96]>::try_from(point).map_err(|_| SharingError::Point)?;
            VerifyingKey::new(&PublicKey(bytes)).map_err(|_| SharingError::Point)
        };
        let mut shares = Vec::with_capacity(set.len());
        let mut revealed = Signers::default();
        for (index, validator) in set.indices().zip(set.members()) {
            let member = Member::of(&validator.key);
            let point = output.players().position(&member).map(Participant::from_usize).ok_or(SharingError::Set)?;
            let half = public.partial_public(point).map_err(|_| SharingError::Set)?;
            shares.push((point, key(&half.encode())?));
            if output.revealed().position(&member).is_some() {
                revealed = revealed.with(index);
            }
        }
        let group = key(&public.public().encode())?;
        Ok(Self { epoch: set.epoch(), set: set.digest(), group, shares, revealed, output })
    }

    /// Of which epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Of which set.
    pub fn set(&self) -> SetDigest {
        self.set
    }

    /// The key that all share. It outlives the set: a later ceremony hands it on.
    pub fn group(&self) -> &VerifyingKey {
        &self.group
    }

    /// The public half of a validator's share.
    pub fn key(&self, index: ValidatorIndex) -> Option<&VerifyingKey> {
        self.shares.get(index.at()).map(|(_, key)| key)
    }

    /// Shares that make a signature: the set's quorum.
    pub fn quorum(&self) -> usize {
        bpi_protocol::consensus::validators::quorum(self.shares.len())
    }

    /// Whose shares the logs of the ceremony give away, or may: they did not acknowledge their dealings in time.
    pub fn revealed(&self) -> Signers {
        self.revealed
    }

    pub(super) fn output(&self) -> &Output {
        &self.output
    }

    /// The group's signature from partial ones, one of each validator: by Lagrange's formula at zero, of the first quorum of them.
    /// **Nothing is checked** but that they are points of the group: the result holds if all of them do.
    ///
    /// `None` for fewer than a quorum, for strangers, and for what is no point.
    pub fn recover(&self, partials: &[(ValidatorIndex, Signature)]) -> Option<Signature> {
        let mut points = Vec::with_capacity(self.quorum());
        for (index, signature) in partials.iter().take(self.quorum()) {
            let value = G1::decode(Copying(&signature.0)).ok()?;
            points.push(PartialSignature { index: self.shares.get(index.at())?.0, value });
        }
        let whole = threshold::recover::<MinSig, _>(self.output.public(), &points, &Sequential).ok()?;
        whole.encode().as_ref().try_into().map(Signature).ok()
    }

    /// Canonical bytes: what a node keeps for the next ceremony.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(VERSION).u64(self.epoch.0).bytes(&self.set.0).bytes(&self.output.encode());
        out.done()
    }

    /// Reads canonical bytes that this node has written itself, or whose [`Sharing::digest`] is known: they are only checked against the
    /// set.
    ///
    /// # Errors
    /// [`SharingError`] for bytes of another set, or of none.
    pub fn from_bytes(bytes: &[u8], set: &ValidatorSet) -> Result<Self, SharingError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            other => return Err(BytesError::Value { field: "version of a sharing", value: other.into() }.into()),
        }
        if (Epoch(reader.u64()?), SetDigest(reader.array()?)) != (set.epoch(), set.digest()) {
            return Err(SharingError::Set);
        }
        let rest = bytes.get(1 + 8 + 32..).unwrap_or_default();
        let bounds = (MEMBERS_MAX, ModeVersion::v0());
        let output = Output::decode_cfg(Copying(rest), &bounds).map_err(|_| SharingError::Polynomial)?;
        if output.encode() != rest {
            return Err(SharingError::Polynomial);
        }
        Self::new(set, output)
    }

    /// Names it: SHA-256 of `bpi.sharing.v1`, a zero byte and its bytes.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::new().chain_update("bpi.sharing.v1").chain_update([0]).chain_update(self.to_bytes()).finalize().into()
    }
}
