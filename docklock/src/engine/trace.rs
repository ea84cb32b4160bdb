//! The log of decisions: every answered call and every event of a task, in order, under one hash.
//!
//! A record is 40 bytes, little-endian: task u32, system call i32 (negative: an event), logical time u64, result i64, two arguments u64.
//! The digest covers the first 24 bytes: arguments are often addresses, which a kernel may place differently, and are kept for people.

use std::fs::File;
use std::io::{self, Write};

/// First bytes of a log file.
pub const MAGIC: &[u8; 8] = b"DLTRACE1";
/// Bytes of one record.
pub const RECORD_BYTES: usize = 40;
/// Bytes of a record that the digest covers.
pub const HASHED_BYTES: usize = 24;
/// Result of a call that the kernel was left to run.
pub const CONTINUED: i64 = i64::MIN;
/// Records kept back before they are hashed together.
const BUFFERED_RECORDS: usize = 256;

/// What happened beside calls: the negative numbers in a record's place of the system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Event {
    /// A task was given the turn.
    Turn = -1,
    /// A task began; the result is its number.
    Clone = -2,
    /// A program was executed.
    Exec = -3,
    /// A task ended; the result is its wait status as a shell says it.
    End = -4,
    /// A signal is about to be delivered; the result is its number.
    Signal = -5,
    /// A time stamp counter was read.
    Tsc = -6,
    /// A timer expired; the result is its signal.
    Timer = -7,
    /// The processor was asked what it is; the result is the leaf, the first argument the subleaf.
    Cpuid = -8,
    /// The processor was asked for random bits; the result is the register that took them.
    Rdrand = -9,
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Number of the task inside the cage.
    pub task: u32,
    /// System call, or an [`Event`].
    pub call: i32,
    /// Logical nanoseconds since 1970.
    pub at_ns: u64,
    /// Result, or [`CONTINUED`].
    pub result: i64,
    /// The first two arguments.
    pub args: [u64; 2],
}

impl Record {
    /// Its bytes.
    pub fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[0..4].copy_from_slice(&self.task.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.call.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.at_ns.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.result.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.args[0].to_le_bytes());
        bytes[32..40].copy_from_slice(&self.args[1].to_le_bytes());
        bytes
    }
}

/// The hash over all records so far, and the file that keeps them if somebody wants it.
#[derive(Debug)]
pub struct Trace {
    hash: blake3::Hasher,
    hashed: Vec<u8>,
    kept: Vec<u8>,
    file: Option<File>,
    events: u64,
}

impl Trace {
    /// An empty log. `file` gets the header at once.
    ///
    /// # Errors
    /// When the header cannot be written.
    pub fn new(mut file: Option<File>) -> io::Result<Self> {
        if let Some(file) = &mut file {
            file.write_all(MAGIC)?;
        }
        Ok(Self { hash: blake3::Hasher::new(), hashed: Vec::new(), kept: Vec::new(), file, events: 0 })
    }

    /// Adds one record.
    ///
    /// # Errors
    /// When the file cannot be written: then nobody could name a divergence later.
    pub fn add(&mut self, record: Record) -> io::Result<()> {
        let bytes = record.to_bytes();
        self.hashed.extend_from_slice(&bytes[..HASHED_BYTES]);
        if self.file.is_some() {
            self.kept.extend_from_slice(&bytes);
        }
        self.events += 1;
        if self.hashed.len() >= BUFFERED_RECORDS * HASHED_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hash.update(&self.hashed);
        self.hashed.clear();
        if let Some(file) = &mut self.file {
            file.write_all(&self.kept)?;
            self.kept.clear();
        }
        Ok(())
    }

    /// The root and the number of records.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn finish(mut self) -> io::Result<(String, u64)> {
        self.flush()?;
        Ok((self.hash.finalize().to_hex().to_string(), self.events))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record(result: i64, argument: u64) -> Record {
        Record { task: 1, call: 228, at_ns: 5, result, args: [argument, 0] }
    }

    #[test]
    fn the_root_depends_on_results_and_not_on_addresses() {
        let root = |records: &[Record]| {
            let mut trace = Trace::new(None).unwrap();
            for record in records {
                trace.add(*record).unwrap();
            }
            trace.finish().unwrap()
        };
        assert_eq!(root(&[record(0, 0x7fff_0000)]), root(&[record(0, 0x7ffe_0000)]));
        assert_ne!(root(&[record(0, 0)]), root(&[record(1, 0)]));
        assert_ne!(root(&[record(0, 0)]), root(&[record(0, 0), record(0, 0)]));
        let many = vec![record(3, 0); 1000];
        assert_eq!(root(&many).1, 1000);
    }

    #[test]
    fn a_log_holds_every_record_after_its_header() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut trace = Trace::new(Some(File::create(&path).unwrap())).unwrap();
        for result in 0..300 {
            trace.add(record(result, 7)).unwrap();
        }
        trace.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(&bytes[..8], MAGIC);
        assert_eq!(bytes.len(), 8 + 300 * RECORD_BYTES);
        assert_eq!(bytes[8 + RECORD_BYTES..][..RECORD_BYTES], record(1, 7).to_bytes());
    }
}
