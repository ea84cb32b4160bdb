//! Whose chain: one for each tenant boundary on a host.

use std::fmt;
use std::str::FromStr;

use super::SpoolError;

/// Longest name in bytes: containerd allows 76 for a namespace.
const NAME_BYTES_MAX: usize = 76;

/// The containerd namespace, or `local` for runs without containerd. It is a folder's name, so it holds no path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boundary(String);

impl Boundary {
    /// Takes 1 to 76 characters of `A-Z a-z 0-9 . _ -` that do not start with a dot.
    ///
    /// # Errors
    /// [`SpoolError::Boundary`] for anything else.
    pub fn new(name: &str) -> Result<Self, SpoolError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('.') || !name.bytes().all(allowed) {
            return Err(SpoolError::Boundary { name: name.to_owned() });
        }
        Ok(Self(name.to_owned()))
    }

    /// The boundary of runs without containerd.
    pub fn local() -> Self {
        Self("local".to_owned())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Boundary {
    type Err = SpoolError;

    fn from_str(name: &str) -> Result<Self, SpoolError> {
        Self::new(name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_namespace_of_containerd_is_a_boundary() {
        for name in ["default", "k8s.io", "moby", "a-b_c.d", &"x".repeat(76)] {
            assert_eq!(Boundary::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn a_path_is_no_boundary() {
        for name in ["", ".", "..", ".x", "a/b", "a b", "ä", "a\0", &"x".repeat(77)] {
            assert_eq!(Boundary::new(name).unwrap_err().code(), "DL0301", "{name:?}");
        }
    }
}
