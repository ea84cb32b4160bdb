//! Where a node reads the force-inclusion inbox: a file of the first layer's blocks, or nowhere.

use std::path::Path;

use bpi_protocol::consensus::header::InboxAnchor;

use crate::contents::inbox::file::{FileInbox, InboxFileError};
use crate::contents::inbox::{Inbox, InboxBlock, MemoryInbox};

/// A view of the first layer.
#[derive(Debug)]
pub enum InboxSource {
    /// No first layer: nothing is forced, and no anchor moves.
    None(MemoryInbox),
    /// A file that grows.
    File(FileInbox),
}

impl InboxSource {
    /// Of a file, or of nothing.
    ///
    /// # Errors
    /// When the file is not there.
    pub fn open(path: Option<&Path>) -> Result<Self, InboxFileError> {
        match path {
            Some(path) => FileInbox::open(path).map(Self::File),
            None => Ok(Self::None(MemoryInbox::new())),
        }
    }

    /// Reads what has come since; blocks below `served` are passed over.
    ///
    /// # Errors
    /// For a line that is no block.
    pub fn poll(&mut self, served: u64) -> Result<u64, InboxFileError> {
        match self {
            Self::None(_) => Ok(0),
            Self::File(file) => file.poll(served),
        }
    }
}

impl Inbox for InboxSource {
    fn tip(&self) -> Option<InboxAnchor> {
        match self {
            Self::None(inbox) => inbox.tip(),
            Self::File(inbox) => inbox.tip(),
        }
    }

    fn hash(&self, height: u64) -> Option<[u8; 32]> {
        match self {
            Self::None(inbox) => inbox.hash(height),
            Self::File(inbox) => inbox.hash(height),
        }
    }

    fn next(&self, above: u64) -> Option<&InboxBlock> {
        match self {
            Self::None(inbox) => inbox.next(above),
            Self::File(inbox) => inbox.next(above),
        }
    }

    fn forget_below(&mut self, height: u64) {
        match self {
            Self::None(inbox) => inbox.forget_below(height),
            Self::File(inbox) => inbox.forget_below(height),
        }
    }
}
