//! What containerd says about the runtime itself: the options of a CRI handler or of `ctr --runtime-config-path`.
//!
//! `runtimeoptions.v1.Options` names a docklock configuration (ConfigPath) or carries the handler's own TOML table (ConfigBody). Of
//! runc's options only `no_pivot_root` means something here; what would change where or how runc runs is noted and has no effect.
//! A container's annotations (`io.bpi.docklock.*`) come with its specification, and the cage reads them there.

use std::path::{Path, PathBuf};

use containerd_shim_protos::bootstrap_api::BootstrapParams;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{CodedInputStream, Message, rt::WireType};
use containerd_shim_protos::shim::oci::Options as RuncOptions;
use serde::Deserialize;

/// Longest options in bytes: a handler's table has two keys.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// File in a bundle that keeps the ConfigPath for the `delete` action, which containerd calls without options.
const CONFIG_NOTE: &str = "docklock-config";

/// Why the options are refused.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// Not the message its type says.
    #[error("the runtime options of type {kind:?} cannot be decoded: {reason}")]
    Malformed {
        /// Type of the message.
        kind: String,
        /// What the decoder said.
        reason: String,
    },
    /// Options of some other runtime.
    #[error(
        "runtime options of type {kind:?} are not for docklock; it takes runtimeoptions.v1.Options with ConfigPath or ConfigBody"
    )]
    Unknown {
        /// Type of the message.
        kind: String,
    },
    /// More than any handler's table.
    #[error("the runtime options are {bytes} bytes long, more than {BODY_BYTES_MAX}")]
    TooLong {
        /// How many.
        bytes: usize,
    },
    /// TOML that is not ours.
    #[error("ConfigBody of the runtime options is refused: {reason}; it takes `profile` and `config`")]
    Body {
        /// What the parser said.
        reason: String,
    },
    /// A path that depends on the working directory.
    #[error("the runtime options name the configuration {}, which is not an absolute path", path.display())]
    RelativePath {
        /// The refused path.
        path: PathBuf,
    },
    /// A second configuration inside one shim.
    #[error("this shim runs with the configuration {}, but the container asks for {}; containers of one pod share one", in_force.display(), asked.display())]
    OtherConfig {
        /// The one the shim was started with.
        in_force: PathBuf,
        /// The one of this container.
        asked: PathBuf,
    },
    /// The note in the bundle.
    #[error("could not {deed} {}: {source}", path.display())]
    Note {
        /// What was tried.
        deed: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// What the options ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// Cage profile of containers that ask for none by annotation.
    pub profile: Option<String>,
    /// The docklock configuration.
    pub config: Option<PathBuf>,
    /// Chroot instead of pivot_root.
    pub no_pivot: bool,
    /// Options that were given and mean nothing here.
    pub without_effect: Vec<&'static str>,
}

/// The table `[…runtimes.<handler>.options]`. containerd 2 hands over the whole table, its own two keys among it.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Body {
    profile: Option<String>,
    config: Option<PathBuf>,
    #[serde(rename = "TypeUrl")]
    _type_url: Option<String>,
    #[serde(rename = "ConfigPath")]
    config_path: Option<PathBuf>,
}

impl RuntimeOptions {
    /// Reads what the task API carries; no message means no wishes.
    ///
    /// # Errors
    /// Options of another runtime, or ours with something unknown in them.
    pub fn from_any(any: Option<&Any>) -> Result<Self, OptionsError> {
        let Some(any) = any.filter(|any| !any.type_url.is_empty()) else { return Ok(Self::default()) };
        if any.value.len() > BODY_BYTES_MAX {
            return Err(OptionsError::TooLong { bytes: any.value.len() });
        }
        let kind = any.type_url.rsplit('/').next().unwrap_or_default();
        match kind {
            "runtimeoptions.v1.Options" | "cri.runtimeoptions.v1.Options" => Self::generic(kind, &any.value),
            "containerd.runc.v1.Options" => Self::runc(kind, &any.value),
            _ => Err(OptionsError::Unknown { kind: kind.to_owned() }),
        }
    }

    /// Reads what the `start` action gets on standard input: since containerd 2.3 the bootstrap parameters, before that the options.
    ///
    /// # Errors
    /// As [`RuntimeOptions::from_any`].
    pub fn from_start_input(input: &[u8], bootstrap: Option<&BootstrapParams>) -> Result<Self, OptionsError> {
        let Some(parameters) = bootstrap else {
            let any = Any::parse_from_bytes(input).map_err(|error| OptionsError::Malformed {
                kind: "google.protobuf.Any".into(),
                reason: error.to_string(),
            })?;
            return Self::from_any(Some(&any));
        };
        for extension in parameters.extensions.iter().filter_map(|extension| extension.value.as_ref()) {
            match Self::from_any(Some(extension)) {
                // An extension that is not about runtimes (a CRI or NRI section) is not for this shim.
                Err(OptionsError::Unknown { .. }) => {}
                answer => return answer,
            }
        }
        Ok(Self::default())
    }

    fn generic(kind: &str, bytes: &[u8]) -> Result<Self, OptionsError> {
        let (path, body) = generic_fields(bytes).map_err(|error| malformed(kind, &error))?;
        let body: Body = if body.is_empty() {
            Body::default()
        } else {
            let text = str::from_utf8(&body).map_err(|error| OptionsError::Body { reason: error.to_string() })?;
            toml::from_str(text).map_err(|error| OptionsError::Body { reason: error.message().to_owned() })?
        };
        let named = |path: &PathBuf| !path.as_os_str().is_empty();
        let config = Some(PathBuf::from(path)).filter(named).or(body.config).or(body.config_path).filter(named);
        match config {
            Some(path) if !path.is_absolute() => Err(OptionsError::RelativePath { path }),
            config => Ok(Self { profile: body.profile.filter(|name| !name.is_empty()), config, ..Self::default() }),
        }
    }

    fn runc(kind: &str, bytes: &[u8]) -> Result<Self, OptionsError> {
        let options = RuncOptions::parse_from_bytes(bytes).map_err(|error| malformed(kind, &error))?;
        let given = [
            ("no_new_keyring", options.no_new_keyring),
            ("shim_cgroup", !options.shim_cgroup.is_empty()),
            ("io_uid", options.io_uid != 0),
            ("io_gid", options.io_gid != 0),
            ("binary_name", !options.binary_name.is_empty()),
            ("root", !options.root.is_empty()),
            ("systemd_cgroup", options.systemd_cgroup),
            ("criu_image_path", !options.criu_image_path.is_empty()),
            ("criu_work_path", !options.criu_work_path.is_empty()),
            ("task_api_address", !options.task_api_address.is_empty()),
        ];
        let without_effect = given.into_iter().filter_map(|(name, given)| given.then_some(name)).collect();
        Ok(Self { no_pivot: options.no_pivot_root, without_effect, ..Self::default() })
    }

    /// Refuses a configuration other than the one this shim runs with.
    ///
    /// # Errors
    /// [`OptionsError::OtherConfig`] names both.
    pub fn check_config(&self, in_force: Option<&Path>) -> Result<(), OptionsError> {
        match &self.config {
            Some(asked) if in_force != Some(asked.as_path()) => Err(OptionsError::OtherConfig {
                in_force: in_force.unwrap_or(Path::new("(default)")).to_path_buf(),
                asked: asked.clone(),
            }),
            _ => Ok(()),
        }
    }
}

fn malformed(kind: &str, error: &dyn std::fmt::Display) -> OptionsError {
    OptionsError::Malformed { kind: kind.to_owned(), reason: error.to_string() }
}

/// ConfigPath (field 2) and ConfigBody (field 3) of containerd's `api/types/runtimeoptions/v1/api.proto`; other fields are skipped.
fn generic_fields(bytes: &[u8]) -> Result<(String, Vec<u8>), containerd_shim_protos::protobuf::Error> {
    const CONFIG_PATH: u32 = 2;
    const CONFIG_BODY: u32 = 3;
    let (mut path, mut body) = (String::new(), Vec::new());
    let mut input = CodedInputStream::from_bytes(bytes);
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        let (field, wire) = (tag >> 3, WireType::new(tag & 7));
        match (field, wire) {
            (CONFIG_PATH, Some(WireType::LengthDelimited)) => path = input.read_string()?,
            (CONFIG_BODY, Some(WireType::LengthDelimited)) => body = input.read_bytes()?,
            (_, Some(wire)) => input.skip_field(wire)?,
            (_, None) => return Err(std::io::Error::from(std::io::ErrorKind::InvalidData).into()),
        }
    }
    Ok((path, body))
}

/// Keeps `config` beside the bundle's config.json, for [`recall_config`].
///
/// # Errors
/// [`OptionsError::Note`].
pub fn note_config(bundle: &Path, config: Option<&Path>) -> Result<(), OptionsError> {
    let Some(config) = config else { return Ok(()) };
    let path = bundle.join(CONFIG_NOTE);
    std::fs::write(&path, config.as_os_str().as_encoded_bytes()).map_err(|source| OptionsError::Note {
        deed: "write",
        path,
        source,
    })
}

/// The configuration that [`note_config`] kept.
///
/// # Errors
/// [`OptionsError::Note`] when there is a note that cannot be read.
pub fn recall_config(bundle: &Path) -> Result<Option<PathBuf>, OptionsError> {
    let path = bundle.join(CONFIG_NOTE);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.into())),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OptionsError::Note { deed: "read", path, source }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use containerd_shim_protos::bootstrap_api::Extension;

    fn generic(path: &str, body: &str) -> Any {
        let mut value = Vec::new();
        for (field, text) in [(1, "ignored"), (2, path), (3, body)] {
            value.extend([field << 3 | 2, u8::try_from(text.len()).unwrap()]);
            value.extend(text.as_bytes());
        }
        Any { type_url: "runtimeoptions.v1.Options".into(), value, ..Any::default() }
    }

    #[test]
    fn no_options_are_no_wishes() {
        assert_eq!(RuntimeOptions::from_any(None).unwrap(), RuntimeOptions::default());
        assert_eq!(RuntimeOptions::from_start_input(&[], None).unwrap(), RuntimeOptions::default());
    }

    #[test]
    fn a_config_path_names_the_configuration() {
        let options = RuntimeOptions::from_any(Some(&generic("/etc/docklock/strict.toml", ""))).unwrap();
        assert_eq!(options.config.as_deref(), Some(Path::new("/etc/docklock/strict.toml")));
        assert!(options.check_config(Some(Path::new("/etc/docklock/strict.toml"))).is_ok());
        assert!(matches!(options.check_config(None), Err(OptionsError::OtherConfig { .. })));
    }

    #[test]
    fn a_config_body_chooses_the_profile() {
        let options = RuntimeOptions::from_any(Some(&generic("", "profile = 'strict'\nConfigPath = ''\n"))).unwrap();
        assert_eq!(options, RuntimeOptions { profile: Some("strict".into()), ..RuntimeOptions::default() });
    }

    #[test]
    fn an_unknown_key_of_the_body_is_refused_by_name() {
        let error = RuntimeOptions::from_any(Some(&generic("", "SystemdCgroup = true"))).unwrap_err();
        assert!(error.to_string().contains("SystemdCgroup"), "{error}");
    }

    #[test]
    fn a_relative_config_path_is_refused() {
        assert!(matches!(
            RuntimeOptions::from_any(Some(&generic("x.toml", ""))),
            Err(OptionsError::RelativePath { .. })
        ));
    }

    #[test]
    fn options_of_another_runtime_are_refused_and_truncated_ones_too() {
        let other = Any { type_url: "containerd.runhcs.v1.Options".into(), ..Any::default() };
        assert!(matches!(RuntimeOptions::from_any(Some(&other)), Err(OptionsError::Unknown { .. })));
        let mut short = generic("/x", "");
        short.value.truncate(5);
        assert!(matches!(RuntimeOptions::from_any(Some(&short)), Err(OptionsError::Malformed { .. })));
        let long = Any { value: vec![0; BODY_BYTES_MAX + 1], ..generic("", "") };
        assert!(matches!(RuntimeOptions::from_any(Some(&long)), Err(OptionsError::TooLong { .. })));
    }

    #[test]
    fn of_runc_only_no_pivot_root_counts() {
        let runc = RuncOptions {
            no_pivot_root: true,
            binary_name: "crun".into(),
            systemd_cgroup: true,
            ..RuncOptions::default()
        };
        let any = Any {
            type_url: "type.googleapis.com/containerd.runc.v1.Options".into(),
            value: runc.write_to_bytes().unwrap(),
            ..Any::default()
        };
        let options = RuntimeOptions::from_any(Some(&any)).unwrap();
        assert!(options.no_pivot);
        assert_eq!(options.without_effect, ["binary_name", "systemd_cgroup"]);
    }

    #[test]
    fn bootstrap_extensions_of_others_are_passed_over() {
        let extension = |any: Any| Extension { value: Some(any).into(), ..Extension::default() };
        let parameters = BootstrapParams {
            extensions: vec![
                extension(Any { type_url: "containerd.io/cri.v1.PodSandboxConfig".into(), ..Any::default() }),
                extension(generic("/c.toml", "")),
            ],
            ..BootstrapParams::default()
        };
        let options = RuntimeOptions::from_start_input(&[], Some(&parameters)).unwrap();
        assert_eq!(options.config.as_deref(), Some(Path::new("/c.toml")));
    }

    #[test]
    fn the_note_survives_until_delete_asks() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(recall_config(bundle.path()).unwrap(), None);
        note_config(bundle.path(), Some(Path::new("/c.toml"))).unwrap();
        assert_eq!(recall_config(bundle.path()).unwrap().as_deref(), Some(Path::new("/c.toml")));
    }
}
