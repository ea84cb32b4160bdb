//! Why a profile is not one.

use super::TEXT_BYTES_MAX;

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The text is not TOML, or a field is unknown, missing or of the wrong kind.
    #[error("profile {name}: {reason}")]
    Toml {
        /// The profile.
        name: String,
        /// What the parser said, with its line.
        reason: String,
    },
    /// The text is too long to be a profile.
    #[error("profile {name} has {bytes} bytes; the limit is {TEXT_BYTES_MAX}")]
    TooLong {
        /// The profile.
        name: String,
        /// Its length.
        bytes: usize,
    },
    /// Only embedded profiles can be extended.
    #[error("profile {name} extends {base:?}; it may extend strict, standard or service")]
    Base {
        /// The profile.
        name: String,
        /// What it wants to extend.
        base: String,
    },
    /// A system call that the table does not know.
    #[error("profile {name}: syscalls.{list} names {syscall:?}, which is no x86-64 system call")]
    Syscall {
        /// The profile.
        name: String,
        /// `allow`, `virtual` or `deny`.
        list: &'static str,
        /// The refused name.
        syscall: String,
    },
    /// A value outside its range.
    #[error("profile {name}: {field} is {value:?}; {limit}")]
    Value {
        /// The profile.
        name: String,
        /// The field.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What it may hold.
        limit: &'static str,
    },
    /// The digest could not be computed.
    #[error("profile {name} has no canonical form: {reason}")]
    Canonical {
        /// The profile.
        name: String,
        /// Why.
        reason: String,
    },
}
