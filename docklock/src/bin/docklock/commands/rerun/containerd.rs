//! An image out of containerd's content store, by the program `ctr`: manifest and layers by their digests, laid out as an OCI layout on the stage.
//!
//! Snapshots are not used: nobody checks again what is in one, and a blob is checked by its digest. This command speaks no gRPC: containerd's types are the
//! shim's business.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bpi_protocol::digest::Sha256Digest;

use super::image;
use crate::failure::Failure;
use crate::stage::Stage;

/// Takes the image with that manifest, and gives the folder of its layout.
pub(super) fn fetch(namespace: &str, manifest: &Sha256Digest, stage: &Stage) -> Result<PathBuf, Failure> {
    let layout = stage.dir().join("containerd");
    let blobs = layout.join("blobs/sha256");
    let failed = |deed, path: &Path| {
        let path = path.to_path_buf();
        move |source| Failure::File { deed, path, source }
    };
    fs::create_dir_all(&blobs).map_err(failed("make the folder", &blobs))?;
    let index = layout.join("index.json");
    fs::write(&index, format!(r#"{{"manifests":[{{"digest":"sha256:{manifest}"}}]}}"#))
        .map_err(failed("write", &index))?;
    let get = |digest: &Sha256Digest, what: &str| {
        let path = blobs.join(digest.to_string());
        let file = File::create_new(&path).map_err(failed("make", &path))?;
        content(namespace, digest, file).map_err(|reason| {
            Failure::NoGround(format!(
                "containerd has no {what} sha256:{digest} in namespace {namespace}: {reason}; pull the image, or name it with --image or --rootfs"
            ))
        })
    };
    get(manifest, "image with the manifest")?;
    for layer in image::layers_of(&image::read_manifest(&layout, manifest)?)? {
        // An empty layer may well be there twice.
        if !blobs.join(layer.digest.to_string()).exists() {
            get(&layer.digest, "layer")?;
        }
    }
    Ok(layout)
}

/// Writes a blob to a file, or says why there is none.
fn content(namespace: &str, digest: &Sha256Digest, to: File) -> Result<(), String> {
    let name = format!("sha256:{digest}");
    let mut command = Command::new("ctr");
    command.args(["--namespace", namespace, "content", "get", &name]).stdin(Stdio::null()).stdout(to);
    let done = command.stderr(Stdio::piped()).output().map_err(|error| format!("ctr cannot be run: {error}"))?;
    if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()) }
}
