//! The inbox from a file that grows, a line for each final block of L1, until the L1 client comes.
//!
//! ```text
//! {"height":7,"hash":"<64 hex>","entries":[{"tenant":"<32 hex>","hash":"<64 hex>"}]}
//! ```
//!
//! Always true: a line counts once it ends with a newline, and a line that is none, or goes back, is an error that stays: nothing after it
//! is read. Blocks without entries may be left out, but then nobody can anchor at them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bpi_protocol::consensus::header::InboxAnchor;
use serde::Deserialize;

use super::{ENTRIES_MAX, Inbox, InboxBlock, InboxError, MemoryInbox};
use crate::contents::leaf::{Leaf, TenantId};

/// Bytes of a line, at most: 1 024 entries of some 130 bytes.
const LINE_BYTES_MAX: usize = ENTRIES_MAX * 256;
/// Bytes that are read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Why the file cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum InboxFileError {
    /// The file.
    #[error("could not read the inbox {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A line is no block.
    #[error("line {line} of the inbox {}: {reason}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: LineError,
    },
}

/// Why a line is no block.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Not the JSON that it has to be.
    #[error("it is no block: {0}")]
    Json(serde_json::Error),
    /// A value is not so many bytes in hexadecimal.
    #[error("{field} is not {bytes} bytes in hexadecimal")]
    Hex {
        /// Which.
        field: &'static str,
        /// How many.
        bytes: usize,
    },
    /// Longer than any block.
    #[error("it is longer than {LINE_BYTES_MAX} bytes")]
    Long,
    /// It does not go on from the lines before.
    #[error(transparent)]
    Block(#[from] InboxError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockLine {
    height: u64,
    hash: String,
    entries: Vec<EntryLine>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryLine {
    tenant: String,
    hash: String,
}

/// Reads a line.
///
/// # Errors
/// [`LineError`] when it is no block.
pub fn parse_line(line: &str) -> Result<InboxBlock, LineError> {
    let BlockLine { height, hash, entries } = serde_json::from_str(line).map_err(LineError::Json)?;
    let leaf = |entry: EntryLine| -> Result<Leaf, LineError> {
        Ok(Leaf { tenant: TenantId(bytes_of(&entry.tenant, "tenant")?), hash: bytes_of(&entry.hash, "hash")? })
    };
    let leaves = entries.into_iter().map(leaf).collect::<Result<_, _>>()?;
    Ok(InboxBlock { anchor: InboxAnchor { height, hash: bytes_of(&hash, "hash")? }, leaves })
}

fn bytes_of<const N: usize>(text: &str, field: &'static str) -> Result<[u8; N], LineError> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| LineError::Hex { field, bytes: N })?;
    Ok(bytes)
}

/// A view of L1 that a file tells.
#[derive(Debug)]
pub struct FileInbox {
    file: File,
    path: PathBuf,
    known: MemoryInbox,
    /// Up to where lines have been taken in.
    offset: u64,
    lines: u64,
}

impl FileInbox {
    /// Opens a file without reading it.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: &Path) -> Result<Self, InboxFileError> {
        let file = File::open(path).map_err(|source| InboxFileError::Io { path: path.to_path_buf(), source })?;
        Ok(Self { file, path: path.to_path_buf(), known: MemoryInbox::new(), offset: 0, lines: 0 })
    }

    /// Takes in the lines that have come, and returns how many; blocks below `served` are passed over. Called every second or so.
    ///
    /// # Errors
    /// For the first line that is no block; the lines before it are taken in.
    pub fn poll(&mut self, served: u64) -> Result<u64, InboxFileError> {
        let before = self.lines;
        let mut bytes = Vec::new();
        while !self.known.is_full() {
            let start = bytes.len();
            bytes.resize(start + CHUNK_BYTES, 0);
            let read = self.file.read_at(&mut bytes[start..], self.offset + start as u64);
            bytes.truncate(start + read.map_err(|source| InboxFileError::Io { path: self.path.clone(), source })?);
            let came = bytes.len() - start;
            let taken = self.take_lines(&bytes, served)?;
            bytes.drain(..taken);
            if came == 0 {
                break;
            }
            if bytes.len() > LINE_BYTES_MAX {
                return Err(self.refused(LineError::Long));
            }
        }
        Ok(self.lines - before)
    }

    /// Takes in whole lines at the beginning of these bytes, and says how many bytes they were.
    fn take_lines(&mut self, bytes: &[u8], served: u64) -> Result<usize, InboxFileError> {
        let mut taken = 0;
        while let Some(length) = bytes[taken..].iter().position(|byte| *byte == b'\n') {
            if self.known.is_full() {
                break;
            }
            // Bytes that are no UTF-8 are no JSON either, and are refused as such.
            let line = String::from_utf8_lossy(&bytes[taken..taken + length]);
            let block = parse_line(&line).map_err(|reason| self.refused(reason))?;
            self.known.push(block).map_err(|reason| self.refused(reason.into()))?;
            self.known.forget_below(served);
            taken += length + 1;
            self.offset += length as u64 + 1;
            self.lines += 1;
        }
        Ok(taken)
    }

    fn refused(&self, reason: LineError) -> InboxFileError {
        InboxFileError::Line { path: self.path.clone(), line: self.lines + 1, reason }
    }
}

impl Inbox for FileInbox {
    fn tip(&self) -> Option<InboxAnchor> {
        self.known.tip()
    }

    fn hash(&self, height: u64) -> Option<[u8; 32]> {
        self.known.hash(height)
    }

    fn next(&self, above: u64) -> Option<&InboxBlock> {
        self.known.next(above)
    }

    fn forget_below(&mut self, height: u64) {
        self.known.forget_below(height);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn line(height: u64) -> String {
        let (tenant, hash) = ("aa".repeat(16), "bb".repeat(32));
        format!(r#"{{"height":{height},"hash":"{hash}","entries":[{{"tenant":"{tenant}","hash":"{hash}"}}]}}"#)
    }

    #[test]
    fn a_line_counts_when_its_newline_has_come() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inbox.jsonl");
        let mut file = File::create(&path).unwrap();
        write!(file, "{}\n{}", line(3), line(5)).unwrap();
        let mut inbox = FileInbox::open(&path).unwrap();
        assert_eq!(inbox.poll(0).unwrap(), 1);
        assert_eq!(inbox.tip().unwrap().height, 3);
        assert_eq!(inbox.poll(0).unwrap(), 0);
        writeln!(file).unwrap();
        assert_eq!(inbox.poll(0).unwrap(), 1);
        let leaf = Leaf { tenant: TenantId([0xaa; 16]), hash: [0xbb; 32] };
        assert_eq!(inbox.next(3).unwrap().leaves, [leaf]);
        // After a start, what is served is passed over, but the anchor itself is known.
        let mut again = FileInbox::open(&path).unwrap();
        assert_eq!((again.poll(5).unwrap(), again.hash(3), again.hash(5)), (2, None, Some([0xbb; 32])));
    }

    #[test]
    fn a_line_that_is_none_stops_the_reading_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inbox.jsonl");
        for (second, reason) in [
            (line(3), "block 3 of the first layer comes after block 3"),
            (line(4).replace("height", "high"), "it is no block: "),
            (line(4).replace("aa", "zz"), "tenant is not 16 bytes in hexadecimal"),
            ("\u{fffd}".into(), "it is no block: "),
        ] {
            std::fs::write(&path, format!("{}\n{second}\n{}\n", line(3), line(9))).unwrap();
            let mut inbox = FileInbox::open(&path).unwrap();
            for _ in 0..2 {
                let error = inbox.poll(0).unwrap_err().to_string();
                assert!(error.contains(&format!("line 2 of the inbox {}: {reason}", path.display())), "{error}");
                assert_eq!(inbox.tip().unwrap().height, 3);
            }
        }
        std::fs::write(&path, "x".repeat(LINE_BYTES_MAX + CHUNK_BYTES)).unwrap();
        assert!(matches!(
            FileInbox::open(&path).unwrap().poll(0),
            Err(InboxFileError::Line { reason: LineError::Long, .. })
        ));
        assert!(matches!(FileInbox::open(&folder.path().join("none")), Err(InboxFileError::Io { .. })));
    }

    #[test]
    fn many_lines_are_read_in_parts_and_no_more_than_are_held() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inbox.jsonl");
        let text: String = (1..=6_000).map(|height| line(height) + "\n").collect();
        std::fs::write(&path, text).unwrap();
        let mut inbox = FileInbox::open(&path).unwrap();
        assert_eq!(inbox.poll(0).unwrap(), 4_096);
        inbox.forget_below(4_000);
        assert_eq!(inbox.poll(4_000).unwrap(), 6_000 - 4_096);
        assert_eq!(inbox.tip().unwrap().height, 6_000);
    }
}
