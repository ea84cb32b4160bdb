//! The one file that calls libcontainer. It runs in a forked child with a single thread, and ends with it.

use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;

use super::executor::{CageExecutor, CageExecutorError};
use super::process::{START, answer};
use super::{CageOrder, ContainerStreams, Reply, Request};
use crate::{engine, kernel};

/// Why a request failed, before it becomes one sentence for the reply.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("libcontainer: {}", chain(.0))]
    Libcontainer(#[from] LibcontainerError),
    #[error(transparent)]
    Executor(#[from] CageExecutorError),
    #[error("libcontainer created no process")]
    NoProcess,
    #[error("the executor's socket is missing from the request")]
    NoExecutorSocket,
}

/// Serves one request and answers it.
pub(super) fn serve(request: Request, executor: Option<OwnedFd>, streams: ContainerStreams, reply: OwnedFd) {
    let outcome = match request {
        Request::Engine { order } => return engine::serve(*order, &reply),
        Request::Create { id, root, bundle, console, no_pivot, cage } => {
            create(Creation { id, root, bundle, console, no_pivot }, &cage, executor, streams, &reply)
        }
        Request::Exec { id, root, process, console, cage } => {
            exec(id, root, process, console, &cage, executor, streams)
        }
        Request::Delete { id, root } => delete(&id, &root),
    };
    answer(
        &reply,
        &match outcome {
            Ok(pid) => Reply::Done { pid },
            Err(error) => Reply::Refused { reason: error.to_string() },
        },
    );
}

struct Creation {
    id: String,
    root: PathBuf,
    bundle: PathBuf,
    console: Option<PathBuf>,
    no_pivot: bool,
}

/// Creates, answers with the process, waits for the word, starts.
fn create(
    creation: Creation,
    cage: &CageOrder,
    executor: Option<OwnedFd>,
    streams: ContainerStreams,
    reply: &OwnedFd,
) -> Result<Option<i32>, ServeError> {
    let mut container = {
        let executor = executor.ok_or(ServeError::NoExecutorSocket)?;
        let builder = builder(creation.id, creation.root, creation.console, streams)?
            .with_executor(CageExecutor::prepare(cage, &executor)?);
        builder
            .as_init(&creation.bundle)
            .as_sibling(true)
            .with_systemd(false)
            .with_detach(true)
            .with_no_pivot(creation.no_pivot)
            .build()?
    };
    let pid = container.pid().ok_or(ServeError::NoProcess)?;
    answer(reply, &Reply::Done { pid: Some(pid.as_raw()) });
    match kernel::receive_with_fds(reply.as_fd(), START.len()) {
        Ok((word, _)) if word == START => container.start()?,
        // Nobody starts it any more; whoever holds the open intent deletes it.
        _ => kernel::exit_now(0),
    }
    Ok(None)
}

fn exec(
    id: String,
    root: PathBuf,
    process: PathBuf,
    console: Option<PathBuf>,
    cage: &CageOrder,
    executor: Option<OwnedFd>,
    streams: ContainerStreams,
) -> Result<Option<i32>, ServeError> {
    let executor = executor.ok_or(ServeError::NoExecutorSocket)?;
    let detached = console.is_some();
    let pid = builder(id, root, console, streams)?
        .with_executor(CageExecutor::prepare(cage, &executor)?)
        .as_tenant()
        .with_process(Some(process))
        .with_detach(detached)
        .as_sibling(true)
        .build()?;
    Ok(Some(pid.as_raw()))
}

fn delete(id: &str, root: &Path) -> Result<Option<i32>, ServeError> {
    let directory = root.join(id);
    if directory.exists() {
        Container::load(directory)?.delete(true)?;
    }
    Ok(None)
}

fn builder(
    id: String,
    root: PathBuf,
    console: Option<PathBuf>,
    streams: ContainerStreams,
) -> Result<ContainerBuilder, ServeError> {
    let mut builder = ContainerBuilder::new(id, SyscallType::Linux).with_root_path(root)?;
    if let Some(console) = console {
        return Ok(builder.with_console_socket(Some(console)));
    }
    if let Some(stdin) = streams.stdin {
        builder = builder.with_stdin(stdin);
    }
    if let Some(stdout) = streams.stdout {
        builder = builder.with_stdout(stdout);
    }
    if let Some(stderr) = streams.stderr {
        builder = builder.with_stderr(stderr);
    }
    Ok(builder)
}

/// The whole chain of causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
