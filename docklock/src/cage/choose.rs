//! Which policy a container runs under: its annotation, else the runtime option, else the host's default for its kind.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bpi_policies::Policy;
use bpi_policies::profile::TEXT_BYTES_MAX;
use oci_spec::runtime::Spec;

use super::{PlanError, annotations};
use crate::config::Config;

/// Set by containerd's CRI on sandboxes and their containers.
const CRI_KIND: &str = "io.kubernetes.cri.container-type";

/// The policy for `spec`; `option` is what the runtime's options say.
///
/// # Errors
/// When the chosen profile does not exist or cannot be read.
pub fn profile_for(spec: &Spec, option: Option<&str>, config: &Config) -> Result<Policy, PlanError> {
    let of_host =
        if annotations::get(spec, CRI_KIND).is_some() { &config.default_pod_profile } else { &config.default_profile };
    let name = annotations::get(spec, annotations::PROFILE).or(option).unwrap_or(of_host);
    load(name, &config.profiles_dir)
}

/// Embedded names cannot be redefined: a receipt's `strict` means the same everywhere.
fn load(name: &str, profiles_dir: &Path) -> Result<Policy, PlanError> {
    if let Some(policy) = Policy::embedded(name) {
        return Ok(policy);
    }
    if !(1..=64).contains(&name.len())
        || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    {
        return Err(PlanError::ProfileName { name: name.to_owned() });
    }
    let path = profiles_dir.join(format!("{name}.toml"));
    let mut text = String::new();
    // One byte more than allowed, so that the parser can tell "too long".
    let read = File::open(&path).and_then(|file| file.take(TEXT_BYTES_MAX as u64 + 1).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(Policy::parse(name, &text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(PlanError::UnknownProfile { name: name.to_owned(), path })
        }
        Err(source) => Err(PlanError::ProfileFile { path, source }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_sites_profile_is_read_from_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("lab.toml"), "extends = \"strict\"\nexec = \"taint\"").unwrap();
        assert_eq!(load("lab", dir.path()).unwrap().name(), "lab");
    }

    #[test]
    fn an_embedded_name_cannot_be_redefined() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("strict.toml"), "extends = \"service\"").unwrap();
        assert_eq!(load("strict", dir.path()).unwrap().digest(), Policy::embedded("strict").unwrap().digest());
    }

    #[test]
    fn a_name_cannot_leave_the_directory() {
        assert!(matches!(load("../strict", Path::new("/")), Err(PlanError::ProfileName { .. })));
    }

    #[test]
    fn a_profile_that_is_nowhere_is_named_with_its_path() {
        let error = load("nowhere", Path::new("/profiles")).unwrap_err().to_string();
        assert!(error.contains("\"nowhere\"") && error.contains("/profiles/nowhere.toml"), "{error}");
    }
}
