//! FIFOs: open(2) of one end waits for the other (fifo(7)), in the order of turns.
//!
//! The kernel would let both ends meet on its own and in its own order. So whoever comes first is parked here, and whoever comes second
//! brings all that wait for it: the engine holds both ends open until each of them has opened its own.

use std::os::fd::OwnedFd;

use nix::unistd::Pid;

use super::Answer;
use crate::engine::task::{Resume, State, TaskId, Wait};
use crate::engine::{Engine, EngineError, Trouble, Verdict};

/// Flags with which an open never waits and opens no end.
const NO_END: i32 = libc::O_PATH | libc::O_DIRECTORY;

/// A FIFO, by device and inode.
type FifoId = (u64, u64);

impl Engine {
    /// Opens a FIFO that this process reaches as `host`; `None` when nobody could wait for it.
    pub(super) fn open_fifo(
        &mut self,
        id: TaskId,
        host: &str,
        fifo: FifoId,
        flags: i32,
    ) -> Result<Option<Verdict>, Trouble> {
        let mode = flags & libc::O_ACCMODE;
        let waits = flags & libc::O_NONBLOCK == 0 && mode != libc::O_RDWR;
        if self.tasks.len() == 1 || flags & NO_END != 0 {
            return Ok(None);
        }
        if !waits && !self.tasks.iter().any(|(_, task)| matches!(task.state, State::Blocked(Wait::Fifo { .. }))) {
            return Ok(None);
        }
        let met = self.tasks.get_mut(id).and_then(|task| task.fifo_holder.take());
        let partners = self.fifo_partners(fifo, mode);
        if met.is_none() && partners.is_empty() {
            if waits && !self.other_end_is_open(host, mode) {
                self.block(id, Wait::Fifo { device: fifo.0, inode: fifo.1, mode }, None);
                return Ok(Some(Verdict::Settled));
            }
            return Ok(Some(Verdict::Continue));
        }
        self.meet(id, host, met, &partners).map(Some)
    }

    /// The tasks that wait for an end of this FIFO that `mode` opens.
    fn fifo_partners(&self, fifo: FifoId, mode: i32) -> Vec<TaskId> {
        let waits_for_this = |state: &State| {
            matches!(state, State::Blocked(Wait::Fifo { device, inode, mode: theirs })
                if (*device, *inode) == fifo && *theirs != mode)
        };
        self.tasks.iter().filter(|(_, task)| waits_for_this(&task.state)).map(|(id, _)| id).collect()
    }

    /// Lets the task open its end while both are held open, and makes those ready that have waited for it.
    fn meet(&mut self, id: TaskId, host: &str, met: Option<OwnedFd>, partners: &[TaskId]) -> Answer {
        let holder = match met {
            Some(holder) => holder,
            None => std::fs::File::options()
                .read(true)
                .write(true)
                .open(host)
                .map_err(EngineError::edge("hold a FIFO open"))?
                .into(),
        };
        for partner in partners {
            let theirs = holder.try_clone().map_err(EngineError::edge("hold a FIFO open"))?;
            if let Some(task) = self.tasks.get_mut(*partner) {
                task.fifo_holder = Some(theirs);
            }
            self.ready(*partner, Resume::Retry);
        }
        if self.hook(id)?.is_some() {
            self.release(id)?;
        }
        Ok(Verdict::Settled)
    }

    /// A writer is told by ENXIO that nobody reads. A reader's own open hides whether a writer is there, so descriptors are looked through.
    fn other_end_is_open(&self, host: &str, mode: i32) -> bool {
        use std::os::unix::fs::OpenOptionsExt;
        if mode == libc::O_WRONLY {
            return std::fs::File::options().write(true).custom_flags(libc::O_NONBLOCK).open(host).is_ok();
        }
        self.tasks.processes().any(|(_, process)| holds_for_writing(process.pid, host))
    }
}

/// True when a process has this file open for writing.
fn holds_for_writing(pid: Pid, host: &str) -> bool {
    let Ok(wanted) = nix::sys::stat::stat(host) else { return false };
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let same = nix::sys::stat::stat(&entry.path())
            .is_ok_and(|stat| stat.st_dev == wanted.st_dev && stat.st_ino == wanted.st_ino);
        same && std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", name.to_string_lossy()))
            .is_ok_and(|info| info.lines().any(|line| line.starts_with("flags:") && line.ends_with(['1', '2'])))
    })
}
