//! An image as an OCI layout (image-spec, image-layout.md): checked blob by blob from the manifest down, and laid out as layers for an overlay.
//!
//! Layers are unpacked by the program `tar`, each into a folder of its own; a whiteout becomes what the overlay takes for one. Always true: no
//! blob is used whose SHA-256 is not the one by which it was named.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use bpi_protocol::digest::Sha256Digest;
use nix::sys::stat::{Mode, SFlag, mknod};
use rustix::fs::{CWD, XattrFlags};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::failure::Failure;
use crate::stage::Stage;

/// Longest manifest or index, in bytes (the distribution specification's own limit).
const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Deepest nesting of indexes.
const INDEX_DEPTH_MAX: usize = 3;
/// Most layers of an image.
const LAYERS_MAX: usize = 127;
/// Name that hides an entry of the layers below (image-spec, layer.md).
const WHITEOUT: &[u8] = b".wh.";
/// Name that hides all entries below.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Unpacks the image with that manifest on the stage: folders of layers, topmost first.
pub(super) fn layers(path: &Path, manifest: &Sha256Digest, stage: &Stage) -> Result<Vec<PathBuf>, Failure> {
    let layout = if path.is_dir() { path.to_path_buf() } else { unpack_layout(path, stage)? };
    let mut folders = Vec::new();
    for (number, layer) in layers_of(&read_manifest(&layout, manifest)?)?.iter().enumerate() {
        let folder = stage.dir().join(format!("layer-{number}"));
        fs::create_dir(&folder).map_err(|source| Failure::File {
            deed: "make the folder",
            path: folder.clone(),
            source,
        })?;
        let blob = blob(&layout, &layer.digest);
        check(&blob, &layer.digest)?;
        untar(&blob, &layer.media_type, &folder)?;
        whiteouts(&folder, 0)?;
        folders.push(folder);
    }
    folders.reverse();
    Ok(folders)
}

/// What a manifest says of a layer.
pub(super) struct Layer {
    /// Of its blob.
    pub(super) digest: Sha256Digest,
    media_type: String,
}

/// The layers of a manifest, lowest first.
pub(super) fn layers_of(manifest: &Value) -> Result<Vec<Layer>, Failure> {
    let unusable = |what: &str| Failure::NoGround(format!("the image's manifest {what}"));
    let described = manifest["layers"].as_array().ok_or_else(|| unusable("has no list of layers"))?;
    match described.len() {
        0 => return Err(unusable("has no layers")),
        1..=LAYERS_MAX => {}
        _ => return Err(unusable("has more than 127 layers")),
    }
    let layer = |layer: &Value| {
        let digest = digest_in(layer).ok_or_else(|| unusable("names a layer without a SHA-256 digest"))?;
        Ok(Layer { digest, media_type: layer["mediaType"].as_str().unwrap_or_default().to_owned() })
    };
    described.iter().map(layer).collect()
}

fn unpack_layout(path: &Path, stage: &Stage) -> Result<PathBuf, Failure> {
    let folder = stage.dir().join("layout");
    fs::create_dir(&folder).map_err(|source| Failure::File {
        deed: "make the folder",
        path: folder.clone(),
        source,
    })?;
    untar(path, "", &folder)?;
    Ok(folder)
}

fn blob(layout: &Path, digest: &Sha256Digest) -> PathBuf {
    layout.join("blobs/sha256").join(digest.to_string())
}

/// The manifest, if index.json leads to it.
pub(super) fn read_manifest(layout: &Path, wanted: &Sha256Digest) -> Result<Value, Failure> {
    let index = layout.join("index.json");
    let text = read(&index)?;
    let mut open = vec![(parse(&index, &text)?, 0)];
    while let Some((index, depth)) = open.pop() {
        for entry in index["manifests"].as_array().into_iter().flatten() {
            let Some(digest) = digest_in(entry) else { continue };
            let path = blob(layout, &digest);
            if digest == *wanted {
                return parse(&path, &read_checked(&path, &digest)?);
            }
            let media_type = entry["mediaType"].as_str().unwrap_or_default();
            if (media_type.contains("index") || media_type.contains("manifest.list")) && depth < INDEX_DEPTH_MAX {
                open.push((parse(&path, &read_checked(&path, &digest)?)?, depth + 1));
            }
        }
    }
    Err(Failure::NoGround(format!("{} holds no image with the manifest sha256:{wanted}", layout.display())))
}

fn digest_in(entry: &Value) -> Option<Sha256Digest> {
    Sha256Digest::from_hex(entry["digest"].as_str()?.strip_prefix("sha256:")?)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(bytes)
        .map_err(|error| Failure::NoGround(format!("{} is no JSON document: {error}", path.display())))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |source| Failure::File { deed: "read", path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}

fn read_checked(path: &Path, digest: &Sha256Digest) -> Result<Vec<u8>, Failure> {
    let bytes = read(path)?;
    require(path, &Sha256Digest::of(&bytes), digest)?;
    Ok(bytes)
}

fn check(path: &Path, digest: &Sha256Digest) -> Result<(), Failure> {
    let failed = |source| Failure::File { deed: "read", path: path.to_path_buf(), source };
    let mut hash = Sha256::new();
    let mut file = File::open(path).map_err(failed)?;
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => hash.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    require(path, &Sha256Digest::from_bytes(hash.finalize().into()), digest)
}

fn require(path: &Path, found: &Sha256Digest, wanted: &Sha256Digest) -> Result<(), Failure> {
    if found == wanted {
        return Ok(());
    }
    Err(Failure::NoGround(format!("{} is not what its name says: its digest is {found}", path.display())))
}

/// By the program `tar`, which keeps owners, modes, times and attributes, and follows no link out of the folder.
fn untar(archive: &Path, media_type: &str, folder: &Path) -> Result<(), Failure> {
    let mut command = Command::new("tar");
    command.args([
        "--extract",
        "--numeric-owner",
        "--same-owner",
        "--same-permissions",
        "--xattrs",
        "--xattrs-include=*",
    ]);
    match media_type {
        gzip if gzip.ends_with("gzip") => drop(command.arg("--gzip")),
        zstd if zstd.ends_with("zstd") => drop(command.arg("--zstd")),
        _ => {}
    }
    let output = command.arg("--file").arg(archive).arg("--directory").arg(folder).output();
    let failed = |reason: String| Failure::NoGround(format!("tar could not unpack {}: {reason}", archive.display()));
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")))
}

/// Turns the whiteouts of a layer into the overlay's. Depth is bounded by PATH_MAX: tar made every folder by its path.
fn whiteouts(folder: &Path, depth: usize) -> Result<(), Failure> {
    let failed = |source| Failure::File { deed: "unpack", path: folder.to_path_buf(), source };
    if depth > 2048 {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    // Making and removing names must not change the times that the image says.
    let times = fs::metadata(folder).and_then(|facts| facts.modified()).map_err(failed)?;
    let mut changed = false;
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (name, path) = (entry.file_name(), entry.path());
        if name.as_bytes() == OPAQUE {
            fs::remove_file(&path).map_err(failed)?;
            rustix::fs::setxattr(folder, "trusted.overlay.opaque", b"y", XattrFlags::empty())
                .map_err(|errno| failed(errno.into()))?;
            changed = true;
        } else if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            fs::remove_file(&path).map_err(failed)?;
            let hidden = folder.join(std::ffi::OsStr::from_bytes(hidden));
            mknod(&hidden, SFlag::S_IFCHR, Mode::empty(), 0).map_err(|errno| failed(errno.into()))?;
            changed = true;
        } else if entry.file_type().map_err(failed)?.is_dir() {
            whiteouts(&path, depth + 1)?;
        }
    }
    if changed {
        let at = rustix::fs::Timestamps { last_access: timespec(times), last_modification: timespec(times) };
        rustix::fs::utimensat(CWD, folder, &at, rustix::fs::AtFlags::empty()).map_err(|errno| failed(errno.into()))?;
    }
    Ok(())
}

fn timespec(time: std::time::SystemTime) -> rustix::fs::Timespec {
    let since = time.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    rustix::fs::Timespec { tv_sec: since.as_secs().cast_signed(), tv_nsec: i64::from(since.subsec_nanos()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn put(layout: &Path, bytes: &[u8]) -> Sha256Digest {
        let digest = Sha256Digest::of(bytes);
        fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
        fs::write(blob(layout, &digest), bytes).unwrap();
        digest
    }

    #[test]
    fn a_manifest_is_found_through_an_index_and_a_changed_blob_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layout = dir.path();
        let manifest = put(layout, br#"{"layers":[]}"#);
        let descriptor = |digest: &Sha256Digest, kind: &str| {
            format!(r#"{{"mediaType":"application/vnd.oci.image.{kind}.v1+json","digest":"sha256:{digest}"}}"#)
        };
        let inner = put(layout, format!(r#"{{"manifests":[{}]}}"#, descriptor(&manifest, "manifest")).as_bytes());
        fs::write(layout.join("index.json"), format!(r#"{{"manifests":[{}]}}"#, descriptor(&inner, "index"))).unwrap();
        assert!(read_manifest(layout, &manifest).unwrap()["layers"].is_array());
        let other = Sha256Digest::of(b"other");
        assert_eq!(read_manifest(layout, &other).unwrap_err().code(), "DL0906");
        fs::write(blob(layout, &manifest), b"{}").unwrap();
        let error = read_manifest(layout, &manifest).unwrap_err().to_string();
        assert!(error.contains("not what its name says"), "{error}");
    }
}
