//! Devices: the standard ones, those the policy names, and no others; neither as nodes nor as cgroup rules.

use bpi_policies::Policy;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, Spec};

use super::PlanError;

/// null, zero, full, random, urandom, tty, console, ptmx (runtime-spec, config-linux.md, default devices).
const STANDARD: [(i64, i64); 8] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];

/// Major number of pseudo-terminals' slaves (Documentation/admin-guide/devices.txt).
const PTS_MAJOR: i64 = 136;

pub(super) fn cage(spec: &mut Spec, policy: &Policy) -> Result<(), PlanError> {
    let linux = spec.linux_mut().as_mut().ok_or(PlanError::Missing { what: "linux" })?;
    for device in linux.devices().iter().flatten() {
        if !allows_node(policy, device) {
            return Err(PlanError::Device {
                path: device.path().clone(),
                kind: device.typ().as_str().to_owned(),
                major: device.major(),
                minor: device.minor(),
                profile: policy.name().to_owned(),
            });
        }
    }
    let Some(resources) = linux.resources_mut() else { return Ok(()) };
    let mut rules = vec![deny_all()];
    for rule in resources.devices().iter().flatten().filter(|rule| rule.allow()) {
        // To make a node is not to open it, and CAP_MKNOD is not kept.
        if rule.access().as_deref() == Some("m") {
            continue;
        }
        if !allows_rule(policy, rule) {
            return Err(PlanError::DeviceRule { rule: spelled(rule), profile: policy.name().to_owned() });
        }
        rules.push(rule.clone());
    }
    resources.set_devices(Some(rules));
    Ok(())
}

fn deny_all() -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(false).set_typ(None).set_major(None).set_minor(None).set_access(Some("rwm".to_owned()));
    rule
}

fn allows_node(policy: &Policy, device: &LinuxDevice) -> bool {
    match device.typ() {
        LinuxDeviceType::P => true,
        kind => allows(policy, kind, device.major(), Some(device.minor())),
    }
}

fn allows_rule(policy: &Policy, rule: &LinuxDeviceCgroup) -> bool {
    match (rule.typ(), rule.major()) {
        (Some(kind), Some(major)) => allows(policy, kind, major, rule.minor()),
        _ => false,
    }
}

fn allows(policy: &Policy, kind: LinuxDeviceType, major: i64, minor: Option<i64>) -> bool {
    let character = matches!(kind, LinuxDeviceType::C | LinuxDeviceType::U);
    let standard = character && (major == PTS_MAJOR || minor.is_some_and(|minor| STANDARD.contains(&(major, minor))));
    let named = |rule: &bpi_policies::DeviceRule| {
        (rule.kind == "c") == character && i64::from(rule.major) == major && minor == Some(i64::from(rule.minor))
    };
    let is_device = character || kind == LinuxDeviceType::B;
    standard || is_device && policy.profile().devices.iter().any(named)
}

fn spelled(rule: &LinuxDeviceCgroup) -> String {
    let number =
        |number: Option<i64>| number.filter(|number| *number >= 0).map_or("*".to_owned(), |number| number.to_string());
    let kind = rule.typ().map_or_else(|| "a".to_owned(), |kind| kind.as_str().to_owned());
    format!("{kind} {}:{} {}", number(rule.major()), number(rule.minor()), rule.access().as_deref().unwrap_or("rwm"))
}
