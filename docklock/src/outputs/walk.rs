//! The walk itself: descriptors all the way down, one line hashed for each entry.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::run::Outputs;
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, RawMode, ResolveFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::{Limits, OutputsError};

/// Bytes read at once.
const BUFFER_BYTES: usize = 128 * 1024;

/// What kind of tree it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Overlay {
    /// An ordinary one.
    None,
    /// The upper directory of an overlay, whose attributes speak of the layers below.
    Upper,
    /// One that a run starts from: what it can see of owners and times counts too.
    Image,
}

/// A measurement under way.
pub(super) struct Walk<'a> {
    limits: &'a Limits,
    overlay: Overlay,
    hash: Sha256,
    listing: Option<&'a mut dyn Write>,
    /// Owner and time of the current entry, in a listing that has them.
    owner_and_time: Option<String>,
    entries: u64,
    bytes: u64,
    /// Path of the current entry in the container; empty for the root.
    path: Vec<u8>,
    buffer: Vec<u8>,
}

/// A directory whose entries are being visited.
struct Frame {
    folder: OwnedFd,
    /// Last first, so that the next one is popped.
    names: Vec<Vec<u8>>,
    path_len: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(limits: &'a Limits, overlay: Overlay) -> Self {
        let buffer = vec![0; BUFFER_BYTES];
        Self {
            limits,
            overlay,
            hash: Sha256::new(),
            listing: None,
            owner_and_time: None,
            entries: 0,
            bytes: 0,
            path: Vec::new(),
            buffer,
        }
    }

    /// Writes every line as well.
    pub(super) fn into_listing(mut self, listing: &'a mut dyn Write) -> Self {
        self.listing = Some(listing);
        self
    }

    pub(super) fn finish(self, scope: &str) -> Outputs {
        let digest = Sha256Digest::from_bytes(self.hash.finalize().into());
        Outputs { scope: scope.to_owned(), digest, entries: self.entries }
    }

    pub(super) fn layer(&mut self, upperdir: &Path) -> Result<(), OutputsError> {
        // The runtime names this folder itself, so it may be reached through links.
        let root = fs::open(upperdir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| self.failed("open", errno))?;
        self.tree(root)
    }

    pub(super) fn paths(&mut self, rootfs: &Path, declared: &[PathBuf]) -> Result<(), OutputsError> {
        let root = fs::open(rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| self.failed("open the root of", errno))?;
        let mut found = Vec::new();
        for path in declared {
            self.path = normal(path)?;
            found.extend(self.resolve(&root)?);
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        // In byte order whatever lies inside a directory follows it at once.
        found.dedup_by(|next, kept| {
            next.key == kept.key || (kept.key.ends_with(b"/") && next.key.starts_with(&kept.key))
        });
        for Declared { key, parent, name } in found {
            self.path = key.strip_suffix(b"/").unwrap_or(&key).to_vec();
            if let Some(folder) = self.entry(parent.as_fd(), &name)? {
                self.tree(folder)?;
            }
        }
        Ok(())
    }

    /// Finds the declared path `self.path`; `None` when there is no such thing.
    fn resolve(&self, root: &OwnedFd) -> Result<Option<Declared>, OutputsError> {
        let (parent, name) = match self.path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&self.path[..slash], &self.path[slash + 1..]),
            None => (&b""[..], &b"."[..]),
        };
        let relative = match parent.strip_prefix(b"/") {
            Some(relative) => relative,
            None => b".",
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let parent = match fs::openat2(root, OsStr::from_bytes(relative), flags, Mode::empty(), inside) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(self.failed("resolve", errno)),
        };
        let stat = match fs::statat(&parent, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.failed("stat", errno)),
        };
        let mut key = self.path.clone();
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            key.push(b'/');
        }
        Ok(Some(Declared { key, parent, name: name.to_vec() }))
    }

    /// Visits everything below `root`, whose path is `self.path`.
    fn tree(&mut self, root: OwnedFd) -> Result<(), OutputsError> {
        let mut stack = vec![self.frame(root)?];
        while let Some(frame) = stack.last_mut() {
            self.path.truncate(frame.path_len);
            let Some(name) = frame.names.pop() else {
                stack.pop();
                continue;
            };
            self.path.push(b'/');
            self.path.extend_from_slice(&name);
            if let Some(folder) = self.entry(frame.folder.as_fd(), &name)? {
                if stack.len() >= self.limits.depth_max {
                    return Err(OutputsError::TooDeep { limit: self.limits.depth_max, path: self.shown() });
                }
                stack.push(self.frame(folder)?);
            }
        }
        Ok(())
    }

    /// Lists a directory in the order of its listing lines, backwards.
    fn frame(&self, folder: OwnedFd) -> Result<Frame, OutputsError> {
        let mut names: Vec<(Vec<u8>, bool)> = Vec::new();
        let listing = Dir::read_from(&folder).map_err(|errno| self.failed("list", errno))?;
        for entry in listing {
            let entry = entry.map_err(|errno| self.failed("list", errno))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if self.entries.saturating_add(names.len() as u64) >= self.limits.entries_max {
                return Err(OutputsError::TooManyEntries { limit: self.limits.entries_max });
            }
            let is_folder = match entry.file_type() {
                FileType::Unknown => {
                    let stat = fs::statat(&folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
                        .map_err(|errno| self.failed("stat", errno))?;
                    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
                }
                known => known == FileType::Directory,
            };
            names.push((name.to_vec(), is_folder));
        }
        names.sort_unstable_by(|a, b| line_order(b, a));
        let names = names.into_iter().map(|(name, _)| name).collect();
        Ok(Frame { folder, names, path_len: self.path.len() })
    }

    /// Hashes the line of `name` in `parent`; a directory comes back open.
    fn entry(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<Option<OwnedFd>, OutputsError> {
        let name = OsStr::from_bytes(name);
        let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| self.failed("stat", errno))?;
        if self.overlay == Overlay::Image {
            let (uid, gid, seconds, nanos) = (stat.st_uid, stat.st_gid, stat.st_mtime, stat.st_mtime_nsec);
            self.owner_and_time = Some(format!("{uid}:{gid} {seconds}.{nanos:09} {} ", stat.st_rdev));
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(parent, name).map(|()| None),
            FileType::Directory => self.folder(parent, name, &stat).map(Some),
            FileType::Symlink => {
                let target =
                    fs::readlinkat(parent, name, Vec::new()).map_err(|errno| self.failed("read the link", errno))?;
                let content = (target.to_bytes().len() as u64, Sha256Digest::of(target.to_bytes()));
                self.line('l', stat.st_mode, Some(content)).map(|()| None)
            }
            FileType::CharacterDevice if stat.st_rdev == 0 => self.line('w', stat.st_mode, None).map(|()| None),
            FileType::CharacterDevice => self.line('c', stat.st_mode, None).map(|()| None),
            FileType::BlockDevice => self.line('b', stat.st_mode, None).map(|()| None),
            FileType::Fifo => self.line('p', stat.st_mode, None).map(|()| None),
            FileType::Socket => self.line('s', stat.st_mode, None).map(|()| None),
            FileType::Unknown => Err(self.failed("tell the type of", Errno::INVAL)),
        }
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), OutputsError> {
        // O_NONBLOCK: were it replaced by a pipe meanwhile, opening must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = fs::openat(parent, name, flags, Mode::empty()).map_err(|errno| self.failed("open", errno))?;
        let stat = fs::fstat(&file).map_err(|errno| self.failed("stat", errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.failed("open", Errno::STALE));
        }
        if self.overlay == Overlay::Upper && self.attribute(&file, attribute_names().metacopy)?.is_some() {
            return Err(OutputsError::Incomplete { path: self.shown(), attribute: attribute_names().metacopy });
        }
        let content = self.content(file)?;
        self.line('f', stat.st_mode, Some(content))
    }

    /// Length and digest of a file's bytes, as they are read: a size from stat(2) could be of another moment.
    fn content(&mut self, file: OwnedFd) -> Result<(u64, Sha256Digest), OutputsError> {
        let mut file = std::fs::File::from(file);
        let mut hash = Sha256::new();
        let mut length = 0;
        loop {
            let read = match file.read(&mut self.buffer) {
                Ok(0) => return Ok((length, Sha256Digest::from_bytes(hash.finalize().into()))),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(OutputsError::Io { deed: "read", path: self.shown(), source }),
            };
            length += read as u64;
            self.bytes = self.bytes.saturating_add(read as u64);
            if self.bytes > self.limits.bytes_max {
                return Err(OutputsError::TooManyBytes { limit: self.limits.bytes_max });
            }
            hash.update(&self.buffer[..read]);
        }
    }

    fn folder(&mut self, parent: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> Result<OwnedFd, OutputsError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = fs::openat(parent, name, flags, Mode::empty()).map_err(|errno| self.failed("open", errno))?;
        let mut letter = 'd';
        if self.overlay == Overlay::Upper {
            let names = attribute_names();
            if self.attribute(&folder, names.redirect)?.is_some() {
                return Err(OutputsError::Incomplete { path: self.shown(), attribute: names.redirect });
            }
            if self.attribute(&folder, names.opaque)? == Some(b'y') {
                letter = 'o';
            }
        }
        self.line(letter, stat.st_mode, None)?;
        Ok(folder)
    }

    /// First byte of an extended attribute; 0 for an empty one or one that is longer than the kernel's own.
    fn attribute(&self, file: &OwnedFd, name: &'static str) -> Result<Option<u8>, OutputsError> {
        let mut value = [0; 1];
        match fs::fgetxattr(file, name, &mut value) {
            Ok(_) | Err(Errno::RANGE) => Ok(Some(value[0])),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(self.failed("read the attributes of", errno)),
        }
    }

    fn line(&mut self, letter: char, mode: RawMode, content: Option<(u64, Sha256Digest)>) -> Result<(), OutputsError> {
        if self.entries >= self.limits.entries_max {
            return Err(OutputsError::TooManyEntries { limit: self.limits.entries_max });
        }
        self.entries += 1;
        let mode = mode & 0o7777;
        let facts = match content {
            Some((size, digest)) => format!("{letter}{mode:04o} {size} {digest} "),
            None => format!("{letter}{mode:04o} - - "),
        };
        let slash = if matches!(letter, 'd' | 'o') { "/" } else { "" };
        let more = self.owner_and_time.as_deref().unwrap_or_default();
        let line = format!("{facts}{more}\"{}{slash}\"\n", json_escaped(&self.path));
        self.hash.update(line.as_bytes());
        if let Some(listing) = &mut self.listing
            && let Err(source) = listing.write_all(line.as_bytes())
        {
            return Err(OutputsError::Io { deed: "list", path: self.shown(), source });
        }
        Ok(())
    }

    fn shown(&self) -> PathBuf {
        if self.path.is_empty() { PathBuf::from("/") } else { PathBuf::from(OsStr::from_bytes(&self.path)) }
    }

    fn failed(&self, deed: &'static str, errno: Errno) -> OutputsError {
        OutputsError::Io { deed, path: self.shown(), source: errno.into() }
    }
}

/// A declared path that exists.
struct Declared {
    /// Its path, with a slash at the end of a directory's.
    key: Vec<u8>,
    parent: OwnedFd,
    name: Vec<u8>,
}

/// Where the overlay keeps its own notes (Documentation/filesystems/overlayfs.rst): for root in `trusted`, which no guest can write.
struct AttributeNames {
    opaque: &'static str,
    redirect: &'static str,
    metacopy: &'static str,
}

fn attribute_names() -> AttributeNames {
    if nix::unistd::geteuid().is_root() {
        AttributeNames {
            opaque: "trusted.overlay.opaque",
            redirect: "trusted.overlay.redirect",
            metacopy: "trusted.overlay.metacopy",
        }
    } else {
        AttributeNames {
            opaque: "user.overlay.opaque",
            redirect: "user.overlay.redirect",
            metacopy: "user.overlay.metacopy",
        }
    }
}

/// A declared path without doubled or trailing slashes; empty for the root.
fn normal(path: &Path) -> Result<Vec<u8>, OutputsError> {
    let refused = || OutputsError::Declared { path: path.to_path_buf() };
    let mut components = path.components();
    if components.next() != Some(Component::RootDir)
        || path.as_os_str().as_bytes().split(|b| *b == b'/').any(|part| part == b".")
    {
        return Err(refused());
    }
    let mut normal = Vec::new();
    for component in components {
        let Component::Normal(name) = component else { return Err(refused()) };
        normal.push(b'/');
        normal.extend_from_slice(name.as_bytes());
    }
    Ok(normal)
}

/// Byte order of what the lines show: a directory's name ends with a slash there.
fn line_order(a: &(Vec<u8>, bool), b: &(Vec<u8>, bool)) -> std::cmp::Ordering {
    let (a_end, b_end) = (a.1.then_some(&b'/'), b.1.then_some(&b'/'));
    a.0.iter().chain(a_end).cmp(b.0.iter().chain(b_end))
}

/// The inside of a JSON string: RFC 8259, section 7, with the shortest escapes; other bytes as they are, and bytes that are not
/// UTF-8 as lone surrogates, which no valid text contains.
fn json_escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\u{8}' => text.push_str("\\b"),
                '\t' => text.push_str("\\t"),
                '\n' => text.push_str("\\n"),
                '\u{c}' => text.push_str("\\f"),
                '\r' => text.push_str("\\r"),
                c if (c as u32) < 0x20 => text.push_str(&format!("\\u{:04x}", c as u32)),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\udc{byte:02x}"));
        }
    }
    text
}
