//! What all containers of one process share: configuration, key, launcher, host.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bpi_protocol::receipt::Host;
use nix::sys::prctl;
use nix::unistd::Pid;

use super::container::Task;
use super::{CreateRequest, TaskError, create, orphan};
use crate::cgroup::Warmth;
use crate::config::Config;
use crate::host::HostCapabilities;
use crate::launch::Launcher;
use crate::seal::{self, RuntimeIdentity};
use crate::signer::{FileKey, Signer};
use crate::spool::{Boundary, Spool};

/// One process's way to run containers.
pub struct Engine {
    pub(super) shared: Arc<Shared>,
}

/// What every task borrows.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) launcher: Launcher,
    pub(super) signer: Box<dyn Signer>,
    pub(super) host: HostCapabilities,
    pub(super) identity: Host,
    pub(super) runtime: RuntimeIdentity,
    spools: Mutex<HashMap<Boundary, Arc<Spool>>>,
    warmth: Mutex<Option<Warmth>>,
}

impl Engine {
    /// Forks the launcher, reads the key and looks at the host. The process must still have one thread.
    ///
    /// # Errors
    /// Without a usable key, or when the launcher cannot be forked: nothing can run then.
    pub fn start(config: Config) -> Result<Self, TaskError> {
        let guarded = config.clone();
        let launcher = Launcher::start(move |owner| orphan::close_after(&guarded, owner))?;
        match prepare(&config) {
            Ok((signer, identity, runtime)) => {
                let host = HostCapabilities::probe();
                let warmth = Mutex::new(Warmth::start());
                let shared =
                    Shared { config, launcher, signer, host, identity, runtime, spools: Mutex::default(), warmth };
                Ok(Self { shared: Arc::new(shared) })
            }
            Err(error) => {
                // Nothing was started, so there is nothing to guard.
                launcher.dismiss()?;
                Err(error)
            }
        }
    }

    /// Plans a container, creates it, and holds it before its first instruction.
    ///
    /// # Errors
    /// One sentence, and nothing left behind.
    pub fn create(&self, request: CreateRequest) -> Result<Arc<Task>, TaskError> {
        create::create(&self.shared, request)
    }

    /// Process id of the launcher, which is also the guardian.
    pub fn launcher_pid(&self) -> Pid {
        self.shared.launcher.pid()
    }

    /// Ends the launcher in peace. Call it when no container is left.
    ///
    /// # Errors
    /// When the launcher is already gone.
    pub fn shut_down(&self) -> Result<(), TaskError> {
        Ok(self.shared.launcher.dismiss()?)
    }
}

/// The key is read after the fork, so that the launcher has no copy of it.
fn prepare(config: &Config) -> Result<(Box<dyn Signer>, Host, RuntimeIdentity), TaskError> {
    // A container's helper that outlives its parent must come to us, not to init.
    prctl::set_child_subreaper(true)
        .map_err(|errno| TaskError::System { deed: "become a subreaper", source: errno.into() })?;
    let signer = FileKey::load(&config.key_file)?;
    let identity = seal::host(&config.host_id, &signer)?;
    Ok((Box::new(signer), identity, RuntimeIdentity::of_this_process(&config.state_dir.join(".identity"))?))
}

impl Shared {
    /// The first container has its control group: the next ones follow in a warm kernel, or can wait.
    pub(super) fn cool_down(&self) {
        drop(self.warmth.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// The chain of one boundary; opened once.
    pub(super) fn spool(&self, boundary: &Boundary) -> Result<Arc<Spool>, TaskError> {
        let mut spools = self.spools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spool) = spools.get(boundary) {
            return Ok(Arc::clone(spool));
        }
        let spool = Arc::new(Spool::open(&self.config.spool_dir, boundary)?);
        spools.insert(boundary.clone(), Arc::clone(&spool));
        Ok(spool)
    }
}
