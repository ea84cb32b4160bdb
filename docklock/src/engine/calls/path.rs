//! Where a name leads: into /proc, whose files the engine answers for, or to a file of the cage.
//!
//! The engine walks a path as path_resolution(7) has it, from the task's root, working directory or descriptor, and follows symbolic links itself:
//! what the kernel would find is found whatever the path is made of (`//proc`, `..`, links, descriptors). Nobody else runs meanwhile, so the kernel
//! finds the same afterwards. What was found names a file, for its dates and its identity, and is never opened for a guest; whether the task may go
//! that way the kernel decides.
//!
//! A path that does not lead into /proc is remembered by the folder it begins in and its text, until a link, a folder or another name is made
//! ([`Engine::names_changed`]): nothing else could lead it elsewhere. One root for the whole cage: chroot(2) is refused under turns.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::unistd::Pid;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat};

use crate::engine::model::metadata::FileId;
use crate::engine::model::place::{Caller, Link, Place};
use crate::engine::task::{Call, TaskId};
use crate::engine::{Engine, EngineError, Trouble};

/// Symbolic links that one path may hold (MAXSYMLINKS, path_resolution(7)).
const LINKS_MAX: u32 = 40;
/// Names that one path may come to: those of its text and of all its links.
const STEPS_MAX: u32 = 16 * 1024;
/// Paths that are remembered at once: 2^16 of about 100 bytes are below 10 MB.
const KNOWN_MAX: usize = 1 << 16;
/// What lets a folder or link be named without being opened.
const NAMED: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A path as a call gives it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    /// `AT_FDCWD`, or the descriptor of a folder.
    pub folder: i32,
    pub path: &'a [u8],
    /// A link at its end is followed.
    pub follow: bool,
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lead {
    /// To this place below /proc, which may not exist.
    Proc(Place),
    /// To a device that gives random bytes.
    Random,
    /// To what was a FIFO when it was looked at.
    Fifo,
    /// To something else, or to nothing.
    Elsewhere,
}

/// The folder in which a path begins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Base {
    Root,
    Folder(FileId),
    Proc(Vec<u8>),
}

/// What a path names.
pub(super) enum End {
    Proc(Place),
    /// A name in a folder, and the file of that name if there is one. When the path ends in no name (`/`, `a/..`, `/dev/fd/3`) it is empty, and the
    /// folder is the file itself.
    File {
        folder: OwnedFd,
        name: Vec<u8>,
        file: Option<Stat>,
    },
    /// Nothing: a folder on the way is missing or is none, or there are too many links.
    Nothing,
}

/// What is known of names.
pub(in crate::engine) struct Names {
    root: OwnedFd,
    root_id: FileId,
    /// The device of /proc, if it is mounted.
    proc: Option<u64>,
    known: HashMap<Base, HashMap<Vec<u8>, [Option<Lead>; 2]>>,
    count: usize,
    /// Where relative paths of a task begin.
    folders: HashMap<TaskId, Base>,
}

impl Names {
    /// The names that the process `pid` sees.
    pub(in crate::engine) fn of(pid: Pid) -> Result<Self, EngineError> {
        let failed =
            |errno: rustix::io::Errno| EngineError::Edge { deed: "open the root of the cage", source: errno.into() };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty()).map_err(failed)?;
        let root_id = id_of(&rustix::fs::fstat(&root).map_err(failed)?);
        let proc = rustix::fs::statat(&root, "proc", AtFlags::SYMLINK_NOFOLLOW).ok();
        let proc = proc.filter(|_| is_procfs(&root)).map(|stat| stat.st_dev);
        Ok(Self { root, root_id, proc, known: HashMap::new(), count: 0, folders: HashMap::new() })
    }

    /// True for the device of the cage's /proc.
    pub(in crate::engine) fn is_proc(&self, dev: u64) -> bool {
        self.proc == Some(dev)
    }

    fn remembered(&self, base: &Base, named: &Named<'_>) -> Option<&Lead> {
        self.known.get(base)?.get(named.path)?[usize::from(named.follow)].as_ref()
    }

    fn remember(&mut self, base: Base, named: &Named<'_>, lead: Lead) {
        if self.count >= KNOWN_MAX {
            self.known.clear();
            self.count = 0;
        }
        self.count += 1;
        self.known.entry(base).or_default().entry(named.path.to_vec()).or_default()[usize::from(named.follow)] =
            Some(lead);
    }
}

/// True when /proc below `root` is the kernel's (PROC_SUPER_MAGIC, statfs(2)).
fn is_procfs(root: &OwnedFd) -> bool {
    let opened = rustix::fs::openat(root, "proc", NAMED, Mode::empty());
    opened.and_then(rustix::fs::fstatfs).is_ok_and(|stat| stat.f_type == libc::PROC_SUPER_MAGIC)
}

/// True for a pipe without a name, which a descriptor's link leads to (PIPEFS_MAGIC, statfs(2)). To open it again never waits.
fn is_pipe(file: &OwnedFd) -> bool {
    const PIPEFS_MAGIC: i64 = 0x5049_5045;
    rustix::fs::fstatfs(file).is_ok_and(|stat| stat.f_type == PIPEFS_MAGIC)
}

fn id_of(stat: &Stat) -> FileId {
    FileId { dev: stat.st_dev, ino: stat.st_ino }
}

fn is_link(stat: &Stat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFLNK
}

/// Where a walk stands.
enum Here {
    File(OwnedFd, Stat),
    Proc(Place),
}

/// A walk along a path.
struct Walk<'a> {
    engine: &'a Engine,
    caller: Caller,
    /// What is left of the path, last name first.
    left: Vec<Vec<u8>>,
    links: u32,
    /// It has been below /proc, where things change by themselves.
    in_proc: bool,
}

impl Engine {
    /// A name was made that may lead a path elsewhere: a link, a folder, or another name of something.
    pub(super) fn names_changed(&mut self) {
        self.names.known.clear();
        self.names.count = 0;
    }

    /// chdir(2) and fchdir(2): whose relative paths begin elsewhere now depends on who shares the folder with whom.
    pub(super) fn change_folder(&mut self) {
        self.names.folders.clear();
    }

    /// Where a path leads.
    pub(super) fn lead(&mut self, id: TaskId, named: &Named<'_>) -> Result<Lead, Trouble> {
        if named.path.is_empty() {
            return Ok(Lead::Elsewhere);
        }
        let Some(base) = self.base(id, named)? else { return Ok(Lead::Elsewhere) };
        if let Some(lead) = self.names.remembered(&base, named) {
            return Ok(lead.clone());
        }
        let mut walk = Walk::new(self, id);
        let end = walk.go(id, &base, named)?;
        let fixed = !walk.in_proc;
        let lead = match end {
            End::Proc(place) => Lead::Proc(place),
            End::File { file: Some(stat), folder, name } => match stat.st_mode & libc::S_IFMT {
                libc::S_IFCHR if super::random::is_random_device(stat.st_rdev) => Lead::Random,
                libc::S_IFIFO if !name.is_empty() || !is_pipe(&folder) => Lead::Fifo,
                _ => Lead::Elsewhere,
            },
            End::File { file: None, .. } | End::Nothing => Lead::Elsewhere,
        };
        if fixed {
            self.names.remember(base, named, lead.clone());
        }
        Ok(lead)
    }

    /// What a path names now.
    pub(super) fn find(&mut self, id: TaskId, named: &Named<'_>) -> Result<End, Trouble> {
        if named.path.is_empty() {
            return Ok(End::Nothing);
        }
        let Some(base) = self.base(id, named)? else { return Ok(End::Nothing) };
        Walk::new(self, id).go(id, &base, named)
    }

    /// The place below /proc behind a descriptor that is known to lead there.
    pub(super) fn place_of(&self, tid: Pid, descriptor: i32) -> Option<Place> {
        let path = nix::fcntl::readlink(format!("/proc/{tid}/fd/{descriptor}").as_str()).ok()?;
        Place::of_path(path.as_bytes())
    }

    /// The numbers of a task as /proc/self means them.
    pub(super) fn caller(&self, id: TaskId) -> Caller {
        let task = self.tasks.get(id);
        let process = task.and_then(|task| self.tasks.process(task.process)).map_or(0, |process| process.number);
        Caller { process, thread: task.map_or(0, |task| task.number) }
    }

    /// The folder a path begins in; `None` when its descriptor is none.
    fn base(&mut self, id: TaskId, named: &Named<'_>) -> Result<Option<Base>, Trouble> {
        if named.path.first() == Some(&b'/') {
            return Ok(Some(Base::Root));
        }
        if named.folder == libc::AT_FDCWD
            && let Some(base) = self.names.folders.get(&id)
        {
            return Ok(Some(base.clone()));
        }
        let link = folder_link(self.tid(id)?, named.folder);
        let Ok(stat) = rustix::fs::stat(link.as_str()) else { return Ok(None) };
        let base = if self.names.is_proc(stat.st_dev) {
            let path = nix::fcntl::readlink(link.as_str()).unwrap_or_default();
            Base::Proc(path.as_bytes().to_vec())
        } else {
            Base::Folder(id_of(&stat))
        };
        if named.folder == libc::AT_FDCWD {
            self.names.folders.insert(id, base.clone());
        }
        Ok(Some(base))
    }

    /// The cage's inode number of its root.
    pub(super) fn root_ino(&mut self) -> u64 {
        self.metadata.vino(self.names.root_id)
    }

    /// A task is gone.
    pub(in crate::engine) fn forget_folder(&mut self, id: TaskId) {
        self.names.folders.remove(&id);
    }

    /// The host's id of a task of this number; of a process, its first thread's.
    pub(super) fn host_id(&self, number: u32) -> Option<Pid> {
        self.tasks.iter().find(|(_, task)| task.number == number).map(|(_, task)| task.tid)
    }

    /// The text of a descriptor's link in /proc, with the cage's number where the kernel shows an inode's (proc_pid_fd(5)).
    pub(super) fn descriptor_link(&mut self, number: u32, file: &str) -> Option<Vec<u8>> {
        let link = format!("/proc/{}/{file}", self.host_id(number)?);
        let text = nix::fcntl::readlink(link.as_str()).ok()?.as_bytes().to_vec();
        let stat = rustix::fs::stat(link.as_str()).ok()?;
        let shown = if text.ends_with(b"]") {
            crate::engine::model::place::renumbered(&text, self.metadata.vino(id_of(&stat)))
        } else {
            None
        };
        Some(shown.unwrap_or(text))
    }

    /// The cage's inode number of what a task's descriptor leads to.
    pub(super) fn descriptor_ino(&mut self, number: u32, fd: u32) -> Option<u64> {
        let stat = rustix::fs::stat(format!("/proc/{}/fd/{fd}", self.host_id(number)?)).ok()?;
        if self.names.is_proc(stat.st_dev) {
            return self.place_of(self.host_id(number)?, fd as i32).map(|place| place.ino());
        }
        Some(self.metadata.vino(id_of(&stat)))
    }
}

/// The kernel's link to the folder in which a relative path of a task begins.
fn folder_link(tid: Pid, folder: i32) -> String {
    if folder == libc::AT_FDCWD { format!("/proc/{tid}/cwd") } else { format!("/proc/{tid}/fd/{folder}") }
}

impl<'a> Walk<'a> {
    fn new(engine: &'a Engine, id: TaskId) -> Self {
        Self { engine, caller: engine.caller(id), left: Vec::new(), links: 0, in_proc: false }
    }

    fn go(&mut self, id: TaskId, base: &Base, named: &Named<'_>) -> Result<End, Trouble> {
        let here = match base {
            Base::Root => self.root(),
            Base::Folder(_) => self.open(&folder_link(self.engine.tid(id)?, named.folder)),
            Base::Proc(path) => Place::of_path(path).map(Here::Proc),
        };
        let Some(mut here) = here else { return Ok(End::Nothing) };
        self.push(named.path);
        // A slash at the end asks for a folder, so a link there is followed.
        let follow = named.follow || named.path.last() == Some(&b'/');
        if *base == Base::Root
            && self.engine.names.proc.is_some()
            && self.left.last().is_some_and(|name| name == b"proc")
        {
            self.left.pop();
            here = Here::Proc(Place::default());
        } else if let Here::File(folder, _) = &here
            && let Some(ahead) = self.jump(folder, named.path)
        {
            here = ahead;
            self.left.truncate(1);
        }
        Ok(self.walk(here, follow).unwrap_or(End::Nothing))
    }

    /// All folders of a path in one step, if none of them is a link.
    fn jump(&self, folder: &OwnedFd, path: &[u8]) -> Option<Here> {
        let last = path.iter().rposition(|byte| *byte == b'/')?;
        let way = path[..last].strip_prefix(b"/").unwrap_or(&path[..last]);
        // A slash too many at the front would begin at the engine's own root; without a name at the end there is none to step to.
        if matches!(way.first(), None | Some(b'/')) || matches!(&path[last + 1..], b"" | b"." | b"..") {
            return None;
        }
        let way = std::ffi::OsStr::from_bytes(way);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let plain = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let opened = rustix::fs::openat2(folder, way, flags, Mode::empty(), plain).ok()?;
        let stat = rustix::fs::fstat(&opened).ok()?;
        if self.engine.names.is_proc(stat.st_dev) {
            return None;
        }
        Some(Here::File(opened, stat))
    }

    fn push(&mut self, path: &[u8]) {
        let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
        let start = self.left.len();
        self.left.extend(names.map(<[u8]>::to_vec));
        self.left[start..].reverse();
    }

    fn root(&self) -> Option<Here> {
        let root = rustix::io::fcntl_dupfd_cloexec(&self.engine.names.root, 0).ok()?;
        let stat = rustix::fs::fstat(&root).ok()?;
        Some(Here::File(root, stat))
    }

    /// What one of the kernel's links in the host's own /proc leads to.
    fn open(&self, link: &str) -> Option<Here> {
        let opened = rustix::fs::open(link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&opened).ok()?;
        if self.engine.names.is_proc(stat.st_dev) {
            return Place::of_path(nix::fcntl::readlink(link).ok()?.as_bytes()).map(Here::Proc);
        }
        Some(Here::File(opened, stat))
    }

    fn walk(&mut self, mut here: Here, follow: bool) -> Option<End> {
        let mut steps = 0;
        while let Some(name) = self.left.pop() {
            steps += 1;
            if steps > STEPS_MAX {
                return None;
            }
            let last = self.left.is_empty();
            here = match here {
                Here::Proc(place) => self.step_in_proc(place, &name, !last || follow)?,
                Here::File(folder, stat) if name == b".." => self.back(folder, stat)?,
                Here::File(folder, _) => match self.step(folder.as_fd(), &name) {
                    Some((found, stat)) if self.engine.names.is_proc(stat.st_dev) => {
                        drop(found);
                        Here::Proc(Place::default())
                    }
                    Some((found, stat)) if is_link(&stat) && (!last || follow) => {
                        let target = rustix::fs::readlinkat(&found, "", Vec::new()).ok()?;
                        self.links += 1;
                        if self.links > LINKS_MAX {
                            return None;
                        }
                        self.push(target.as_bytes());
                        if target.as_bytes().first() == Some(&b'/') {
                            self.root()?
                        } else {
                            let stat = rustix::fs::fstat(&folder).ok()?;
                            Here::File(folder, stat)
                        }
                    }
                    Some((_, stat)) if last => return Some(End::File { folder, name, file: Some(stat) }),
                    Some((found, stat)) => Here::File(found, stat),
                    None if last => return Some(End::File { folder, name, file: None }),
                    None => return None,
                },
            };
        }
        Some(match here {
            Here::Proc(place) => {
                self.in_proc = true;
                End::Proc(place)
            }
            Here::File(folder, stat) => End::File { folder, name: Vec::new(), file: Some(stat) },
        })
    }

    fn step(&self, folder: BorrowedFd<'_>, name: &[u8]) -> Option<(OwnedFd, Stat)> {
        let found = rustix::fs::openat(folder, std::ffi::OsStr::from_bytes(name), NAMED, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&found).ok()?;
        Some((found, stat))
    }

    /// `..` of a folder; the root is its own parent.
    fn back(&self, folder: OwnedFd, stat: Stat) -> Option<Here> {
        if id_of(&stat) == self.engine.names.root_id {
            return Some(Here::File(folder, stat));
        }
        let (parent, stat) = self.step(folder.as_fd(), b"..")?;
        Some(Here::File(parent, stat))
    }

    fn step_in_proc(&mut self, mut place: Place, name: &[u8], follow: bool) -> Option<Here> {
        self.in_proc = true;
        if name == b".." {
            return if place.leave() { Some(Here::Proc(place)) } else { self.root() };
        }
        place.enter(name);
        let Some(link) = place.link(self.caller).filter(|_| follow) else { return Some(Here::Proc(place)) };
        self.links += 1;
        if self.links > LINKS_MAX {
            return None;
        }
        match link {
            Link::Place(place) => Some(Here::Proc(place)),
            Link::Task { number, file } => self.open(&format!("/proc/{}/{file}", self.engine.host_id(number)?)),
        }
    }
}

/// The path that a call names first, and whether a link at its end is followed; `None` for a call that names a descriptor alone.
pub(super) fn first_path(call: &Call) -> Option<(i32, u64, bool)> {
    let here = libc::AT_FDCWD;
    let [first, second, third, fourth, fifth, _] = call.args;
    let at = first as i32;
    let follows = |flags: u64| flags as i32 & libc::AT_SYMLINK_NOFOLLOW == 0;
    Some(match call.nr {
        libc::SYS_stat | libc::SYS_statfs | libc::SYS_access | libc::SYS_truncate => (here, first, true),
        libc::SYS_lstat | libc::SYS_readlink => (here, first, false),
        libc::SYS_newfstatat => (at, second, follows(fourth)),
        libc::SYS_statx => (at, second, follows(third)),
        libc::SYS_readlinkat => (at, second, false),
        libc::SYS_faccessat => (at, second, true),
        libc::SYS_faccessat2 => (at, second, follows(fourth)),
        libc::SYS_utime | libc::SYS_utimes => (here, first, true),
        libc::SYS_futimesat => (at, second, true),
        libc::SYS_utimensat => (at, second, follows(fourth)),
        libc::SYS_chmod | libc::SYS_chown | libc::SYS_setxattr | libc::SYS_removexattr => (here, first, true),
        libc::SYS_lchown | libc::SYS_lsetxattr | libc::SYS_lremovexattr => (here, first, false),
        libc::SYS_fchmodat => (at, second, true),
        libc::SYS_fchownat => (at, second, follows(fifth)),
        _ => return None,
    })
}
