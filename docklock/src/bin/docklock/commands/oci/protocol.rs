//! What a client asks of a monitor: one packet each way over a SOCK_SEQPACKET socket, descriptors beside the bytes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use docklock::kernel;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::Failure;

/// Longest packet in bytes: a process with a few thousand environment variables fits.
const PACKET_BYTES_MAX: usize = 192 * 1024;

/// What `create` tells its monitor. The three standard streams go along as descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    pub(super) console_socket: Option<PathBuf>,
    pub(super) no_pivot: bool,
}

/// What the other subcommands ask.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    Start,
    State,
    Kill {
        signal: i32,
        all: bool,
    },
    Pause,
    Resume,
    Ps,
    /// Answered when the container has ended.
    Wait,
    /// Ends the monitor as well.
    Delete {
        force: bool,
    },
    /// With three descriptors, or a console socket. Answered with the process id, and again with its status when it has ended.
    Exec {
        exec_id: String,
        process: Box<oci_spec::runtime::Process>,
        console_socket: Option<PathBuf>,
    },
}

/// The answer: a value, or a failure whole.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Done(Value),
    Failed { code: String, sentence: String },
}

impl Reply {
    pub(super) fn of(outcome: Result<Value, Failure>) -> Self {
        match outcome {
            Ok(value) => Self::Done(value),
            Err(failure) => Self::Failed { code: failure.code().to_owned(), sentence: failure.sentence() },
        }
    }

    pub(super) fn into_result(self) -> Result<Value, Failure> {
        match self {
            Self::Done(value) => Ok(value),
            Self::Failed { code, sentence } => Err(Failure::Remote { code, sentence }),
        }
    }
}

/// Sends one message.
pub(super) fn send(socket: BorrowedFd<'_>, message: &impl Serialize, fds: &[OwnedFd]) -> Result<(), Failure> {
    let failed = |source| Failure::System { deed: "send a message between docklock processes", source };
    let bytes = serde_json::to_vec(message).map_err(|error| failed(error.into()))?;
    let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd().as_raw_fd()).collect();
    kernel::send_with_fds(socket, &bytes, &fds).map_err(failed)
}

/// Receives one message; `None` when the other side has closed.
pub(super) fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> Result<Option<(T, Vec<OwnedFd>)>, Failure> {
    let failed = |source| Failure::System { deed: "receive a message between docklock processes", source };
    let (bytes, fds) = kernel::receive_with_fds(socket, PACKET_BYTES_MAX).map_err(failed)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&bytes).map(|message| Some((message, fds))).map_err(|error| failed(error.into()))
}
