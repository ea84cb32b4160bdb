//! What changes names, owners, modes and dates: the kernel does it, and the engine notes the logical time.
//!
//! A folder in which a name was made or taken away was written then; what was made is new, even if the host uses an inode number again; what got
//! another owner, mode, attribute or name was changed. An overlay may give a file another identity when it is changed for the first time, because it
//! copies it up: what a call names is looked at before and after, and stays the same file to the guest.
//!
//! The engine looks at the file when the call has returned. Mostly it stops the task there; where the kernel cannot do the call with a stop armed
//! ([`Engine::hook_change`]) it looks when the task is heard of next, and what has happened is told by the host's own dates.
//!
//! Approximate: what a link's or a mapping's owner does to bytes without a call has the date of the call that made it possible.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use nix::unistd::Pid;
use rustix::fs::{AtFlags, Stat};

use super::Answer;
use super::path::{End, Named, first_path};
use crate::engine::guest;
use crate::engine::hook::Changed;
use crate::engine::model::metadata::{FileId, utime_times, utimensat_times, utimes_times};
use crate::engine::task::{Call, TaskId};
use crate::engine::{Engine, Trouble, Verdict};

/// A file as it was before a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub id: FileId,
    links: u64,
    /// Its kind (S_IFMT).
    pub kind: u32,
    /// The host's date of its last change.
    ctime: (i64, u64),
}

impl Known {
    fn of(stat: &Stat) -> Self {
        Self {
            id: id_of(stat),
            links: stat.st_nlink,
            kind: stat.st_mode & libc::S_IFMT,
            ctime: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// True when the file is not as it was.
    fn has_changed(&self, now: &Stat) -> bool {
        self.id != id_of(now) || self.ctime != Self::of(now).ctime
    }
}

/// What is to be noted of a call of this task that was let through.
pub(in crate::engine) struct Afterwards {
    task: TaskId,
    note: Note,
}

/// Notes what a call has done; with `true` it is known to have succeeded.
type Note = Box<dyn FnOnce(&mut Engine, bool)>;

/// A name in a folder, and what had it before a call.
#[derive(Debug)]
pub(super) struct Spot {
    folder: OwnedFd,
    folder_id: FileId,
    name: Vec<u8>,
    pub file: Option<Known>,
}

/// What a call changes: the file of a name, or that of a descriptor.
enum Target {
    Name(Spot),
    Descriptor(OwnedFd, Known),
}

impl Target {
    /// The file before the call, and what it is now.
    fn files(&self) -> Option<(Known, Stat)> {
        match self {
            Self::Name(spot) => Some((spot.file?, spot.now()?)),
            Self::Descriptor(fd, known) => Some((*known, rustix::fs::fstat(fd).ok()?)),
        }
    }
}

impl Spot {
    /// The file that has the name now.
    pub(super) fn now(&self) -> Option<Stat> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        rustix::fs::statat(&self.folder, OsStr::from_bytes(&self.name), flags).ok()
    }
}

fn id_of(stat: &Stat) -> FileId {
    FileId { dev: stat.st_dev, ino: stat.st_ino }
}

/// A call's paths, as numbers: folder, address, whether a link at its end is followed.
type Path = (i32, u64, bool);

/// The name that a call makes, if it makes one.
fn made(call: &Call) -> Option<Path> {
    let [first, second, third, fourth, _, _] = call.args;
    Some(match call.nr {
        libc::SYS_mkdir | libc::SYS_mknod => (libc::AT_FDCWD, first, false),
        libc::SYS_mkdirat | libc::SYS_mknodat => (first as i32, second, false),
        libc::SYS_symlink | libc::SYS_link | libc::SYS_rename => (libc::AT_FDCWD, second, false),
        libc::SYS_symlinkat => (second as i32, third, false),
        libc::SYS_linkat | libc::SYS_renameat | libc::SYS_renameat2 => (third as i32, fourth, false),
        _ => return None,
    })
}

/// The name that a call takes away, or gives another name to.
fn former(call: &Call) -> Option<Path> {
    let [first, second, _, _, flags, _] = call.args;
    Some(match call.nr {
        libc::SYS_unlink | libc::SYS_rmdir | libc::SYS_rename | libc::SYS_link => (libc::AT_FDCWD, first, false),
        libc::SYS_unlinkat | libc::SYS_renameat | libc::SYS_renameat2 => (first as i32, second, false),
        libc::SYS_linkat => (first as i32, second, flags as i32 & libc::AT_SYMLINK_FOLLOW != 0),
        _ => return None,
    })
}

fn links(call: &Call) -> bool {
    matches!(call.nr, libc::SYS_link | libc::SYS_linkat)
}

/// True when `new` has what was at `old`, after a call whose result is not known.
fn is_moved(old: &Spot, new: &Spot) -> bool {
    let before = new.file.map(|known| known.id);
    old.file.is_some() && new.now().is_some_and(|now| Some(id_of(&now)) != before)
}

impl Engine {
    /// A file that may be made, emptied or written: it and its folder get their logical dates, and keep their numbers if the host moves them.
    pub(super) fn open_for_change(&mut self, id: TaskId, named: &Named<'_>, flags: i32) -> Answer {
        let Some(spot) = self.spot(id, named)? else { return Ok(Verdict::Continue) };
        let now = self.clock.now();
        if flags & libc::O_TMPFILE == libc::O_TMPFILE {
            return self.open_unnamed(id, now);
        }
        match spot.file.map(|known| known.kind) {
            Some(libc::S_IFIFO) => return self.open_waiting(id),
            // A device or a folder: nothing that has a date of its own to be noted.
            Some(kind) if kind != libc::S_IFREG => return Ok(Verdict::Continue),
            _ => {}
        }
        let hidden = spot.file.is_some();
        let note = move |engine: &mut Self, sure: bool| match (spot.file, spot.now()) {
            (Some(known), Some(after)) if sure || known.has_changed(&after) => {
                engine.metadata.same(known.id, id_of(&after));
                if flags & libc::O_TRUNC != 0 {
                    engine.metadata.written(id_of(&after), now);
                }
            }
            (None, Some(after)) => {
                engine.folder_changed(&spot, now);
                engine.metadata.created(id_of(&after), now);
            }
            _ => {}
        };
        self.run_change(id, hidden, Box::new(note))
    }

    /// O_TMPFILE: a file without a name.
    fn open_unnamed(&mut self, id: TaskId, now: u64) -> Answer {
        let Some(registers) = self.hook(id)? else { return Ok(Verdict::Settled) };
        let result = registers.rax as i64;
        if result >= 0
            && let Some((_, stat)) = self.file(id, result as i32)
        {
            self.metadata.created(FileId { dev: stat.st_dev, ino: stat.st_ino }, now);
        }
        self.release(id)?;
        Ok(Verdict::Settled)
    }

    /// A FIFO whose other end nobody has opened yet.
    fn open_waiting(&mut self, id: TaskId) -> Answer {
        let Some(registers) = self.hook(id)? else { return Ok(Verdict::Settled) };
        if crate::engine::hook::is_restart(registers.rax as i64) {
            self.try_again_later(id, &registers, None)?;
        } else {
            self.release(id)?;
        }
        Ok(Verdict::Settled)
    }

    /// Where a name is, and what has it.
    pub(super) fn spot(&mut self, id: TaskId, named: &Named<'_>) -> Result<Option<Spot>, Trouble> {
        let End::File { folder, name, file } = self.find(id, named)? else { return Ok(None) };
        let Ok(stat) = rustix::fs::fstat(&folder) else { return Ok(None) };
        // The memory file system that stands for /sys is writable only for the engine, which fills it.
        if self.sys_device == Some(stat.st_dev) {
            return Err(nix::errno::Errno::EROFS.into());
        }
        Ok(Some(Spot { folder_id: id_of(&stat), folder, name, file: file.as_ref().map(Known::of) }))
    }

    fn spot_at(&mut self, id: TaskId, path: Option<Path>) -> Result<Option<Spot>, Trouble> {
        let Some((folder, address, follow)) = path else { return Ok(None) };
        let path = guest::read_path(self.tid(id)?, address)?;
        self.spot(id, &Named { folder, path: &path, follow })
    }

    /// The names in a folder are others now.
    fn folder_changed(&mut self, spot: &Spot, now: u64) {
        let after = rustix::fs::fstat(&spot.folder).map_or(spot.folder_id, |stat| id_of(&stat));
        self.metadata.same(spot.folder_id, after);
        self.metadata.written(after, now);
    }

    /// A name was made for a file that is new.
    pub(super) fn made_at(&mut self, spot: &Spot, now: u64) {
        self.folder_changed(spot, now);
        if let Some(stat) = spot.now() {
            self.metadata.created(id_of(&stat), now);
        }
        self.names_changed();
    }

    /// mkdir(2), unlink(2), rename(2), link(2), symlink(2), mknod(2) and their like.
    pub(super) fn change_names(&mut self, id: TaskId, call: &Call) -> Answer {
        let old = self.spot_at(id, former(call))?;
        let new = self.spot_at(id, made(call))?;
        let (now, call) = (self.clock.now(), *call);
        let hidden = old.as_ref().is_some_and(|old| old.file.is_some());
        let note = move |engine: &mut Self, sure: bool| match (&old, &new) {
            (None, Some(new)) => engine.made_at(new, now),
            (Some(old), None) => engine.name_gone(old, now),
            (Some(old), Some(new)) if sure || is_moved(old, new) => engine.name_moved(&call, old, new, now),
            _ => {}
        };
        self.run_change(id, hidden, Box::new(note))
    }

    /// Runs a call that changes files, and notes what it has done.
    fn run_change(&mut self, id: TaskId, hidden: bool, note: Note) -> Answer {
        if self.tasks.get_mut(id).is_some_and(|task| task.again.take().is_some()) {
            self.afterwards = Some(Afterwards { task: id, note });
            return Ok(Verdict::Continue);
        }
        if let Changed::Done(result) = self.hook_change(id, hidden)? {
            if result >= 0 {
                note(self, true);
            }
            self.release(id)?;
        }
        Ok(Verdict::Settled)
    }

    /// A task was heard of: what it was let through for is over.
    pub(in crate::engine) fn finish_change(&mut self, id: TaskId) {
        if let Some(Afterwards { note, .. }) = self.afterwards.take_if(|afterwards| afterwards.task == id) {
            note(self, false);
        }
    }

    fn name_gone(&mut self, old: &Spot, now: u64) {
        self.folder_changed(old, now);
        if let Some(known) = old.file
            && known.links > 1
            && known.kind != libc::S_IFDIR
        {
            self.metadata.changed(known.id, now);
        }
    }

    fn name_moved(&mut self, call: &Call, old: &Spot, new: &Spot, now: u64) {
        let exchanged = call.nr == libc::SYS_renameat2 && call.args[4] as u32 & libc::RENAME_EXCHANGE != 0;
        if !links(call) {
            self.folder_changed(old, now);
        }
        self.folder_changed(new, now);
        let mut pairs = vec![(old, new)];
        if exchanged {
            pairs.push((new, old));
        } else if links(call) {
            pairs.push((old, old));
        }
        for (from, to) in pairs {
            if let (Some(known), Some(after)) = (from.file, to.now()) {
                self.metadata.same(known.id, id_of(&after));
                self.metadata.changed(id_of(&after), now);
            }
        }
        self.names_changed();
    }

    /// The file that a call of chmod(2)'s family or setxattr(2)'s names.
    fn target(&mut self, id: TaskId, call: &Call) -> Result<Option<Target>, Trouble> {
        let tid = self.tid(id)?;
        let by_descriptor = |engine: &mut Self| {
            let fd = engine.descriptor(id, call.args[0] as i32)?;
            let known = Known::of(&rustix::fs::fstat(&fd).ok()?);
            Some(Target::Descriptor(fd, known))
        };
        let Some((folder, address, follow)) = first_path(call) else { return Ok(by_descriptor(self)) };
        // utimensat(2) without a path and fchownat(2) with AT_EMPTY_PATH name the descriptor.
        let path = if address == 0 { Vec::new() } else { guest::read_path(tid, address)? };
        if path.is_empty() {
            return Ok(by_descriptor(self));
        }
        Ok(self.spot(id, &Named { folder, path: &path, follow })?.map(Target::Name))
    }

    /// Lets the kernel change a file, and then notes by `note` what that means at the logical time it gets.
    fn change(&mut self, id: TaskId, call: &Call, note: impl FnOnce(&mut Self, FileId, u64) + 'static) -> Answer {
        let target = self.target(id, call)?;
        let now = self.clock.now();
        let note = move |engine: &mut Self, sure: bool| {
            if let Some((known, after)) = target.as_ref().and_then(Target::files)
                && (sure || known.has_changed(&after))
            {
                engine.metadata.same(known.id, id_of(&after));
                note(engine, id_of(&after), now);
            }
        };
        self.run_change(id, true, Box::new(note))
    }

    /// chmod(2), chown(2), setxattr(2), removexattr(2) and their like.
    pub(super) fn change_attributes(&mut self, id: TaskId, call: &Call) -> Answer {
        self.change(id, call, |engine, file, now| engine.metadata.changed(file, now))
    }

    /// truncate(2), ftruncate(2) and fallocate(2). The latter two get a file that is written already, and one of them looks for signals.
    pub(super) fn resize(&mut self, id: TaskId, call: &Call) -> Answer {
        if call.nr == libc::SYS_truncate {
            return self.change(id, call, |engine, file, now| engine.metadata.written(file, now));
        }
        if let Some((_, stat)) = self.file(id, call.args[0] as i32)
            && guest::kind(&stat) == libc::S_IFREG
        {
            let now = self.clock.now();
            self.metadata.written(FileId { dev: stat.st_dev, ino: stat.st_ino }, now);
        }
        Ok(Verdict::Continue)
    }

    /// utimensat(2) and its like.
    pub(super) fn set_times(&mut self, id: TaskId, call: &Call) -> Answer {
        let times = match call.nr {
            libc::SYS_utime | libc::SYS_utimes => call.args[1],
            _ => call.args[2],
        };
        let (atime, mtime) = self.times_of(self.tid(id)?, call.nr, times)?;
        self.change(id, call, move |engine, file, now| engine.metadata.set_times(file, atime, mtime, now))
    }

    fn times_of(&self, tid: Pid, nr: i64, address: u64) -> Result<(Option<i128>, Option<i128>), Trouble> {
        let now = self.clock.realtime();
        if nr == libc::SYS_utime {
            let raw = if address == 0 { None } else { Some(guest::peek::<16>(tid, address)?) };
            let (atime, mtime) = utime_times(raw.as_ref(), now);
            return Ok((Some(atime), Some(mtime)));
        }
        let raw = if address == 0 { None } else { Some(guest::peek::<32>(tid, address)?) };
        if nr == libc::SYS_utimensat {
            return Ok(utimensat_times(raw.as_ref(), now)?);
        }
        let (atime, mtime) = utimes_times(raw.as_ref(), now)?;
        Ok((Some(atime), Some(mtime)))
    }
}
