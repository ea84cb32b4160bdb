//! The isolated world of one test run, and what all tests in it share.
//!
//! The test program starts itself again under `unshare`: own mounts (with an empty /run), own process ids, own network. Process 1
//! of that world only reaps; when it ends, the kernel ends everything else, so no failing test can leave a container behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::OnceLock;

use nix::mount::{MsFlags, mount};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::Failure;
use crate::command::{DEADLINE, run};
use crate::daemon::{Daemon, Settings, Version};
use crate::image::{Image, build};

const STAGE: &str = "BPI_TEST_STAGE";

/// Puts this process into a world of its own. `None` means "you are inside, go on"; otherwise the exit code of the run.
pub fn isolate() -> Option<ExitCode> {
    match std::env::var(STAGE).as_deref() {
        Ok("inside") => None,
        Ok("init") => Some(reap_until_done()),
        _ => Some(leave_for_own_world()),
    }
}

fn own_command() -> Command {
    let own = std::env::current_exe().expect("the kernel knows which file this process runs");
    let mut command = Command::new(own);
    command.args(std::env::args_os().skip(1));
    command
}

fn leave_for_own_world() -> ExitCode {
    let own = own_command();
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"]);
    unshare.arg(own.get_program()).args(own.get_args()).env(STAGE, "init");
    match unshare.status() {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(101)),
        Err(error) => {
            eprintln!("cannot start unshare (package util-linux): {error}");
            ExitCode::from(101)
        }
    }
}

fn reap_until_done() -> ExitCode {
    let child = match own_command().env(STAGE, "inside").spawn() {
        Ok(child) => Pid::from_raw(i32::try_from(child.id()).expect("process ids fit i32")),
        Err(error) => {
            eprintln!("cannot start the tests again inside their world: {error}");
            return ExitCode::from(101);
        }
    };
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => {
                return ExitCode::from(u8::try_from(code).unwrap_or(101));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                eprintln!("the test program ended by {signal}");
                return ExitCode::from(101);
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => {
                eprintln!("cannot wait for the test program: {error}");
                return ExitCode::from(101);
            }
        }
    }
}

/// What all tests share.
pub struct World {
    /// The repository.
    pub root: PathBuf,
    /// Folder with `containerd-shim-bpi-docklock` and `docklock`.
    pub programs: PathBuf,
    /// Runtime under test, `io.bpi.docklock` unless `BPI_RUNTIME` says otherwise.
    pub runtime: String,
    /// The image every namespace gets.
    pub image: Image,
    /// On disk; for containerd roots, spools, bundles.
    pub scratch: TempDir,
    cache: PathBuf,
    debian: OnceLock<Result<Daemon, String>>,
    newer: OnceLock<Result<Daemon, String>>,
}

impl World {
    /// Prepares the world; call once, inside.
    ///
    /// # Errors
    /// When /run or the loopback device cannot be had, the binaries are not built or the image cannot be made.
    pub fn new() -> Result<Self, Failure> {
        let nothing: Option<&str> = None;
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=755"))
            .map_err(|error| format!("cannot mount an empty /run: {error}"))?;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
            .map_err(|error| format!("cannot make the mounts private: {error}"))?;
        let mut loopback = Command::new("ip");
        loopback.args(["link", "set", "lo", "up"]);
        run(loopback, b"", DEADLINE)?.ok()?;
        let folder = |name: &str, otherwise: PathBuf| std::env::var_os(name).map_or(otherwise, PathBuf::from);
        let root = folder("BPI_ROOT", Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
        let root = fs::canonicalize(&root).map_err(|error| format!("{}: {error}", root.display()))?;
        let beside =
            std::env::current_exe().ok().and_then(|path| path.parent().and_then(Path::parent).map(Path::to_owned));
        let programs = folder("BPI_PROGRAMS", beside.unwrap_or_default());
        let cache = folder("BPI_CACHE", PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/bpi"));
        let scratch = tempfile::Builder::new()
            .prefix("bpi-test-")
            .disable_cleanup(std::env::var_os("BPI_KEEP").is_some())
            .tempdir()
            .map_err(|error| format!("no scratch folder: {error}"))?;
        let image = build(&root, scratch.path())?;
        let runtime = std::env::var("BPI_RUNTIME").unwrap_or_else(|_| "io.bpi.docklock".to_owned());
        Ok(Self { root, programs, runtime, image, scratch, cache, debian: OnceLock::new(), newer: OnceLock::new() })
    }

    /// The folder with a containerd's programs, or why there is none.
    ///
    /// # Errors
    /// One sentence that can stand after "skipped, because".
    pub fn containerd(&self, version: Version) -> Result<PathBuf, String> {
        let folder = match version {
            Version::Debian => PathBuf::from("/usr/bin"),
            Version::Newer => self.cache.join("containerd-2/usr/bin"),
        };
        if folder.join("containerd").exists() {
            Ok(folder)
        } else {
            Err(format!(
                "{} does not exist; scripts/bpi test system fetches it where a newer Debian is reachable",
                folder.join("containerd").display()
            ))
        }
    }

    /// The daemon of this version that most tests share; started at its first use.
    ///
    /// # Errors
    /// When it does not start, the same sentence each time.
    pub fn daemon(&self, version: Version) -> Result<&Daemon, Failure> {
        let (cell, name) = match version {
            Version::Debian => (&self.debian, "shared-1"),
            Version::Newer => (&self.newer, "shared-2"),
        };
        let started = cell
            .get_or_init(|| Daemon::start(self, version, name, &Settings::default()).map_err(|error| text_of(&error)));
        started.as_ref().map_err(|error| error.clone().into())
    }

    /// Stops the shared daemons and tells what they left behind.
    pub fn close(self) -> Vec<String> {
        let marker = self.scratch.path().to_string_lossy().into_owned();
        let mut left = Vec::new();
        for daemon in [self.debian, self.newer].into_iter().filter_map(OnceLock::into_inner).flatten() {
            left.extend(daemon.stop());
        }
        left.extend(crate::leak::processes(&marker).into_iter().map(|line| format!("process {line}")));
        left.extend(crate::leak::mounts(&marker).into_iter().map(|line| format!("mount {line}")));
        left
    }

    /// `docklock` with the configuration at `config`.
    pub fn docklock(&self, config: &Path) -> Command {
        let mut command = Command::new(self.programs.join("docklock"));
        command.env("DOCKLOCK_CONFIG", config).env("RUST_BACKTRACE", "0");
        command
    }
}

/// The text of a failure.
pub fn text_of(failure: &Failure) -> String {
    failure.message().unwrap_or("no reason given").to_owned()
}
