//! What is left when the process that ran a container is gone: ended, closed with an abort, and removed.
//!
//! Three callers do the same thing: the guardian when the shim dies, containerd's `delete`, and every new run before its own intent.
//! They may come at once: the chain's lock lets one write the abort, and removing what is removed is no error.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::TaskError;
use super::create::{Home, write_private};
use super::engine::Shared;
use crate::cgroup::Group;
use crate::clock;
use crate::config::Config;
use crate::launch::end_launcher;
use crate::signer::{FileKey, Signer};
use crate::spool::{self, Boundary, OpenIntent, ProcessRef, Spool, SpoolError};

/// Name of the note in a container's directory that says who runs it.
const OWNER_FILE: &str = "owner.json";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Owned {
    owner: ProcessRef,
    launcher: ProcessRef,
    cgroup: String,
}

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
    if let Some(owned) = owned(&open.state_dir) {
        end_helpers(&owned, &clock::boot_id().map_err(SpoolError::from)?)?;
    }
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

/// Writes down in a container's directory who runs it: for the moment before its open intent says so.
pub(super) fn sign_home(home: &Home, cgroup: &str, launcher: Pid) -> Result<(), TaskError> {
    let owner = ProcessRef::of(std::process::id())?;
    let launcher = ProcessRef::of(launcher.as_raw().unsigned_abs())?;
    let owned = Owned { owner, launcher, cgroup: cgroup.to_owned() };
    let path = home.file(OWNER_FILE);
    let bytes = serde_json::to_vec(&owned)
        .map_err(|error| TaskError::Spec { path: path.clone(), reason: error.to_string() })?;
    write_private(&path, &bytes)
}

/// Removes the directories below `state_dir` whose owner has gone, with all that runs under them. By now their intents are closed.
fn clear_homes(state_dir: &Path) -> Result<(), TaskError> {
    let boot_id = clock::boot_id().map_err(SpoolError::from)?;
    for boundary in entries(state_dir)? {
        // Names with a dot are our own caches.
        if boundary.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        for dir in entries(&boundary)? {
            // One without a readable note is still being made, or is not ours.
            let Some(owned) = owned(&dir) else { continue };
            if !owned.owner.is_alive(&boot_id)? {
                end_helpers(&owned, &boot_id)?;
                Remains::new(&dir, Group::at(&owned.cgroup)?).remove()?;
            }
        }
    }
    Ok(())
}

fn owned(dir: &Path) -> Option<Owned> {
    serde_json::from_slice(&fs::read(dir.join(OWNER_FILE)).ok()?).ok()
}

/// Ends the dead owner's launcher with its helpers: they would make anew what is removed here.
fn end_helpers(owned: &Owned, boot_id: &str) -> Result<(), TaskError> {
    if owned.launcher.is_alive(boot_id)? {
        end_launcher(Pid::from_raw(owned.launcher.pid as i32));
    }
    Ok(())
}

/// What stands in a directory; nothing when it is not there.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, TaskError> {
    let failed = |source| TaskError::File { deed: "list", path: dir.to_owned(), source };
    match fs::read_dir(dir) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
        Ok(list) => list.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect(),
    }
}

fn close_all(config: &Config) -> Result<(), TaskError> {
    let signer = FileKey::load(&config.key_file)?;
    for boundary in spool::boundaries(&config.spool_dir)? {
        sweep(&Spool::open(&config.spool_dir, &boundary)?, &signer, &config.host_id)?;
    }
    clear_homes(&config.state_dir)
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
