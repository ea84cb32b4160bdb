//! The answering side: a socket, and what answers on it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use crate::v1::agent_server::{Agent, AgentServer};

/// Calls of one connection at a time, at most.
const CALLS_MAX: usize = 64;
/// Bytes of a request, at most: an order with half a MiB of arguments and paths.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// Why nobody can ask.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The socket.
    #[error("{}: {source}", path.display())]
    Socket {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The server.
    #[error("the local API ended: {source}")]
    Serve {
        /// Why.
        source: tonic::transport::Error,
    },
}

/// Listens at a path, in the place of what an agent before left there. Only its owner can open it: it has its mode before it has its name. Who may
/// run at all is settled before, by the lock of the class.
///
/// # Errors
/// [`ListenError::Socket`].
pub fn bind(path: &Path) -> Result<UnixListener, ListenError> {
    let failed = |source| ListenError::Socket { path: path.to_owned(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let beside = path.with_file_name(name);
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&beside).map_err(failed)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)?;
    Ok(listener)
}

/// Answers until `stop` is done and the calls under way are: those that stream have to watch the same `stop`.
///
/// # Errors
/// [`ListenError::Serve`].
pub async fn serve(
    listener: UnixListener,
    agent: impl Agent,
    stop: impl Future<Output = ()>,
) -> Result<(), ListenError> {
    let service = AgentServer::new(agent).max_decoding_message_size(REQUEST_BYTES_MAX);
    let served = Server::builder()
        .concurrency_limit_per_connection(CALLS_MAX)
        .add_service(service)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop);
    served.await.map_err(|source| ListenError::Serve { source })
}
