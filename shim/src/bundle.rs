//! The little the shim itself reads of a bundle: its annotations and where its root file system is. The rest is docklock's.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Longest config.json in bytes; containerd carries specifications in messages of at most 16 MiB.
const CONFIG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Annotations by which a shim is shared, in the order in which they count.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// No config.json, or one that cannot be read.
    #[error("could not read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Longer than containerd could have sent.
    #[error("{} is longer than {CONFIG_BYTES_MAX} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Not an OCI specification.
    #[error("{} is not an OCI specification: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
}

/// What the shim needs to know of config.json.
#[derive(Debug, Default, Deserialize)]
pub struct Bundle {
    #[serde(default)]
    annotations: Option<HashMap<String, String>>,
    #[serde(default)]
    root: Option<Root>,
}

#[derive(Debug, Deserialize)]
struct Root {
    path: PathBuf,
}

impl Bundle {
    /// Reads `directory`/config.json.
    ///
    /// # Errors
    /// Each [`BundleError`] names the file.
    pub fn read(directory: &Path) -> Result<Self, BundleError> {
        let path = directory.join("config.json");
        let mut bytes = Vec::new();
        let read = std::fs::File::open(&path).and_then(|file| file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes));
        match read {
            Err(source) => Err(BundleError::Read { path, source }),
            Ok(_) if bytes.len() as u64 > CONFIG_BYTES_MAX => Err(BundleError::TooLong { path }),
            Ok(_) => serde_json::from_slice(&bytes).map_err(|source| BundleError::Malformed { path, source }),
        }
    }

    /// Whose shim this container lives in: its pod's, or one of its own.
    pub fn group<'a>(&'a self, id: &'a str) -> &'a str {
        let annotation = |key: &&str| self.annotations.as_ref()?.get(*key);
        GROUPS.iter().find_map(annotation).filter(|group| !group.is_empty()).map_or(id, String::as_str)
    }

    /// The root file system, absolute when `directory` is.
    pub fn root(&self, directory: &Path) -> PathBuf {
        directory.join(self.root.as_ref().map_or(Path::new("rootfs"), |root| root.path.as_path()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn bundle(json: &str) -> Bundle {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_pod_has_one_shim_and_a_lone_container_its_own() {
        let pod = bundle(r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod-1"}}"#);
        assert_eq!(pod.group("container"), "pod-1");
        assert_eq!(bundle(r#"{"annotations":{"other":"x"}}"#).group("container"), "container");
        assert_eq!(bundle(r#"{"annotations":null}"#).group("container"), "container");
        let both =
            bundle(r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod-1","io.containerd.runc.v2.group":"g"}}"#);
        assert_eq!(both.group("container"), "g");
    }

    #[test]
    fn the_root_is_relative_to_the_bundle_unless_absolute() {
        assert_eq!(bundle("{}").root(Path::new("/b")), Path::new("/b/rootfs"));
        assert_eq!(bundle(r#"{"root":{"path":"fs"}}"#).root(Path::new("/b")), Path::new("/b/fs"));
        assert_eq!(bundle(r#"{"root":{"path":"/srv"}}"#).root(Path::new("/b")), Path::new("/srv"));
    }

    #[test]
    fn a_bundle_without_a_specification_is_an_error_that_names_the_file() {
        let empty = tempfile::tempdir().unwrap();
        let error = Bundle::read(empty.path()).unwrap_err().to_string();
        assert!(error.contains("config.json"), "{error}");
    }
}
