//! Whom a checker believes: host keys, given from outside the evidence.
//!
//! Either a registry, `{"hosts":[{"id":"spiffe://…","publicKey":"-----BEGIN PUBLIC KEY-----\n…"}]}`, in which one host may have
//! several keys (rotation) but one key only one host; or a single public key in PEM, which is believed for whatever host it names.
//! Absent on purpose: validity periods, which need a clock that both sides believe.

use std::collections::BTreeMap;

use serde::Deserialize;

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
}

/// Host keys by name.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    keys: BTreeMap<String, Trusted>,
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
        Self { keys: BTreeMap::from([(key.keyid(), Trusted { key, host: None })]) }
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
        if keys.is_empty() { Err(TrustError::NoHost) } else { Ok(Self { keys }) }
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
