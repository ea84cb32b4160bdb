//! Files of /proc and /sys: made or cleaned here, and handed in as memory files.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;

use crate::engine::model::metadata::FileId;
use crate::engine::model::procfs::{self, Facts, FilterKind, Of, Synth};
use crate::engine::task::{Call, TaskId};
use crate::engine::{Engine, EngineError, Trouble, Verdict};
use crate::kernel::tracee;

/// What stands behind a name below /proc or /sys.
pub(super) enum Behind {
    /// These bytes.
    Bytes(Vec<u8>),
    /// What the kernel has.
    Kernel,
    /// Nothing.
    Nothing,
}

/// True for a name that this room answers.
pub(super) fn is_ours(path: &[u8]) -> bool {
    let below = |root: &[u8]| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
    below(b"/proc") || below(b"/sys")
}

impl Engine {
    /// What a path below /proc or /sys gives to this task.
    pub(super) fn behind(&mut self, id: TaskId, path: &[u8]) -> Behind {
        let uuid = if path.ends_with(b"/uuid") { self.random.uuid() } else { String::new() };
        let facts = Facts {
            monotonic_ns: self.clock.monotonic(),
            epoch_s: self.policy.profile().epoch,
            hostname: &self.order.hostname,
            domainname: &self.order.domainname,
            boot_id: &self.boot_id,
            uuid: &uuid,
            tasks: self.tasks.len() as u32,
        };
        let (of, kind) = match procfs::answer(path, &facts) {
            Synth::Bytes(bytes) => return Behind::Bytes(bytes),
            Synth::Pass => return Behind::Kernel,
            Synth::Absent => return Behind::Nothing,
            Synth::Filter { of, kind } => (of, kind),
        };
        // A profile that shows the host's processor shows what the host's kernel tells of it.
        if kind == FilterKind::Auxv && !self.shows_baseline() {
            return Behind::Kernel;
        }
        let Some(pid) = self.meant(id, of) else { return Behind::Nothing };
        // The kernel writes the numbers of the reader's own namespace: it must read as the guest would, from the guest's /proc.
        let number = self.tasks.iter().find(|(_, task)| task.tid == pid).map(|(_, task)| task.number);
        let Some(number) = number else { return Behind::Nothing };
        let Some(own) = self.tasks.get(id).map(|task| task.tid) else { return Behind::Nothing };
        let Some(raw) = super::folder::slurp(&format!("/proc/{own}/root/proc/{number}/{}", kind.file())) else {
            return Behind::Nothing;
        };
        let metadata = &mut self.metadata;
        Behind::Bytes(procfs::filter(kind, &raw, &mut |dev, ino| metadata.vino(FileId { dev, ino })))
    }

    fn meant(&self, id: TaskId, of: Of) -> Option<Pid> {
        let task = self.tasks.get(id)?;
        match of {
            Of::Own => self.tasks.process(task.process).map(|process| process.pid),
            Of::Thread => Some(task.tid),
            Of::Number(number) => self.tasks.iter().find(|(_, task)| task.number == number).map(|(_, task)| task.tid),
        }
    }

    /// Answers an open(2) with a read-only file of these bytes.
    pub(super) fn hand_in(&mut self, id: TaskId, call: &Call, bytes: &[u8], cloexec: bool) -> Result<Verdict, Trouble> {
        let made = memory_file(bytes).map_err(EngineError::edge("make a memory file"))?;
        self.hand_in_descriptor(id, call, made.as_fd(), cloexec)
    }

    /// Answers a call that makes a descriptor with a duplicate of `fd`.
    pub(super) fn hand_in_descriptor(
        &mut self,
        id: TaskId,
        call: &Call,
        fd: BorrowedFd<'_>,
        cloexec: bool,
    ) -> Result<Verdict, Trouble> {
        let give = |listener: BorrowedFd<'_>| tracee::notify_answer_with_fd(listener, call.id, fd, cloexec);
        let given = self.ears.undisturbed(give);
        match given {
            Ok(number) => {
                self.take_call(id, number.into())?;
                self.counts.answered(call.nr);
                Ok(Verdict::Settled)
            }
            Err(error) if crate::engine::is_gone(&error) => Ok(Verdict::Settled),
            Err(error) => Ok(Verdict::Return(-i64::from(error.raw_os_error().unwrap_or(libc::EIO)))),
        }
    }
}

/// A file in memory that its holder cannot write.
fn memory_file(bytes: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(memfd_create(c"proc", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
