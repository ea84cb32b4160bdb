//! The one TOML file of a program, read with a bound.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("could not read the configuration {}: {source}; name another with --config or {variable}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The environment variable that names another.
        variable: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Longer than any configuration is.
    #[error("the configuration {} is longer than {bytes_max} bytes; it is none", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit.
        bytes_max: u64,
    },
    /// Not TOML, or a field that does not exist or has the wrong type.
    #[error("the configuration {} is malformed: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser said: line, column, field.
        reason: String,
    },
    /// A field with a value that cannot work.
    #[error("{field} = {value} in the configuration {} is refused: {reason}", path.display())]
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
    /// A file that the configuration names is not there or not readable.
    #[error("{field} = {} in the configuration cannot be read: {source}", path.display())]
    Named {
        /// Name of the field.
        field: &'static str,
        /// The file it names.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A field that cannot work: its name, its value, what it has to be.
pub type Fault = (&'static str, String, &'static str);

/// Reads the text of a file of at most `bytes_max`. `variable` is the environment variable that names another one.
///
/// # Errors
/// [`ConfigError::Read`] and [`ConfigError::TooLong`].
pub fn read(path: &Path, variable: &'static str, bytes_max: u64) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_path_buf(), variable, source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    if file.take(bytes_max + 1).read_to_string(&mut text).map_err(failed)? as u64 > bytes_max {
        return Err(ConfigError::TooLong { path: path.to_path_buf(), bytes_max });
    }
    Ok(text)
}

/// Reads the fields of a text.
///
/// # Errors
/// [`ConfigError::Malformed`].
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError::Malformed {
        path: path.to_path_buf(),
        reason: error.to_string().trim_end().to_owned(),
    })
}

/// A configuration, unless one of its fields cannot work.
///
/// # Errors
/// [`ConfigError::Field`].
pub fn judged<T>(path: &Path, config: T, fault: impl FnOnce(&T) -> Option<Fault>) -> Result<T, ConfigError> {
    match fault(&config) {
        Some((field, value, reason)) => Err(ConfigError::Field { path: path.to_path_buf(), field, value, reason }),
        None => Ok(config),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_that_is_no_configuration_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program.toml");
        let said = read(&path, "PROGRAM_CONFIG", 9).unwrap_err().to_string();
        assert!(said.contains("program.toml") && said.contains("PROGRAM_CONFIG"), "{said}");
        std::fs::write(&path, vec![b'#'; 9]).unwrap();
        assert_eq!(read(&path, "P", 9).unwrap().len(), 9);
        std::fs::write(&path, vec![b'#'; 10]).unwrap();
        assert!(matches!(read(&path, "P", 9), Err(ConfigError::TooLong { .. })));
        assert!(matches!(parse::<toml::Table>(&path, "="), Err(ConfigError::Malformed { .. })));
        let refused = judged(&path, 7, |_| Some(("field", "7".to_owned(), "it has to be 8"))).unwrap_err();
        assert!(refused.to_string().starts_with("field = 7 in the configuration"), "{refused}");
    }
}
