//! The one image of the system tests: busybox and `probe`, a static program that tries what a cage must deny.
//!
//! Left alone it sleeps, so that it can stand for the pause image of a pod.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;
use crate::command::{DEADLINE, run};

/// Its name in containerd.
pub const REFERENCE: &str = "bpi.local/test:1";

/// An OCI archive on disk.
#[derive(Clone, Debug)]
pub struct Image {
    /// The archive `ctr image import` takes.
    pub archive: PathBuf,
    /// The folder it was packed from, usable as a root file system.
    pub rootfs: PathBuf,
    /// Digest of its manifest, `sha256:…`.
    pub digest: String,
}

/// Builds the image below `folder`.
///
/// # Errors
/// When a file cannot be written, or gcc or the packing script fails.
pub fn build(root: &Path, folder: &Path) -> Result<Image, Failure> {
    let rootfs = folder.join("rootfs");
    for place in ["bin", "etc", "tmp", "proc", "sys", "dev", "root", "out"] {
        let path = rootfs.join(place);
        fs::create_dir_all(&path).map_err(|error| format!("cannot make {}: {error}", path.display()))?;
    }
    let probe = rootfs.join("bin/probe");
    let mut compiler = Command::new("gcc");
    compiler
        .args(["-static", "-O2", "-Wall", "-Werror", "-o"])
        .arg(&probe)
        .arg(root.join("tests/system/probe/probe.c"));
    run(compiler, b"", DEADLINE)?.ok()?;
    let busybox = rootfs.join("bin/busybox");
    fs::copy("/bin/busybox", &busybox)
        .map_err(|error| format!("cannot copy /bin/busybox (package busybox-static): {error}"))?;
    let mut list = Command::new("/bin/busybox");
    list.arg("--list");
    for applet in run(list, b"", DEADLINE)?.ok()?.text().lines().filter(|name| *name != "busybox") {
        symlink("busybox", rootfs.join("bin").join(applet))
            .map_err(|error| format!("cannot link {applet}: {error}"))?;
    }
    let setuid = rootfs.join("bin/probe-setuid");
    fs::copy(&probe, &setuid).map_err(|error| format!("cannot copy probe: {error}"))?;
    fs::set_permissions(&setuid, fs::Permissions::from_mode(0o4755))
        .map_err(|error| format!("cannot chmod probe: {error}"))?;
    for (name, text) in [
        ("passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
        ("group", "root:x:0:\nnogroup:x:65534:\n"),
    ] {
        fs::write(rootfs.join("etc").join(name), text).map_err(|error| format!("cannot write /etc/{name}: {error}"))?;
    }
    let archive = folder.join("image.tar");
    let mut pack = Command::new(root.join("scripts/lib/oci-image"));
    pack.arg(&rootfs).arg(REFERENCE).arg(&archive).args(["/bin/sleep", "2147483647"]);
    let digest = run(pack, b"", DEADLINE)?.ok()?.text();
    Ok(Image { archive, rootfs, digest })
}
