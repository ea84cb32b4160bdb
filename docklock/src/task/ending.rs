//! The end of a container: reap → drain → measure → seal → spool → tell. One straight path on a thread of its own.

use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use bpi_protocol::receipt::Source;
use bpi_protocol::run::{Input, Outputs};

use super::container::{Phase, Task};
use super::exec::{reap, status_of};
use super::{Exit, TaskError};
use crate::cage::OutputScope;
use crate::cgroup::OomWatch;
use crate::kernel;
use crate::outputs;
use crate::seal::{self, Ending, Facts};
use crate::spans::span;
use crate::spool::Appended;

/// A container that has run this long will probably run much longer: then the shim makes itself small.
const SETTLES_AFTER_MS: u16 = 2000;
/// Stack of the thread in bytes: the walk over the output tree recurses by directory depth.
const STACK_BYTES: usize = 512 * 1024;

/// Begins to wait for the end.
pub(super) fn watch(task: &Arc<Task>) -> Result<(), TaskError> {
    let watched = Arc::clone(task);
    std::thread::Builder::new()
        .name("ending".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || end(&watched))
        .map_err(|source| TaskError::System { deed: "start the thread that waits for the end", source })?;
    Ok(())
}

fn end(task: &Task) {
    // No memory controller: no such events. `stats` says what the host counts.
    let oom = task.group.watch_oom().ok();
    wait_for_end(task, oom.as_ref());
    let _span = span("end");
    let ending = reap(task.pid);
    let at = SystemTime::now();
    // `start` holds the phase until it knows whether the program ran.
    let phase = std::mem::replace(&mut *task.phase(), Phase::Stopped);
    let (ending, seal) = match conclude(task, phase, ending, at) {
        Ok(Conclusion::Receipt(appended, ending)) => (ending, Ok(appended)),
        Ok(Conclusion::Abort(reason)) => (ending, Err(reason)),
        Err(error) => (ending, Err(error.to_string())),
    };
    if let Err(reason) = &seal {
        tracing::warn!(container = task.id, reason, "no receipt");
    }
    task.end.reach(Exit { status: status_of(ending), at, seal });
}

enum Conclusion {
    /// With how it ended: the engine may know better than waitpid(2).
    Receipt(Appended, Ending),
    Abort(String),
}

/// A receipt if everything is known; otherwise an abort that says what is not.
fn conclude(task: &Task, phase: Phase, ending: Ending, at: SystemTime) -> Result<Conclusion, TaskError> {
    let outcome = match phase {
        Phase::Running { since } | Phase::Paused { since } => measure(task, since, ending, at)
            .map_err(|error| error.to_string())
            .and_then(|facts| match seal::refusal(&facts) {
                Some(reason) => Err(reason),
                None => Ok(facts),
            }),
        Phase::Failed { reason } => Err(reason),
        Phase::Created(created) => {
            created.abandon()?;
            Err("the container was ended before it was started".to_owned())
        }
        Phase::Stopped => Err("the container ended twice".to_owned()),
    };
    // Whatever is still in the group, or on its streams, ends with the first process.
    task.group.kill_all()?;
    let _span = span("seal");
    match outcome {
        Ok(facts) => match receipt(task, &facts) {
            Ok(appended) => Ok(Conclusion::Receipt(appended, facts.ending)),
            Err(error) => {
                // Perhaps it was this receipt that could not be made, and an abort can: then the gap has its reason at once.
                task.intent.abort(&task.shared, &format!("the receipt could not be made: {error}"))?;
                Err(error)
            }
        },
        Err(reason) => {
            drop(task.streams.finish());
            task.intent.abort(&task.shared, &reason)?;
            Ok(Conclusion::Abort(reason))
        }
    }
}

fn receipt(task: &Task, facts: &Facts) -> Result<Appended, TaskError> {
    let intent = task.intent.durable()?.ok_or_else(|| TaskError::Ended { id: task.id.clone() })?;
    let spool = task.shared.spool(&task.boundary)?;
    Ok(spool.close(task.shared.signer.as_ref(), &intent.digest, |chain| {
        seal::receipt_statement(&seal::receipt(facts, chain, task.shared.identity.clone())?)
    })?)
}

/// Gathers everything a receipt says.
fn measure(task: &Task, started: SystemTime, ending: Ending, finished: SystemTime) -> Result<Facts, TaskError> {
    task.group.kill_all()?;
    let streams = {
        let _span = span("drain");
        task.streams.finish()?.ok_or_else(|| TaskError::Ended { id: task.id.clone() })?
    };
    if streams.left_open {
        return Err(crate::streams::StreamError::StillOpen { stream: "an output stream" }.into());
    }
    let report = task.supervisor.finish()?;
    let ending = report.crash.map_or(ending, Ending::Signaled);
    let stats = task.group.stats()?;
    let outputs = {
        let _span = span("outputs");
        measure_outputs(task)?
    };
    let (image, image_status) = match task.take_image() {
        Ok(Some(image)) => (Some(image), "pinned"),
        Ok(None) => (None, "uncontrolled"),
        Err(reason) => {
            tracing::warn!(container = task.id, reason, "the image is not known");
            (None, "uncontrolled")
        }
    };
    let mounted = task.mounted.get().cloned().unwrap_or_default();
    let mut sources = task.plan.sources.clone();
    sources.push(Source { name: "mounts".to_owned(), status: mounted.status().to_owned(), reason: None });
    let mut inputs = mounted.pinned;
    inputs.push(Input { name: "stdin".to_owned(), digest: streams.stdin.digest });
    sources.push(Source { name: "image".to_owned(), status: image_status.to_owned(), reason: None });
    Ok(Facts {
        container_id: task.id.clone(),
        image,
        config: task.plan.config_digest,
        cage: task.plan.cage.clone(),
        argv: task.plan.argv,
        env: task.plan.env,
        inputs,
        params: task.plan.params.clone(),
        limits: task.plan.limits.clone(),
        ending,
        stdout: streams.stdout,
        stderr: streams.stderr,
        outputs,
        report,
        sources,
        fences: task.plan.fence_report.clone(),
        execs: task.execs.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        started,
        finished,
        kernel: task.shared.host.kernel.clone(),
        host_vector: Some(seal::host_vector(&task.shared.host)),
        cpu_usec: stats.cpu_usec,
        memory_peak_bytes: stats.memory_peak_bytes,
        output_undelivered: streams.undelivered,
        runtime: task.shared.runtime.clone(),
    })
}

fn measure_outputs(task: &Task) -> Result<Outputs, TaskError> {
    let limits = outputs::Limits::default();
    Ok(match (&task.plan.outputs, &task.layer) {
        (OutputScope::Paths(paths), _) => outputs::digest_paths(&task.rootfs, paths, &limits)?,
        (OutputScope::Layer, Some(layer)) => outputs::digest_layer(layer, &limits)?,
        (OutputScope::Layer | OutputScope::None, _) => outputs::nothing(),
    })
}

/// Polls the first process and the memory alarm until the process has ended.
fn wait_for_end(task: &Task, mut oom: Option<&OomWatch>) {
    let mut settled = false;
    let mut told = 0;
    loop {
        let mut watched = vec![PollFd::new(task.pidfd.as_fd(), PollFlags::POLLIN)];
        if let Some((fd, events)) = oom.map(OomWatch::polled) {
            watched.push(PollFd::new(fd, events));
        }
        let timeout = if settled { PollTimeout::NONE } else { SETTLES_AFTER_MS.into() };
        match poll(&mut watched, timeout) {
            Ok(0) => {
                settled = true;
                if let Err(error) = kernel::release_code() {
                    tracing::debug!(%error, "the program's code stays resident");
                }
                continue;
            }
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            // Without poll there is still waitpid(2), which `reap` calls next.
            Err(_) => return,
        }
        let ended = watched[0].any().unwrap_or(true);
        let alarmed = watched.get(1).is_some_and(|alarm| alarm.any().unwrap_or(false));
        if alarmed || ended {
            report_oom(task, &mut told);
        }
        if ended {
            return;
        }
        if alarmed && oom.is_some_and(|oom| oom.acknowledge().is_err()) {
            oom = None;
        }
    }
}

/// Tells of processes that were killed for want of memory since `told`. The alarm may ring early, late, or not before the end: the count
/// decides.
fn report_oom(task: &Task, told: &mut u64) {
    let kills = task.group.oom_kills();
    if kills > *told {
        *told = kills;
        for callback in task.oom.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            callback();
        }
    }
}
