//! The `delete` action: what containerd calls when a shim is gone. Safe to repeat.
//!
//! docklock ends what is left of the container and closes its intent with an abort; here the root file system is unmounted and the dead
//! shim's socket removed. Every step is tried, whatever became of the one before.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use containerd_shim_protos::api::DeleteResponse;
use docklock::config::{Config, ConfigError};
use docklock::spool::{Boundary, SpoolError};
use docklock::task::{TaskError, clean_up_orphan};

use crate::arguments::{ArgumentError, Arguments};
use crate::bootstrap::{BootstrapError, remove_dead_socket};
use crate::options::{OptionsError, recall_config};
use crate::rootfs::{self, RootFsError};
use crate::tasks::PID_FILE;
use crate::wire::timestamp;

/// 128 + SIGKILL: how a container whose shim is gone has ended.
const STATUS_KILLED: u32 = 137;

/// What could not be cleaned up.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// The command line.
    #[error(transparent)]
    Arguments(#[from] ArgumentError),
    /// The bundle's place.
    #[error("could not find the working directory: {source}")]
    WorkingDirectory {
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The note that names the configuration.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The namespace as a chain's name.
    #[error(transparent)]
    Boundary(#[from] SpoolError),
    /// The container.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The root file system.
    #[error(transparent)]
    RootFs(#[from] RootFsError),
    /// The socket.
    #[error(transparent)]
    Socket(#[from] BootstrapError),
}

/// Runs the `delete` action and returns what containerd wants on standard output.
///
/// # Errors
/// The first thing that could not be cleaned up; the rest was tried.
pub fn delete(arguments: &Arguments) -> Result<DeleteResponse, CleanupError> {
    arguments.check_identifiers()?;
    let bundle = match &arguments.bundle {
        Some(bundle) => bundle.clone(),
        None => std::env::current_dir().map_err(|source| CleanupError::WorkingDirectory { source })?,
    };
    let pid = noted_pid(&bundle);
    let steps = [
        end_container(arguments, &bundle),
        rootfs::unmount(&bundle.join("rootfs")).map_err(CleanupError::from),
        remove_dead_socket(&bundle).map_err(CleanupError::from),
    ];
    steps.into_iter().collect::<Result<(), _>>()?;
    Ok(DeleteResponse {
        pid,
        exit_status: STATUS_KILLED,
        exited_at: Some(timestamp(SystemTime::now())).into(),
        ..DeleteResponse::default()
    })
}

fn end_container(arguments: &Arguments, bundle: &Path) -> Result<(), CleanupError> {
    let config: Option<PathBuf> = recall_config(bundle)?;
    let config = Config::load(config.as_deref())?;
    let boundary = Boundary::new(&arguments.namespace)?;
    Ok(clean_up_orphan(&config, &boundary, &arguments.id)?)
}

/// 0 when the shim died before there was a process.
fn noted_pid(bundle: &Path) -> u32 {
    std::fs::read_to_string(bundle.join(PID_FILE)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_noted_process_is_answered_and_an_absent_note_is_zero() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(noted_pid(bundle.path()), 0);
        std::fs::write(bundle.path().join(PID_FILE), "4711\n").unwrap();
        assert_eq!(noted_pid(bundle.path()), 4711);
    }
}
