//! A node's disk: final headers, the log of votes, the watermark.

use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::Height;
use bpi_protocol::consensus::message::Message;
use bpi_protocol::consensus::seal::{Seal, Votes};
use bpi_validator::core::{Position, Record, Recovered};

/// What outlives a crash.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Final headers from the genesis on.
    pub headers: Vec<(Header, Option<Seal>)>,
    log: Vec<Record>,
    watermark: Option<Position>,
}

impl Disk {
    /// A new one.
    pub fn new(genesis: Header) -> Self {
        Self { headers: vec![(genesis, None)], log: Vec::new(), watermark: None }
    }

    /// The last final header.
    pub fn tip(&self) -> &Header {
        &self.headers[self.headers.len() - 1].0
    }

    /// A final header of a height.
    pub fn get(&self, height: Height) -> Option<(Header, Seal)> {
        let (header, seal) = self.headers.get(height.0 as usize)?;
        seal.map(|seal| (*header, seal))
    }

    /// Keeps a final header; the log of its height is not needed any more.
    pub fn append(&mut self, header: Header, seal: Seal) {
        self.headers.push((header, Some(seal)));
        self.log.clear();
    }

    /// Keeps a record. False: the watermark forbids it.
    pub fn persist(&mut self, record: Record) -> bool {
        if let Record::Vote { position, .. } = &record {
            if self.watermark.is_some_and(|last| *position <= last) {
                return false;
            }
            self.watermark = Some(*position);
        }
        self.log.push(record);
        true
    }

    /// Loses the last records and what is known of them, as a disk does that lied when it said they were safe.
    pub fn forget(&mut self, records: usize) {
        self.log.truncate(self.log.len().saturating_sub(records));
        self.watermark = self.log.iter().rev().find_map(|record| match record {
            Record::Vote { position, .. } => Some(*position),
            Record::Prepared { .. } => None,
        });
    }

    /// Puts back an older log, or an older folder with headers and all, as a backup does, beside the watermark that was kept elsewhere.
    pub fn restore_older(&mut self, records: usize, heights: usize) {
        if heights > 0 {
            self.headers.truncate(self.headers.len().saturating_sub(heights).max(1));
            self.log.clear();
        }
        self.log.truncate(records);
    }

    /// What a start finds of the height after the last final header.
    pub fn recover(&self) -> Recovered {
        let (mut votes, mut prepared) = (Vec::<Message>::new(), None::<(Header, Votes)>);
        let mut last = None;
        for record in &self.log {
            match record {
                Record::Vote { position, message } => {
                    last = Some(*position);
                    votes.push((**message).clone());
                }
                Record::Prepared { header, votes } => prepared = Some((**header, *votes)),
            }
        }
        let next = self.tip().height.next();
        let ahead = self.watermark.filter(|mark| mark.height >= next && last < Some(*mark));
        Recovered { votes, prepared, silent_through: ahead.map(|mark| mark.height) }
    }
}
