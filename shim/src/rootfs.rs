//! Mounts the root file system that a snapshotter describes, and takes it away again.
//!
//! mount(2) takes at most a page of options; an overlay of many layers needs more. Then its directories are given relative to their
//! common parent, from a thread whose working directory is its own. Always true: a failed [`RootFs::mount`] leaves nothing mounted.
//! Absent on purpose: loop devices, FUSE, id-mapped layers and mounts below the root. They are refused by name.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use containerd_shim_protos::api::Mount;
use docklock::spans::span;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// Most mounts of one root file system; snapshotters send one.
const MOUNTS_MAX: usize = 32;
/// Longest option string that mount(2) takes: a page with its final NUL.
const DATA_BYTES_MAX: usize = 4095;

/// Why a root file system cannot be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum RootFsError {
    /// More mounts than a snapshotter sends.
    #[error("the root file system has {count} mounts, more than {MOUNTS_MAX}")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// Something this shim does not do.
    #[error("a root file system with {what} is not supported; use a snapshotter that gives overlay or bind mounts")]
    Unsupported {
        /// Type, option or target.
        what: String,
    },
    /// Options that fit no page even when shortened.
    #[error("the options of the {kind} mount are {bytes} bytes long, more than the {DATA_BYTES_MAX} of mount(2)")]
    OptionsTooLong {
        /// Type of the file system.
        kind: String,
        /// How long after shortening.
        bytes: usize,
    },
    /// The directory to mount on.
    #[error("could not make {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// mount(2), or the way to it.
    #[error("could not {deed} {kind} from {source_path:?} on {}: {errno}", target.display())]
    Mount {
        /// What was tried.
        deed: &'static str,
        /// Type of the file system.
        kind: String,
        /// Source of the mount.
        source_path: String,
        /// Where to.
        target: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// The thread with its own working directory.
    #[error("could not run the thread that mounts on {}", target.display())]
    Thread {
        /// Where to.
        target: PathBuf,
    },
    /// umount2(2).
    #[error("could not unmount {}: {errno}", target.display())]
    Unmount {
        /// What is mounted.
        target: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
}

/// The mounts of one root file system, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootFs {
    mounts: Vec<Planned>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Planned {
    kind: String,
    source: String,
    flags: MsFlags,
    data: Vec<String>,
}

impl RootFs {
    /// Reads what containerd sends with a create request. No mounts: the bundle brings its root file system along.
    ///
    /// # Errors
    /// What cannot be mounted is refused before anything is.
    pub fn plan(mounts: &[Mount]) -> Result<Self, RootFsError> {
        if mounts.len() > MOUNTS_MAX {
            return Err(RootFsError::TooMany { count: mounts.len() });
        }
        Ok(Self { mounts: mounts.iter().map(Planned::from_request).collect::<Result<_, _>>()? })
    }

    /// The directory that collects what the container writes: the upper directory of the overlay that ends up on top.
    pub fn layer(&self) -> Option<PathBuf> {
        let top = self.mounts.last().filter(|mount| mount.kind == "overlay")?;
        top.data.iter().find_map(|option| option.strip_prefix("upperdir=")).map(PathBuf::from)
    }

    /// Mounts everything on `target`, which is made if it is missing.
    ///
    /// # Errors
    /// The kernel's answer; then nothing stays mounted.
    pub fn mount(&self, target: &Path) -> Result<(), RootFsError> {
        if self.mounts.is_empty() {
            return Ok(());
        }
        let _span = span("shim.mount");
        std::fs::create_dir_all(target)
            .map_err(|source| RootFsError::Directory { path: target.to_path_buf(), source })?;
        for planned in &self.mounts {
            if let Err(error) = planned.mount(target) {
                // The first error is the one to report; an unmount that fails after it adds nothing an operator could act on.
                if let Err(left) = unmount(target) {
                    tracing::error!("{left}");
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Detaches everything mounted on `target`. Nothing there is no error.
///
/// # Errors
/// [`RootFsError::Unmount`].
pub fn unmount(target: &Path) -> Result<(), RootFsError> {
    let _span = span("shim.unmount");
    for _ in 0..=MOUNTS_MAX {
        match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // EINVAL: not a mount point (any more).
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(RootFsError::Unmount { target: target.to_path_buf(), errno }),
        }
    }
    Err(RootFsError::Unmount { target: target.to_path_buf(), errno: Errno::EBUSY })
}

impl Planned {
    fn from_request(mount: &Mount) -> Result<Self, RootFsError> {
        let unsupported = |what: String| Err(RootFsError::Unsupported { what });
        if mount.type_.is_empty() || mount.type_.contains(['/', '.']) || mount.type_.starts_with("fuse") {
            return unsupported(format!("type {:?}", mount.type_));
        }
        if !mount.target.is_empty() {
            return unsupported(format!("a mount on {:?} inside it", mount.target));
        }
        let mut planned =
            Self { kind: mount.type_.clone(), source: mount.source.clone(), flags: MsFlags::empty(), data: Vec::new() };
        for option in &mount.options {
            if option == "loop"
                || ["uidmap=", "gidmap=", "X-containerd."].iter().any(|prefix| option.starts_with(prefix))
            {
                return unsupported(format!("option {option:?}"));
            }
            match flag(option) {
                Some(Flag::Set(flags)) => planned.flags |= flags,
                Some(Flag::Clear(flags)) => planned.flags -= flags,
                None => planned.data.push(option.clone()),
            }
        }
        if planned.kind == "bind" {
            planned.flags |= MsFlags::MS_BIND;
        }
        Ok(planned)
    }

    fn mount(&self, target: &Path) -> Result<(), RootFsError> {
        let data = self.data.join(",");
        if data.len() <= DATA_BYTES_MAX {
            return self.call("mount", target, self.flags, &data);
        }
        let (parent, data) = relative_to_common_parent(&self.data);
        let Some(parent) = parent.filter(|_| data.len() <= DATA_BYTES_MAX) else {
            return Err(RootFsError::OptionsTooLong { kind: self.kind.clone(), bytes: data.len() });
        };
        let from_parent = || {
            unshare(CloneFlags::CLONE_FS)
                .and_then(|()| nix::unistd::chdir(&parent))
                .map_err(|errno| self.failure("change directory to mount", target, errno))?;
            self.call("mount", target, self.flags, &data)
        };
        std::thread::scope(|scope| scope.spawn(from_parent).join())
            .unwrap_or_else(|_| Err(RootFsError::Thread { target: target.to_path_buf() }))
    }

    /// A bind mount takes its flags only when it is mounted again.
    fn call(&self, deed: &'static str, target: &Path, flags: MsFlags, data: &str) -> Result<(), RootFsError> {
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        let kind = Some(self.kind.as_str()).filter(|_| !flags.contains(MsFlags::MS_BIND));
        let data = Some(data).filter(|data| !data.is_empty());
        let first = if kind.is_none() { flags & bind } else { flags };
        mount(Some(self.source.as_str()), target, kind, first, data)
            .map_err(|errno| self.failure(deed, target, errno))?;
        if kind.is_none() && !(flags - bind).is_empty() {
            let again = (flags - MsFlags::MS_REC) | MsFlags::MS_REMOUNT;
            mount(None::<&str>, target, None::<&str>, again, None::<&str>)
                .map_err(|errno| self.failure("set the flags of", target, errno))?;
        }
        Ok(())
    }

    fn failure(&self, deed: &'static str, target: &Path, errno: Errno) -> RootFsError {
        RootFsError::Mount {
            deed,
            kind: self.kind.clone(),
            source_path: self.source.clone(),
            target: target.to_path_buf(),
            errno,
        }
    }
}

enum Flag {
    Set(MsFlags),
    Clear(MsFlags),
}

/// The options that are flags of mount(2), by mount(8).
fn flag(option: &str) -> Option<Flag> {
    use Flag::{Clear, Set};
    Some(match option {
        "defaults" => Set(MsFlags::empty()),
        "ro" => Set(MsFlags::MS_RDONLY),
        "rw" => Clear(MsFlags::MS_RDONLY),
        "nosuid" => Set(MsFlags::MS_NOSUID),
        "suid" => Clear(MsFlags::MS_NOSUID),
        "nodev" => Set(MsFlags::MS_NODEV),
        "dev" => Clear(MsFlags::MS_NODEV),
        "noexec" => Set(MsFlags::MS_NOEXEC),
        "exec" => Clear(MsFlags::MS_NOEXEC),
        "sync" => Set(MsFlags::MS_SYNCHRONOUS),
        "async" => Clear(MsFlags::MS_SYNCHRONOUS),
        "dirsync" => Set(MsFlags::MS_DIRSYNC),
        "noatime" => Set(MsFlags::MS_NOATIME),
        "atime" => Clear(MsFlags::MS_NOATIME),
        "nodiratime" => Set(MsFlags::MS_NODIRATIME),
        "diratime" => Clear(MsFlags::MS_NODIRATIME),
        "relatime" => Set(MsFlags::MS_RELATIME),
        "norelatime" => Clear(MsFlags::MS_RELATIME),
        "strictatime" => Set(MsFlags::MS_STRICTATIME),
        "nostrictatime" => Clear(MsFlags::MS_STRICTATIME),
        "bind" => Set(MsFlags::MS_BIND),
        "rbind" => Set(MsFlags::MS_BIND.union(MsFlags::MS_REC)),
        _ => return None,
    })
}

/// The layers' common parent and the options with the layers relative to it.
fn relative_to_common_parent(options: &[String]) -> (Option<PathBuf>, String) {
    const LAYERS: [&str; 3] = ["lowerdir=", "upperdir=", "workdir="];
    let paths = |option: &String| -> Vec<PathBuf> {
        let value = LAYERS.iter().find_map(|prefix| option.strip_prefix(prefix)).unwrap_or_default();
        value.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect()
    };
    let parent = options
        .iter()
        .flat_map(paths)
        .map(|path| path.parent().map(Path::to_path_buf))
        .reduce(|a, b| a.zip(b).map(|(a, b)| common(&a, &b)))
        .flatten()
        .filter(|parent| parent.is_absolute());
    let Some(parent) = parent else { return (None, options.join(",")) };
    let mut prefix = parent.as_os_str().as_bytes().to_vec();
    if !prefix.ends_with(b"/") {
        prefix.push(b'/');
    }
    let prefix = String::from_utf8_lossy(&prefix).into_owned();
    let shortened = options.iter().map(|option| match LAYERS.iter().find(|layer| option.starts_with(**layer)) {
        Some(layer) => {
            let layers: Vec<&str> =
                option[layer.len()..].split(':').map(|path| path.strip_prefix(&prefix).unwrap_or(path)).collect();
            format!("{layer}{}", layers.join(":"))
        }
        None => option.clone(),
    });
    let data = shortened.collect::<Vec<_>>().join(",");
    (Some(parent), data)
}

fn common(a: &Path, b: &Path) -> PathBuf {
    a.components().zip(b.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(kind: &str, source: &str, options: &[&str]) -> Mount {
        Mount {
            type_: kind.into(),
            source: source.into(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            ..Mount::default()
        }
    }

    #[test]
    fn what_an_overlay_writes_goes_to_its_upper_directory() {
        let overlay =
            request("overlay", "overlay", &["index=off", "workdir=/s/2/work", "upperdir=/s/2/fs", "lowerdir=/s/1/fs"]);
        let plan = RootFs::plan(std::slice::from_ref(&overlay)).unwrap();
        assert_eq!(plan.layer().as_deref(), Some(Path::new("/s/2/fs")));
        assert_eq!(plan.mounts[0].data.join(","), "index=off,workdir=/s/2/work,upperdir=/s/2/fs,lowerdir=/s/1/fs");
        let view = RootFs::plan(&[request("overlay", "overlay", &["lowerdir=/s/1/fs:/s/0/fs"])]).unwrap();
        assert_eq!(view.layer(), None);
        assert_eq!(RootFs::plan(&[request("bind", "/s/2/fs", &["rw", "rbind"])]).unwrap().layer(), None);
    }

    #[test]
    fn options_become_flags_and_the_rest_stays_data() {
        let plan = RootFs::plan(&[request("bind", "/s", &["rbind", "ro", "nosuid", "suid"])]).unwrap();
        assert_eq!(plan.mounts[0].flags, MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_RDONLY);
        assert!(plan.mounts[0].data.is_empty());
    }

    #[test]
    fn what_cannot_be_mounted_is_refused_by_name() {
        for (mount, word) in [
            (request("ext4", "/img", &["loop"]), "loop"),
            (request("fuse3.overlay", "x", &[]), "fuse3.overlay"),
            (request("format/overlay", "x", &[]), "format/overlay"),
            (request("overlay", "x", &["uidmap=0:1000:1"]), "uidmap"),
            (Mount { target: "etc".into(), ..request("bind", "/s", &[]) }, "etc"),
        ] {
            let error = RootFs::plan(&[mount]).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let many = vec![request("bind", "/s", &[]); MOUNTS_MAX + 1];
        assert!(matches!(RootFs::plan(&many), Err(RootFsError::TooMany { count: 33 })));
    }

    #[test]
    fn many_layers_fit_a_page_relative_to_their_parent() {
        let root = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots";
        let lower: Vec<String> = (0..120).map(|n| format!("{root}/{n}/fs")).collect();
        let options = [
            format!("upperdir={root}/200/fs"),
            format!("workdir={root}/200/work"),
            format!("lowerdir={}", lower.join(":")),
        ];
        assert!(options.join(",").len() > DATA_BYTES_MAX);
        let (parent, data) = relative_to_common_parent(&options);
        assert_eq!(parent.unwrap(), Path::new(root));
        assert!(data.starts_with("upperdir=200/fs,workdir=200/work,lowerdir=0/fs:1/fs:2/fs"), "{data}");
        assert!(data.len() <= DATA_BYTES_MAX);
    }

    #[test]
    fn unmounting_what_is_not_mounted_is_no_error() {
        assert!(unmount(Path::new("/nonexistent/rootfs")).is_ok());
    }
}
