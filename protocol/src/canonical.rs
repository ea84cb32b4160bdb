//! RFC 8785 canonical JSON, narrowed to what can be hashed without doubt.
//!
//! Narrowed: integers within ±(2^53 - 1), no fractions, no exponents, no null, no duplicate names, at most 64 levels deep. A reader
//! judges the bytes themselves in one pass ([`scan`]) before any of them is interpreted, so whatever type is read from them
//! afterwards, one value has one spelling and one digest. Absent on purpose: repairing input.

mod scan;

use serde::{Deserialize, Serialize};

pub use scan::check;

/// Deepest nesting of arrays and objects.
pub const DEPTH_MAX: usize = 64;
/// Largest magnitude of an integer: 2^53 - 1, the largest that every JSON reader keeps exactly (RFC 7493, 2.2).
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// Why bytes are not canonical JSON of the wanted type. `at` is an offset in bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CanonicalError {
    /// Longer than the caller's limit.
    #[error("too long: {bytes} bytes are more than the limit of {max}")]
    TooLong {
        /// Length found.
        bytes: usize,
        /// Limit in force.
        max: usize,
    },
    /// Not JSON at this place.
    #[error("not JSON at byte {at}: {found} where {wanted} should be")]
    Syntax {
        /// Offset.
        at: usize,
        /// What stands there.
        found: String,
        /// What may stand there.
        wanted: &'static str,
    },
    /// Ends too early.
    #[error("cut off at byte {at}, in the middle of {within}")]
    Truncated {
        /// Offset of the end.
        at: usize,
        /// What was being read.
        within: &'static str,
    },
    /// Something follows the value.
    #[error("not one JSON value: {extra} bytes follow the end of the value at byte {at}")]
    Trailing {
        /// Offset of the end of the value.
        at: usize,
        /// Bytes after it.
        extra: usize,
    },
    /// Blank space, which canonical JSON never has.
    #[error("not canonical: blank space at byte {at}")]
    Blank {
        /// Offset.
        at: usize,
    },
    /// Members out of order.
    #[error("not canonical: member {name:?} at byte {at} should stand before {previous:?}")]
    Order {
        /// Offset of the member.
        at: usize,
        /// The member that comes too late.
        name: String,
        /// The one before it.
        previous: String,
    },
    /// One name twice in one object.
    #[error("not canonical: duplicate member {name:?} at byte {at}")]
    Duplicate {
        /// Offset of the second.
        at: usize,
        /// The name.
        name: String,
    },
    /// A number with a fraction or an exponent.
    #[error(
        "not canonical: the number at byte {at}, {found}…, has a fraction or an exponent; only integers are allowed"
    )]
    Float {
        /// Offset of the number.
        at: usize,
        /// Its digits up to the fraction or exponent, and the sign of it.
        found: String,
    },
    /// An integer that some readers would round.
    #[error("not canonical: the integer {found} at byte {at} is beyond 2^53 - 1")]
    Integer {
        /// Offset.
        at: usize,
        /// Its digits.
        found: String,
    },
    /// `-0`, `007`.
    #[error("not canonical: the number at byte {at} has a shorter spelling")]
    NumberSpelling {
        /// Offset.
        at: usize,
    },
    /// `null`.
    #[error("not canonical: null at byte {at}; an absent member is left out instead")]
    Null {
        /// Offset.
        at: usize,
    },
    /// An escape where canonical JSON has the character itself or a shorter escape.
    #[error("not canonical: the escape at byte {at} has a shorter spelling")]
    Escape {
        /// Offset.
        at: usize,
    },
    /// Not UTF-8.
    #[error("not UTF-8 from byte {at} on")]
    Utf8 {
        /// Offset.
        at: usize,
    },
    /// Nested too deep.
    #[error("nested deeper than {max} levels at byte {at}", max = DEPTH_MAX)]
    Depth {
        /// Offset of the bracket.
        at: usize,
    },
    /// Canonical, but not of the wanted type: an unknown or missing member, or a value of another kind.
    #[error("not of the expected form: {reason}")]
    Schema {
        /// What the reader said.
        reason: String,
    },
    /// A value that has no JSON form at all.
    #[error("without a JSON form: {reason}")]
    Unwritable {
        /// What the writer said.
        reason: String,
    },
}

/// The canonical bytes of `value`.
///
/// # Errors
///
/// When the value holds something that canonical JSON as narrowed here cannot: see [`CanonicalError`].
pub fn to_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    let bytes = serde_json_canonicalizer::to_vec(value)
        .map_err(|error| CanonicalError::Unwritable { reason: error.to_string() })?;
    // The writer knows order and escapes; the check knows the narrowing, and is the same judge the reader will meet.
    check(&bytes)?;
    Ok(bytes)
}

/// Reads a `T` from canonical bytes, at most `bytes_max` of them.
///
/// # Errors
///
/// When the bytes are too many, not canonical, or not a `T`.
pub fn from_bytes<'a, T: Deserialize<'a>>(bytes: &'a [u8], bytes_max: usize) -> Result<T, CanonicalError> {
    if bytes.len() > bytes_max {
        return Err(CanonicalError::TooLong { bytes: bytes.len(), max: bytes_max });
    }
    check(bytes)?;
    interpret(bytes)
}

/// Reads a `T` from bytes that [`check`] has passed.
pub(crate) fn interpret<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CanonicalError> {
    serde_json::from_slice(bytes).map_err(|error| CanonicalError::Schema { reason: error.to_string() })
}
