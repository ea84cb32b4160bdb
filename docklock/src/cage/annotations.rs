//! What the specification's annotations tell docklock.

use std::path::{Component, PathBuf};

use oci_spec::runtime::Spec;

use super::{OutputScope, PlanError};

/// Names in our own space.
const SPACE: &str = "io.bpi.docklock";
/// Chooses the profile.
pub(super) const PROFILE: &str = "io.bpi.docklock.profile";
/// Declares output paths, separated by colons.
const OUTPUTS: &str = "io.bpi.docklock.outputs";
/// Most declared output paths; each costs a walk.
const OUTPUTS_MAX: usize = 64;

/// The declared output paths, sorted; `None` when there is no declaration.
pub(super) fn outputs(spec: &Spec) -> Result<Option<OutputScope>, PlanError> {
    let annotations = spec.annotations().iter().flatten();
    let mut unknown: Vec<&String> = annotations
        .map(|(name, _)| name)
        .filter(|name| ours(name) && !matches!(name.as_str(), PROFILE | OUTPUTS))
        .collect();
    unknown.sort();
    if let Some(name) = unknown.first() {
        return Err(PlanError::Annotation { name: (*name).clone() });
    }
    let Some(value) = get(spec, OUTPUTS) else { return Ok(None) };
    let mut paths = value.split(':').map(plain).collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    paths.dedup();
    if paths.len() > OUTPUTS_MAX {
        return Err(PlanError::Outputs { value: format!("{} paths", paths.len()), limit: "the limit is 64 paths" });
    }
    Ok(Some(OutputScope::Paths(paths)))
}

pub(super) fn get<'a>(spec: &'a Spec, name: &str) -> Option<&'a str> {
    spec.annotations().as_ref()?.get(name).map(String::as_str)
}

fn ours(name: &str) -> bool {
    name.strip_prefix(SPACE).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn plain(text: &str) -> Result<PathBuf, PlanError> {
    let path = PathBuf::from(text);
    let mut parts = path.components();
    let rooted = parts.next() == Some(Component::RootDir);
    let named = parts.clone().next().is_some() && parts.all(|part| matches!(part, Component::Normal(_)));
    if rooted && named {
        Ok(path.components().collect())
    } else {
        Err(PlanError::Outputs { value: text.to_owned(), limit: "a path is absolute, below / and without .. parts" })
    }
}
