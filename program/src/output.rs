//! Standard output, whose reader may hang up at any moment.

use std::io::{self, Write};

use clap::ValueEnum;

/// How a subcommand prints what it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: one JSON document.
    Json,
}

/// Nothing can be printed.
#[derive(Debug, thiserror::Error)]
#[error("could not write to standard output: {source}")]
pub struct StdoutError {
    source: io::Error,
}

impl StdoutError {
    /// For what cannot even be put into words.
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: io::Error::other(error) }
    }
}

/// Prints `text` as it is. A reader that has hung up has what it wanted: that is no failure.
///
/// # Errors
/// [`StdoutError`].
pub fn print(text: &str) -> Result<(), StdoutError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(source) if source.kind() != io::ErrorKind::BrokenPipe => Err(StdoutError { source }),
        _ => Ok(()),
    }
}

/// `text` with every control character but the newline made visible: names and reasons come from outside, and a terminal obeys what it is shown.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}
