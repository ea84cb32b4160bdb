//! The shim's own log: lines into the FIFO `log` that containerd opens in the bundle, and copies to its own log.
//!
//! Never blocks: the FIFO is held open for reading too, so it outlives containerd, and when nobody empties it lines are dropped.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc::O_NONBLOCK;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Begins to log into `bundle`/log. Without that FIFO (a shim started by hand) there is no log.
pub fn begin(bundle: &Path, level: LevelFilter) {
    let opened = OpenOptions::new().read(true).write(true).custom_flags(O_NONBLOCK).open(bundle.join("log"));
    let Ok(fifo) = opened else { return };
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(Fifo(fifo));
    tracing_subscriber::registry().with(lines).with(targets(level)).init();
}

/// libcontainer warns of each cgroup controller the host lacks, for each container, and logs every error it also returns. Both are docklock's
/// to judge and to report, once; here they are said only to who debugs.
fn targets(level: LevelFilter) -> Targets {
    let theirs = if level >= LevelFilter::DEBUG { level } else { LevelFilter::OFF };
    Targets::new().with_default(level).with_target("libcontainer", theirs).with_target("libcgroups", theirs)
}

struct Fifo(File);

struct Line<'a>(&'a File);

impl<'a> MakeWriter<'a> for Fifo {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(bytes.len()),
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_full_fifo_drops_lines_and_blocks_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let fifo = OpenOptions::new().read(true).write(true).custom_flags(O_NONBLOCK).open(&path).unwrap();
        for _ in 0..3 {
            Line(&fifo).write_all(&[b'x'; 65536]).unwrap();
        }
    }
}
