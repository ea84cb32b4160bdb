//! Whom a checker believes: host keys and chains, given from outside the evidence.
//!
//! Either a registry, `{"hosts":[{"id":"spiffe://…","publicKey":"-----BEGIN PUBLIC KEY-----\n…"}]}`, in which one host may have
//! several keys (rotation) but one key only one host; or a single public key in PEM, which is believed for whatever host it names.
//! A registry may also name chains, `"chains":[{"id":"<hex>","validatorSets":["<hex>",…],"groupKey":"<hex>"}]`: each by the digest of its
//! genesis, with the digests of the validator sets whose seals are believed, one for each epoch, the key that all its sets share for
//! threshold seals, or both; and, if it matters who keeps data, with `"pinners":["<hex>",…]`, the identities that count.
//! Absent on purpose: validity periods, which need a clock that both sides believe.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::consensus::bls::Keys;
use crate::consensus::ids::{ChainId, SetDigest};
use crate::consensus::scheme;
use crate::key::{KeyError, PublicKey};
use crate::schema::is_spiffe_id;

/// Longest trust file: about five thousand hosts.
pub const TRUST_BYTES_MAX: usize = 1 << 20;

/// Why a trust file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// Longer than the limit.
    #[error("the trust file has {bytes} bytes, more than the limit of {max}", max = TRUST_BYTES_MAX)]
    TooLong {
        /// Length found.
        bytes: usize,
    },
    /// Neither of the two forms.
    #[error("the trust file is neither a public key in PEM nor {{\"hosts\":[{{\"id\":…,\"publicKey\":…}}]}}: {reason}")]
    Form {
        /// What the reader said.
        reason: String,
    },
    /// The single key is unusable.
    #[error("the trust file: {0}")]
    Key(#[source] KeyError),
    /// Several keys in PEM form.
    #[error(
        "the trust file holds {found} PEM blocks; for several keys use the form {{\"hosts\":[…]}}, which says whose each is"
    )]
    SeveralKeys {
        /// How many.
        found: usize,
    },
    /// A host's key is unusable.
    #[error("the key of host {id:?} in the trust file: {source}")]
    HostKey {
        /// The host.
        id: String,
        /// What is wrong.
        source: KeyError,
    },
    /// An id that is no SPIFFE id.
    #[error("host id {id:?} in the trust file is not of the form spiffe://<trust domain>/<path>")]
    HostId {
        /// The refused id.
        id: String,
    },
    /// One key for two hosts.
    #[error("key {keyid} is listed twice in the trust file, for {first:?} and for {second:?}")]
    SharedKey {
        /// Name of the key.
        keyid: String,
        /// The first host.
        first: String,
        /// The second host.
        second: String,
    },
    /// A registry without hosts.
    #[error("the trust file lists no host; without one nothing can be checked")]
    NoHost,
    /// A digest or key that is none.
    #[error("{what} {found:?} in the trust file is not {digits} hexadecimal digits")]
    Digits {
        /// What it should be.
        what: &'static str,
        /// What it is.
        found: String,
        /// How many it has to have.
        digits: usize,
    },
    /// A chain is named twice.
    #[error("chain {id} is listed twice in the trust file; list all its validator sets in one place")]
    ChainTwice {
        /// Which.
        id: ChainId,
    },
    /// A chain whose seals nobody could check.
    #[error("chain {id} in the trust file has neither a validator set nor a group key")]
    NoSet {
        /// Which.
        id: ChainId,
    },
    /// A group key that is no point.
    #[error("the groupKey of chain {id} in the trust file is no point of G2")]
    GroupKey {
        /// Which.
        id: ChainId,
    },
}

/// Host keys by name, and chains by id.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    keys: BTreeMap<String, Trusted>,
    chains: BTreeMap<ChainId, TrustedChain>,
}

/// A chain whose final headers are believed.
#[derive(Clone, Debug)]
pub(crate) struct TrustedChain {
    /// Whose seals by votes are believed.
    pub(crate) sets: BTreeSet<SetDigest>,
    /// What threshold seals are checked against.
    pub(crate) group: Option<Keys>,
    /// Whose acknowledgements count; `None`: those of whom its validators let count.
    pub(crate) pinners: Option<BTreeSet<[u8; 32]>>,
}

/// A key that is believed.
#[derive(Clone, Debug)]
pub(crate) struct Trusted {
    pub(crate) key: PublicKey,
    /// For which host; for any when it was given as a bare key.
    pub(crate) host: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Registry {
    hosts: Vec<RegisteredHost>,
    #[serde(default)]
    chains: Vec<RegisteredChain>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RegisteredChain {
    id: String,
    #[serde(default)]
    validator_sets: Vec<String>,
    #[serde(default)]
    group_key: Option<String>,
    #[serde(default)]
    pinners: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RegisteredHost {
    id: String,
    public_key: String,
}

impl Trust {
    /// Believes nobody: then no signature can be checked.
    pub fn none() -> Self {
        Self::default()
    }

    /// Believes one key, for whatever host it names.
    pub fn from_key(key: PublicKey) -> Self {
        Self { keys: BTreeMap::from([(key.keyid(), Trusted { key, host: None })]), ..Self::default() }
    }

    /// Reads a trust file of either form.
    ///
    /// # Errors
    ///
    /// [`TrustError`] names the host and what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, TrustError> {
        if bytes.len() > TRUST_BYTES_MAX {
            return Err(TrustError::TooLong { bytes: bytes.len() });
        }
        let text = std::str::from_utf8(bytes).map_err(|error| TrustError::Form { reason: error.to_string() })?;
        match text.matches("-----BEGIN").count() {
            _ if text.trim_start().starts_with('{') => Self::from_registry(text),
            0 => Err(TrustError::Form { reason: "it is neither JSON nor PEM".to_owned() }),
            1 => PublicKey::from_spki_pem(text).map(Self::from_key).map_err(TrustError::Key),
            found => Err(TrustError::SeveralKeys { found }),
        }
    }

    fn from_registry(text: &str) -> Result<Self, TrustError> {
        let registry: Registry =
            serde_json::from_str(text).map_err(|error| TrustError::Form { reason: error.to_string() })?;
        let mut keys: BTreeMap<String, Trusted> = BTreeMap::new();
        for RegisteredHost { id, public_key } in registry.hosts {
            if !is_spiffe_id(&id) {
                return Err(TrustError::HostId { id: id.chars().take(200).collect() });
            }
            let key = PublicKey::from_spki_pem(&public_key)
                .map_err(|source| TrustError::HostKey { id: id.clone(), source })?;
            let keyid = key.keyid();
            let trusted = Trusted { key, host: Some(id.clone()) };
            if let Some(first) = keys.insert(keyid.clone(), trusted) {
                return Err(TrustError::SharedKey { keyid, first: first.host.unwrap_or_default(), second: id });
            }
        }
        if keys.is_empty() {
            return Err(TrustError::NoHost);
        }
        let mut chains = BTreeMap::new();
        for chain in registry.chains {
            let (id, chain) = read_chain(&chain)?;
            if chains.insert(id, chain).is_some() {
                return Err(TrustError::ChainTwice { id });
            }
        }
        Ok(Self { keys, chains })
    }

    /// True when seals of this validator set on this chain are believed.
    pub fn knows_set(&self, chain: &ChainId, set: &SetDigest) -> bool {
        self.chains.get(chain).is_some_and(|chain| chain.sets.contains(set))
    }

    /// The key that threshold seals of this chain are checked against.
    pub fn group(&self, chain: &ChainId) -> Option<&Keys> {
        self.chains.get(chain)?.group.as_ref()
    }

    pub(crate) fn chain(&self, id: &ChainId) -> Option<&TrustedChain> {
        self.chains.get(id)
    }

    pub(crate) fn has_chains(&self) -> bool {
        !self.chains.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(crate) fn get(&self, keyid: &str) -> Option<&Trusted> {
        self.keys.get(keyid)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Trusted> {
        self.keys.values()
    }
}

fn read_chain(chain: &RegisteredChain) -> Result<(ChainId, TrustedChain), TrustError> {
    let id = ChainId(digits("chain id", &chain.id)?);
    let sets: BTreeSet<_> =
        chain.validator_sets.iter().map(|set| digits("validator set", set).map(SetDigest)).collect::<Result<_, _>>()?;
    let group = match &chain.group_key {
        None => None,
        Some(key) => {
            let key = scheme::PublicKey(digits("groupKey", key)?);
            Some(Keys::of_group(&key).map_err(|_| TrustError::GroupKey { id })?)
        }
    };
    if sets.is_empty() && group.is_none() {
        return Err(TrustError::NoSet { id });
    }
    let pinners = chain.pinners.iter().flatten().map(|pinner| digits("pinner", pinner)).collect::<Result<_, _>>()?;
    Ok((id, TrustedChain { sets, group, pinners: chain.pinners.is_some().then_some(pinners) }))
}

fn digits<const N: usize>(what: &'static str, text: &str) -> Result<[u8; N], TrustError> {
    let mut bytes = [0; N];
    match hex::decode_to_slice(text, &mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => Err(TrustError::Digits { what, found: text.chars().take(200).collect(), digits: 2 * N }),
    }
}
