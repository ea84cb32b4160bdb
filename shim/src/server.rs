//! The serving shim: from one thread with a socket on standard input to a task service, and to an orderly end.
//!
//! Always true: docklock's launcher is forked before the first thread; and a shim that cannot run containers (no key, a broken
//! configuration) still serves, so that `create` can say why.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::ttrpc;
use containerd_shim_protos::ttrpc::r#async::{Server, transport::Listener};
use docklock::config::{CONFIG_VARIABLE, Config};
use docklock::spans::span;
use docklock::spool::{Boundary, SpoolError};
use docklock::task::Engine;
use nix::errno::Errno;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

use crate::arguments::{ArgumentError, Arguments};
use crate::bootstrap::TTRPC_ADDRESS;
use crate::errors::Refusal;
use crate::events::Events;
use crate::log;
use crate::service::{Service, Shutdown};
use crate::tasks::{Place, Tasks};

/// Threads that may block at once: a pod's containers being created side by side, with room for `kill`.
const BLOCKING_THREADS_MAX: usize = 16;
/// How long an idle one stays; an idle shim is one thread.
const BLOCKING_THREAD_IDLE: Duration = Duration::from_secs(1);
/// How long the end waits for containerd to take the last events.
const FAREWELL: Duration = Duration::from_secs(3);
/// A shim that has had no container for this long was forgotten.
const UNUSED_MAX: Duration = Duration::from_secs(60);

/// Why there is no service.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The command line.
    #[error(transparent)]
    Arguments(#[from] ArgumentError),
    /// The namespace as a chain's name.
    #[error(transparent)]
    Boundary(#[from] SpoolError),
    /// Called by hand, most likely.
    #[error("standard input is no listening socket: {source}; containerd starts this program, with the action start")]
    NoListener {
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A system call.
    #[error("could not {deed}: {source}")]
    System {
        /// What was tried.
        deed: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The ttrpc server.
    #[error("could not serve: {source}")]
    Serve {
        /// What it said.
        source: ttrpc::Error,
    },
}

impl ServeError {
    fn system(deed: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { deed, source }
    }
}

/// Serves until containerd asks for the end.
///
/// # Errors
/// When the service cannot begin.
pub fn serve(arguments: &Arguments) -> Result<(), ServeError> {
    arguments.check_identifiers()?;
    let boundary = Boundary::new(&arguments.namespace)?;
    let listener = take_listener()?;
    let bundle = std::env::current_dir().map_err(ServeError::system("find the bundle"))?;
    // The kernel named this process after /proc/self/exe.
    nix::sys::prctl::set_name(c"docklock-shim")
        .map_err(|errno| ServeError::system("name the process")(errno.into()))?;
    let config = Config::load(None);
    let configured = config.as_ref().ok().and_then(|config| config.log_level.parse().ok()).unwrap_or(LevelFilter::INFO);
    log::begin(&bundle, if arguments.debug { configured.max(LevelFilter::DEBUG) } else { configured });
    // A pod's shim outlives the bundle it was started in.
    std::env::set_current_dir("/").map_err(ServeError::system("leave the bundle"))?;
    let engine = {
        let _span = span("shim.engine");
        config.map_err(Refusal::unavailable).and_then(|config| Engine::start(config).map_err(Refusal::from))
    };
    if let Err(refusal) = &engine {
        tracing::error!(%refusal, "no container can be run");
    }

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(BLOCKING_THREAD_IDLE)
        .build()
        .map_err(ServeError::system("start the runtime"))?;
    let events = Arc::new(Events::new(arguments.namespace.clone()));
    let place = Place {
        namespace: arguments.namespace.clone(),
        grpc_address: arguments.address.clone(),
        config: std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from),
    };
    let tasks = Arc::new(Tasks::new(engine, boundary, place, Arc::clone(&events)));
    let end = Arc::new(Shutdown::new(&arguments.socket));
    let served = runtime.block_on(until_the_end(listener, &tasks, &events, &end));
    if let Err(error) = tasks.shut_down() {
        tracing::warn!(%error, "the launcher had gone before the shim");
    }
    runtime.shutdown_background();
    served
}

/// Takes the socket from standard input and leaves /dev/null there.
fn take_listener() -> Result<UnixListener, ServeError> {
    let stdin = std::io::stdin();
    let listens = nix::sys::socket::getsockopt(&stdin, nix::sys::socket::sockopt::AcceptConn);
    if !listens.map_err(|errno| ServeError::NoListener { source: errno.into() })? {
        return Err(ServeError::NoListener { source: Errno::EINVAL.into() });
    }
    let listener = stdin.as_fd().try_clone_to_owned().map_err(ServeError::system("take the socket"))?;
    let null = File::open(Path::new("/dev/null")).map_err(ServeError::system("open /dev/null"))?;
    nix::unistd::dup2_stdin(null).map_err(|errno| ServeError::system("close standard input")(errno.into()))?;
    Ok(listener.into())
}

async fn until_the_end(
    listener: UnixListener,
    tasks: &Arc<Tasks>,
    events: &Arc<Events>,
    end: &Arc<Shutdown>,
) -> Result<(), ServeError> {
    listener.set_nonblocking(true).map_err(ServeError::system("set up the socket"))?;
    let listener = tokio::net::UnixListener::from_std(listener).map_err(ServeError::system("set up the socket"))?;
    let methods = Service::methods(Arc::clone(tasks), Arc::clone(end));
    let mut server = Server::new().add_listener(Listener::from(listener)).register_service(methods);
    server.start().await.map_err(|source| ServeError::Serve { source })?;

    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::system("watch for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::system("watch for SIGINT"))?;
    let address = std::env::var(TTRPC_ADDRESS).unwrap_or_default();
    let delivery = async {
        if address.is_empty() {
            tracing::warn!("{TTRPC_ADDRESS} is not set: containerd gets no events");
            std::future::pending::<()>().await;
        }
        events.deliver(&address).await;
    };
    let mut watch = tokio::time::interval(UNUSED_MAX);
    let mut unused = false;
    let farewell = async {
        loop {
            tokio::select! {
                () = end.asked() => break,
                _ = watch.tick() => {
                    // Whoever started this shim may have died before it could tell containerd where it listens.
                    if unused && tasks.is_empty() {
                        tracing::warn!("no container for {} s: the shim ends", UNUSED_MAX.as_secs());
                        end.ask();
                    }
                    unused = tasks.is_empty();
                }
                _ = terminate.recv() => end_if_idle(tasks, end, "SIGTERM"),
                _ = interrupt.recv() => end_if_idle(tasks, end, "SIGINT"),
            }
        }
        if tokio::time::timeout(FAREWELL, events.delivered()).await.is_err() {
            tracing::warn!("containerd did not take the last events");
        }
    };
    tokio::select! {
        () = delivery => {}
        () = farewell => {}
    }
    server.shutdown().await.map_err(|source| ServeError::Serve { source })
}

/// A signal must not end running containers without their receipts: only an idle shim obeys.
fn end_if_idle(tasks: &Tasks, end: &Shutdown, signal: &str) {
    if tasks.is_empty() {
        end.ask();
    } else {
        tracing::warn!(signal, "containers run; the shim goes on");
    }
}
