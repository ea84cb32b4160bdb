//! A program on a real terminal: one end of a pty pair for it, the other for the test.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};

use crate::Failure;
use crate::command::wait;

/// A running program and the master side of its terminal.
pub struct Terminal {
    child: Child,
    line: String,
    writer: File,
    seen: String,
    incoming: mpsc::Receiver<Vec<u8>>,
}

impl Terminal {
    /// Starts `command` with a new terminal of 80 columns and 24 rows as its stdin, stdout and stderr.
    ///
    /// # Errors
    /// When no pty is to be had or the program does not start.
    pub fn start(mut command: Command) -> Result<Self, Failure> {
        let line = format!("{command:?}");
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).map_err(|error| format!("no pty: {error}"))?;
        let copy = |fd: &OwnedFd| {
            fd.try_clone().map_err(|error| Failure::from(format!("cannot duplicate fd {}: {error}", fd.as_raw_fd())))
        };
        command.stdin(Stdio::from(copy(&pair.slave)?));
        command.stdout(Stdio::from(copy(&pair.slave)?));
        command.stderr(Stdio::from(pair.slave));
        let child = command.spawn().map_err(|error| format!("cannot start {line}: {error}"))?;
        // The command keeps copies of the slave side; they must go, or the master never sees the end.
        drop(command);
        let mut reader = File::from(copy(&pair.master)?);
        let (sender, incoming) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO is how a terminal says that its last user has gone.
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, line, writer: File::from(pair.master), seen: String::new(), incoming })
    }

    /// Types `text`.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn type_text(&mut self, text: &str) -> Result<(), Failure> {
        self.writer.write_all(text.as_bytes()).map_err(|error| format!("cannot type {text:?}: {error}").into())
    }

    /// Reads until the screen has shown `text`.
    ///
    /// # Errors
    /// What was shown instead, after 30 seconds.
    pub fn shows(&mut self, text: &str) -> Result<(), Failure> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.seen.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.incoming.recv_timeout(left) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => {
                    return Err(format!(
                        "{}: the terminal never showed {text:?}; it showed {:?}",
                        self.line, self.seen
                    )
                    .into());
                }
            }
        }
        Ok(())
    }

    /// Waits for the program to end and gives its exit code.
    ///
    /// # Errors
    /// When it is still running after 30 seconds.
    pub fn finish(mut self) -> Result<i32, Failure> {
        wait(&mut self.child, &self.line, Duration::from_secs(30))
    }
}
