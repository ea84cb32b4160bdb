//! The one configuration file of a docklock process.
//!
//! TOML in which every field has a default and an unknown one is refused, so that a misspelt name never means the default. Where
//! it comes from: the path that was asked for, else `DOCKLOCK_CONFIG`, else /etc/docklock/docklock.toml if there is one, else the
//! defaults alone. Absent on purpose: any other environment variable that changes a single field.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Environment variable that names the file.
pub const CONFIG_VARIABLE: &str = "DOCKLOCK_CONFIG";
/// The file that is read when nothing else was asked for and it exists.
pub const CONFIG_FILE: &str = "/etc/docklock/docklock.toml";
/// Longest configuration file in bytes: nine short fields need less than two thousand.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Longest SPIFFE id in bytes, by the SPIFFE-ID specification, section 2.3.
const SPIFFE_ID_BYTES_MAX: usize = 2048;
/// What `log_level` may be.
const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Where things are on this host, and what holds when nobody says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The host's private key, PKCS#8 PEM, mode 0600.
    pub key_file: PathBuf,
    /// What lives as long as the boot: container state, sockets.
    pub state_dir: PathBuf,
    /// The chains of records, one folder for each boundary.
    pub spool_dir: PathBuf,
    /// Temporary folders of `docklock run --rootfs` and `docklock rerun`: on a disk, and not on an overlay.
    pub stage_dir: PathBuf,
    /// A site's own profiles, `<name>.toml`.
    pub profiles_dir: PathBuf,
    /// The socket of this host's bpi-agent, which is asked how far a receipt has come.
    pub agent_socket: PathBuf,
    /// Profile of a container that asks for none.
    pub default_profile: String,
    /// Profile of a container of a pod that asks for none.
    pub default_pod_profile: String,
    /// SPIFFE id that signs: `spiffe://<trust domain>/host/<name>`.
    pub host_id: String,
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            key_file: "/etc/docklock/host.key".into(),
            state_dir: "/run/docklock".into(),
            spool_dir: "/var/lib/docklock/spool".into(),
            stage_dir: "/var/lib/docklock/stage".into(),
            profiles_dir: "/etc/docklock/profiles".into(),
            agent_socket: "/run/bpi/agent.sock".into(),
            default_profile: "standard".into(),
            default_pod_profile: "service".into(),
            host_id: format!("spiffe://bpi.local/host/{}", host_name()),
            log_level: "info".into(),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was asked for cannot be read.
    #[error("could not read the configuration {}: {source}; create the file, or leave out --config and {CONFIG_VARIABLE} to run with the defaults", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Longer than any configuration is.
    #[error("the configuration {} is longer than {FILE_BYTES_MAX} bytes; it is not a docklock configuration", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Not TOML, or a field that does not exist or has the wrong type.
    #[error("the configuration {} is malformed: {reason}; `docklock config check --print` shows every field and its value in force", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser said: line, column, field.
        reason: String,
    },
    /// A field with a value that cannot work.
    #[error("{field} = {value:?} in the configuration {} is refused: {reason}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// Name of the field.
        field: &'static str,
        /// The refused value.
        value: String,
        /// What it has to be.
        reason: &'static str,
    },
}

impl ConfigError {
    /// The code under which docs/errors.md explains it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "DL0101",
            Self::TooLong { .. } => "DL0102",
            Self::Malformed { .. } => "DL0103",
            Self::Field { .. } => "DL0104",
        }
    }
}

impl Config {
    /// Reads the configuration in force: `explicit`, else the file `DOCKLOCK_CONFIG` names, else [`CONFIG_FILE`] if it exists, else
    /// the defaults.
    ///
    /// # Errors
    /// Each [`ConfigError`] names the file, the refused value and the remedy.
    pub fn load(explicit: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_with_source(explicit).map(|(config, _)| config)
    }

    /// As [`Config::load`], and the file it came from; `None` for the defaults alone.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_with_source(explicit: Option<&Path>) -> Result<(Self, Option<PathBuf>), ConfigError> {
        let asked = explicit.map(Path::to_path_buf).or_else(|| std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from));
        let (path, must_exist) = match asked {
            Some(path) => (path, true),
            None => (PathBuf::from(CONFIG_FILE), false),
        };
        match read_bounded(&path) {
            Ok(text) => Ok((Self::parse(&path, &text)?, Some(path))),
            Err(ConfigError::Read { source, .. }) if !must_exist && source.kind() == io::ErrorKind::NotFound => {
                Ok((Self::default(), None))
            }
            Err(error) => Err(error),
        }
    }

    /// Reads a configuration from `text`; `path` is what errors call it.
    ///
    /// # Errors
    /// [`ConfigError::Malformed`] and [`ConfigError::Field`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error: toml::de::Error| ConfigError::Malformed {
            path: path.to_path_buf(),
            reason: one_line(&error, text),
        })?;
        match config.refusal() {
            Some((field, value, reason)) => Err(ConfigError::Field { path: path.to_path_buf(), field, value, reason }),
            None => Ok(config),
        }
    }

    /// The first field with a value that cannot work.
    fn refusal(&self) -> Option<(&'static str, String, &'static str)> {
        let paths = [
            ("key_file", &self.key_file),
            ("state_dir", &self.state_dir),
            ("spool_dir", &self.spool_dir),
            ("stage_dir", &self.stage_dir),
            ("profiles_dir", &self.profiles_dir),
        ];
        for (field, path) in paths {
            if !path.is_absolute() {
                return Some((field, path.display().to_string(), "it has to be an absolute path"));
            }
        }
        for (field, name) in
            [("default_profile", &self.default_profile), ("default_pod_profile", &self.default_pod_profile)]
        {
            if !is_profile_name(name) {
                return Some((
                    field,
                    name.clone(),
                    "a profile's name is 1 to 64 of a-z, 0-9 and -, and starts with a letter",
                ));
            }
        }
        if !is_spiffe_id(&self.host_id) {
            return Some((
                "host_id",
                self.host_id.clone(),
                "it has to be spiffe://<trust domain>/<path>, at most 2048 bytes",
            ));
        }
        if !LOG_LEVELS.contains(&self.log_level.as_str()) {
            return Some(("log_level", self.log_level.clone(), "it has to be off, error, warn, info, debug or trace"));
        }
        None
    }
}

fn read_bounded(path: &Path) -> Result<String, ConfigError> {
    let error = |source| ConfigError::Read { path: path.to_path_buf(), source };
    let file = std::fs::File::open(path).map_err(error)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(error)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfigError::TooLong { path: path.to_path_buf() });
    }
    Ok(text)
}

/// The parser's message without its drawing of the source, and the line it speaks of.
fn one_line(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().replace('\n', ", ");
    match error.span() {
        Some(span) => {
            let line = text.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count() + 1;
            format!("line {line}: {message}")
        }
        None => message,
    }
}

fn is_profile_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && name.as_bytes()[0].is_ascii_lowercase()
}

/// SPIFFE-ID, sections 2.1 to 2.3: a trust domain of `[a-z0-9.-_]`, then non-empty path segments of `[A-Za-z0-9.-_]`.
fn is_spiffe_id(id: &str) -> bool {
    let Some((domain, path)) = id.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let domain_char = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    let path_char = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    id.len() <= SPIFFE_ID_BYTES_MAX
        && !domain.is_empty()
        && domain.bytes().all(domain_char)
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && part.bytes().all(path_char))
}

/// The kernel's host name, with every character that a SPIFFE path refuses replaced by `-`.
fn host_name() -> String {
    let name = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    if name.trim_matches('.').is_empty() { "localhost".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refusal(text: &str) -> String {
        Config::parse(Path::new("/etc/d.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(Config::parse(Path::new("x"), "").unwrap(), Config::default());
    }

    #[test]
    fn the_defaults_are_accepted_by_their_own_rules() {
        let text = toml::to_string(&Config::default()).unwrap();
        assert_eq!(Config::parse(Path::new("x"), &text).unwrap(), Config::default());
    }

    #[test]
    fn an_unknown_field_is_named_with_its_line() {
        let text = refusal("log_level = \"info\"\nspool = \"/x\"\n");
        assert!(text.contains("/etc/d.toml") && text.contains("line 2") && text.contains("`spool`"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn a_field_of_the_wrong_type_is_refused() {
        assert!(refusal("key_file = 7").contains("line 1"));
    }

    #[test]
    fn each_impossible_value_is_named_with_its_field() {
        for (text, field, value) in [
            ("spool_dir = \"spool\"", "spool_dir", "spool"),
            ("default_profile = \"../strict\"", "default_profile", "../strict"),
            ("default_pod_profile = \"\"", "default_pod_profile", ""),
            ("host_id = \"spiffe://bpi.local\"", "host_id", "spiffe://bpi.local"),
            ("host_id = \"spiffe://bpi.local/a//b\"", "host_id", "a//b"),
            ("log_level = \"loud\"", "log_level", "loud"),
        ] {
            let sentence = refusal(text);
            assert!(sentence.contains(field) && sentence.contains(value), "{sentence}");
        }
    }

    #[test]
    fn a_missing_file_that_was_asked_for_is_an_error() {
        let error = Config::load(Some(Path::new("/nonexistent/docklock.toml"))).unwrap_err();
        assert_eq!(error.code(), "DL0101");
        assert!(error.to_string().contains("/nonexistent/docklock.toml"));
    }

    #[test]
    fn a_file_longer_than_the_bound_is_refused_without_being_read_whole() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "#".repeat(FILE_BYTES_MAX as usize + 1)).unwrap();
        assert_eq!(Config::load(Some(file.path())).unwrap_err().code(), "DL0102");
    }
}
