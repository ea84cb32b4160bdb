//! getdents(2): the whole folder read once, sorted, and served from there; the position is the descriptor's own.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use nix::unistd::{Whence, lseek};
use rustix::fs::AtFlags;

use super::Answer;
use crate::engine::guest::{self, kind};
use crate::engine::model::folder::{Entry, Form, Listing, parse};
use crate::engine::model::metadata::FileId;
use crate::engine::model::place::{self, Folder, Name, Place};
use crate::engine::task::{Call, ProcessId, TaskId};
use crate::engine::{Engine, EngineError, Fault, Verdict};
use crate::kernel::tracee;

/// Most bytes one call is served: more than any libc asks for.
const SERVED_BYTES_MAX: u64 = 1 << 20;
/// Most listings that are kept at once; a longer-lived descriptor is read again.
const LISTINGS_MAX: usize = 256;

/// The listings of open folders, by process and descriptor.
#[derive(Debug, Default)]
pub(in crate::engine) struct Folders {
    open: HashMap<(ProcessId, i32), (FileId, Listing)>,
}

impl Folders {
    pub(in crate::engine) fn remove_process(&mut self, process: ProcessId) {
        self.open.retain(|(owner, _), _| *owner != process);
    }
}

impl Engine {
    pub(super) fn getdents(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        let number = call.args[0] as i32;
        let Some(process) = self.tasks.get(id).map(|task| task.process) else { return Ok(Verdict::Settled) };
        let Some((fd, stat)) = self.file(id, number) else { return Ok(Verdict::Continue) };
        if kind(&stat) != libc::S_IFDIR {
            return Ok(Verdict::Continue);
        }
        let Ok(position) = lseek(fd.as_fd(), 0, Whence::SeekCur) else { return Ok(Verdict::Continue) };
        let folder = FileId { dev: stat.st_dev, ino: stat.st_ino };
        let place = self.names.is_proc(stat.st_dev).then(|| self.place_of(tid, number)).flatten();
        let known = self.folders.open.get(&(process, number)).is_some_and(|(of, _)| *of == folder);
        if position == 0 || !known {
            let listing = self.list(tid, number, folder, place.as_ref())?;
            if self.folders.open.len() >= LISTINGS_MAX {
                self.folders.open.clear();
            }
            self.folders.open.insert((process, number), (folder, listing));
        }
        let form = if call.nr == libc::SYS_getdents64 { Form::Dents64 } else { Form::Dents };
        let Some((_, listing)) = self.folders.open.get(&(process, number)) else { return Ok(Verdict::Continue) };
        let capacity = (call.args[2] & 0xffff_ffff).min(SERVED_BYTES_MAX) as usize;
        let (bytes, next) = listing.serve(position as u64, capacity, form)?;
        guest::write(tid, call.args[1], &bytes)?;
        lseek(fd.as_fd(), next as i64, Whence::SeekSet)?;
        Ok(Verdict::Return(bytes.len() as i64))
    }

    /// Reads a folder through a descriptor of our own: the guest's position stays where it is.
    fn list(
        &mut self,
        tid: nix::unistd::Pid,
        number: i32,
        folder: FileId,
        place: Option<&Place>,
    ) -> Result<Listing, crate::engine::Trouble> {
        // One that is gone, such as that of a dead process in /proc, is the guest's own trouble.
        let told = |error: std::io::Error| Fault(-i64::from(error.raw_os_error().unwrap_or(libc::ENOENT)));
        let own = File::open(format!("/proc/{tid}/fd/{number}")).map_err(told)?;
        let raw = tracee::read_folder(own.as_fd()).map_err(told)?;
        let failed = |deed| {
            move |error: crate::engine::model::folder::FolderError| EngineError::Edge {
                deed,
                source: std::io::Error::other(error.to_string()),
            }
        };
        let entries = parse(&raw).map_err(failed("read a guest's folder"))?;
        let Some(place) = place else {
            let mut listing = Listing::sorted(entries).map_err(failed("sort a guest's folder"))?;
            let metadata = &mut self.metadata;
            listing.renumber(|entry| metadata.vino(identity(&own, entry, folder.dev)));
            return Ok(listing);
        };
        let mut listing = Listing::sorted(shown(place, entries)).map_err(failed("sort a guest's folder"))?;
        let above = self.root_ino();
        let is_top = place.folder() == Some(Folder::Root);
        listing.renumber(|entry| if is_top && entry.name == b".." { above } else { place.ino_of(&entry.name) });
        Ok(listing)
    }
}

/// The file of an entry, as stat(2) identifies it: on an overlay whose layers lie on different file systems the number in a folder is another one
/// (Documentation/filesystems/overlayfs.rst, inode properties). One that is gone meanwhile keeps the folder's.
fn identity(folder: &File, entry: &Entry, dev: u64) -> FileId {
    let name = std::ffi::OsStr::from_bytes(&entry.name);
    let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT);
    stat.map_or(FileId { dev, ino: entry.ino }, |stat| FileId { dev: stat.st_dev, ino: stat.st_ino })
}

/// What a folder of /proc shows: tasks and descriptors as the kernel lists them, files as far as they are answered.
fn shown(place: &Place, entries: Vec<Entry>) -> Vec<Entry> {
    let made = |name: &str, kind| Entry { ino: 0, kind, name: name.into() };
    let fixed = |names: &[Name]| names.iter().map(|(name, kind)| made(name, *kind)).collect::<Vec<_>>();
    match place.folder() {
        Some(Folder::Kernel) => entries,
        Some(Folder::Root) => {
            let tasks = entries.into_iter().filter(|entry| place::number(&entry.name).is_some());
            tasks.chain(fixed(&place::ROOT)).collect()
        }
        Some(Folder::Task { process }) => {
            let mut names = fixed(&place::TASK);
            names.extend(process.then(|| made("task", libc::DT_DIR)));
            names
        }
        Some(Folder::Namespaces) => {
            let links = place::NAMESPACES.iter().map(|(name, _)| made(name, libc::DT_LNK));
            links.chain([made(".", libc::DT_DIR), made("..", libc::DT_DIR)]).collect()
        }
        None => Vec::new(),
    }
}

/// Reads a file of /proc that the kernel makes, whole; `None` when it is gone.
pub(super) fn slurp(path: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
