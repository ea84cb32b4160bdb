//! Digests of what is mounted into a container from the host.
//!
//! A file by its bytes, a tree by the listing of [`crate::outputs`]. Taken before the first instruction, so that a workload which writes
//! to its own input changes nothing. Always true: what cannot be read within the bounds is listed without a digest, never left out.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::run::Input;
use oci_spec::runtime::{Mount, Spec};
use sha2::{Digest as _, Sha256};

use crate::outputs::{self, Limits};

/// Bounds for one mount: a pod's configuration files and small data sets, not a data base.
const LIMITS: Limits = Limits { entries_max: 4096, bytes_max: 64 << 20, depth_max: 64 };
/// Bytes read at once.
const BUFFER_BYTES: usize = 128 * 1024;
/// Most mounts that are looked at.
const MOUNTS_MAX: usize = 256;

/// What is mounted, and how much of it is pinned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounted {
    /// Mounts whose content is known, by their path in the container.
    pub pinned: Vec<Input>,
    /// Mounts whose content is not: too large, unreadable, or no file or directory.
    pub unpinned: Vec<String>,
}

impl Mounted {
    /// Status of the source `mounts`, in the receipt's words.
    pub fn status(&self) -> &'static str {
        match (self.pinned.is_empty(), self.unpinned.is_empty()) {
            (true, true) => "not-exercised",
            (false, true) => "pinned",
            (_, false) => "uncontrolled",
        }
    }
}

/// Looks at every bind mount of a specification.
pub fn measure(spec: &Spec) -> Mounted {
    let mut mounted = Mounted::default();
    let mounts = spec.mounts().iter().flatten().filter(|mount| is_bind(mount));
    for (count, mount) in mounts.enumerate() {
        let name = mount.destination().display().to_string();
        match mount.source().as_deref().filter(|_| count < MOUNTS_MAX).and_then(digest) {
            Some(digest) => mounted.pinned.push(Input { name, digest }),
            None => mounted.unpinned.push(name),
        }
    }
    mounted
}

fn is_bind(mount: &Mount) -> bool {
    let by_option = mount.options().iter().flatten().any(|option| matches!(option.as_str(), "bind" | "rbind"));
    by_option || mount.typ().as_deref() == Some("bind")
}

fn digest(source: &Path) -> Option<Sha256Digest> {
    let meta = fs::metadata(source).ok()?;
    if meta.is_dir() {
        outputs::digest_layer(source, &LIMITS).ok().map(|tree| tree.digest)
    } else if meta.is_file() && meta.len() <= LIMITS.bytes_max {
        digest_file(source).ok()
    } else {
        None
    }
}

fn digest_file(path: &Path) -> io::Result<Sha256Digest> {
    let mut hash = Sha256::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut total = 0;
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            return Ok(Sha256Digest::from_bytes(hash.finalize().into()));
        }
        hash.update(&buffer[..length]);
        total += length as u64;
        // A file that grows meanwhile is refused, not cut.
        if total > LIMITS.bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use oci_spec::runtime::MountBuilder;

    use super::*;

    fn spec(mounts: &[(&Path, &str)]) -> Spec {
        let mounts = mounts.iter().map(|(source, destination)| {
            MountBuilder::default()
                .source(*source)
                .destination(*destination)
                .options(vec!["rbind".to_owned()])
                .build()
                .unwrap()
        });
        let mut spec = Spec::default();
        spec.set_mounts(Some(mounts.collect()));
        spec
    }

    #[test]
    fn a_mounted_file_is_pinned_by_its_bytes_and_a_directory_by_its_listing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hosts");
        fs::write(&file, "127.0.0.1 localhost\n").unwrap();
        let mounted = measure(&spec(&[(&file, "/etc/hosts"), (dir.path(), "/data")]));
        assert_eq!(
            mounted.pinned[0],
            Input { name: "/etc/hosts".to_owned(), digest: Sha256Digest::of(b"127.0.0.1 localhost\n") }
        );
        assert_eq!(mounted.pinned[1].name, "/data");
        assert_eq!(mounted.status(), "pinned");
    }

    #[test]
    fn a_mount_that_is_no_file_and_no_directory_is_named_and_not_pinned() {
        let mounted = measure(&spec(&[(Path::new("/dev/null"), "/dev/thing")]));
        assert_eq!(mounted.unpinned, ["/dev/thing"]);
        assert_eq!(mounted.status(), "uncontrolled");
    }

    #[test]
    fn no_mounts_are_no_source() {
        assert_eq!(measure(&spec(&[])).status(), "not-exercised");
    }
}
