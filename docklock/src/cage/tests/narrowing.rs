//! Whatever a specification asks for, a plan is within its policy.

use oci_spec::runtime::{LinuxCapabilities, PosixRlimitType};
use proptest::prelude::*;

use super::*;

const CAPABILITIES: [&str; 12] = [
    "CAP_CHOWN",
    "CAP_SYS_ADMIN",
    "CAP_NET_ADMIN",
    "CAP_KILL",
    "CAP_SETUID",
    "CAP_SYS_PTRACE",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SYS_MODULE",
    "CAP_SYS_CHROOT",
    "CAP_BPF",
    "CAP_SETPCAP",
];
const NAMESPACES: [&str; 8] = ["pid", "network", "ipc", "uts", "mount", "cgroup", "user", "time"];
const PATHS: [&str; 8] = ["/", "/proc", "/srv/data", "/dev", "/run/docklock/x", "/var/lib/kubelet", "/sys/fs", "/etc"];

fn some_of(names: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    proptest::sample::subsequence(names, 0..=names.len())
}

fn namespace() -> impl Strategy<Value = Value> {
    (proptest::sample::select(&NAMESPACES[..]), any::<bool>()).prop_map(|(kind, joins)| {
        if joins { json!({"type": kind, "path": "/proc/1/ns/x"}) } else { json!({"type": kind}) }
    })
}

fn mount() -> impl Strategy<Value = Value> {
    let kinds = proptest::sample::select(vec!["bind", "proc", "sysfs", "tmpfs", "ext4"]);
    (kinds, proptest::sample::select(&PATHS[..]), proptest::sample::select(&PATHS[..]), any::<bool>()).prop_map(
        |(kind, source, destination, bind)| {
            json!({"type": kind, "source": source, "destination": destination, "options": if bind { vec!["rbind", "rw"] } else { vec!["rw"] }})
        },
    )
}

fn sets() -> impl Strategy<Value = Value> {
    proptest::collection::vec(some_of(&CAPABILITIES), 5).prop_map(|sets| {
        json!({"bounding": sets[0], "permitted": sets[1], "effective": sets[2], "inheritable": sets[3], "ambient": sets[4]})
    })
}

prop_compose! {
    fn asked()(
        namespaces in prop_oneof![
            Just(NAMESPACES[..6].iter().map(|kind| json!({"type": kind})).collect::<Vec<_>>()),
            proptest::collection::vec(namespace(), 0..9),
        ],
        mounts in proptest::collection::vec(mount(), 0..3),
        capabilities in proptest::option::of(sets()),
        masked in some_of(&["/proc/kcore", "/proc/one"]),
        pids in any::<i64>(),
        limit in any::<u64>(),
        kind in proptest::sample::select(vec!["RLIMIT_CORE", "RLIMIT_NOFILE", "RLIMIT_CPU"]),
        nnp in any::<bool>(),
    ) -> Value {
        let mut value: Value = serde_json::from_str(CTR).unwrap();
        value["linux"]["namespaces"] = json!(namespaces);
        value["mounts"].as_array_mut().unwrap().extend(mounts);
        match capabilities {
            Some(sets) => value["process"]["capabilities"] = sets,
            None => {
                value["process"].as_object_mut().unwrap().remove("capabilities");
            }
        }
        value["linux"]["maskedPaths"] = json!(masked);
        value["linux"]["resources"]["pids"] = json!({"limit": pids});
        value["process"]["rlimits"] = json!([{"type": kind, "soft": limit, "hard": limit}]);
        value["process"]["noNewPrivileges"] = json!(nnp);
        value
    }
}

fn all_sets(capabilities: &LinuxCapabilities) -> Vec<BTreeSet<String>> {
    let sets = [
        capabilities.bounding(),
        capabilities.permitted(),
        capabilities.effective(),
        capabilities.inheritable(),
        capabilities.ambient(),
    ];
    // A missing set would leave what the launcher holds.
    sets.map(|set| set.as_ref().expect("every set is given").iter().map(|cap| process::name(*cap)).collect()).to_vec()
}

fn within(plan: &Plan) -> Result<(), TestCaseError> {
    let profile = plan.policy.profile();
    let linux = plan.spec.linux().as_ref().unwrap();
    let process = plan.spec.process().as_ref().unwrap();
    let sets = all_sets(process.capabilities().as_ref().unwrap());
    for set in &sets {
        prop_assert!(set.is_subset(&profile.capabilities) && set.is_subset(&plan.fences.capabilities));
    }
    prop_assert!(
        sets[1].is_subset(&sets[0])
            && sets[2].is_subset(&sets[1])
            && sets[4].is_subset(&sets[1])
            && sets[4].is_subset(&sets[3])
    );
    let namespaces = linux.namespaces().clone().unwrap();
    for kind in ["pid", "ipc", "uts", "mount", "network", "cgroup"] {
        let own = namespaces.iter().find(|namespace| json!(namespace.typ()) == kind);
        prop_assert!(own.is_some(), "no {kind} namespace");
        let joined = own.and_then(|namespace| namespace.path().clone()).is_some();
        let joinable = profile.namespaces.joinable.iter().any(|word| json!(word) == kind);
        prop_assert!(!joined || joinable, "{kind} is joined");
    }
    for path in &profile.masked_paths {
        prop_assert!(linux.masked_paths().iter().flatten().any(|masked| masked == path));
    }
    for path in &profile.readonly_paths {
        prop_assert!(linux.readonly_paths().iter().flatten().any(|readonly| readonly == path));
    }
    for mount in plan.spec.mounts().iter().flatten().filter(|mount| super::super::mounts::is_bind(mount)) {
        let source = mount.source().clone().unwrap();
        for refused in profile.binds.refused_sources.iter().map(Path::new) {
            prop_assert!(!source.starts_with(refused) && !refused.starts_with(&source));
        }
    }
    let pids = linux.resources().as_ref().unwrap().pids().as_ref().unwrap().limit();
    prop_assert!((1..=i64::try_from(profile.limits.pids_max.unwrap()).unwrap()).contains(&pids));
    for (name, limit) in &profile.rlimits {
        let kind: PosixRlimitType = name.parse().unwrap();
        let rlimit = process.rlimits().iter().flatten().find(|rlimit| rlimit.typ() == kind).unwrap();
        prop_assert!(rlimit.soft() <= limit.soft && rlimit.hard() <= limit.hard && rlimit.soft() <= rlimit.hard());
    }
    prop_assert_eq!(process.no_new_privileges(), Some(true));
    prop_assert!(linux.seccomp().is_none() && linux.personality().is_none());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_plan_is_never_wider_than_its_policy(asked in asked(), name in proptest::sample::select(vec!["strict", "standard", "service"])) {
        let Ok(spec) = serde_json::from_value::<Spec>(asked) else { return Ok(()) };
        if let Ok(plan) = planned(&spec, &policy(name)) {
            within(&plan)?;
        }
    }
}
