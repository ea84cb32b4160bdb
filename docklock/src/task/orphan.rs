//! What is left when the process that ran a container is gone: ended, closed with an abort, and removed.
//!
//! Three callers do the same thing: the guardian when the shim dies, containerd's `delete`, and every new run before its own intent.
//! They may come at once: the chain's lock lets one write the abort, and removing what is removed is no error.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use super::TaskError;
use super::create::Home;
use super::engine::Shared;
use crate::cgroup::Group;
use crate::config::Config;
use crate::signer::{FileKey, Signer};
use crate::spool::{self, Boundary, OpenIntent, Spool};

/// Directory and control group of one container.
#[derive(Debug)]
pub struct Remains {
    dir: PathBuf,
    group: Group,
}

impl Remains {
    pub(super) fn new(dir: &Path, group: Group) -> Self {
        Self { dir: dir.to_owned(), group }
    }

    /// Ends every process, then removes the group and the directory. What is gone is removed already.
    ///
    /// # Errors
    /// What could not be ended or removed.
    pub fn remove(&self) -> Result<(), TaskError> {
        self.group.kill_all()?;
        self.group.remove()?;
        match fs::remove_dir_all(&self.dir) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(TaskError::File { deed: "remove", path: self.dir.clone(), source }),
        }
    }
}

/// Closes every open intent whose owner has gone.
pub(super) fn close_orphans(shared: &Shared, spool: &Spool) -> Result<(), TaskError> {
    sweep(spool, shared.signer.as_ref(), &shared.config.host_id)
}

fn sweep(spool: &Spool, signer: &dyn Signer, host_id: &str) -> Result<(), TaskError> {
    spool.close_orphans(signer, host_id, &|open| end(open).map_err(|error| error.to_string()))?;
    Ok(())
}

fn end(open: &OpenIntent) -> Result<(), TaskError> {
    for cgroup in &open.cgroups {
        Remains::new(&open.state_dir, Group::at(&cgroup.to_string_lossy())?).remove()?;
    }
    Ok(())
}

/// What the guardian does when its owner is gone. It reports to the log; nobody else is left to be told.
pub(super) fn close_after(config: &Config, owner: Pid) {
    tracing::warn!(owner = owner.as_raw(), "the shim is gone: ending what it left behind");
    if let Err(error) = close_all(config) {
        tracing::error!(%error, "could not close what the shim left open");
    }
}

fn close_all(config: &Config) -> Result<(), TaskError> {
    let signer = FileKey::load(&config.key_file)?;
    for boundary in spool::boundaries(&config.spool_dir)? {
        sweep(&Spool::open(&config.spool_dir, &boundary)?, &signer, &config.host_id)?;
    }
    Ok(())
}

/// Ends and closes one container whose shim is gone: what containerd's `delete` asks for. Safe to repeat.
///
/// # Errors
/// When the chain cannot be closed, or something of the container cannot be removed.
pub fn clean_up_orphan(config: &Config, boundary: &Boundary, id: &str) -> Result<(), TaskError> {
    close_all(config)?;
    let home = Home::of(&config.state_dir, boundary.as_str(), id);
    match fs::remove_dir_all(&home.dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(TaskError::File { deed: "remove", path: home.dir.clone(), source: error })
        }
        _ => Ok(()),
    }
}
