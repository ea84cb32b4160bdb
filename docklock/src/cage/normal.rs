//! The normal form of a caged specification: equal for equal containers, on any host and in any run.
//!
//! Left out is what the workload cannot observe or what belongs to this host: root path, cgroup path, container id and other annotations,
//! sources of bind mounts (their content is an input of its own), namespace paths, host ids of user mappings, the loaded AppArmor profile.
//! Numbers beyond 2^53 - 1, which JSON cannot hold, are spelled as strings.

use bpi_protocol::canonical;
use bpi_protocol::digest::Sha256Digest;
use oci_spec::runtime::{LinuxSeccomp, Spec};
use serde_json::{Map, Value};

use super::PlanError;

const INTEGER_MAX: u64 = (1 << 53) - 1;

pub(super) fn bytes(spec: &Spec, tenant_seccomp: Option<&LinuxSeccomp>) -> Result<Vec<u8>, PlanError> {
    canonical(&form(spec, tenant_seccomp)?)
}

/// Digest of the canonical bytes of an array of strings.
pub(super) fn digest_strings(strings: &[String]) -> Result<Sha256Digest, PlanError> {
    Ok(Sha256Digest::of(&canonical(&Value::from(strings))?))
}

fn canonical(value: &Value) -> Result<Vec<u8>, PlanError> {
    canonical::to_bytes(value).map_err(|error| PlanError::Canonical { reason: error.to_string() })
}

fn form(spec: &Spec, tenant_seccomp: Option<&LinuxSeccomp>) -> Result<Value, PlanError> {
    let broken = |error: serde_json::Error| PlanError::Canonical { reason: error.to_string() };
    let mut form = serde_json::to_value(spec).map_err(broken)?;
    let seccomp = tenant_seccomp.map(serde_json::to_value).transpose().map_err(broken)?;
    let Some(top) = form.as_object_mut() else { return Err(PlanError::Missing { what: "object" }) };
    top.remove("ociVersion");
    if let Some(root) = object(top, "root") {
        root.remove("path");
    }
    if let Some(annotations) = object(top, "annotations") {
        annotations.retain(|name, _| name.starts_with("io.bpi.docklock."));
    }
    if object(top, "annotations").is_some_and(|annotations| annotations.is_empty()) {
        top.remove("annotations");
    }
    for mount in top.get_mut("mounts").and_then(Value::as_array_mut).into_iter().flatten() {
        forget_source(mount);
    }
    if let Some(process) = object(top, "process") {
        for member in ["apparmorProfile", "oomScoreAdj"] {
            process.remove(member);
        }
        for set in object(process, "capabilities").into_iter().flat_map(|sets| sets.values_mut()) {
            sort(set);
        }
    }
    if let Some(linux) = object(top, "linux") {
        forget_host(linux, seccomp);
    }
    plain(&mut form);
    Ok(form)
}

fn forget_source(mount: &mut Value) {
    let Some(mount) = mount.as_object_mut() else { return };
    let bind = mount
        .get("options")
        .and_then(Value::as_array)
        .is_some_and(|options| options.iter().any(|option| matches!(option.as_str(), Some("bind" | "rbind"))));
    if bind || mount.get("type").and_then(Value::as_str) == Some("bind") {
        mount.remove("source");
    }
}

fn forget_host(linux: &mut Map<String, Value>, seccomp: Option<Value>) {
    linux.remove("cgroupsPath");
    for namespace in linux.get_mut("namespaces").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(path) = namespace.get_mut("path").filter(|path| path.as_str() != Some("")) {
            *path = Value::from("joined");
        }
    }
    for mappings in ["uidMappings", "gidMappings"] {
        for mapping in linux.get_mut(mappings).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(mapping) = mapping.as_object_mut() {
                mapping.remove("hostID");
            }
        }
    }
    for list in ["namespaces", "maskedPaths", "readonlyPaths"] {
        if let Some(list) = linux.get_mut(list) {
            sort(list);
        }
    }
    if let Some(seccomp) = seccomp {
        linux.insert("seccomp".to_owned(), seccomp);
    }
}

fn object<'a>(map: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    map.get_mut(name)?.as_object_mut()
}

/// Sets are serialised in the order of a hash table that differs from run to run.
fn sort(list: &mut Value) {
    if let Some(list) = list.as_array_mut() {
        list.sort_by_key(Value::to_string);
    }
}

/// Drops nulls and spells large numbers as strings; depth is bounded by the specification's own types.
fn plain(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(plain);
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        Value::Number(number) => {
            let small = number.as_u64().map_or_else(
                || number.as_i64().is_some_and(|number| number.unsigned_abs() <= INTEGER_MAX),
                |number| number <= INTEGER_MAX,
            );
            if !small {
                *value = Value::String(number.to_string());
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}
