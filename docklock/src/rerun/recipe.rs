//! From a receipt back to something that can be run: the configuration in its normal form, with this host's paths put in.
//!
//! The normal form leaves out what belongs to one host: root path, sources of bind mounts, cgroup path. [`specification`] puts those in and
//! nothing else, so that planning it gives the digest in the receipt again, or the run is another one and is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::run::Run;
use oci_spec::runtime::Spec;
use serde_json::{Map, Value, json};

/// Version of the specification that libcontainer is given; the normal form has none.
const OCI_VERSION: &str = "1.0.2";

/// Why a run cannot be done again here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipeError {
    /// Another run's configuration.
    #[error("the configuration at hand has the digest {found}, the receipt names {wanted}")]
    OtherConfig {
        /// Digest of what is at hand.
        found: Sha256Digest,
        /// Digest in the receipt.
        wanted: Sha256Digest,
    },
    /// The configuration is no specification.
    #[error("the configuration is no OCI specification: {reason}")]
    NotASpec {
        /// What the reader said.
        reason: String,
    },
    /// A mount whose source is the host's.
    #[error("{destination} was mounted from the host; name what to mount there with --mount {destination}=PATH")]
    Mount {
        /// Path in the container.
        destination: String,
    },
    /// A source for a mount that the run does not have.
    #[error("the run has no mount from the host at {destination}")]
    NoSuchMount {
        /// Path in the container.
        destination: String,
    },
    /// A namespace of its pod.
    #[error("it joined the {kind} namespace of its pod, which is gone")]
    Joined {
        /// Kind of namespace.
        kind: String,
    },
    /// A user namespace whose host ids the receipt does not say.
    #[error("it ran in a user namespace, and a receipt does not say with which ids of the host")]
    UserNamespace,
}

/// The specification of the run that `run` tells of, with its root file system at `rootfs` and its bind mounts from `mounts` (container
/// path to host path).
///
/// # Errors
/// Why that cannot be.
pub fn specification(
    run: &Run,
    config: &[u8],
    rootfs: &Path,
    mounts: &BTreeMap<String, PathBuf>,
) -> Result<Spec, RecipeError> {
    let found = Sha256Digest::of(config);
    if found != run.config.digest {
        return Err(RecipeError::OtherConfig { found, wanted: run.config.digest });
    }
    let broken = |reason: String| RecipeError::NotASpec { reason };
    let mut form: Value = serde_json::from_slice(config).map_err(|error| broken(error.to_string()))?;
    let Some(top) = form.as_object_mut() else { return Err(broken("it is no object".to_owned())) };
    top.insert("ociVersion".to_owned(), Value::from(OCI_VERSION));
    let root = top.entry("root").or_insert_with(|| json!({}));
    root.as_object_mut()
        .ok_or_else(|| broken("root is no object".to_owned()))?
        .insert("path".to_owned(), json!(rootfs));
    put_sources(top, mounts)?;
    if let Some(linux) = top.get_mut("linux").and_then(Value::as_object_mut) {
        refuse_what_is_gone(linux)?;
        linux.get_mut("resources").into_iter().for_each(numbers);
    }
    if let Some(rlimits) = top.get_mut("process").and_then(|process| process.get_mut("rlimits")) {
        numbers(rlimits);
    }
    serde_json::from_value(form).map_err(|error| broken(error.to_string()))
}

fn put_sources(top: &mut Map<String, Value>, mounts: &BTreeMap<String, PathBuf>) -> Result<(), RecipeError> {
    let mut unused: Vec<&String> = mounts.keys().collect();
    for mount in top.get_mut("mounts").and_then(Value::as_array_mut).into_iter().flatten() {
        let text = |name: &str| mount.get(name).and_then(Value::as_str).unwrap_or_default();
        let by_option = mount
            .get("options")
            .and_then(Value::as_array)
            .is_some_and(|options| options.iter().any(|option| matches!(option.as_str(), Some("bind" | "rbind"))));
        if !by_option && text("type") != "bind" {
            continue;
        }
        let destination = text("destination").to_owned();
        let Some(source) = mounts.get(&destination) else { return Err(RecipeError::Mount { destination }) };
        unused.retain(|name| **name != destination);
        mount["source"] = json!(source);
    }
    match unused.first() {
        Some(destination) => Err(RecipeError::NoSuchMount { destination: (*destination).clone() }),
        None => Ok(()),
    }
}

fn refuse_what_is_gone(linux: &Map<String, Value>) -> Result<(), RecipeError> {
    let list = |name: &str| linux.get(name).and_then(Value::as_array).into_iter().flatten();
    if let Some(joined) = list("namespaces").find(|one| one.get("path").and_then(Value::as_str) == Some("joined")) {
        let kind = joined.get("type").and_then(Value::as_str).unwrap_or("unknown").to_owned();
        return Err(RecipeError::Joined { kind });
    }
    if list("uidMappings").chain(list("gidMappings")).next().is_some() {
        return Err(RecipeError::UserNamespace);
    }
    Ok(())
}

/// Spells large numbers as numbers again: limits have no other strings of digits.
fn numbers(value: &mut Value) {
    match value {
        Value::Object(members) => members.values_mut().for_each(numbers),
        Value::Array(items) => items.iter_mut().for_each(numbers),
        Value::String(text) => {
            let number = text.parse::<u64>().map(Value::from).or_else(|_| text.parse::<i64>().map(Value::from));
            if let Ok(number) = number {
                *value = number;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bpi_policies::Policy;

    use super::*;
    use crate::cage::{Plan, PlanRequest, plan};
    use crate::host::HostCapabilities;
    use crate::rerun::compare::tests::run;

    fn planned(spec: &Spec, profile: &str) -> Plan {
        let policy = Policy::embedded(profile).unwrap();
        let host = HostCapabilities::probe();
        let request =
            PlanRequest { spec, policy: &policy, host: &host, rootfs: Path::new("/r"), has_layer: true, seed: None };
        plan(&request).unwrap()
    }

    fn of(config: &[u8]) -> Run {
        let mut run = run();
        run.config.digest = Sha256Digest::of(config);
        run
    }

    fn bind(spec: &Spec) -> Spec {
        let mut value = serde_json::to_value(spec).unwrap();
        let mount =
            json!({ "destination": "/data", "type": "bind", "source": "/srv/data", "options": ["rbind", "ro"] });
        value["mounts"].as_array_mut().unwrap().push(mount);
        value["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 1024, "hard": u64::MAX }]);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_specification_of_a_normal_form_is_planned_to_the_same_digest() {
        for profile in ["strict", "standard", "service"] {
            let first = planned(&bind(&Spec::default()), profile);
            let mounts = BTreeMap::from([("/data".to_owned(), PathBuf::from("/elsewhere"))]);
            let again = specification(&of(&first.config), &first.config, Path::new("/other"), &mounts).unwrap();
            let second = planned(&again, profile);
            let text = |plan: &Plan| String::from_utf8(plan.config.clone()).unwrap();
            assert_eq!(text(&first), text(&second), "{profile}");
            assert_eq!((first.params, first.argv, first.env), (second.params, second.argv, second.env));
        }
    }

    #[test]
    fn so_is_that_of_what_containerd_writes() {
        let spec: Spec = serde_json::from_str(include_str!("../cage/tests/ctr.json")).unwrap();
        let first = planned(&spec, "strict");
        let again = specification(&of(&first.config), &first.config, Path::new("/r"), &BTreeMap::new()).unwrap();
        let text = |plan: Plan| String::from_utf8(plan.config).unwrap();
        assert_eq!(text(first), text(planned(&again, "strict")));
    }

    #[test]
    fn another_configuration_a_missing_mount_and_a_superfluous_one_are_refused() {
        let plan = planned(&bind(&Spec::default()), "strict");
        let none = BTreeMap::new();
        let other = specification(&run(), &plan.config, Path::new("/r"), &none).unwrap_err();
        assert!(matches!(other, RecipeError::OtherConfig { .. }));
        let missing = specification(&of(&plan.config), &plan.config, Path::new("/r"), &none).unwrap_err();
        assert_eq!(missing, RecipeError::Mount { destination: "/data".to_owned() });
        let plain = planned(&Spec::default(), "strict");
        let mounts = BTreeMap::from([("/data".to_owned(), PathBuf::from("/x"))]);
        let superfluous = specification(&of(&plain.config), &plain.config, Path::new("/r"), &mounts).unwrap_err();
        assert_eq!(superfluous, RecipeError::NoSuchMount { destination: "/data".to_owned() });
    }

    #[test]
    fn what_ran_in_a_pod_or_a_user_namespace_cannot_be_done_again_here() {
        let joined = json!({ "linux": { "namespaces": [{ "type": "network", "path": "joined" }] } }).to_string();
        let none = BTreeMap::new();
        let refused = |config: &str| specification(&of(config.as_bytes()), config.as_bytes(), Path::new("/r"), &none);
        assert_eq!(refused(&joined).unwrap_err(), RecipeError::Joined { kind: "network".to_owned() });
        let mapped = json!({ "linux": { "uidMappings": [{ "containerID": 0, "size": 1 }] } }).to_string();
        assert_eq!(refused(&mapped).unwrap_err(), RecipeError::UserNamespace);
        assert!(matches!(refused("[]").unwrap_err(), RecipeError::NotASpec { .. }));
    }
}
