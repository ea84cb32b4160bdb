//! An image of containerd's, borrowed by way of the program `ctr`: found by its manifest's digest, mounted read-only, given back.
//!
//! This command speaks no gRPC: containerd's types are the shim's business.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bpi_protocol::digest::Sha256Digest;
use serde_json::Value;

use crate::failure::Failure;
use crate::stage::Stage;

/// Longest answer of `ctr` that is looked at, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A mounted image.
pub(super) struct Borrowed {
    namespace: String,
    root: PathBuf,
}

impl Borrowed {
    /// Where it is mounted.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Unmounts it and removes the snapshot that was made for it.
    pub(super) fn give_back(self) -> Result<(), Failure> {
        let root = self.root.display().to_string();
        ctr(&self.namespace, &["images", "unmount", "--rm", &root]).map(drop)
    }
}

/// Mounts the image whose manifest has this digest.
pub(super) fn borrow_image(namespace: &str, manifest: &Sha256Digest, stage: &Stage) -> Result<Borrowed, Failure> {
    let listed = ctr(namespace, &["images", "ls"])?;
    let wanted = format!("sha256:{manifest}");
    let mut reference = None;
    for (name, media_type, target) in rows(&listed) {
        let is_it =
            target == wanted || is_index(media_type) && holds(&ctr(namespace, &["content", "get", target])?, &wanted);
        if is_it {
            reference = Some(name.to_owned());
            break;
        }
    }
    let Some(reference) = reference else {
        return Err(Failure::NoGround(format!(
            "containerd has no image with the manifest {wanted} in namespace {namespace}; pull it, or name it with --image"
        )));
    };
    let root = stage.dir().join("image");
    std::fs::create_dir(&root).map_err(|source| Failure::File {
        deed: "make the folder",
        path: root.clone(),
        source,
    })?;
    ctr(namespace, &["images", "mount", &reference, &root.display().to_string()])?;
    Ok(Borrowed { namespace: namespace.to_owned(), root })
}

/// Reference, media type and digest of each row: `REF TYPE DIGEST SIZE PLATFORMS LABELS`.
fn rows(listed: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    listed.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_whitespace();
        Some((columns.next()?, columns.next()?, columns.next()?))
    })
}

fn is_index(media_type: &str) -> bool {
    media_type.ends_with("image.index.v1+json") || media_type.ends_with("manifest.list.v2+json")
}

/// Whether an index names that manifest.
fn holds(index: &str, wanted: &str) -> bool {
    let index: Value = serde_json::from_str(index).unwrap_or_default();
    let manifests = index["manifests"].as_array().into_iter().flatten();
    manifests.into_iter().any(|manifest| manifest["digest"].as_str() == Some(wanted))
}

fn ctr(namespace: &str, arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new("ctr").args(["--namespace", namespace]).args(arguments).output();
    let failed = |reason: String| {
        Failure::NoGround(format!(
            "ctr {} said: {reason}; name what it ran in with --image or --rootfs",
            arguments.join(" ")
        ))
    };
    let Output { status, stdout, stderr } = output.map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        return Err(failed(String::from_utf8_lossy(&stderr).trim().to_owned()));
    }
    if stdout.len() > ANSWER_BYTES_MAX {
        return Err(failed(format!("more than {ANSWER_BYTES_MAX} bytes")));
    }
    String::from_utf8(stdout).map_err(|_| failed("what is not UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_image_is_found_by_its_manifest_or_by_an_index_that_names_it() {
        let listed = "REF TYPE DIGEST SIZE PLATFORMS LABELS\n\
            docker.io/library/a:1 application/vnd.oci.image.manifest.v1+json sha256:aa 2.1 MiB linux/amd64 -\n\
            docker.io/library/b:1 application/vnd.oci.image.index.v1+json sha256:bb 3 MiB linux/amd64,linux/arm64 -\n";
        let found: Vec<_> = rows(listed).collect();
        assert_eq!(found[0], ("docker.io/library/a:1", "application/vnd.oci.image.manifest.v1+json", "sha256:aa"));
        assert_eq!((is_index(found[0].1), is_index(found[1].1)), (false, true));
        let index = r#"{"manifests":[{"digest":"sha256:cc"},{"digest":"sha256:dd"}]}"#;
        assert!(holds(index, "sha256:dd") && !holds(index, "sha256:ee") && !holds("not json", "sha256:dd"));
    }
}
