//! The asking side.

use std::path::{Path, PathBuf};

use tonic::transport::{Channel, Endpoint};

use crate::v1::agent_client::AgentClient;
use crate::v1::receipt::Which;
use crate::v1::{EvidenceRequest, Level, Receipt, WaitReply, WaitRequest};

/// Files of an evidence, at most: five, and room for what comes.
const FILES_MAX: usize = 64;
/// Bytes of an evidence, at most.
const EVIDENCE_BYTES_MAX: usize = 256 << 20;

/// Why an agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no agent answers at {}: {source}; is bpi-agent running, and by a user whose socket you can open?", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: tonic::transport::Error,
    },
    /// It refused.
    #[error("the agent says: {}", status.message())]
    Refused {
        /// What it said.
        status: Box<tonic::Status>,
    },
    /// It stopped in the middle.
    #[error("the agent stopped before the receipt was {wanted}; it is {reached}")]
    Stopped {
        /// Asked for.
        wanted: &'static str,
        /// Come to.
        reached: &'static str,
    },
    /// An evidence that cannot be one.
    #[error(
        "the agent sends {name:?} as evidence: a plain file name is wanted, of at most {FILES_MAX} files with 256 MiB"
    )]
    Evidence {
        /// The file.
        name: String,
    },
}

impl From<tonic::Status> for AskError {
    fn from(status: tonic::Status) -> Self {
        Self::Refused { status: Box::new(status) }
    }
}

/// An agent. [`Client::raw`] has every call of the service.
#[derive(Clone, Debug)]
pub struct Client {
    raw: AgentClient<Channel>,
}

/// Connects to an agent's socket.
///
/// # Errors
/// [`AskError::Connect`] when nobody listens there, or not to this user.
pub async fn connect(socket: &Path) -> Result<Client, AskError> {
    let path = socket.to_owned();
    let failed = |source| AskError::Connect { socket: socket.to_owned(), source };
    // The name is not used: every connection goes to the socket.
    let endpoint = Endpoint::try_from("http://agent.invalid").map_err(failed)?;
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
    });
    let channel = endpoint.connect_with_connector(connector).await.map_err(failed)?;
    Ok(Client { raw: AgentClient::new(channel) })
}

/// The last receipt of a container.
pub fn of_container(boundary: &str, container_id: &str) -> Receipt {
    Receipt { boundary: boundary.to_owned(), which: Some(Which::ContainerId(container_id.to_owned())) }
}

/// The receipt of a number in a boundary's chain.
pub fn of_record(boundary: &str, seq: u64) -> Receipt {
    Receipt { boundary: boundary.to_owned(), which: Some(Which::Seq(seq)) }
}

impl Level {
    /// As it is said: seen, packed, kept, included, final.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "unknown",
            Self::Seen => "seen",
            Self::Packed => "packed",
            Self::Kept => "kept",
            Self::Included => "included",
            Self::Final => "final",
        }
    }

    /// The level of a word.
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Seen, Self::Packed, Self::Kept, Self::Included, Self::Final]
            .into_iter()
            .find(|level| level.word() == word)
    }
}

impl Client {
    /// Every call, as generated.
    pub fn raw(&mut self) -> &mut AgentClient<Channel> {
        &mut self.raw
    }

    /// Follows a receipt until it has come to `level`, which `seen` hears of, and answers the last reply.
    ///
    /// # Errors
    /// [`AskError::Refused`] when there is no such receipt; [`AskError::Stopped`] when the agent goes away before: ask again.
    pub async fn wait(
        &mut self,
        receipt: Receipt,
        level: Level,
        mut seen: impl FnMut(&WaitReply),
    ) -> Result<WaitReply, AskError> {
        let request = WaitRequest { receipt: Some(receipt), level: level.into() };
        let mut replies = self.raw.wait(request).await?.into_inner();
        let mut last = WaitReply::default();
        while let Some(reply) = replies.message().await? {
            seen(&reply);
            last = reply;
            if last.level >= level as i32 {
                return Ok(last);
            }
        }
        Err(AskError::Stopped { wanted: level.word(), reached: last.level().word() })
    }

    /// The files of an evidence: names and bytes.
    ///
    /// # Errors
    /// [`AskError::Refused`] when there is none; [`AskError::Evidence`] for names that lead elsewhere, or too much.
    pub async fn evidence(&mut self, receipt: Receipt) -> Result<Vec<(String, Vec<u8>)>, AskError> {
        let mut parts = self.raw.evidence(EvidenceRequest { receipt: Some(receipt) }).await?.into_inner();
        let (mut files, mut bytes) = (Vec::<(String, Vec<u8>)>::new(), 0);
        while let Some(part) = parts.message().await? {
            bytes += part.bytes.len();
            let is_plain =
                !part.name.is_empty() && part.name != "." && part.name != ".." && !part.name.contains(['/', '\0']);
            let count = files.len();
            match files.last_mut() {
                Some((name, known)) if *name == part.name && bytes <= EVIDENCE_BYTES_MAX => known.extend(part.bytes),
                _ if is_plain && bytes <= EVIDENCE_BYTES_MAX && count < FILES_MAX => {
                    files.push((part.name, part.bytes))
                }
                _ => return Err(AskError::Evidence { name: part.name }),
            }
        }
        Ok(files)
    }
}
