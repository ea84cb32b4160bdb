//! SPIFFE ids as this mesh uses them: `spiffe://<trust domain>/<role>/<name>`.
//!
//! A parser of its own, because the mesh allows less than the standard: exactly two path segments, the first a known role. Always
//! true: an id that was read is written back byte for byte, so ids compare and hash as text. Absent on purpose: any repair, such as
//! lower-casing a domain.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest id (SPIFFE-ID, section 2.3).
pub const ID_BYTES_MAX: usize = 2048;
/// Longest trust domain (SPIFFE-ID, section 2.1).
pub const DOMAIN_BYTES_MAX: usize = 255;
/// How much of a refused text an error shows.
const SHOWN_CHARS_MAX: usize = 80;

const SCHEME: &str = "spiffe://";

/// Why a text is not an id of this mesh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpiffeError {
    /// Longer than any id.
    #[error("the SPIFFE id has {bytes} bytes, more than the limit of {max}", max = ID_BYTES_MAX)]
    TooLong {
        /// Length found.
        bytes: usize,
    },
    /// Another scheme.
    #[error("{found:?} does not begin with \"spiffe://\"")]
    Scheme {
        /// The refused text, cut.
        found: String,
    },
    /// No trust domain.
    #[error("the trust domain is empty")]
    DomainEmpty,
    /// The trust domain is too long.
    #[error("the trust domain has {bytes} bytes, more than the limit of {max}", max = DOMAIN_BYTES_MAX)]
    DomainTooLong {
        /// Length found.
        bytes: usize,
    },
    /// A character that no trust domain has.
    #[error("the trust domain has {found:?}; only a-z, 0-9, '.', '-' and '_' are allowed")]
    DomainCharacter {
        /// The character.
        found: char,
    },
    /// Not two path segments.
    #[error("{found:?} is not spiffe://<trust domain>/<role>/<name>")]
    Path {
        /// The refused text, cut.
        found: String,
    },
    /// A role that nobody plays.
    #[error("the role {found:?} is none of validator, agent, relay, pinner, service")]
    Role {
        /// The refused role, cut.
        found: String,
    },
    /// No name, or one that a path would resolve.
    #[error("the name {found:?} is empty, \".\" or \"..\"")]
    NameDots {
        /// The refused name.
        found: String,
    },
    /// A character that no name has.
    #[error("the name has {found:?}; only a-z, A-Z, 0-9, '.', '-' and '_' are allowed")]
    NameCharacter {
        /// The character.
        found: char,
    },
}

fn cut(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

/// A trust domain: whose authority says who is who.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The name alone, as in `bpi.devnet`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the domain itself, which its authorities bear.
    pub fn id(&self) -> String {
        format!("{SCHEME}{}", self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        if text.is_empty() {
            return Err(SpiffeError::DomainEmpty);
        }
        if text.len() > DOMAIN_BYTES_MAX {
            return Err(SpiffeError::DomainTooLong { bytes: text.len() });
        }
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
        match text.chars().find(|&c| !fits(c)) {
            Some(found) => Err(SpiffeError::DomainCharacter { found }),
            None => Ok(Self(text.into())),
        }
    }
}

/// What a member of the mesh does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Agrees on headers.
    Validator,
    /// Submits a tenant's receipts.
    Agent,
    /// Carries frames.
    Relay,
    /// Keeps shards.
    Pinner,
    /// Any of the core services.
    Service,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [Self::Validator, Self::Agent, Self::Relay, Self::Pinner, Self::Service];

    /// As in an id.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Validator => "validator",
            Self::Agent => "agent",
            Self::Relay => "relay",
            Self::Pinner => "pinner",
            Self::Service => "service",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        let found = || SpiffeError::Role { found: cut(text) };
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(found)
    }
}

/// Who somebody is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    domain: TrustDomain,
    role: Role,
    name: Arc<str>,
}

impl SpiffeId {
    /// Of its three parts.
    ///
    /// # Errors
    ///
    /// When the name is none, or the whole is too long.
    pub fn new(domain: TrustDomain, role: Role, name: &str) -> Result<Self, SpiffeError> {
        if matches!(name, "" | "." | "..") {
            return Err(SpiffeError::NameDots { found: name.to_owned() });
        }
        let bytes = SCHEME.len() + domain.0.len() + 1 + role.as_str().len() + 1 + name.len();
        if bytes > ID_BYTES_MAX {
            return Err(SpiffeError::TooLong { bytes });
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        match name.chars().find(|&c| !fits(c)) {
            Some(found) => Err(SpiffeError::NameCharacter { found }),
            None => Ok(Self { domain, role, name: name.into() }),
        }
    }

    /// The trust domain.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The name, one among those of its role.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    /// Reads an id (SPIFFE-ID, section 2, and two path segments).
    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        if text.len() > ID_BYTES_MAX {
            return Err(SpiffeError::TooLong { bytes: text.len() });
        }
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| SpiffeError::Scheme { found: cut(text) })?;
        let mut parts = rest.split('/');
        let (Some(domain), Some(role), Some(name), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(SpiffeError::Path { found: cut(text) });
        };
        Self::new(domain.parse()?, role.parse()?, name)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}/{}", self.domain, self.role, self.name)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = SpiffeError;

    fn try_from(text: String) -> Result<Self, SpiffeError> {
        text.parse()
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.to_string()
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = SpiffeError;

    fn try_from(text: String) -> Result<Self, SpiffeError> {
        text.parse()
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.to_string()
    }
}
