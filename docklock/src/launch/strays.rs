//! Reaps what libcontainer leaves to us: the intermediate process of each container and exec, and the init of an exec that failed.
//!
//! With CLONE_PARENT they are this process's children, and libcontainer, which would wait for them, cannot. Unreaped they fill the table of
//! processes; and an init that is a zombie keeps the container's process 1 from ever ending (pid_namespaces(7)). They are known by
//! the name libcontainer gives them, which execve(2) replaces: a zombie that still has it never ran a program, so its status tells nobody
//! anything.

use std::fs;
use std::io;

use nix::unistd::Pid;

use super::LaunchError;

/// How libcontainer names its own processes, proc_pid_comm(5).
const NAME: &str = "youki:[";

/// Reaps every such child that has ended.
///
/// # Errors
/// When this process's children cannot be listed.
pub(super) fn reap() -> Result<(), LaunchError> {
    let own = Pid::this();
    // CLONE_PARENT makes them children of the thread that forked the launcher: the first one.
    let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"))
        .map_err(|source| LaunchError::System { deed: "list the children", source })?;
    for child in children.split_ascii_whitespace().filter_map(|text| text.parse().ok()).map(Pid::from_raw) {
        if is_stray(child)? {
            super::reap(child, "reap what libcontainer left")?;
        }
    }
    Ok(())
}

fn is_stray(child: Pid) -> Result<bool, LaunchError> {
    match fs::read_to_string(format!("/proc/{child}/stat")) {
        Ok(stat) => Ok(never_ran(&stat)),
        // Somebody else reaped it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        Err(source) => Err(LaunchError::System { deed: "look at a child", source }),
    }
}

/// True for a zombie that still has libcontainer's name. The name is in parentheses and may hold any of them itself.
fn never_ran(stat: &str) -> bool {
    let Some((front, state)) = stat.rsplit_once(") ") else { return false };
    let named = front.split_once(" (").is_some_and(|(_, name)| name.starts_with(NAME));
    named && state.starts_with('Z')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_zombie_that_never_ran_a_program_is_a_stray() {
        assert!(never_ran("55 (youki:[1:INTER]) Z 49 49"));
        assert!(never_ran("55 (youki:[2:INIT]) Z 49 49"));
        assert!(!never_ran("55 (youki:[2:INIT]) S 49 49"));
        assert!(!never_ran("55 (sleep) Z 49 49"));
        assert!(!never_ran("55 (a) Z (youki:[) S 49"));
    }
}
