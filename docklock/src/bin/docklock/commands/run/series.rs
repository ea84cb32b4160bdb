//! The same thing several times: twice to compare, or with one seed after another to find which fail.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use docklock::rerun::{OUTPUTS_FILE, TRACE_FILE};
use docklock::task::{Engine, Io, Stdio};
use serde::Serialize;
use serde_json::json;

use super::attempt::{self, Attempt, Ground, Order};
use super::{Arguments, eprint_line, inherited_streams, tell_if_unordered, write_listing};
use crate::difference::{Difference, Side};
use crate::failure::Failure;
use crate::foreground::Attended;
use crate::output::{Format, plain, print, print_json};
use crate::program::seed_of;

/// Exit status when two runs differ.
const DIFFERS: u8 = 5;
/// Most bytes of a failed run's output that are shown, from its end.
const SHOWN_BYTES_MAX: u64 = 64 * 1024;

/// Runs it two times and compares.
pub(super) fn twice(
    arguments: &Arguments,
    engine: &Engine,
    ground: &Ground,
    attended: &Attended,
    spool_dir: &Path,
) -> Result<u8, Failure> {
    let stage = stage_of(ground)?;
    let logs = [1, 2].map(|number| match &arguments.trace {
        Some(trace) => {
            let mut name = trace.as_os_str().to_owned();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        }
        None => stage.join(format!("{number}-{TRACE_FILE}")),
    });
    let mut attempts = Vec::new();
    for (number, log) in (1..).zip(&logs) {
        if log.symlink_metadata().is_ok() {
            return Err(Failure::Exists { path: log.clone() });
        }
        let order = Order { trace: Some(log), number, ..arguments.order() };
        // The first run is what the caller sees; of the second only what is different matters.
        let shown = number == 1 && arguments.format == Format::Text;
        let io = if shown { inherited_streams(false)? } else { silent()? };
        let io = Io { stdin: Stdio::Fd(arguments.stdin()?.into()), ..io };
        attempts.push(attempt::make(engine, ground, attended, order, io)?);
        if attended.is_asked_to_end() && number == 1 {
            return Err(Failure::Interrupted);
        }
    }
    let [first, second] = &attempts[..] else { return Err(Failure::Interrupted) };
    let (one, other) = (side(first, 1, &logs[0], spool_dir)?, side(second, 2, &logs[1], spool_dir)?);
    for (attempt, number) in [(first, 1), (second, 2)] {
        if !arguments.quiet && arguments.format == Format::Text {
            eprint_line(&format!("docklock: run {number}: {}", summary(attempt, spool_dir)?));
        }
    }
    match (first.sealed(), second.sealed()) {
        (Err(Failure::NoReceipt { reason: one, .. }), Err(Failure::NoReceipt { reason: other, .. }))
            if one != other =>
        {
            eprint_line(&format!("docklock: the runs ended for different reasons: {one} | {other}"));
            Ok(DIFFERS)
        }
        (Ok(_), Ok(_)) => {
            list_outputs(&one, &other, [first, second])?;
            let difference = Difference::between(&one, &other)?;
            report(arguments, &difference)?;
            Ok(if difference.is_none() { u8::try_from(first.exit.status).unwrap_or(u8::MAX) } else { DIFFERS })
        }
        (Err(failure), Err(_)) => Err(failure),
        (Ok(_), Err(failure)) | (Err(failure), Ok(_)) => {
            eprint_line(&format!("docklock: only one of the runs has a receipt: {}", failure.sentence()));
            Ok(DIFFERS)
        }
    }
}

fn report(arguments: &Arguments, difference: &Difference) -> Result<(), Failure> {
    match arguments.format {
        Format::Json => print_json(difference),
        Format::Text if difference.is_none() && arguments.quiet => Ok(()),
        Format::Text if difference.is_none() => {
            eprint_line(&format!("docklock: {}", difference.verdict()));
            Ok(())
        }
        // The program's own output is on standard output.
        Format::Text => {
            eprint_line(difference.text().trim_end());
            Ok(())
        }
    }
}

/// One of two runs, with what there is of it. Without a receipt it has no run.
fn side(attempt: &Attempt, number: u64, log: &Path, spool_dir: &Path) -> Result<Side, Failure> {
    let run = match attempt.sealed() {
        Ok(_) => Some(attempt.receipt(spool_dir)?.0.run),
        Err(_) => None,
    };
    let listing = attempt.layer.as_ref().and_then(|layer| layer.parent()).map(|dir| dir.join(OUTPUTS_FILE));
    Ok(Side { name: format!("run {number}"), run, trace: Some(log.to_path_buf()), listing })
}

/// Listings cost a second walk over the output trees, and say something only where these differ.
fn list_outputs(one: &Side, other: &Side, attempts: [&Attempt; 2]) -> Result<(), Failure> {
    let outputs = |side: &Side| side.run.as_ref().map(|run| run.result.outputs.clone());
    if outputs(one) == outputs(other) {
        return Ok(());
    }
    for (side, attempt) in [one, other].into_iter().zip(attempts) {
        if let (Some(listing), Some(layer)) = (&side.listing, &attempt.layer) {
            write_listing(layer, listing)?;
        }
    }
    Ok(())
}

/// One line about a run: how it ended, its run-hash, how many decisions.
fn summary(attempt: &Attempt, spool_dir: &Path) -> Result<String, Failure> {
    let end = ended(attempt.exit.status);
    Ok(match &attempt.exit.seal {
        Err(reason) => format!("{end}, no receipt: {}", plain(reason)),
        Ok(_) => {
            let (receipt, hash) = attempt.receipt(spool_dir)?;
            let decisions = receipt.run.trace.map_or(String::new(), |trace| format!(", {} decisions", trace.events));
            format!("{end}, {}, run-hash {hash}{decisions}", receipt.assurance.level)
        }
    })
}

fn ended(status: u32) -> String {
    match status {
        129..=192 => format!("killed by signal {}", status - 128),
        status => format!("exited {status}"),
    }
}

/// What one seed gave.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfSeed {
    seed: u64,
    status: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_receipt: Option<String>,
}

/// Runs it with each seed, and tells which fail.
pub(super) fn of_seeds(
    arguments: &Arguments,
    engine: &Engine,
    ground: &Ground,
    attended: &Attended,
    spool_dir: &Path,
    seeds: RangeInclusive<u64>,
) -> Result<u8, Failure> {
    let stage = stage_of(ground)?;
    let mut found = Vec::new();
    for seed in seeds {
        let order = Order { seed: Some(seed_of(seed)), number: seed, ..arguments.order() };
        let outputs = Outputs::make(stage)?;
        let attempt = attempt::make(engine, ground, attended, order, outputs.io(arguments.stdin()?)?)?;
        let (status, text) = (attempt.exit.status, summary(&attempt, spool_dir)?);
        if found.is_empty() && attempt.exit.seal.is_ok() && !arguments.quiet {
            tell_if_unordered(&attempt, spool_dir)?;
        }
        let run_hash = match attempt.sealed() {
            Ok(_) => Some(attempt.receipt(spool_dir)?.1.to_string()),
            Err(_) => None,
        };
        let no_receipt = attempt.exit.seal.as_ref().err().cloned();
        if arguments.format == Format::Text && (status != 0 || !arguments.quiet) {
            print(&format!("seed {seed}: {text}\n"))?;
        }
        if arguments.format == Format::Text && status != 0 {
            outputs.show()?;
        }
        found.push(OfSeed { seed, status, run_hash, no_receipt });
        if let Some(stage) = &ground.stage {
            stage.clear(&format!("run-{seed}"))?;
        }
        if attended.is_asked_to_end() {
            break;
        }
    }
    conclude(arguments, &found)
}

fn conclude(arguments: &Arguments, found: &[OfSeed]) -> Result<u8, Failure> {
    let failed: Vec<u64> = found.iter().filter(|one| one.status != 0).map(|one| one.seed).collect();
    match arguments.format {
        Format::Json => print_json(&json!({ "seeds": found, "failed": failed }))?,
        Format::Text if failed.is_empty() => print(&format!("all {} seeds ended with 0\n", found.len()))?,
        Format::Text => {
            let list = failed.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
            print(&format!(
                "{} of {} seeds failed: {list}\n`--seed {}` instead of `--seeds` does that one again\n",
                failed.len(),
                found.len(),
                failed[0]
            ))?;
        }
    }
    let first = found.iter().map(|one| one.status).find(|status| *status != 0).unwrap_or(0);
    Ok(u8::try_from(first).unwrap_or(u8::MAX))
}

/// Where a run's output goes while nobody knows whether it will be wanted.
struct Outputs {
    stdout: File,
    stderr: File,
}

impl Outputs {
    fn make(stage: &Path) -> Result<Self, Failure> {
        let file = |name: &str| {
            let path = stage.join(name);
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(true);
            options.open(&path).map_err(|source| Failure::File { deed: "make", path, source })
        };
        Ok(Self { stdout: file("stdout")?, stderr: file("stderr")? })
    }

    fn io(&self, stdin: File) -> Result<Io, Failure> {
        let copy = |file: &File| {
            let failed = |source| Failure::System { deed: "copy a stream", source };
            Ok::<_, Failure>(Stdio::Fd(file.try_clone().map_err(failed)?.into()))
        };
        Ok(Io {
            stdin: Stdio::Fd(stdin.into()),
            stdout: copy(&self.stdout)?,
            stderr: copy(&self.stderr)?,
            terminal: false,
        })
    }

    /// The end of both, as the program wrote them.
    fn show(mut self) -> Result<(), Failure> {
        let failed = |source| Failure::System { deed: "read the program's output", source };
        for (file, is_stderr) in [(&mut self.stdout, false), (&mut self.stderr, true)] {
            let length = file.metadata().map_err(failed)?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(SHOWN_BYTES_MAX))).map_err(failed)?;
            let mut shown = file.take(SHOWN_BYTES_MAX);
            let written = if is_stderr {
                let mut text = Vec::new();
                shown.read_to_end(&mut text).map_err(failed)?;
                io::Write::write_all(&mut io::stderr(), &text)
            } else {
                io::copy(&mut shown, &mut io::stdout()).map(drop)
            };
            match written {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    return Err(Failure::Stdout { source: error });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn silent() -> Result<Io, Failure> {
    let null = || {
        let path = PathBuf::from("/dev/null");
        let opened = File::options().read(true).write(true).open(&path);
        opened.map(|file| Stdio::Fd(file.into())).map_err(|source| Failure::File { deed: "open", path, source })
    };
    Ok(Io { stdin: null()?, stdout: null()?, stderr: null()?, terminal: false })
}

/// A series always has a stage: every run of it needs a layer of its own.
fn stage_of(ground: &Ground) -> Result<&Path, Failure> {
    ground.stage.as_ref().map(|stage| stage.dir()).ok_or(Failure::Interrupted)
}
