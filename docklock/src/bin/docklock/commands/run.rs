//! `docklock run`: a bundle, or a program in a root file system, in its cage, in the foreground, without containerd.

pub(crate) mod attempt;
mod series;

use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::Args;
use docklock::config::Config;
use docklock::outputs::{self, Limits};
use docklock::rerun::{CONFIG_FILE, OUTPUTS_FILE, TRACE_FILE};
use docklock::spool::{Boundary, Spool};
use docklock::task::{Engine, Io, Stdio};
use oci_spec::runtime::Spec;

use super::folder;
use crate::failure::Failure;
use crate::foreground::{self, Signals};
use crate::output::Format;
use crate::program::{self, Program};
use crate::stage::Stage;
use attempt::{Attempt, Ground, Order};

/// Run a bundle or a program and keep its receipt
#[derive(Args)]
#[command(
    long_about = "Runs an OCI bundle (a folder with config.json and a root file system), or a program in a root file system that stays as it is, \
in a cage, in the foreground, with this terminal's streams. The intent is durable before the first instruction; the receipt is durable before \
this command ends.

With --rootfs the program gets a fresh layer over the folder, user 0, PATH and HOME, and nothing else of this host. With --twice or --seeds every \
run has a layer of its own, an empty standard input unless --stdin names a file, and the runs are compared or counted.

Signals that would end this command go to the container instead; the third one kills it. Needs root and the host's key (`docklock keygen`).",
    after_long_help = "\
Exit status:
  0-255  the status of the container's process; 128 + N when signal N ended it
  5      --twice: the two runs differ; standard error says where first
  125    a failure of docklock itself, or no receipt could be made; one sentence on standard error says why
  2      wrong usage or an unusable configuration
  With --seeds: the status of the first run that did not end with 0.

Examples:
  docklock run --bundle ./hello
  docklock run --bundle ./job --profile strict --receipt-dir ./evidence && docklock verify ./evidence --trust host.pub.pem
  docklock run --rootfs ./debian --profile strict -- python3 /app/test.py
  docklock run --rootfs ./debian --twice -- make -C /src check
  docklock run --rootfs ./debian --seeds 1..100 -- /app/flaky-test

Files:
  /var/lib/docklock/spool/local/records/    where the records go"
)]
pub(crate) struct Arguments {
    /// Folder with config.json [default: the current folder]
    #[arg(long, short, value_name = "DIR", conflicts_with = "rootfs")]
    bundle: Option<PathBuf>,
    /// Root file system to run a program in; nothing is written to it
    #[arg(long, value_name = "DIR", requires = "argv")]
    rootfs: Option<PathBuf>,
    /// The program and its arguments; with a bundle, instead of those in its config.json
    #[arg(last = true, value_name = "ARGV")]
    argv: Vec<String>,
    /// Set a variable of the program's environment; NAME alone takes this command's value
    #[arg(long, value_name = "NAME[=VALUE]", requires = "rootfs")]
    env: Vec<String>,
    /// Folder to start in
    #[arg(long, value_name = "PATH", default_value = "/", requires = "rootfs")]
    workdir: String,
    /// Who runs it: a number, or a name that the root file system knows
    #[arg(long, value_name = "USER[:GID]", requires = "rootfs")]
    user: Option<String>,
    /// Mount a folder or file of this host, read-only; its content is an input of the run
    #[arg(long, value_name = "PATH=SOURCE", requires = "rootfs")]
    mount: Vec<String>,
    /// Give it a terminal
    #[arg(long, short, requires = "rootfs", conflicts_with_all = ["twice", "seeds"])]
    tty: bool,
    /// Measure the root file system, so that the receipt knows what the run started from; 2 GB a second
    #[arg(long)]
    pin: bool,
    /// Keep what the run writes in a new folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["twice", "seeds"])]
    out: Option<PathBuf>,
    /// Where its random bytes come from: a number, or 64 hexadecimal digits [default: follows from the configuration]
    #[arg(long, value_name = "N|HEX", value_parser = program::parse_seed)]
    seed: Option<[u8; 32]>,
    /// Run once with each of these seeds, and tell which fail
    #[arg(long, value_name = "A..B", value_parser = parse_seeds, conflicts_with_all = ["seed", "twice", "trace", "receipt_dir"])]
    seeds: Option<RangeInclusive<u64>>,
    /// Run it two times and compare: run-hash, outputs, and every decision of the cage
    #[arg(long, conflicts_with = "receipt_dir")]
    twice: bool,
    /// Keep the cage's log of decisions in a new file (with --twice: FILE.1 and FILE.2)
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Standard input of runs that are compared or counted [default: empty]
    #[arg(long, value_name = "FILE")]
    stdin: Option<PathBuf>,
    /// Name of the container on this host [default: run- and eight random digits]
    #[arg(long, value_name = "ID", conflicts_with_all = ["twice", "seeds"])]
    id: Option<String>,
    /// Cage profile; an annotation in config.json goes before it [default: default_profile of the configuration]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Also write the evidence of this run to a new folder
    #[arg(long, value_name = "DIR")]
    receipt_dir: Option<PathBuf>,
    /// With --receipt-dir: also write what `docklock rerun` and `docklock diff` need (config.json with arguments and environment in plain, the log of decisions, the listing of outputs)
    #[arg(long, requires = "receipt_dir")]
    repeatable: bool,
    /// Chroot instead of pivot_root, for a root file system on an initramfs
    #[arg(long)]
    no_pivot: bool,
    /// Do not name the receipt on standard error
    #[arg(long, short)]
    quiet: bool,
    /// How --twice and --seeds print what they found; with json the programs' own output is not shown
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// Most seeds of one command: at 20 ms a run, five hours.
const SEEDS_MAX: u64 = 1_000_000;

fn parse_seeds(text: &str) -> Result<RangeInclusive<u64>, String> {
    let wrong = || format!("seeds are given as FIRST..LAST, both included, and at most {SEEDS_MAX} of them");
    let (first, last) = text.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    let seeds = number(first)?..=number(last)?;
    if seeds.is_empty() || seeds.end() - seeds.start() >= SEEDS_MAX {
        return Err(wrong());
    }
    Ok(seeds)
}

pub(crate) fn run(arguments: Arguments, config: Option<&Path>) -> Result<u8, Failure> {
    let config = Config::load(config)?;
    foreground::log_to_stderr(&config.log_level);
    in_foreground(&arguments, config).map_err(|failure| Failure::OfRun(Box::new(failure)))
}

fn in_foreground(arguments: &Arguments, config: Config) -> Result<u8, Failure> {
    // Found now rather than after the run.
    for new in [&arguments.receipt_dir, &arguments.out, &arguments.trace].into_iter().flatten() {
        if new.symlink_metadata().is_ok() {
            return Err(Failure::Exists { path: new.clone() });
        }
    }
    let spool_dir = config.spool_dir.clone();
    let ground = ground(arguments, &config)?;
    let engine = Engine::start(config)?;
    let outcome = Signals::hold().and_then(|signals| {
        let attended = signals.pass(arguments.terminal(&ground))?;
        if let Some(seeds) = &arguments.seeds {
            series::of_seeds(arguments, &engine, &ground, &attended, &spool_dir, seeds.clone())
        } else if arguments.twice {
            series::twice(arguments, &engine, &ground, &attended, &spool_dir)
        } else {
            once(arguments, &engine, &ground, &attended, &spool_dir)
        }
    });
    engine.shut_down()?;
    outcome
}

impl Arguments {
    fn order(&self) -> Order<'_> {
        Order {
            profile: self.profile.as_deref(),
            no_pivot: self.no_pivot,
            seed: self.seed,
            id: self.id.as_deref(),
            layer: self.out.as_deref(),
            ..Order::default()
        }
    }

    fn terminal(&self, ground: &Ground) -> bool {
        self.tty || ground.terminal
    }

    /// Standard input of a run that is compared or counted.
    fn stdin(&self) -> Result<std::fs::File, Failure> {
        let path = self.stdin.as_deref().unwrap_or(Path::new("/dev/null"));
        std::fs::File::open(path).map_err(|source| Failure::File { deed: "open", path: path.to_path_buf(), source })
    }
}

/// What is run, and over what.
fn ground(arguments: &Arguments, config: &Config) -> Result<Ground, Failure> {
    // A bundle as it stands is run in place; everything else must not write to what it starts from.
    let staged = !arguments.argv.is_empty()
        || arguments.twice
        || arguments.seeds.is_some()
        || arguments.out.is_some()
        || arguments.repeatable
        || arguments.pin;
    let mut ground = match &arguments.rootfs {
        Some(rootfs) => of_rootfs(arguments, rootfs)?,
        None => Ground::of_bundle(arguments.bundle.as_deref().unwrap_or(Path::new(".")), &arguments.argv)?,
    };
    ground.pin = arguments.pin;
    if staged {
        ground.stage = Some(Stage::make(&config.stage_dir)?);
    }
    Ok(ground)
}

fn of_rootfs(arguments: &Arguments, rootfs: &Path) -> Result<Ground, Failure> {
    let failed = |source| Failure::File { deed: "open the root file system", path: rootfs.to_path_buf(), source };
    let rootfs = rootfs.canonicalize().map_err(failed)?;
    if !rootfs.is_dir() {
        return Err(failed(std::io::ErrorKind::NotADirectory.into()));
    }
    let env: Vec<String> = arguments.env.iter().filter_map(|entry| variable(entry)).collect();
    let mounts = arguments.mount.iter().map(|text| parse_mount(text)).collect::<Result<Vec<_>, _>>()?;
    let program = Program {
        argv: &arguments.argv,
        env: &env,
        workdir: &arguments.workdir,
        user: arguments.user.as_deref(),
        terminal: arguments.tty,
        mounts: &mounts,
    };
    let spec = program::specification(&program, &rootfs)?;
    Ok(Ground { spec, bundle: PathBuf::new(), lower: vec![rootfs], terminal: arguments.tty, pin: false, stage: None })
}

/// `NAME` takes the value that this command has, if it has one.
fn variable(entry: &str) -> Option<String> {
    if entry.contains('=') {
        return Some(entry.to_owned());
    }
    std::env::var(entry).ok().map(|value| format!("{entry}={value}"))
}

/// `--mount PATH=SOURCE`.
pub(crate) fn parse_mount(text: &str) -> Result<(String, String), Failure> {
    let refused = |reason: String| Failure::MountArgument { text: text.to_owned(), reason };
    let (path, source) = text.split_once('=').ok_or_else(|| refused("it has the form PATH=SOURCE".to_owned()))?;
    let source = Path::new(source).canonicalize().map_err(|error| refused(format!("{source}: {error}")))?;
    let source = source.to_str().ok_or_else(|| refused("its source is not UTF-8".to_owned()))?;
    Ok((path.to_owned(), source.to_owned()))
}

fn once(
    arguments: &Arguments,
    engine: &Engine,
    ground: &Ground,
    attended: &foreground::Attended,
    spool_dir: &Path,
) -> Result<u8, Failure> {
    let stage_trace = ground.stage.as_ref().filter(|_| arguments.repeatable).map(|stage| stage.dir().join(TRACE_FILE));
    let trace = arguments.trace.clone().or(stage_trace);
    let io = match arguments.stdin {
        None => inherited_streams(arguments.terminal(ground))?,
        Some(_) => Io { stdin: Stdio::Fd(arguments.stdin()?.into()), ..inherited_streams(arguments.terminal(ground))? },
    };
    let order = Order { trace: trace.as_deref(), ..arguments.order() };
    let attempt = attempt::make(engine, ground, attended, order, io)?;
    let status = attempt.exit.status;
    let receipt = attempt.sealed()?;
    if (arguments.seed.is_some() || arguments.trace.is_some()) && !arguments.quiet {
        tell_if_unordered(&attempt, spool_dir)?;
    }
    if let Some(dir) = &arguments.receipt_dir {
        let spool = Spool::open_existing(spool_dir, &Boundary::local())?;
        folder::write(&spool, receipt.seq, dir)?;
        if arguments.repeatable {
            add_what_a_rerun_needs(&spool, receipt.seq, &attempt, trace.as_deref(), dir)?;
        }
    }
    if !arguments.quiet {
        match arguments.format {
            Format::Text => {
                eprint_line(&format!(
                    "docklock: receipt {} of boundary local: {}",
                    receipt.seq,
                    receipt.path.display()
                ));
            }
            Format::Json => eprint_line(
                &serde_json::json!({ "boundary": "local", "seq": receipt.seq, "path": receipt.path, "status": status })
                    .to_string(),
            ),
        }
    }
    Ok(u8::try_from(status).unwrap_or(u8::MAX))
}

/// A seed and a log are the cage's, and under a profile that leaves the order to the kernel there are none.
fn tell_if_unordered(attempt: &Attempt, spool_dir: &Path) -> Result<(), Failure> {
    let run = attempt.receipt(spool_dir)?.0.run;
    if run.params.seed.is_none() {
        eprint_line(&format!(
            "docklock: profile {} leaves order and randomness to the host: a seed changes nothing, and there is no log of decisions",
            run.cage.profile
        ));
    }
    Ok(())
}

/// Configuration, log and listing beside the evidence.
fn add_what_a_rerun_needs(
    spool: &Spool,
    seq: u64,
    attempt: &Attempt,
    trace: Option<&Path>,
    dir: &Path,
) -> Result<(), Failure> {
    folder::write_config(spool, seq, &dir.join(CONFIG_FILE))?;
    if let Some(trace) = trace.filter(|trace| trace.exists()) {
        let path = dir.join(TRACE_FILE);
        std::fs::copy(trace, &path).map_err(|source| Failure::File { deed: "write", path, source })?;
    }
    if let Some(layer) = &attempt.layer {
        write_listing(layer, &dir.join(OUTPUTS_FILE))?;
    }
    Ok(())
}

/// The listing of what a run wrote, in a new file.
pub(crate) fn write_listing(layer: &Path, path: &Path) -> Result<(), Failure> {
    let failed = |source| Failure::File { deed: "write", path: path.to_path_buf(), source };
    let mut file = std::io::BufWriter::new(std::fs::File::create_new(path).map_err(failed)?);
    outputs::list_layer(layer, &Limits::default(), &mut file)
        .map_err(|error| Failure::Task(docklock::task::TaskError::Outputs(error)))?;
    std::io::Write::flush(&mut file).map_err(failed)
}

/// The root file system that a bundle names, and whether its process wants a terminal.
pub(crate) fn rootfs_of(bundle: &Path) -> Result<(PathBuf, bool), Failure> {
    let (spec, path) = load(bundle)?;
    let Some(root) = spec.root() else {
        return Err(Failure::Bundle { path, reason: "it names no root file system (root.path)".to_owned() });
    };
    let terminal = spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false);
    Ok((bundle.join(root.path()), terminal))
}

fn load(bundle: &Path) -> Result<(Spec, PathBuf), Failure> {
    let path = bundle.join("config.json");
    let spec = Spec::load(&path).map_err(|error| Failure::Bundle { path: path.clone(), reason: error.to_string() })?;
    Ok((spec, path))
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

fn eprint_line(line: &str) {
    use std::io::Write;
    // The run is over and its receipt is safe; who closed standard error does not want to know.
    match writeln!(std::io::stderr(), "{line}") {
        Ok(()) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn seeds_are_a_range_that_is_not_empty_and_not_endless() {
        assert_eq!(parse_seeds("3..5").unwrap(), 3..=5);
        for wrong in ["3", "5..3", "..", "1..x", "0..1000000", "-1..2"] {
            assert!(parse_seeds(wrong).is_err(), "{wrong}");
        }
    }
}
