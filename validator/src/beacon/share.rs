//! A validator's secret share, and what it signs with it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use bpi_protocol::consensus::bls::SecretKey;
use bpi_protocol::consensus::ids::{Epoch, HeaderDigest, Height, Round, SetDigest, ValidatorIndex};
use bpi_protocol::consensus::message::Partials;
use bpi_protocol::consensus::scheme::{Signature, Signer as _};
use bpi_protocol::consensus::statement::{self, Place};

use super::sharing::Sharing;
use crate::core::Shares;

/// The secret half of a share, of one set. Wiped when dropped; never printed.
///
/// A partial signature is an ordinary one by this key, over the very statement that the group's signature is for: so the group's is an
/// ordinary signature too, and nobody who checks it needs to know of shares.
pub struct Share {
    epoch: Epoch,
    set: SetDigest,
    index: ValidatorIndex,
    secret: SecretKey,
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, index, .. } = self;
        f.debug_struct("Share").field("epoch", epoch).field("index", index).finish_non_exhaustive()
    }
}

impl Share {
    /// A validator's share. `None` if it is not the one that the sharing has for it.
    pub fn new(sharing: &Sharing, index: ValidatorIndex, secret: SecretKey) -> Option<Self> {
        let fits = sharing.key(index).is_some_and(|key| key.public_key() == secret.public_key());
        fits.then_some(Self { epoch: sharing.epoch(), set: sharing.set(), index, secret })
    }

    /// Of which epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Of which set.
    pub fn set(&self) -> SetDigest {
        self.set
    }

    /// Whose.
    pub fn index(&self) -> ValidatorIndex {
        self.index
    }

    pub(super) fn secret(&self) -> &SecretKey {
        &self.secret
    }

    /// Its part of the group's signature over a statement.
    pub fn sign(&self, statement: &[u8]) -> Signature {
        self.secret.sign(statement)
    }

    /// Its part of the seed that goes into the header after a height.
    pub fn seed_after(&self, place: Place) -> Signature {
        self.sign(&statement::seed(Place { height: place.height.next(), ..place }, self.epoch))
    }

    /// Its parts of both signatures, for a COMMIT vote.
    pub fn partials(&self, place: Place, round: Round, digest: HeaderDigest) -> Partials {
        Partials { seal: self.sign(&statement::commit(place, round, digest)), seed: self.seed_after(place) }
    }
}

/// A validator's shares by the height from which each holds. A copy is the same book: the host fills it in while the core signs from it.
#[derive(Clone, Debug, Default)]
pub struct ShareBook(Arc<RwLock<BTreeMap<Height, Option<Arc<Share>>>>>);

impl ShareBook {
    /// From this height on, the share is this one. `None`: there is none, and COMMIT votes go without.
    ///
    /// A share is kept durably before ([`super::share_file`]).
    pub fn install(&self, from: Height, share: Option<Arc<Share>>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(from, share);
    }

    /// Forgets shares that no height from `height` on is signed with.
    pub fn forget_before(&self, height: Height) {
        let mut book = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(present) = book.range(..=height).next_back().map(|(from, _)| *from) {
            *book = book.split_off(&present);
        }
    }

    /// The share of a height.
    pub fn at(&self, height: Height) -> Option<Arc<Share>> {
        let book = self.0.read().unwrap_or_else(PoisonError::into_inner);
        book.range(..=height).next_back().and_then(|(_, share)| share.clone())
    }
}

impl Shares for ShareBook {
    fn partials(&self, place: Place, round: Round, digest: HeaderDigest) -> Option<Partials> {
        self.at(place.height).map(|share| share.partials(place, round, digest))
    }
}
