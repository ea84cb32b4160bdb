//! Where the time goes: one JSON line for each span, in the file that DOCKLOCK_SPANS names.
//!
//! For benchmarks. Without the variable a span costs one check of a flag. Lines of several processes do not mix: each is one write(2)
//! to a file opened for appending.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::OnceLock;
use std::time::Instant;

fn sink() -> Option<&'static File> {
    static SINK: OnceLock<Option<File>> = OnceLock::new();
    SINK.get_or_init(|| {
        let path = std::env::var_os("DOCKLOCK_SPANS")?;
        OpenOptions::new().create(true).append(true).open(path).ok()
    })
    .as_ref()
}

/// Measures from its making to its end.
#[derive(Debug)]
pub struct Span {
    name: &'static str,
    begun: Option<Instant>,
}

/// Begins a span.
pub fn span(name: &'static str) -> Span {
    Span { name, begun: sink().map(|_| Instant::now()) }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let (Some(begun), Some(mut file)) = (self.begun, sink()) {
            let line = format!(
                "{{\"span\":\"{}\",\"us\":{},\"pid\":{}}}\n",
                self.name,
                begun.elapsed().as_micros(),
                std::process::id()
            );
            // A benchmark's file that cannot be written must not fail a container; the benchmark sees the gap.
            drop(file.write_all(line.as_bytes()));
        }
    }
}
