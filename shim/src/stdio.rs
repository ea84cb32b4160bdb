//! Where containerd says a process's streams go: a FIFO by its path, or a URI since 1.7.
//!
//! `binary://` (a program that takes the logs) is refused: the shim would start a program outside every cage.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use docklock::task::{Io, Stdio};

/// Why a stream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// A scheme this shim does not do.
    #[error("{stream} goes to {uri:?}, which is not supported; this shim takes a FIFO's path, fifo:// and file://")]
    Unsupported {
        /// Which stream.
        stream: &'static str,
        /// The URI.
        uri: String,
    },
    /// A path that depends on the working directory.
    #[error("{stream} goes to {uri:?}, which is not an absolute path")]
    NotAbsolute {
        /// Which stream.
        stream: &'static str,
        /// The path or URI.
        uri: String,
    },
    /// A log file that cannot be opened.
    #[error("could not open {} for {stream}: {source}", path.display())]
    Open {
        /// Which stream.
        stream: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// What the client asked for, as `state` tells it back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientIo {
    /// Standard input; empty for none.
    pub stdin: String,
    /// Standard output; empty for none.
    pub stdout: String,
    /// Standard error; empty for none.
    pub stderr: String,
    /// A terminal instead of three streams.
    pub terminal: bool,
}

impl ClientIo {
    /// Standard input, output and error as a request names them.
    pub fn new([stdin, stdout, stderr]: [&String; 3], terminal: bool) -> Self {
        Self { stdin: stdin.clone(), stdout: stdout.clone(), stderr: stderr.clone(), terminal }
    }

    /// As docklock takes it.
    ///
    /// # Errors
    /// Each [`StdioError`] names the stream and what was asked for.
    pub fn open(&self) -> Result<Io, StdioError> {
        Ok(Io {
            stdin: stdio("standard input", &self.stdin)?,
            stdout: stdio("standard output", &self.stdout)?,
            stderr: if self.terminal { Stdio::Null } else { stdio("standard error", &self.stderr)? },
            terminal: self.terminal,
        })
    }
}

fn stdio(stream: &'static str, uri: &str) -> Result<Stdio, StdioError> {
    let absolute = |text: &str| match Path::new(text) {
        path if path.is_absolute() => Ok(path.to_path_buf()),
        _ => Err(StdioError::NotAbsolute { stream, uri: uri.to_owned() }),
    };
    match uri.split_once("://") {
        None if uri.is_empty() => Ok(Stdio::Null),
        None => absolute(uri).map(Stdio::Path),
        Some(("fifo", rest)) => absolute(without_query(rest)).map(Stdio::Path),
        Some(("file", rest)) => {
            let path = absolute(without_query(rest))?;
            let mut how = OpenOptions::new();
            let opened =
                if stream == "standard input" { how.read(true) } else { how.append(true).create(true) }.open(&path);
            opened.map(|file| Stdio::Fd(file.into())).map_err(|source| StdioError::Open { stream, path, source })
        }
        Some(_) => Err(StdioError::Unsupported { stream, uri: uri.to_owned() }),
    }
}

fn without_query(text: &str) -> &str {
    text.split_once('?').map_or(text, |(path, _)| path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_fifo_comes_as_a_path_or_a_uri() {
        assert!(matches!(stdio("standard input", ""), Ok(Stdio::Null)));
        for uri in ["/run/fifo", "fifo:///run/fifo", "fifo:///run/fifo?x=y"] {
            assert!(
                matches!(stdio("standard output", uri), Ok(Stdio::Path(path)) if path == Path::new("/run/fifo")),
                "{uri}"
            );
        }
    }

    #[test]
    fn a_log_file_is_made_and_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        let uri = format!("file://{}/log", folder.path().display());
        assert!(matches!(stdio("standard output", &uri), Ok(Stdio::Fd(_))));
        assert!(folder.path().join("log").exists());
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let error = stdio("standard error", "binary:///usr/bin/logger").map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("binary:///usr/bin/logger"), "{error}");
        assert!(matches!(stdio("standard output", "relative"), Err(StdioError::NotAbsolute { .. })));
    }
}
