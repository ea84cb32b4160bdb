//! Runs programs with a deadline and keeps what they said.
//!
//! Always holds: a call returns within its deadline, the program is reaped, and stdout and stderr are drained while it runs.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Failure;

/// Longest time one program may take unless a test says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// What a finished program left.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// All of its standard error.
    pub stderr: Vec<u8>,
    /// The command line, for messages.
    pub line: String,
}

impl Finished {
    /// Standard output as text, without the final newline.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// Standard error as text, without the final newline.
    pub fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim_end().to_owned()
    }

    /// Passes on when the exit code is `code`.
    ///
    /// # Errors
    /// The command line, its code and the end of its output, when it is another.
    pub fn expect_code(self, code: i32) -> Result<Self, Failure> {
        if self.code == code { Ok(self) } else { Err(format!("expected exit code {code}: {}", self.describe()).into()) }
    }

    /// Passes on when the program succeeded.
    ///
    /// # Errors
    /// As [`Finished::expect_code`].
    pub fn ok(self) -> Result<Self, Failure> {
        self.expect_code(0)
    }

    /// One paragraph for a failure message.
    pub fn describe(&self) -> String {
        let end =
            |text: String| text.chars().rev().take(1500).collect::<Vec<_>>().into_iter().rev().collect::<String>();
        format!(
            "`{}` ended with {}; stdout: {}; stderr: {}",
            self.line,
            self.code,
            end(self.text()),
            end(self.error_text())
        )
    }
}

/// Runs `command` to its end, feeding it `input`.
///
/// # Errors
/// When it cannot be started, or is still running after `deadline` (it is then killed).
pub fn run(mut command: Command, input: &[u8], deadline: Duration) -> Result<Finished, Failure> {
    let line = describe(&command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot start `{line}`: {error}"))?;
    let input = input.to_owned();
    let mut stdin = child.stdin.take();
    // A program that does not read its input closes the pipe early: that is its right, not a failure of the test.
    thread::spawn(move || stdin.take().map(|mut pipe| pipe.write_all(&input)));
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let code = wait(&mut child, &line, deadline)?;
    let collected = |receiver: mpsc::Receiver<Vec<u8>>, name: &str| {
        receiver
            .recv_timeout(Duration::from_secs(10))
            .map_err(|_| format!("`{line}` has ended, but something still holds its {name} open"))
    };
    Ok(Finished { code, stdout: collected(stdout, "stdout")?, stderr: collected(stderr, "stderr")?, line })
}

/// Waits for a child that was started elsewhere.
///
/// # Errors
/// When it still runs after `deadline`; it is then killed.
pub fn wait(child: &mut Child, line: &str, deadline: Duration) -> Result<i32, Failure> {
    use std::os::unix::process::ExitStatusExt;
    let (tell_end, end) = mpsc::channel::<()>();
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("process ids fit i32"));
    let watchdog = thread::spawn(move || {
        let late = end.recv_timeout(deadline) == Err(mpsc::RecvTimeoutError::Timeout);
        late && kill(pid, Signal::SIGKILL).is_ok()
    });
    let status = child.wait();
    drop(tell_end);
    let late = watchdog.join().map_err(|_| "the watchdog thread panicked")?;
    if late {
        return Err(format!("`{line}` was still running after {deadline:?}").into());
    }
    let status = status.map_err(|error| format!("cannot wait for `{line}`: {error}"))?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut pipe) = pipe {
            // A read error ends the stream like its end does; what came until then is what the test sees.
            if pipe.read_to_end(&mut all).is_err() {
                all.extend_from_slice(b"<read error>");
            }
        }
        sender.send(all)
    });
    receiver
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
