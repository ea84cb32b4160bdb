//! What can be wrong with a run.

use std::path::PathBuf;

use containerd_client::tonic;

use crate::order::OrderError;

/// Why containerd did not do what it was asked, or may not be asked.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// An order that is none.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// No containerd.
    #[error("containerd does not answer at {}: {source}", socket.display())]
    Connect {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        source: tonic::transport::Error,
    },
    /// A call that it refused.
    #[error("containerd: {doing} {name}: {}", status.message())]
    Call {
        /// What.
        doing: &'static str,
        /// Of what.
        name: String,
        /// What it said.
        status: Box<tonic::Status>,
    },
    /// It said nothing in time.
    #[error("containerd: {doing} {name}: no answer in {patience_s} s")]
    Patience {
        /// What.
        doing: &'static str,
        /// Of what.
        name: String,
        /// How long.
        patience_s: u64,
    },
    /// Content that is not here.
    #[error("{digest} is not in containerd's content store; pull or import the image first")]
    Missing {
        /// Which.
        digest: String,
    },
    /// Content that has another digest.
    #[error("the content of {digest} has the digest {found}")]
    Digest {
        /// As named.
        digest: String,
        /// As computed.
        found: String,
    },
    /// A document that is too long, or none.
    #[error("{digest} is no {kind}: {reason}")]
    Document {
        /// Which.
        digest: String,
        /// What it should be.
        kind: &'static str,
        /// Why it is not.
        reason: String,
    },
    /// A user by name, which only the image's own files could tell.
    #[error("the image's user is {user:?}; only root and numbers (uid or uid:gid) can run here")]
    User {
        /// As in the image's configuration.
        user: String,
    },
    /// Nothing to run.
    #[error("neither the order nor the image says what to run")]
    Nothing,
    /// Random bytes for the name of a lease.
    #[error("the kernel gives no random bytes: {reason}")]
    Random {
        /// Why.
        reason: String,
    },
    /// A clock that no date can be made of.
    #[error("the host's clock: {reason}")]
    Clock {
        /// Why.
        reason: String,
    },
    /// Where output goes.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl DriverError {
    /// True when containerd said that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Call { status, .. } if status.code() == tonic::Code::NotFound)
    }

    /// True when containerd said that it is there already.
    pub fn is_already_there(&self) -> bool {
        matches!(self, Self::Call { status, .. } if status.code() == tonic::Code::AlreadyExists)
    }
}
