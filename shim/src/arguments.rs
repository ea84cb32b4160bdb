//! The command line containerd calls a shim with, in the spelling of Go's flag package.
//!
//! `-name value`, `-name=value` and the same with two dashes; a switch takes a value only after `=`; the first word without a dash
//! is the action and ends the flags. An unknown flag is refused, as Go's package does.

use std::path::PathBuf;

/// Longest identifier of a container, an exec or a namespace, in bytes (containerd's `identifiers` package).
const IDENTIFIER_BYTES_MAX: usize = 76;

/// Why the command line cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// A flag nobody knows.
    #[error(
        "unknown flag {flag:?}; known are -namespace, -id, -address, -bundle, -publish-binary, -socket, -debug, -info, -v, -version"
    )]
    UnknownFlag {
        /// As it was given.
        flag: String,
    },
    /// A flag at the end of the line.
    #[error("flag -{flag} wants a value")]
    NoValue {
        /// Its name.
        flag: String,
    },
    /// A switch that is neither on nor off.
    #[error("flag -{flag} is a switch and cannot be {value:?}; it takes true or false")]
    NotASwitchValue {
        /// Its name.
        flag: String,
        /// The refused value.
        value: String,
    },
    /// An action nobody knows.
    #[error("unknown action {action:?}; a shim knows start and delete")]
    UnknownAction {
        /// As it was given.
        action: String,
    },
    /// An identifier that would leave its directory or its socket.
    #[error(
        "{flag} {value:?} is not an identifier of containerd: at most {IDENTIFIER_BYTES_MAX} letters and digits, separated by single '-', '_' or '.'"
    )]
    NotAnIdentifier {
        /// Which one.
        flag: &'static str,
        /// The refused value.
        value: String,
    },
}

/// What the program was called for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Serve the task API on the socket that is standard input.
    #[default]
    Serve,
    /// Bring up a shim, or find the pod's, and print its address.
    Start,
    /// Clean up after a shim that is gone.
    Delete,
    /// Describe this runtime.
    Info,
    /// Print the version.
    Version,
}

/// The command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// What to do.
    pub action: Action,
    /// `-namespace`: containerd's namespace.
    pub namespace: String,
    /// `-id`: the container.
    pub id: String,
    /// `-address`: containerd's gRPC socket.
    pub address: String,
    /// `-bundle`: the bundle, where it is not the working directory.
    pub bundle: Option<PathBuf>,
    /// `-socket`: the address a serving shim removes when it ends.
    pub socket: String,
    /// `-debug`.
    pub debug: bool,
}

impl Arguments {
    /// Reads the words after the program's name.
    ///
    /// # Errors
    /// Each [`ArgumentError`] names the flag and the refused value.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, ArgumentError> {
        let mut arguments = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|flag| !flag.is_empty())
            else {
                arguments.action = match word.as_str() {
                    "start" => Action::Start,
                    "delete" => Action::Delete,
                    _ => return Err(ArgumentError::UnknownAction { action: word }),
                };
                break;
            };
            let (name, attached) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            if let "debug" | "info" | "v" | "version" = name {
                let on = switch(name, attached)?;
                match name {
                    "debug" => arguments.debug = on,
                    "info" if on => arguments.action = Action::Info,
                    _ if on => arguments.action = Action::Version,
                    _ => {}
                }
                continue;
            }
            let mut value = || {
                attached
                    .clone()
                    .or_else(|| words.next())
                    .ok_or_else(|| ArgumentError::NoValue { flag: name.to_owned() })
            };
            match name {
                "namespace" => arguments.namespace = value()?,
                "id" => arguments.id = value()?,
                "address" => arguments.address = value()?,
                "bundle" => {
                    arguments.bundle = Some(value()?.into()).filter(|path: &PathBuf| !path.as_os_str().is_empty())
                }
                "socket" => arguments.socket = value()?,
                // containerd's own binary, for shims that publish events by calling it. This one speaks ttrpc.
                "publish-binary" => drop(value()?),
                _ => return Err(ArgumentError::UnknownFlag { flag: word }),
            }
        }
        Ok(arguments)
    }

    /// Refuses a namespace or container id that is not an identifier, before either becomes part of a path.
    ///
    /// # Errors
    /// [`ArgumentError::NotAnIdentifier`].
    pub fn check_identifiers(&self) -> Result<(), ArgumentError> {
        check_identifier("-namespace", &self.namespace)?;
        check_identifier("-id", &self.id)
    }
}

/// Refuses what containerd's `identifiers.Validate` refuses.
///
/// # Errors
/// [`ArgumentError::NotAnIdentifier`] calls the value `flag`.
pub fn check_identifier(flag: &'static str, value: &str) -> Result<(), ArgumentError> {
    let good = value.len() <= IDENTIFIER_BYTES_MAX
        && value.split(['-', '_', '.']).all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()));
    if good { Ok(()) } else { Err(ArgumentError::NotAnIdentifier { flag, value: value.to_owned() }) }
}

fn switch(flag: &str, value: Option<String>) -> Result<bool, ArgumentError> {
    match value.as_deref() {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(ArgumentError::NotASwitchValue { flag: flag.to_owned(), value: other.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(line: &str) -> Result<Arguments, ArgumentError> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn what_containerd_1_6_calls_start_with_is_understood() {
        let arguments =
            parse("-namespace default -address /run/containerd/containerd.sock -publish-binary /usr/bin/containerd -id demo -debug start").unwrap();
        assert_eq!(
            arguments,
            Arguments {
                action: Action::Start,
                namespace: "default".into(),
                id: "demo".into(),
                address: "/run/containerd/containerd.sock".into(),
                debug: true,
                ..Arguments::default()
            }
        );
    }

    #[test]
    fn go_takes_one_dash_or_two_and_an_equals_sign() {
        let arguments = parse("--namespace=k8s.io -id=a --bundle /b -debug=false delete").unwrap();
        assert_eq!((arguments.namespace.as_str(), arguments.id.as_str(), arguments.debug), ("k8s.io", "a", false));
        assert_eq!((arguments.action, arguments.bundle), (Action::Delete, Some("/b".into())));
    }

    #[test]
    fn without_an_action_the_shim_serves() {
        assert_eq!(parse("-namespace n -id i").unwrap().action, Action::Serve);
        assert_eq!(parse("-info").unwrap().action, Action::Info);
        assert_eq!(parse("-v").unwrap().action, Action::Version);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        assert_eq!(parse("-colour red").unwrap_err(), ArgumentError::UnknownFlag { flag: "-colour".into() });
        assert_eq!(parse("-id").unwrap_err(), ArgumentError::NoValue { flag: "id".into() });
        assert_eq!(
            parse("-debug=maybe").unwrap_err(),
            ArgumentError::NotASwitchValue { flag: "debug".into(), value: "maybe".into() }
        );
        assert_eq!(parse("restart").unwrap_err(), ArgumentError::UnknownAction { action: "restart".into() });
    }

    #[test]
    fn an_id_cannot_leave_its_directory() {
        for bad in ["", "..", "a/b", "../x", "a..b", "-a", "a b", &"x".repeat(77)] {
            assert!(check_identifier("-id", bad).is_err(), "{bad:?}");
        }
        for good in ["a", "k8s.io", "a-b_c.d", &"x".repeat(76)] {
            assert!(check_identifier("-id", good).is_ok(), "{good:?}");
        }
    }
}
