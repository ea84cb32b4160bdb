//! What is asked for, and what may be asked for.

use std::path::{Component, Path, PathBuf};

/// Bytes of arguments, environment and paths, at most: a quarter of what Linux lets a program have.
const BYTES_MAX: usize = 512 * 1024;
/// Inputs, at most.
const INPUTS_MAX: usize = 64;
/// Bytes of a container's id, at most, as containerd has it.
const ID_BYTES_MAX: usize = 76;

/// A file or folder that the container can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Where it is on this host.
    pub host: PathBuf,
    /// Where it is in the container.
    pub inside: PathBuf,
}

/// A container to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Its id, unique in its namespace.
    pub id: String,
    /// `sha256:…` of the image's manifest, or of an index that has one for linux/amd64.
    pub image: String,
    /// The program and its arguments; empty: what the image says.
    pub argv: Vec<String>,
    /// `NAME=VALUE`, beside and before what the image says.
    pub env: Vec<String>,
    /// What it can read.
    pub inputs: Vec<Input>,
    /// The cage's profile; none: docklock's default.
    pub profile: Option<String>,
    /// Declared output paths inside, for the receipt.
    pub outputs: Vec<PathBuf>,
    /// The file that standard output is added to.
    pub stdout: PathBuf,
    /// The file that standard error is added to.
    pub stderr: PathBuf,
}

/// Why an order is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// A name that containerd does not take.
    #[error(
        "{field} is {value:?}; it has to be letters and digits, joined by single '.', '_' or '-', of at most {ID_BYTES_MAX} bytes"
    )]
    Name {
        /// Of what.
        field: &'static str,
        /// As given.
        value: String,
    },
    /// A digest that is none.
    #[error(
        "the image is {image:?}; it has to be sha256: and 64 hexadecimal digits, for a tag may be another image tomorrow"
    )]
    Image {
        /// As given.
        image: String,
    },
    /// A path that leads elsewhere.
    #[error("{field} is {}; it has to be absolute, below / and without .. parts", path.display())]
    Path {
        /// Of what.
        field: &'static str,
        /// As given.
        path: PathBuf,
    },
    /// A variable that is none.
    #[error("{value:?} is no variable: it has to be NAME=VALUE without NUL")]
    Variable {
        /// As given.
        value: String,
    },
    /// Too much.
    #[error("{field}: {found}, and at most {max}")]
    Many {
        /// Of what.
        field: &'static str,
        /// As given.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// A NUL ends a C string.
    #[error("{field} holds a NUL")]
    Nul {
        /// What.
        field: &'static str,
    },
}

fn is_plain(path: &Path) -> bool {
    let mut parts = path.components();
    parts.next() == Some(Component::RootDir)
        && parts.clone().next().is_some()
        && parts.all(|part| matches!(part, Component::Normal(_)))
        && path.to_str().is_some_and(|text| !text.contains('\0'))
}

fn is_name(text: &str) -> bool {
    text.len() <= ID_BYTES_MAX
        && text
            .split(['.', '_', '-'])
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// True when it is `sha256:` and 64 digits.
pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|digits| {
        digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

/// Checks a namespace or an id.
pub(crate) fn name(field: &'static str, value: &str) -> Result<(), OrderError> {
    match is_name(value) {
        true => Ok(()),
        false => Err(OrderError::Name { field, value: value.to_owned() }),
    }
}

impl Order {
    /// Checks everything that can be told without looking at the host.
    ///
    /// # Errors
    /// [`OrderError`] for the first thing that is wrong.
    pub fn check(&self) -> Result<(), OrderError> {
        name("the id", &self.id)?;
        if !is_digest(&self.image) {
            return Err(OrderError::Image { image: self.image.clone() });
        }
        if self.argv.iter().any(|word| word.contains('\0')) {
            return Err(OrderError::Nul { field: "an argument" });
        }
        for value in &self.env {
            let named = value.split_once('=').is_some_and(|(name, _)| !name.is_empty());
            if !named || value.contains('\0') {
                return Err(OrderError::Variable { value: value.clone() });
            }
        }
        if let Some(profile) = &self.profile {
            name("the profile", profile)?;
        }
        for (field, found) in [("inputs", self.inputs.len()), ("outputs", self.outputs.len())] {
            if found > INPUTS_MAX {
                return Err(OrderError::Many { field, found, max: INPUTS_MAX });
            }
        }
        let inputs =
            self.inputs.iter().flat_map(|input| [("an input", &input.host), ("where an input is", &input.inside)]);
        let outputs = self.outputs.iter().map(|path| ("an output", path));
        let files = [("standard output", &self.stdout), ("standard error", &self.stderr)];
        for (field, path) in inputs.chain(outputs).chain(files) {
            if !is_plain(path) {
                return Err(OrderError::Path { field, path: path.clone() });
            }
        }
        if let Some(path) = self.outputs.iter().find(|path| path.to_string_lossy().contains(':')) {
            return Err(OrderError::Path { field: "an output (a colon separates them)", path: path.clone() });
        }
        let words = self.argv.iter().chain(&self.env).map(String::len);
        let paths = self.inputs.iter().map(|input| input.host.as_os_str().len() + input.inside.as_os_str().len());
        let found = words.chain(paths).sum();
        match found > BYTES_MAX {
            true => Err(OrderError::Many { field: "bytes of arguments, environment and paths", found, max: BYTES_MAX }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn order() -> Order {
        Order {
            id: "run-1".to_owned(),
            image: format!("sha256:{}", "0a".repeat(32)),
            env: vec!["A=".to_owned(), "B=x=y".to_owned()],
            inputs: vec![Input { host: "/data/in".into(), inside: "/in".into() }],
            profile: Some("standard".to_owned()),
            outputs: vec!["/out".into()],
            stdout: "/tmp/x/out".into(),
            stderr: "/tmp/x/err".into(),
            ..Order::default()
        }
    }

    #[test]
    fn an_order_that_leads_elsewhere_is_refused() {
        order().check().unwrap();
        type Change = fn(&mut Order);
        let changes: [Change; 18] = [
            |order| order.id = String::new(),
            |order| order.id = "a..b".to_owned(),
            |order| order.id = "../a".to_owned(),
            |order| order.id = "a".repeat(77),
            |order| order.image = "docker.io/library/busybox:latest".to_owned(),
            |order| order.image = format!("sha256:{}", "0A".repeat(32)),
            |order| order.argv = vec!["a\0b".to_owned()],
            |order| order.argv = vec!["a".repeat(600_000)],
            |order| order.env = vec!["A".to_owned()],
            |order| order.env = vec!["=x".to_owned()],
            |order| order.profile = Some("a b".to_owned()),
            |order| order.inputs[0].host = "data".into(),
            |order| order.inputs[0].host = "/data/../etc".into(),
            |order| order.inputs[0].inside = "/".into(),
            |order| order.inputs = vec![order.inputs[0].clone(); 65],
            |order| order.outputs = vec!["/a:b".into()],
            |order| order.stdout = PathBuf::new(),
            |order| order.stderr = "err".into(),
        ];
        for (at, change) in changes.iter().enumerate() {
            let mut changed = order();
            change(&mut changed);
            assert!(changed.check().is_err(), "change {at}");
        }
    }
}
