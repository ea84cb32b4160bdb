//! Standard output, whose reader may hang up at any moment.

use std::io::{self, Write};

use clap::ValueEnum;

use crate::failure::Failure;

/// How a subcommand prints what it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs: one JSON document.
    Json,
}

/// Prints `text` as it is. A reader that has hung up has what it wanted: that is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Stdout { source: error }),
        _ => Ok(()),
    }
}

/// `text` with every control character but the newline made visible.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}
