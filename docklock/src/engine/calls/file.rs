//! Files by name and descriptor: opening, metadata, mappings.
//!
//! The kernel resolves every name, as the task and in its root; the engine only rewrites what comes back, and answers itself where a name leads
//! into /proc.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::unistd::Pid;

use super::Answer;
use super::path::{End, Lead, Named, first_path};
use super::proc::Behind;
use crate::engine::code::Made;
use crate::engine::guest::{self, kind};
use crate::engine::model::metadata::{
    FileId, STAT_BYTES, STATFS_BYTES, STATX_BYTES, plain_stat, plain_statfs, plain_statx,
};
use crate::engine::model::place::Place;
use crate::engine::model::procfs::Synth;
use crate::engine::task::{Call, TaskId};
use crate::engine::{Engine, Fault, Verdict};

const ENOENT: Fault = Fault(-(libc::ENOENT as i64));

impl Engine {
    pub(super) fn stat(&mut self, id: TaskId, call: &Call) -> Answer {
        if let Some(verdict) = self.fstat(id, call)? {
            return Ok(verdict);
        }
        let buffer = match call.nr {
            libc::SYS_newfstatat => call.args[2],
            libc::SYS_statx => call.args[4],
            _ => call.args[1],
        };
        let tid = self.tid(id)?;
        let (lead, follow) = self.lead_of_call(id, call)?;
        let place = match lead {
            Lead::Proc(place) => Some(place),
            _ => None,
        };
        if let Some(place) = &place {
            match self.what(id, place, "") {
                Synth::Absent => return Err(ENOENT.into()),
                Synth::Bytes(_) => return self.stat_plain(tid, call.nr, buffer, place),
                // What a link to a namespace leads to has a number of the host's.
                Synth::Link(_) if follow => return self.stat_plain(tid, call.nr, buffer, place),
                _ => {}
            }
        }
        let Some(registers) = self.hook(id)? else { return Ok(Verdict::Settled) };
        if registers.rax == 0 {
            let rewritten = self.rewrite(tid, call, buffer, place);
            self.must_be_rewritten(rewritten);
        }
        self.release(id)?;
        Ok(Verdict::Settled)
    }

    /// Where the path that a call names leads, and whether a link at its end counts as what it leads to.
    fn lead_of_call(&mut self, id: TaskId, call: &Call) -> Result<(Lead, bool), crate::engine::Trouble> {
        match first_path(call) {
            Some((folder, address, follow)) if address != 0 => {
                let path = guest::read_path(self.tid(id)?, address)?;
                Ok((self.lead(id, &Named { folder, path: &path, follow })?, follow))
            }
            _ => Ok((Lead::Elsewhere, true)),
        }
    }

    /// A file of /proc that the kernel does not have.
    fn stat_plain(&mut self, tid: Pid, nr: i64, buffer: u64, place: &Place) -> Answer {
        if nr == libc::SYS_statx {
            let mut raw = plain_statx();
            self.metadata.rewrite_statx_of_proc(&mut raw, place.ino());
            guest::write(tid, buffer, &raw)?;
        } else {
            let mut raw = plain_stat();
            self.metadata.rewrite_stat_of_proc(&mut raw, place.ino());
            guest::write(tid, buffer, &raw)?;
        }
        Ok(Verdict::Return(0))
    }

    /// What the kernel has written and the engine could not is the host's answer: the receipt tells.
    pub(super) fn must_be_rewritten(&mut self, rewritten: Result<(), Fault>) {
        if rewritten.is_err() {
            self.escape("an answer of the kernel could not be rewritten in a task's memory".to_owned());
        }
    }

    /// The kernel has just written there; a guest that took the page away meanwhile has nothing to read.
    fn rewrite(&mut self, tid: Pid, call: &Call, buffer: u64, place: Option<Place>) -> Result<(), Fault> {
        if call.nr == libc::SYS_statx {
            let mut raw = guest::peek::<STATX_BYTES>(tid, buffer)?;
            match self.place_seen(tid, call, FileId::of_statx(&raw), place)? {
                Some(place) => self.metadata.rewrite_statx_of_proc(&mut raw, place.ino()),
                None => self.metadata.rewrite_statx(&mut raw),
            }
            guest::write(tid, buffer, &raw)
        } else {
            let mut raw = guest::peek::<STAT_BYTES>(tid, buffer)?;
            match self.place_seen(tid, call, FileId::of_stat(&raw), place)? {
                Some(place) => self.metadata.rewrite_stat_of_proc(&mut raw, place.ino()),
                None => self.metadata.rewrite_stat(&mut raw),
            }
            guest::write(tid, buffer, &raw)
        }
    }

    /// The place below /proc that the kernel looked at, if it was one: as its path was understood, or behind the descriptor that the call names.
    fn place_seen(&self, tid: Pid, call: &Call, file: FileId, place: Option<Place>) -> Result<Option<Place>, Fault> {
        match place {
            Some(place) if self.names.is_proc(file.dev) => Ok(Some(place)),
            _ => self.place_behind(tid, call.args[0] as i32, file),
        }
    }

    /// The place below /proc behind a descriptor that leads to `file`; `None` when that lies elsewhere.
    ///
    /// # Errors
    /// When it lies below /proc and nobody knows where: the kernel found a way that the engine did not, and what it says is the host's.
    pub(super) fn place_behind(&self, tid: Pid, number: i32, file: FileId) -> Result<Option<Place>, Fault> {
        if !self.names.is_proc(file.dev) {
            return Ok(None);
        }
        self.place_of(tid, number).map(Some).ok_or(guest::EFAULT)
    }

    pub(super) fn statfs(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        if let (Lead::Proc(place), _) = self.lead_of_call(id, call)? {
            match self.what(id, &place, "") {
                Synth::Absent => return Err(ENOENT.into()),
                Synth::Bytes(_) => {
                    let mut raw = plain_statfs();
                    self.metadata.rewrite_statfs(&mut raw);
                    guest::write(tid, call.args[1], &raw)?;
                    return Ok(Verdict::Return(0));
                }
                _ => {}
            }
        }
        let Some(registers) = self.hook(id)? else { return Ok(Verdict::Settled) };
        if registers.rax == 0 {
            let rewritten = guest::peek::<STATFS_BYTES>(tid, call.args[1]).and_then(|mut raw| {
                self.metadata.rewrite_statfs(&mut raw);
                guest::write(tid, call.args[1], &raw)
            });
            self.must_be_rewritten(rewritten);
        }
        self.release(id)?;
        Ok(Verdict::Settled)
    }

    pub(super) fn open(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        let (folder, name, flags) = match call.nr {
            libc::SYS_open => (libc::AT_FDCWD, call.args[0], call.args[1] as i32),
            libc::SYS_creat => (libc::AT_FDCWD, call.args[0], libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC),
            _ => (call.args[0] as i32, call.args[1], call.args[2] as i32),
        };
        let path = guest::read_path(tid, name)?;
        let follow =
            flags & libc::O_NOFOLLOW == 0 && flags & (libc::O_CREAT | libc::O_EXCL) != libc::O_CREAT | libc::O_EXCL;
        let named = Named { folder, path: &path, follow };
        match self.lead(id, &named)? {
            Lead::Proc(place) => return self.open_proc(id, call, &place, flags),
            Lead::Random => self.random.opened = true,
            Lead::Fifo => {
                if let End::File { folder, name, file: Some(stat) } = self.find(id, &named)?
                    && stat.st_mode & libc::S_IFMT == libc::S_IFIFO
                    && let Some(verdict) =
                        self.open_fifo(id, &on_host(&folder, &name), (stat.st_dev, stat.st_ino), flags)?
                {
                    return Ok(verdict);
                }
            }
            Lead::Elsewhere => {}
        }
        if flags & libc::O_PATH == 0 && changes(flags) {
            return self.open_for_change(id, &named, flags);
        }
        Ok(Verdict::Continue)
    }

    fn open_proc(&mut self, id: TaskId, call: &Call, place: &Place, flags: i32) -> Answer {
        let mode = flags & libc::O_ACCMODE;
        match self.behind(id, place) {
            Behind::Nothing => Err(ENOENT.into()),
            Behind::Kernel => {
                if mode != libc::O_RDONLY && place.parts().last() == Some(&&b"mem"[..]) {
                    self.code_is_made(Made::ThroughProc);
                }
                Ok(Verdict::Continue)
            }
            Behind::Bytes { written: true, .. } if mode == libc::O_WRONLY => Ok(Verdict::Continue),
            Behind::Bytes { .. } if flags & libc::O_DIRECTORY != 0 => Err(Fault(-i64::from(libc::ENOTDIR)).into()),
            Behind::Bytes { bytes, .. } if mode == libc::O_RDONLY => {
                self.hand_in(id, call, &bytes, flags & libc::O_CLOEXEC != 0)
            }
            Behind::Bytes { .. } => Err(Fault(-i64::from(libc::EACCES)).into()),
        }
    }

    /// A mapping that can be executed, or through which a file can be written (mmap(2), mprotect(2): both have the protection third).
    pub(super) fn map(&mut self, id: TaskId, call: &Call) -> Answer {
        const PROT_WRITE: u64 = libc::PROT_WRITE as u64;
        let shared = call.nr == libc::SYS_mmap && call.args[3] & libc::MAP_SHARED as u64 != 0;
        if shared
            && call.args[2] & PROT_WRITE != 0
            && call.args[3] & libc::MAP_ANONYMOUS as u64 == 0
            && let Some((_, stat)) = self.file(id, call.args[4] as i32)
            && kind(&stat) == libc::S_IFREG
        {
            let now = self.clock.now();
            self.metadata.written(FileId { dev: stat.st_dev, ino: stat.st_ino }, now);
        }
        if call.args[2] & libc::PROT_EXEC as u64 != 0 { self.map_code(id, call) } else { self.map_plainly(id, call) }
    }

    /// Looks at a name: access(2) and its like.
    pub(super) fn look_up(&mut self, id: TaskId, call: &Call) -> Answer {
        let (Lead::Proc(place), _) = self.lead_of_call(id, call)? else { return Ok(Verdict::Continue) };
        match self.what(id, &place, "") {
            Synth::Absent => Err(ENOENT.into()),
            Synth::Bytes(_) => {
                let mode = call.args[if call.nr == libc::SYS_access { 1 } else { 2 }] as i32;
                let refused = mode & (libc::W_OK | libc::X_OK) != 0;
                Ok(Verdict::Return(if refused { -i64::from(libc::EACCES) } else { 0 }))
            }
            _ => Ok(Verdict::Continue),
        }
    }

    /// readlink(2): below /proc a link may show a number of the host's.
    pub(super) fn read_link(&mut self, id: TaskId, call: &Call) -> Answer {
        let (Lead::Proc(place), _) = self.lead_of_call(id, call)? else { return Ok(Verdict::Continue) };
        let text = match self.what(id, &place, "") {
            Synth::Absent => return Err(ENOENT.into()),
            Synth::Bytes(_) => return Err(guest::EINVAL.into()),
            Synth::Link(text) => Some(text.as_bytes().to_vec()),
            _ => match place.task() {
                Some((number, tail)) if matches!(tail.as_slice(), [b"fd", _]) => {
                    let file = String::from_utf8_lossy(&tail.join(&b'/')).into_owned();
                    self.descriptor_link(number, &file)
                }
                _ => None,
            },
        };
        // The kernel says what is wrong with a descriptor that is none.
        let Some(text) = text else { return Ok(Verdict::Continue) };
        let (buffer, capacity) = match call.nr {
            libc::SYS_readlink => (call.args[1], call.args[2]),
            _ => (call.args[2], call.args[3]),
        };
        let capacity = usize::try_from(capacity as i32).ok().filter(|capacity| *capacity > 0).ok_or(guest::EINVAL)?;
        let shown = &text[..text.len().min(capacity)];
        guest::write(self.tid(id)?, buffer, shown)?;
        Ok(Verdict::Return(shown.len() as i64))
    }
}

/// True for flags of open(2) by which a file may be made, emptied or written.
fn changes(flags: i32) -> bool {
    flags & (libc::O_CREAT | libc::O_TRUNC) != 0 || flags & libc::O_ACCMODE != libc::O_RDONLY
}

/// A name in a folder of the cage as this process reaches it.
fn on_host(folder: &OwnedFd, name: &[u8]) -> String {
    let folder = format!("/proc/self/fd/{}", folder.as_raw_fd());
    if name.is_empty() { folder } else { format!("{folder}/{}", String::from_utf8_lossy(name)) }
}
