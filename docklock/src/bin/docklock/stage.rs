//! Where a run without a bundle of its own takes place: a temporary folder, and overlays over a root file system that stays as it is.
//!
//! The mounts are made in a mount namespace of this process alone, so nothing stays mounted whatever becomes of it. Always true: the
//! root file system that was given is only ever a lower layer.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use oci_spec::runtime::Spec;

use crate::failure::Failure;

/// Most lower layers: an image has at most 127 (OCI image manifests of Docker), and mount(2) takes a page of options.
const LAYERS_MAX: usize = 127;

/// The temporary folder of one command.
pub(crate) struct Stage {
    dir: PathBuf,
}

/// One bundle on the stage: an overlay with a layer of its own.
pub(crate) struct Bundle {
    /// Folder with config.json.
    pub(crate) dir: PathBuf,
    /// The mounted overlay.
    pub(crate) rootfs: PathBuf,
    /// What the run writes.
    pub(crate) layer: PathBuf,
    /// The overlay's own folder, when it had to lie beside a layer that is kept elsewhere.
    work_beside: Option<PathBuf>,
}

impl Stage {
    /// Makes the folder below `parent`, for this user alone, and a mount namespace of this process. The process must still have one thread, and
    /// what is forked later (the engine's launcher) shares the namespace.
    pub(crate) fn make(parent: &Path) -> Result<Self, Failure> {
        let failed = |deed| move |errno: Errno| Failure::System { deed, source: errno.into() };
        unshare(CloneFlags::CLONE_NEWNS).map_err(failed("make a mount namespace (this needs root)"))?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).map_err(failed("leave the host's mounts"))?;
        DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(|source| Failure::File {
            deed: "make the folder",
            path: parent.to_path_buf(),
            source,
        })?;
        let mut name = [0; 6];
        getrandom::fill(&mut name)
            .map_err(|error| Failure::System { deed: "get random bytes", source: std::io::Error::other(error) })?;
        let dir = parent.join(hex::encode(name));
        make_folder(&dir)?;
        Ok(Self { dir })
    }

    /// Its path.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Sets up a bundle: `lower` read-only, topmost first, under a fresh layer, which is `layer` where somebody wants to keep it.
    pub(crate) fn bundle(&self, name: &str, lower: &[PathBuf], layer: Option<&Path>) -> Result<Bundle, Failure> {
        let dir = self.dir.join(name);
        make_folder(&dir)?;
        // A layer inside its own lower layer is refused by the kernel: then it gets a file system of its own, in memory.
        if layer.is_none() && lower.iter().any(|lower| holds(lower, &dir)) {
            mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some("mode=0700"))
                .map_err(|errno| failed("mount a file system in memory on", &dir, errno))?;
        }
        let (rootfs, work) = (dir.join("rootfs"), dir.join("work"));
        let layer = match layer {
            Some(layer) => layer.to_path_buf(),
            None => dir.join("layer"),
        };
        for path in [&rootfs, &layer, &work] {
            make_folder(path)?;
        }
        if let Some(top) = lower.first() {
            resemble(&layer, top)?;
        }
        let work_beside = if holds_device(&layer, &work) { None } else { Some(beside(&layer)?) };
        overlay(lower, &layer, work_beside.as_ref().unwrap_or(&work), &rootfs)?;
        Ok(Bundle { dir, rootfs, layer, work_beside })
    }
}

impl Stage {
    /// Removes what a run left on the stage, once it is taken down.
    pub(crate) fn clear(&self, bundle: &str) -> Result<(), Failure> {
        let dir = self.dir.join(bundle);
        match umount2(&dir, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(errno) => return Err(failed("unmount", &dir, errno)),
        }
        fs::remove_dir_all(&dir).map_err(|source| Failure::File { deed: "remove", path: dir, source })
    }
}

impl Bundle {
    /// Writes its config.json.
    pub(crate) fn write(&self, spec: &Spec) -> Result<(), Failure> {
        let path = self.dir.join("config.json");
        let bytes = serde_json::to_vec(spec)
            .map_err(|error| Failure::Bundle { path: path.clone(), reason: error.to_string() })?;
        fs::write(&path, bytes).map_err(|source| Failure::File { deed: "write", path, source })
    }

    /// Takes the overlay down; the layer stays until the stage goes, or for good where it is kept elsewhere.
    pub(crate) fn unmount(&self) -> Result<(), Failure> {
        umount2(&self.rootfs, MntFlags::MNT_DETACH).map_err(|errno| failed("unmount", &self.rootfs, errno))?;
        match &self.work_beside {
            None => Ok(()),
            Some(work) => {
                fs::remove_dir_all(work).map_err(|source| Failure::File { deed: "remove", path: work.clone(), source })
            }
        }
    }
}

impl Drop for Stage {
    /// What is still mounted below goes with the namespace; here it must only not be walked into.
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            for mounted in [entry.path().join("rootfs"), entry.path()] {
                match umount2(&mounted, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
                    Ok(()) | Err(Errno::EINVAL | Errno::ENOENT | Errno::ENOTDIR) => {}
                    Err(errno) => {
                        tracing::warn!(path = %mounted.display(), %errno, "a temporary mount was left in place");
                        return;
                    }
                }
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!(path = %self.dir.display(), %error, "a temporary folder was left in place");
        }
    }
}

fn make_folder(dir: &Path) -> Result<(), Failure> {
    DirBuilder::new().mode(0o700).create(dir).map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::Exists { path: dir.to_path_buf() },
        _ => Failure::File { deed: "make the folder", path: dir.to_path_buf(), source },
    })
}

/// Gives the layer's own folder mode, owner and time of the root it covers: they are what the container sees at /.
fn resemble(layer: &Path, root: &Path) -> Result<(), Failure> {
    let failed = |source| Failure::File { deed: "copy mode, owner and time to", path: layer.to_path_buf(), source };
    let facts = fs::metadata(root).map_err(failed)?;
    std::os::unix::fs::chown(layer, Some(facts.uid()), Some(facts.gid())).map_err(failed)?;
    fs::set_permissions(layer, facts.permissions()).map_err(failed)?;
    let folder = fs::File::open(layer).map_err(failed)?;
    folder.set_modified(facts.modified().map_err(failed)?).map_err(failed)
}

fn failed(deed: &'static str, path: &Path, errno: Errno) -> Failure {
    Failure::File { deed, path: path.to_path_buf(), source: errno.into() }
}

/// Whether `inner` lies in `outer` and on the same file system.
fn holds(outer: &Path, inner: &Path) -> bool {
    let (Ok(outer), Ok(inner)) = (outer.canonicalize(), inner.canonicalize()) else { return false };
    inner.starts_with(&outer) && holds_device(&outer, &inner)
}

fn holds_device(one: &Path, other: &Path) -> bool {
    matches!((fs::metadata(one), fs::metadata(other)), (Ok(one), Ok(other)) if one.dev() == other.dev())
}

/// A work folder on the file system of a layer that is kept elsewhere (Documentation/filesystems/overlayfs.rst: both are on one).
fn beside(layer: &Path) -> Result<PathBuf, Failure> {
    let mut name = layer.as_os_str().to_owned();
    name.push(".work");
    let work = PathBuf::from(name);
    make_folder(&work)?;
    Ok(work)
}

fn overlay(lower: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> Result<(), Failure> {
    if lower.len() > LAYERS_MAX {
        return Err(Failure::Unsupported { what: "an image of more than 127 layers", remedy: "flatten it" });
    }
    // Neither option may hide part of the layer from its measurement (docs/decisions/0031).
    let mut options = OsString::from("metacopy=off,redirect_dir=off,index=off,lowerdir=");
    for (index, lower) in lower.iter().enumerate() {
        if index > 0 {
            options.push(":");
        }
        options.push(escaped(lower.as_os_str()));
    }
    options.push(",upperdir=");
    options.push(escaped(upper.as_os_str()));
    options.push(",workdir=");
    options.push(escaped(work.as_os_str()));
    mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(options.as_os_str())).map_err(|errno| {
        if errno == Errno::EINVAL || errno == Errno::ELOOP {
            // The kernel's words for an upper folder on an overlay of its own.
            let source = std::io::Error::other(format!(
                "{errno}; stage_dir of the configuration must lie on a disk or in memory, not on an overlay"
            ));
            return Failure::File { deed: "mount an overlay on", path: target.to_path_buf(), source };
        }
        failed("mount an overlay on", target, errno)
    })
}

/// A path as the overlay's options want it: separators of options and of layers are escaped.
fn escaped(path: &OsStr) -> OsString {
    let mut bytes = Vec::with_capacity(path.len());
    for byte in path.as_bytes() {
        if matches!(byte, b'\\' | b',' | b':') {
            bytes.push(b'\\');
        }
        bytes.push(*byte);
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_end_an_option() {
        assert_eq!(escaped(OsStr::new("/a,b:c\\d")), OsStr::new("/a\\,b\\:c\\\\d"));
    }
}
