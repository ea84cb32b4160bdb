//! The OCI runtime specification of a run: what `ctr run` writes (containerd's default for Linux), with the order in it.
//!
//! Always true: no new privileges, no network but loopback, inputs read-only. The cage closes more than this asks for; this is what it starts from.

use serde_json::{Value, json};

use crate::error::DriverError;
use crate::image::Says;
use crate::order::Order;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PROFILE: &str = "io.bpi.docklock.profile";
const OUTPUTS: &str = "io.bpi.docklock.outputs";
/// The capabilities that containerd gives by default.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Writes it.
///
/// # Errors
/// [`DriverError::User`], [`DriverError::Nothing`].
pub(crate) fn spec(namespace: &str, order: &Order, says: &Says) -> Result<Value, DriverError> {
    let (uid, gid) = user(&says.user)?;
    let args = args(order, says);
    if args.is_empty() {
        return Err(DriverError::Nothing);
    }
    let cwd = if says.working_dir.is_empty() { "/" } else { &says.working_dir };
    let mut annotations = serde_json::Map::new();
    if let Some(profile) = &order.profile {
        annotations.insert(PROFILE.to_owned(), json!(profile));
    }
    if !order.outputs.is_empty() {
        let paths: Vec<_> = order.outputs.iter().map(|path| path.to_string_lossy()).collect();
        annotations.insert(OUTPUTS.to_owned(), json!(paths.join(":")));
    }
    Ok(json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs" },
        "process": {
            "user": { "uid": uid, "gid": gid },
            "args": args,
            "env": env(order, says),
            "cwd": cwd,
            "noNewPrivileges": true,
            "capabilities": { "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
        },
        "mounts": mounts(order),
        "annotations": annotations,
        "linux": {
            "cgroupsPath": format!("/{namespace}/{}", order.id),
            "resources": { "devices": devices() },
            "namespaces": [
                { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "network" },
            ],
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    }))
}

fn user(user: &str) -> Result<(u32, u32), DriverError> {
    let refused = || DriverError::User { user: user.to_owned() };
    let number = |word: &str| match word {
        "" | "root" => Ok(0),
        digits => digits.parse().map_err(|_| refused()),
    };
    let (uid, gid) = user.split_once(':').unwrap_or((user, ""));
    Ok((number(uid)?, number(gid)?))
}

/// The image's entry point stays; what is ordered takes the place of its command.
fn args(order: &Order, says: &Says) -> Vec<String> {
    let command = if order.argv.is_empty() { says.cmd.clone().unwrap_or_default() } else { order.argv.clone() };
    says.entrypoint.iter().flatten().cloned().chain(command).collect()
}

/// The image's variables, and those ordered, which take the place of others of the same name.
fn env(order: &Order, says: &Says) -> Vec<String> {
    let name = |value: &str| value.split_once('=').map_or_else(|| value.to_owned(), |(name, _)| name.to_owned());
    let mut all: Vec<String> = Vec::new();
    for value in std::iter::once(PATH)
        .chain(says.env.iter().flatten().map(String::as_str))
        .chain(order.env.iter().map(String::as_str))
    {
        match all.iter_mut().find(|known| name(known) == name(value)) {
            Some(known) => *known = value.to_owned(),
            None => all.push(value.to_owned()),
        }
    }
    all
}

fn mounts(order: &Order) -> Vec<Value> {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    let mut all = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/run", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ];
    for input in &order.inputs {
        let (host, inside) = (input.host.to_string_lossy(), input.inside.to_string_lossy());
        all.push(mount(&inside, "bind", &host, &["rbind", "ro"]));
    }
    all
}

/// Those that a container may use: null, random, full, tty, zero, urandom, console, pts and ptmx.
fn devices() -> Vec<Value> {
    let rule = |major: i64, minor: Option<i64>| match minor {
        Some(minor) => json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" }),
        None => json!({ "allow": true, "type": "c", "major": major, "access": "rwm" }),
    };
    let allowed = [
        (1, Some(3)),
        (1, Some(8)),
        (1, Some(7)),
        (5, Some(0)),
        (1, Some(5)),
        (1, Some(9)),
        (5, Some(1)),
        (136, None),
        (5, Some(2)),
    ];
    let none = json!({ "allow": false, "access": "rwm" });
    std::iter::once(none).chain(allowed.into_iter().map(|(major, minor)| rule(major, minor))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::order::Input;

    fn order() -> Order {
        Order {
            id: "run-1".to_owned(),
            env: vec!["A=2".to_owned(), "PATH=/bin".to_owned()],
            inputs: vec![Input { host: "/data".into(), inside: "/in".into() }],
            profile: Some("strict".to_owned()),
            outputs: vec!["/out".into(), "/log".into()],
            ..Order::default()
        }
    }

    fn says() -> Says {
        let words = |words: &[&str]| Some(words.iter().map(ToString::to_string).collect());
        Says {
            user: "7:8".to_owned(),
            env: words(&["A=1", "B=1"]),
            entrypoint: words(&["/entry"]),
            cmd: words(&["by", "default"]),
            working_dir: "/work".to_owned(),
        }
    }

    #[test]
    fn it_is_a_runtime_specification_that_says_what_was_ordered() {
        let spec: oci_spec::runtime::Spec = serde_json::from_value(spec("demo", &order(), &says()).unwrap()).unwrap();
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.args().as_ref().unwrap(), &["/entry", "by", "default"]);
        assert_eq!(process.env().as_ref().unwrap(), &["PATH=/bin", "A=2", "B=1"]);
        assert_eq!((process.user().uid(), process.user().gid(), process.cwd().to_str().unwrap()), (7, 8, "/work"));
        let input =
            spec.mounts().as_ref().unwrap().iter().find(|mount| mount.destination() == std::path::Path::new("/in"));
        assert!(input.unwrap().options().as_ref().unwrap().contains(&"ro".to_owned()));
        let annotations = spec.annotations().as_ref().unwrap();
        assert_eq!((&*annotations[PROFILE], &*annotations[OUTPUTS]), ("strict", "/out:/log"));
        assert_eq!(spec.linux().as_ref().unwrap().cgroups_path().as_ref().unwrap().to_str().unwrap(), "/demo/run-1");
    }

    #[test]
    fn what_is_ordered_takes_the_place_of_the_images_command() {
        let ordered = Order { argv: vec!["x".to_owned()], ..order() };
        assert_eq!(args(&ordered, &says()), ["/entry", "x"]);
        let nothing = Says { entrypoint: None, cmd: None, ..says() };
        assert!(matches!(spec("demo", &order(), &nothing), Err(DriverError::Nothing)));
    }

    #[test]
    fn a_user_by_name_is_refused_and_root_is_not() {
        assert_eq!((user("").unwrap(), user("root").unwrap(), user("12").unwrap()), ((0, 0), (0, 0), (12, 0)));
        for name in ["nobody", "1:users", "-1", "1:2:3"] {
            assert!(matches!(user(name), Err(DriverError::User { .. })), "{name}");
        }
    }
}
