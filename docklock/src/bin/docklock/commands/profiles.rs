//! `docklock profiles`: the cage profiles there are, and what each demands.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bpi_policies::Policy;
use clap::{Args, Subcommand};
use docklock::config::Config;
use serde_json::json;

use crate::failure::Failure;
use crate::output::{Format, columns, print, print_json};

/// Longest profile that is read, in bytes.
const PROFILE_BYTES_MAX: u64 = 1024 * 1024;

/// Look at the cage profiles
#[derive(Args)]
#[command(
    long_about = "Looks at the profiles a container can be caged by: the embedded ones (strict, standard, service) and a site's own, \
`<name>.toml` in /etc/docklock/profiles.

A container names its profile with the annotation io.bpi.docklock.profile. The digest covers everything the profile demands and \
stands in every receipt.

Examples:
  docklock profiles list
  docklock profiles show standard --format json"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// How to print it
    #[arg(long, global = true, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Subcommand)]
enum Action {
    /// Print the name, origin and digest of each profile
    List,
    /// Print all that one profile demands
    Show {
        /// Its name
        name: String,
    },
}

pub(crate) fn run(arguments: &Arguments, config: Option<&Path>) -> Result<u8, Failure> {
    let dir = Config::load(config)?.profiles_dir;
    match &arguments.action {
        Action::List => list(&dir, arguments.format),
        Action::Show { name } => show(&dir, name, arguments.format),
    }
}

fn list(dir: &Path, format: Format) -> Result<u8, Failure> {
    let mut all: Vec<(String, String, String)> = Vec::new();
    for name in Policy::embedded_names() {
        if let Some(policy) = Policy::embedded(name) {
            all.push((name.to_owned(), "embedded".to_owned(), policy.digest().to_string()));
        }
    }
    for name in own_names(dir)? {
        let digest = own(dir, &name)?.digest().to_string();
        all.push((name.clone(), dir.join(name + ".toml").display().to_string(), digest));
    }
    match format {
        Format::Json => {
            let list: Vec<_> = all
                .iter()
                .map(|(name, origin, digest)| json!({ "name": name, "origin": origin, "digest": digest }))
                .collect();
            print_json(&list)?;
        }
        Format::Text => {
            let head = vec!["NAME".to_owned(), "ORIGIN".to_owned(), "DIGEST".to_owned()];
            let rows = all.into_iter().map(|(name, origin, digest)| vec![name, origin, digest]);
            print(&columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>()))?;
        }
    }
    Ok(0)
}

fn show(dir: &Path, name: &str, format: Format) -> Result<u8, Failure> {
    let policy = match Policy::embedded(name) {
        Some(policy) => policy,
        None => own(dir, name)?,
    };
    match format {
        Format::Json => {
            print_json(&json!({ "name": name, "digest": policy.digest().to_string(), "profile": policy.profile() }))?
        }
        Format::Text => {
            let text = toml::to_string(policy.profile())
                .map_err(|error| Failure::Stdout { source: io::Error::other(error) })?;
            print(&format!("# profile {name}, digest {}\n{text}", policy.digest()))?;
        }
    }
    Ok(0)
}

/// The names of a site's own profiles, sorted; no folder, no profiles.
fn own_names(dir: &Path) -> Result<Vec<String>, Failure> {
    let failed = |source| Failure::File { deed: "list the profiles in", path: dir.to_path_buf(), source };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        names.extend(name.to_str().and_then(|name| name.strip_suffix(".toml")).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

fn own(dir: &Path, name: &str) -> Result<Policy, Failure> {
    let refused = |reason: String| Failure::Profile { name: name.to_owned(), reason };
    if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') {
        return Err(refused("a profile's name is no path".to_owned()));
    }
    let path = dir.join(format!("{name}.toml"));
    let mut text = String::new();
    File::open(&path)
        .and_then(|file| file.take(PROFILE_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| refused(format!("it is not embedded, and {}: {error}", path.display())))?;
    if text.len() as u64 > PROFILE_BYTES_MAX {
        return Err(refused(format!("{} is longer than {PROFILE_BYTES_MAX} bytes", path.display())));
    }
    Policy::parse(name, &text).map_err(|error| refused(format!("{}: {error}", path.display())))
}
