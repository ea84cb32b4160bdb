//! `docklock run`: a bundle in its cage, in the foreground, without containerd.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::Args;
use docklock::config::Config;
use docklock::spool::{Boundary, Spool};
use docklock::task::{CreateRequest, Engine, Exit, Io, Stdio};
use oci_spec::runtime::Spec;

use super::export;
use crate::failure::Failure;
use crate::foreground::{self, RawTerminal, Signals};

/// Run a bundle and keep its receipt
#[derive(Args)]
#[command(
    long_about = "Runs an OCI bundle (a folder with config.json and a root file system) in a cage, in the foreground, with this \
terminal's streams. The intent is durable before the first instruction; the receipt is durable before this command ends.

Signals that would end this command go to the container instead. Needs root and the host's key (`docklock keygen`).

Exit status:
  0-255  the status of the container's process; 128 + N when signal N ended it
  125    a failure of docklock itself, or no receipt could be made; one sentence on standard error says why
  2      wrong usage or an unusable configuration

Examples:
  docklock run --bundle ./hello
  docklock run --bundle ./job --profile strict --receipt-dir ./evidence && docklock verify ./evidence --trust host.pub.pem

Files:
  /var/lib/docklock/spool/local/records/    where the records go"
)]
pub(crate) struct Arguments {
    /// Folder with config.json
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// Name of the container on this host [default: run- and eight random digits]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Cage profile; an annotation in config.json goes before it [default: default_profile of the configuration]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Also write the evidence of this run to a new folder
    #[arg(long, value_name = "DIR")]
    receipt_dir: Option<PathBuf>,
    /// Chroot instead of pivot_root, for a root file system on an initramfs
    #[arg(long)]
    no_pivot: bool,
    /// Do not name the receipt on standard error
    #[arg(long, short)]
    quiet: bool,
}

pub(crate) fn run(arguments: Arguments, config: Option<&Path>) -> Result<u8, Failure> {
    let config = Config::load(config)?;
    foreground::log_to_stderr(&config.log_level);
    in_foreground(arguments, config).map_err(|failure| Failure::OfRun(Box::new(failure)))
}

fn in_foreground(arguments: Arguments, config: Config) -> Result<u8, Failure> {
    if let Some(dir) = &arguments.receipt_dir
        && dir.symlink_metadata().is_ok()
    {
        // Found now rather than after the run.
        return Err(Failure::Exists { path: dir.clone() });
    }
    let request = request(&arguments)?;
    let spool_dir = config.spool_dir.clone();
    let engine = Engine::start(config)?;
    let outcome = attended(&engine, request);
    engine.shut_down()?;
    let exit = outcome?;
    let receipt = exit.seal.map_err(|reason| Failure::NoReceipt { status: exit.status, reason })?;
    if let Some(dir) = &arguments.receipt_dir {
        export::write(&Spool::open_existing(&spool_dir, &Boundary::local())?, receipt.seq, dir)?;
    }
    if !arguments.quiet {
        eprint_line(&format!("docklock: receipt {} of boundary local: {}", receipt.seq, receipt.path.display()));
    }
    Ok(u8::try_from(exit.status).unwrap_or(u8::MAX))
}

/// Runs the container to its end, passing signals on, and removes it.
fn attended(engine: &Engine, request: CreateRequest) -> Result<Exit, Failure> {
    let terminal = request.io.terminal;
    let raw = if terminal { RawTerminal::of_stdin()? } else { None };
    let signals = Signals::hold()?;
    let task = engine.create(request)?;
    signals.pass_to(&task, terminal)?;
    let started = task.start();
    if started.is_ok() {
        task.wait();
    }
    drop(raw);
    let exit = task.delete()?;
    started?;
    Ok(exit)
}

fn request(arguments: &Arguments) -> Result<CreateRequest, Failure> {
    let (rootfs, terminal) = rootfs_of(&arguments.bundle)?;
    let id = match &arguments.id {
        Some(id) => id.clone(),
        None => random_id()?,
    };
    Ok(CreateRequest {
        id,
        boundary: Boundary::local(),
        bundle: arguments.bundle.clone(),
        rootfs,
        layer: None,
        io: inherited_streams(terminal)?,
        profile: arguments.profile.clone(),
        image: Box::new(|| Ok(None)),
        no_pivot: arguments.no_pivot,
        seed: None,
        trace_log: None,
    })
}

/// The root file system that a bundle names, and whether its process wants a terminal.
pub(crate) fn rootfs_of(bundle: &Path) -> Result<(PathBuf, bool), Failure> {
    let path = bundle.join("config.json");
    let spec = Spec::load(&path).map_err(|error| Failure::Bundle { path: path.clone(), reason: error.to_string() })?;
    let Some(root) = spec.root() else {
        return Err(Failure::Bundle { path, reason: "it names no root file system (root.path)".to_owned() });
    };
    let terminal = spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false);
    Ok((bundle.join(root.path()), terminal))
}

/// Copies of this process's streams.
fn inherited_streams(terminal: bool) -> Result<Io, Failure> {
    let copy = |fd: std::os::fd::BorrowedFd<'_>| {
        fd.try_clone_to_owned()
            .map(Stdio::Fd)
            .map_err(|source| Failure::System { deed: "copy a standard stream", source })
    };
    Ok(Io {
        stdin: copy(std::io::stdin().as_fd())?,
        stdout: copy(std::io::stdout().as_fd())?,
        stderr: copy(std::io::stderr().as_fd())?,
        terminal,
    })
}

fn random_id() -> Result<String, Failure> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::System { deed: "get random bytes", source: std::io::Error::other(error) })?;
    Ok(format!("run-{}", hex::encode(bytes)))
}

fn eprint_line(line: &str) {
    use std::io::Write;
    // The run is over and its receipt is safe; who closed standard error does not want to know.
    match writeln!(std::io::stderr(), "{line}") {
        Ok(()) | Err(_) => {}
    }
}
