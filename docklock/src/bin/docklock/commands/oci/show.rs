//! `oci state`, `ps`, `list`, `features` and `spec`: what there is, as JSON or a table.

use std::io;

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::client::Monitor;
use super::protocol::Request;
use super::{Setting, monitors};
use crate::failure::Failure;
use crate::output::{columns, plain, print, print_json};

pub(super) fn state(setting: &Setting, id: &str) -> Result<u8, Failure> {
    print_json(&Monitor::of(setting, id)?.ask(&Request::State)?)?;
    Ok(0)
}

pub(super) fn ps(setting: &Setting, arguments: &liboci_cli::Ps) -> Result<u8, Failure> {
    if !arguments.ps_options.is_empty() {
        return Err(Failure::Unsupported { what: "options for ps", remedy: "give the printed numbers to ps yourself" });
    }
    let pids = Monitor::of(setting, &arguments.container_id)?.ask(&Request::Ps)?;
    match arguments.format.as_str() {
        "json" => print_json(&pids)?,
        _ => {
            let rows = pids.as_array().into_iter().flatten().map(|pid| vec![pid.to_string()]);
            print(&columns(&std::iter::once(vec!["PID".to_owned()]).chain(rows).collect::<Vec<_>>()))?;
        }
    }
    Ok(0)
}

pub(super) fn list(setting: &Setting, arguments: &liboci_cli::List) -> Result<u8, Failure> {
    let mut states = Vec::new();
    for id in ids(setting)? {
        match Monitor::of(setting, &id).and_then(|monitor| monitor.ask(&Request::State)) {
            Ok(state) => states.push(state),
            // Deleted since the folder was listed.
            Err(Failure::NoSuchContainer { .. }) => {}
            Err(Failure::MonitorGone { .. }) => {
                states.push(json!({ "id": id, "status": "stopped", "pid": 0, "bundle": "" }))
            }
            Err(failure) => return Err(failure),
        }
    }
    let field = |state: &Value, name: &str| match &state[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if arguments.quiet {
        print(&plain(&states.iter().map(|state| field(state, "id") + "\n").collect::<String>()))?;
    } else if arguments.format == "json" {
        print_json(&states)?;
    } else {
        let head = ["ID", "PID", "STATUS", "BUNDLE"].map(str::to_owned).to_vec();
        let rows = states.iter().map(|state| ["id", "pid", "status", "bundle"].map(|name| field(state, name)).to_vec());
        print(&plain(&columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())))?;
    }
    Ok(0)
}

fn ids(setting: &Setting) -> Result<Vec<String>, Failure> {
    let dir = monitors(&setting.config);
    let failed = |source| Failure::File { deed: "list", path: dir.clone(), source };
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut ids = Vec::new();
    for entry in entries {
        ids.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    ids.sort();
    Ok(ids)
}

/// The features document of the runtime specification (features.md, features-linux.md), with what this runtime really honours.
pub(super) fn features() -> Result<u8, Failure> {
    print_json(&json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "cgroup": { "v1": true, "v2": true, "systemd": false, "systemdUser": false },
            "seccomp": { "enabled": true, "archs": ["SCMP_ARCH_X86_64"] },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": false } }
        },
        "annotations": { "io.bpi.docklock.version": docklock::seal::VERSION },
        "potentiallyUnsafeConfigAnnotations": ["io.bpi.docklock."]
    }))?;
    Ok(0)
}

/// Writes a config.json to start from. One that exists is left alone.
pub(super) fn spec(arguments: &liboci_cli::Spec) -> Result<u8, Failure> {
    if arguments.rootless {
        return Err(Failure::Unsupported { what: "--rootless", remedy: "the cage needs root" });
    }
    let path = arguments.bundle.clone().unwrap_or_else(|| ".".into()).join("config.json");
    let failed = |source| Failure::File { deed: "write", path: path.clone(), source };
    let file = match std::fs::OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(Failure::Exists { path }),
        Err(error) => return Err(failed(error)),
    };
    serde_json::to_writer_pretty(file, &Spec::default()).map_err(|error| failed(error.into()))?;
    Ok(0)
}
