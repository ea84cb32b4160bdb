//! The last code before the program's first instruction, for init and for exec alike.
//!
//! libcontainer loads no filter of ours: it loses seccomp on exec. So this executor puts up every fence itself, checks each, and loads
//! the filter last, when the user, the capabilities and the root file system are already the container's. A step that fails ends the
//! process before it ran. Order: no_new_privs, death signal, personality, umask, capability check, AppArmor, Landlock, arguments, filter (its
//! listener leaves over the inherited socket), the tenant's own filter, execve.

use std::collections::HashMap;
use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use libcontainer::oci_spec::runtime::{Process, Spec};
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use nix::errno::Errno;
use nix::sys::personality::{self, Persona};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{AccessFlags, access, execve};

use super::CageOrder;
use crate::cage::Fences;
use crate::engine::order::{BARRIER, BARRIER_PASSED};
use crate::kernel::{self, Listener, tracee};

/// Longest BPF program the kernel takes: BPF_MAXINSNS, 4096 instructions of 8 bytes.
const FILTER_BYTES_MAX: u64 = 4096 * 8;

/// First bytes of the word that a filter is about to be loaded; the number that its listener will have follows.
pub(super) const ABOUT_TO_LOAD: &[u8] = b"filter ";

/// Why a fence could not be put up, or the program not be executed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CageExecutorError {
    #[error("could not read the filter {path}: {source}")]
    Filter { path: PathBuf, source: io::Error },
    #[error("the filter {path} has {bytes} bytes; a filter has 8 to {FILTER_BYTES_MAX}")]
    FilterSize { path: PathBuf, bytes: u64 },
    #[error("could not {step}: {source}")]
    Fence { step: &'static str, source: io::Error },
    #[error("{step} was set and is not in force")]
    NotInForce { step: &'static str },
    #[error("the process would hold capabilities beyond the policy: {excess}")]
    Capabilities { excess: String },
    #[error("could not read the process's capabilities: {0}")]
    CapabilitiesUnread(#[from] caps::errors::CapsError),
    #[error("landlock: {0}")]
    Landlock(String),
    #[error("the specification has no process arguments")]
    NoArguments,
    #[error("{what} {value:?} holds a NUL byte")]
    Nul { what: &'static str, value: String },
    #[error("exec {program:?}: {source}")]
    Exec { program: String, source: io::Error },
}

/// Carries everything across the clone by value; the descriptor stays valid because children inherit it.
#[derive(Clone)]
pub(super) struct CageExecutor {
    fences: Fences,
    filter: Vec<u8>,
    tenant_filter: Option<Vec<u8>>,
    socket: RawFd,
    turns: bool,
}

impl CageExecutor {
    /// Reads the filters while they can still be reached. `socket` must stay open until the container's process has executed.
    pub(super) fn prepare(order: &CageOrder, socket: &OwnedFd) -> Result<Self, CageExecutorError> {
        Ok(Self {
            fences: order.fences.clone(),
            filter: read_filter(&order.filter)?,
            tenant_filter: order.tenant_filter.as_deref().map(read_filter).transpose()?,
            socket: socket.as_raw_fd(),
            turns: order.turns,
        })
    }

    fn execute(&self, process: &Process, socket: BorrowedFd<'_>) -> Result<Infallible, CageExecutorError> {
        self.put_up_fences()?;
        let program = Program::of(process)?;
        if self.turns {
            self.load_for_engine(socket)?;
        } else {
            let listener = self.load()?;
            kernel::send_with_fds(socket, b"listener", &[listener.as_raw_fd()])
                .map_err(|source| CageExecutorError::Fence { step: "hand over the listener", source })?;
        }
        if let Some(filter) = &self.tenant_filter {
            kernel::seccomp_load(filter, Listener::None)
                .map_err(|source| CageExecutorError::Fence { step: "load the specification's own filter", source })?;
        }
        program.execute()
    }

    fn load(&self) -> Result<OwnedFd, CageExecutorError> {
        kernel::seccomp_load(&self.filter, Listener::Killable)
            .map_err(|source| CageExecutorError::Fence { step: "load the system call filter", source })?
            .ok_or(CageExecutorError::NotInForce { step: "the system call filter's listener" })
    }

    /// With this filter even sendmsg waits for an answer, so nothing can be handed over once it is loaded. The number that the listener will
    /// have is told before; the engine takes it from there, and the barrier holds until every further call is supervised.
    fn load_for_engine(&self, socket: BorrowedFd<'_>) -> Result<(), CageExecutorError> {
        let told = |source| CageExecutorError::Fence { step: "tell of the filter", source };
        // The lowest free number, which the listener will get.
        let number = socket.try_clone_to_owned().map_err(told)?.as_raw_fd();
        let word = [ABOUT_TO_LOAD, number.to_string().as_bytes()].concat();
        kernel::send_with_fds(socket, &word, &[]).map_err(told)?;
        tracee::trap_tsc()
            .map_err(|source| CageExecutorError::Fence { step: "trap the time stamp counter", source })?;
        let listener = self.load()?;
        if listener.as_raw_fd() != number || tracee::barrier(BARRIER).ok() != Some(BARRIER_PASSED) {
            return Err(CageExecutorError::NotInForce { step: "the engine" });
        }
        Ok(())
    }

    fn put_up_fences(&self) -> Result<(), CageExecutorError> {
        let fence = |step| move |errno: Errno| CageExecutorError::Fence { step, source: errno.into() };
        prctl::set_no_new_privs().map_err(fence("set no_new_privs"))?;
        if !prctl::get_no_new_privs().map_err(fence("read no_new_privs"))? {
            return Err(CageExecutorError::NotInForce { step: "no_new_privs" });
        }
        // The shim's death ends the container at once; the guardian and `delete` are the second and third line.
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(fence("set the death signal"))?;
        let wanted = Persona::from_bits_retain(self.fences.personality as i32);
        personality::set(wanted).map_err(fence("set the personality"))?;
        if personality::get().map_err(fence("read the personality"))? != wanted {
            return Err(CageExecutorError::NotInForce { step: "the personality" });
        }
        umask(Mode::from_bits_truncate(self.fences.umask));
        kernel::reset_signals();
        self.check_capabilities()?;
        if let Some(name) = &self.fences.apparmor {
            change_profile(name)?;
        }
        if let Some(rules) = &self.fences.landlock {
            rules.apply().map_err(|error| CageExecutorError::Landlock(error.to_string()))?;
        }
        Ok(())
    }

    /// libcontainer drops capabilities; believe it only after a look.
    fn check_capabilities(&self) -> Result<(), CageExecutorError> {
        for set in [
            caps::CapSet::Bounding,
            caps::CapSet::Permitted,
            caps::CapSet::Effective,
            caps::CapSet::Inheritable,
            caps::CapSet::Ambient,
        ] {
            let held = caps::read(None, set)?;
            let mut excess: Vec<String> =
                held.iter().map(ToString::to_string).filter(|name| !self.fences.capabilities.contains(name)).collect();
            if !excess.is_empty() {
                excess.sort();
                return Err(CageExecutorError::Capabilities { excess: excess.join(", ") });
            }
        }
        Ok(())
    }
}

impl Executor for CageExecutor {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let process = spec.process().as_ref();
        match process.and_then(|process| process.args().as_ref()) {
            Some(args) if !args.is_empty() => Ok(()),
            _ => Err(ExecutorValidationError::ArgValidationError(CageExecutorError::NoArguments.to_string())),
        }
    }

    /// Nothing: the environment is handed to execve(2) in the specification's own order, which a map would lose.
    fn setup_envs(&self, _envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        // SAFETY: `prepare` borrowed an open descriptor, children inherit it, and nothing in this process closes it.
        #[allow(unsafe_code)]
        let socket = unsafe { BorrowedFd::borrow_raw(self.socket) };
        let failure = match spec.process() {
            None => CageExecutorError::NoArguments,
            Some(process) => match self.execute(process, socket) {
                Ok(never) => match never {},
                Err(failure) => failure,
            },
        };
        let reason = failure.to_string();
        // The shim reads the reason here; libcontainer's own channel is closed by now.
        // After the time stamp counter traps, what libcontainer logs of a failure would be a crash.
        if kernel::send_with_fds(socket, reason.as_bytes(), &[]).is_err() || self.turns {
            kernel::exit_now(127);
        }
        Err(ExecutorError::Other(reason))
    }
}

/// Changes to an AppArmor profile now, and not at execve(2): there the kernel clears what a set-user-ID program may not inherit, and with it
/// that addresses are not to be random (`PER_CLEAR_ON_SETID`, personality(2)).
fn change_profile(name: &str) -> Result<(), CageExecutorError> {
    const STEP: &str = "change to the AppArmor profile";
    let fence = |source| CageExecutorError::Fence { step: STEP, source };
    // Beside other security modules; the second was the only one before Linux 5.8.
    let own = ["/proc/self/attr/apparmor/current", "/proc/self/attr/current"];
    let path = own.into_iter().find(|path| Path::new(path).exists()).unwrap_or(own[0]);
    fs::write(path, format!("changeprofile {name}")).map_err(fence)?;
    let label = fs::read_to_string(path).map_err(fence)?;
    match label.split_once(' ') {
        Some((now, _)) if now == name => Ok(()),
        _ => Err(CageExecutorError::NotInForce { step: "the AppArmor profile" }),
    }
}

fn read_filter(path: &Path) -> Result<Vec<u8>, CageExecutorError> {
    let unread = |source| CageExecutorError::Filter { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(unread)?.len();
    if bytes == 0 || bytes > FILTER_BYTES_MAX || !bytes.is_multiple_of(8) {
        return Err(CageExecutorError::FilterSize { path: path.to_owned(), bytes });
    }
    fs::read(path).map_err(unread)
}

/// Everything execve(2) needs, allocated before the filter is in force.
struct Program {
    candidates: Vec<CString>,
    argv: Vec<CString>,
    envp: Vec<CString>,
}

impl Program {
    fn of(process: &Process) -> Result<Self, CageExecutorError> {
        let args = process.args().as_ref().filter(|args| !args.is_empty()).ok_or(CageExecutorError::NoArguments)?;
        let mut env = process.env().clone().unwrap_or_default();
        if !env.iter().any(|entry| entry.starts_with("HOME=")) {
            env.push(format!("HOME={}", home_of(process.user().uid())));
        }
        let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
        let candidates = if args[0].contains('/') {
            vec![args[0].clone()]
        } else {
            path.split(':')
                .map(|folder| if folder.is_empty() { args[0].clone() } else { format!("{folder}/{}", args[0]) })
                .collect()
        };
        Ok(Self {
            candidates: strings("program path", &candidates)?,
            argv: strings("argument", args)?,
            envp: strings("environment entry", &env)?,
        })
    }

    /// Executes the first candidate that can be; the rules are those of execvp(3).
    fn execute(&self) -> Result<Infallible, CageExecutorError> {
        let program = || self.argv[0].to_string_lossy().into_owned();
        let mut denied = None;
        for candidate in &self.candidates {
            let Err(errno) = execve(candidate, &self.argv, &self.envp);
            match errno {
                Errno::ENOENT | Errno::ENOTDIR => {}
                Errno::EACCES => denied = Some(errno),
                _ => return Err(CageExecutorError::Exec { program: program(), source: errno.into() }),
            }
        }
        let source = match denied {
            Some(errno) => errno.into(),
            None if self.candidates.len() > 1 => {
                io::Error::new(io::ErrorKind::NotFound, "executable file not found in $PATH")
            }
            None => Errno::ENOENT.into(),
        };
        Err(CageExecutorError::Exec { program: program(), source })
    }
}

fn strings(what: &'static str, values: &[String]) -> Result<Vec<CString>, CageExecutorError> {
    values
        .iter()
        .map(|value| CString::new(value.as_bytes()).map_err(|_| CageExecutorError::Nul { what, value: value.clone() }))
        .collect()
}

/// Home of `uid` by the container's own /etc/passwd (passwd(5)); `/` when it does not say.
fn home_of(uid: u32) -> String {
    const PASSWD_BYTES_MAX: u64 = 1 << 20;
    let file = Path::new("/etc/passwd");
    let readable = fs::symlink_metadata(file).is_ok_and(|meta| meta.is_file() && meta.len() <= PASSWD_BYTES_MAX);
    if !readable || access(file, AccessFlags::R_OK).is_err() {
        return "/".to_owned();
    }
    let text = fs::read(file).unwrap_or_default();
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
            let same = fields.len() >= 6 && fields[2] == uid.to_string().as_bytes() && !fields[5].is_empty();
            same.then(|| std::ffi::OsStr::from_bytes(fields[5]).to_string_lossy().into_owned())
        })
        .next()
        .unwrap_or_else(|| "/".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use libcontainer::oci_spec::runtime::ProcessBuilder;

    use super::*;

    fn process(args: &[&str], env: &[&str]) -> Process {
        ProcessBuilder::default()
            .args(args.iter().map(ToString::to_string).collect::<Vec<_>>())
            .env(env.iter().map(ToString::to_string).collect::<Vec<_>>())
            .build()
            .unwrap()
    }

    #[test]
    fn a_bare_name_is_looked_up_along_path_in_order() {
        let program = Program::of(&process(&["tool"], &["PATH=/a:/b", "HOME=/"])).unwrap();
        assert_eq!(program.candidates, [c"/a/tool".to_owned(), c"/b/tool".to_owned()]);
    }

    #[test]
    fn a_name_with_a_slash_is_taken_as_it_is() {
        let program = Program::of(&process(&["./tool"], &["PATH=/a:/b", "HOME=/"])).unwrap();
        assert_eq!(program.candidates, [c"./tool".to_owned()]);
    }

    #[test]
    fn the_environment_keeps_its_order() {
        let program = Program::of(&process(&["/t"], &["Z=1", "A=2", "HOME=/h"])).unwrap();
        assert_eq!(program.envp, [c"Z=1".to_owned(), c"A=2".to_owned(), c"HOME=/h".to_owned()]);
    }

    #[test]
    fn a_nul_byte_in_an_argument_is_refused() {
        assert!(matches!(
            Program::of(&process(&["/t", "a\0b"], &["HOME=/"])),
            Err(CageExecutorError::Nul { what: "argument", .. })
        ));
    }
}
