//! Compares two listings of outputs (docs/decisions/0031): which files were added, removed or changed.

use std::collections::BTreeMap;

use serde::Serialize;

/// Longest listing that is compared, in bytes: half a million entries.
pub const LISTING_BYTES_MAX: usize = 64 << 20;

/// Why a listing cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListingError {
    /// Not text.
    #[error("it is not UTF-8")]
    Text,
    /// A line of another form.
    #[error("line {line} is not of the form `f0644 6 <sha256> \"/path\"`")]
    Line {
        /// Counted from 1.
        line: usize,
    },
}

/// How two listings differ. Paths as the listings spell them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListingDiff {
    /// Entries that are the same in both.
    pub same: usize,
    /// Only on the left.
    pub left_only: Vec<String>,
    /// Only on the right.
    pub right_only: Vec<String>,
    /// In both, with another kind, mode, size or content.
    pub changed: Vec<Changed>,
}

/// An entry that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// Its path.
    pub path: String,
    /// Kind, mode, size and digest on the left.
    pub left: String,
    /// The same on the right.
    pub right: String,
}

impl ListingDiff {
    /// True when nothing differs.
    pub fn is_empty(&self) -> bool {
        self.left_only.is_empty() && self.right_only.is_empty() && self.changed.is_empty()
    }
}

/// Compares two listings.
///
/// # Errors
/// [`ListingError`], of either.
pub fn diff(left: &[u8], right: &[u8]) -> Result<ListingDiff, ListingError> {
    let (left, mut right) = (read(left)?, read(right)?);
    let mut diff = ListingDiff::default();
    for (path, facts) in left {
        match right.remove(path) {
            None => diff.left_only.push(path.to_owned()),
            Some(other) if other == facts => diff.same += 1,
            Some(other) => {
                diff.changed.push(Changed { path: path.to_owned(), left: facts.to_owned(), right: other.to_owned() });
            }
        }
    }
    diff.right_only = right.into_keys().map(str::to_owned).collect();
    Ok(diff)
}

/// Facts by path.
fn read(listing: &[u8]) -> Result<BTreeMap<&str, &str>, ListingError> {
    let text = std::str::from_utf8(listing).map_err(|_| ListingError::Text)?;
    let mut entries = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let wrong = ListingError::Line { line: at + 1 };
        // Letter and mode, size, digest; the rest is a JSON string, which has no line break but may have spaces.
        let Some((facts_end, _)) = line.match_indices(' ').nth(2) else { return Err(wrong) };
        let path = line[facts_end + 1..].strip_prefix('"').and_then(|path| path.strip_suffix('"')).ok_or(wrong)?;
        entries.insert(path, &line[..facts_end]);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn added_removed_and_changed_files_are_told_apart() {
        let left = b"d0755 - - \"/a/\"\nf0644 1 aa \"/a/x y\"\nf0644 2 bb \"/a/z\"\n";
        let right = b"d0755 - - \"/a/\"\nf0600 1 aa \"/a/x y\"\nf0644 3 cc \"/b\"\n";
        let diff = diff(left, right).unwrap();
        assert_eq!((diff.same, diff.left_only, diff.right_only), (1, vec!["/a/z".to_owned()], vec!["/b".to_owned()]));
        let changed =
            Changed { path: "/a/x y".to_owned(), left: "f0644 1 aa".to_owned(), right: "f0600 1 aa".to_owned() };
        assert_eq!(diff.changed, [changed]);
    }

    #[test]
    fn what_is_no_listing_is_refused_by_its_line() {
        assert_eq!(diff(b"hello\n", b"").unwrap_err(), ListingError::Line { line: 1 });
        assert_eq!(diff(b"", b"d0755 - - \"/a/\"\nf0644 1 aa /x\n").unwrap_err(), ListingError::Line { line: 2 });
        assert_eq!(diff(b"\xff", b"").unwrap_err(), ListingError::Text);
    }
}
