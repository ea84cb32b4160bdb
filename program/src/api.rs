//! Where a program tells how it does: an address, or a socket of this host, and HTTP on it.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use axum::Router;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ApiAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// A socket of this host, for its user and group.
    Unix(PathBuf),
}

impl ApiAddress {
    /// A port of loopback.
    pub fn loopback(port: u16) -> Self {
        Self::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// True when nobody but this host reaches it.
    pub fn is_of_this_host(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// A relative path counts from a folder.
    pub fn resolve(&mut self, folder: &Path) {
        if let Self::Unix(path) = self {
            *path = folder.join(&*path);
        }
    }
}

impl TryFrom<String> for ApiAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if !path.is_empty() => Ok(Self::Unix(path.into())),
            _ => text.parse().map(Self::Tcp).map_err(|_| {
                format!("{text:?} is refused: it has to be an address and a port, or \"unix:\" and a path")
            }),
        }
    }
}

impl From<ApiAddress> for String {
    fn from(address: ApiAddress) -> Self {
        address.to_string()
    }
}

impl std::fmt::Display for ApiAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Listens, and answers as one of `tasks` until `stopped` is true and the answers under way are given.
///
/// # Errors
/// What the kernel says when nobody can be listened to.
pub async fn serve(
    address: &ApiAddress,
    router: Router,
    mut stopped: watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) -> io::Result<()> {
    let stop = async move {
        if stopped.wait_for(|stop| *stop).await.is_err() {
            tracing::debug!("nobody is left to say when the API has to stop");
        }
    };
    match address {
        ApiAddress::Tcp(address) => {
            let listener = TcpListener::bind(address).await?;
            tasks.spawn(served(axum::serve(listener, router).with_graceful_shutdown(stop).into_future()));
        }
        ApiAddress::Unix(path) => {
            let listener = bind_socket(path)?;
            tasks.spawn(served(axum::serve(listener, router).with_graceful_shutdown(stop).into_future()));
        }
    }
    Ok(())
}

async fn served(served: impl Future<Output = io::Result<()>>) {
    if let Err(error) = served.await {
        tracing::error!(%error, "the API has ended");
    }
}

/// A socket for this user and its group. One that a process before has left, which nobody answers at, is taken away.
fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    let left = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if left && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_it_was_read() {
        for (text, of_this_host) in [("127.0.0.1:7680", true), ("10.0.0.1:1", false), ("unix:/run/x.sock", true)] {
            let address = ApiAddress::try_from(text.to_owned());
            assert_eq!(address.as_ref().map(ToString::to_string), Ok(text.to_owned()));
            assert_eq!(address.map(|address| address.is_of_this_host()), Ok(of_this_host));
        }
        for text in ["here", "unix:", "127.0.0.1", ""] {
            assert!(ApiAddress::try_from(text.to_owned()).is_err(), "{text:?}");
        }
    }
}
