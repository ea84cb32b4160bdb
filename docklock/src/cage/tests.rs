#![allow(clippy::unwrap_used)]

mod narrowing;

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::host::{AppArmor, Cgroup, CgroupMode};

/// What `ctr run` of containerd 1.6.20 writes.
const CTR: &str = include_str!("tests/ctr.json");
/// The shape of what its CRI plugin writes for a container of a pod.
const POD: &str = include_str!("tests/pod.json");

fn host() -> HostCapabilities {
    HostCapabilities {
        kernel: "6.1.0".to_owned(),
        machine: "x86_64".to_owned(),
        libseccomp: "2.5.4".to_owned(),
        seccomp_notify: true,
        seccomp_wait_killable: true,
        landlock_abi: 2,
        apparmor: AppArmor::default(),
        cgroup: Cgroup {
            mode: CgroupMode::Hybrid,
            controllers: ["cpu", "devices", "memory", "pids"].map(str::to_owned).into_iter().collect(),
        },
        user_namespaces: true,
        baseline_cpu: true,
        lsms: Vec::new(),
    }
}

fn policy(name: &str) -> Policy {
    Policy::embedded(name).unwrap()
}

/// An embedded profile where tasks take turns, whatever it says itself.
fn turns(base: &str) -> Policy {
    Policy::parse("site", &format!("extends = {base:?}\nschedule = \"turns\"")).unwrap()
}

fn spec(text: &str, change: impl FnOnce(&mut Value)) -> Spec {
    let mut value = serde_json::from_str(text).unwrap();
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn planned(spec: &Spec, policy: &Policy) -> Result<Plan, PlanError> {
    planned_on(spec, policy, &host())
}

fn planned_on(spec: &Spec, policy: &Policy, host: &HostCapabilities) -> Result<Plan, PlanError> {
    plan(&PlanRequest { spec, policy, host, rootfs: Path::new("/run/one/rootfs"), has_layer: true, seed: None })
}

fn refusal(change: impl FnOnce(&mut Value), policy_name: &str) -> String {
    planned(&spec(CTR, change), &policy(policy_name)).unwrap_err().to_string()
}

fn row<'a>(plan: &'a Plan, name: &str) -> &'a Fence {
    plan.fence_report.iter().find(|fence| fence.name == name).unwrap()
}

fn source(plan: &Plan, name: &str) -> String {
    plan.sources.iter().find(|source| source.name == name).unwrap().status.clone()
}

#[test]
fn what_ctr_runs_is_caged_by_every_profile() {
    for name in Policy::embedded_names() {
        let plan = planned(&spec(CTR, |_| {}), &policy(name)).unwrap();
        let process = plan.spec.process().as_ref().unwrap();
        assert_eq!(plan.spec.root().as_ref().unwrap().path(), Path::new("/run/one/rootfs"));
        assert_eq!(process.no_new_privileges(), Some(true));
        assert_eq!(process.user().umask(), Some(0o022));
        assert!(process.env().as_ref().unwrap().iter().any(|entry| entry.starts_with("PATH=/usr/local/sbin:")));
        assert!(!plan.fences.capabilities.contains("CAP_NET_RAW") && !plan.fences.capabilities.contains("CAP_MKNOD"));
        assert_eq!(plan.outputs, OutputScope::Layer);
        assert_eq!(plan.cage.profile, name);
    }
}

#[test]
fn a_container_of_a_pod_is_caged_by_service_alone() {
    let pod = spec(POD, |_| {});
    let plan = planned(&pod, &policy("service")).unwrap();
    assert_eq!(
        (source(&plan, "network"), source(&plan, "mounts")),
        ("uncontrolled".to_owned(), "uncontrolled".to_owned())
    );
    assert_eq!(plan.limits.get("memoryBytes"), Some(&268_435_456));
    for name in ["strict", "standard"] {
        assert!(matches!(planned(&pod, &policy(name)), Err(PlanError::JoinedNamespace { .. })), "{name}");
    }
}

#[test]
fn a_host_namespace_is_refused_in_one_sentence() {
    for kind in ["pid", "ipc", "uts", "mount", "network"] {
        for name in Policy::embedded_names() {
            let sentence = refusal(
                |spec| {
                    let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
                    namespaces.retain(|namespace| namespace["type"] != kind);
                },
                name,
            );
            assert!(sentence.contains(&format!("the host's {kind} namespace")), "{sentence}");
        }
    }
}

#[test]
fn a_container_without_a_cgroup_namespace_gets_one() {
    let plan = planned(&spec(CTR, |_| {}), &policy("standard")).unwrap();
    let namespaces = plan.spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
    assert!(namespaces.iter().any(|namespace| namespace.typ().to_string() == "cgroup" && namespace.path().is_none()));
}

#[test]
fn a_hook_is_refused_by_strict_alone() {
    let hook = |spec: &mut Value| spec["hooks"] = json!({"createRuntime": [{"path": "/bin/hook"}]});
    assert!(refusal(hook, "strict").contains("/bin/hook"));
    assert!(planned(&spec(CTR, hook), &policy("standard")).is_ok());
}

#[test]
fn only_a_network_nobody_may_connect_is_called_controlled() {
    let of = |name| source(&planned(&spec(CTR, |_| {}), &policy(name)).unwrap(), "network");
    assert_eq!(["strict", "standard", "service"].map(of), ["controlled", "uncontrolled", "uncontrolled"]);
}

#[test]
fn a_container_without_a_name_does_not_show_the_hosts() {
    let plan = planned(&spec(CTR, |_| {}), &policy("service")).unwrap();
    assert_eq!(
        (plan.spec.hostname().as_deref(), plan.spec.domainname().as_deref()),
        (Some("docklock"), Some("(none)"))
    );
    let named = planned(&spec(CTR, |spec| spec["hostname"] = json!("web-0")), &policy("service")).unwrap();
    assert_eq!(named.spec.hostname().as_deref(), Some("web-0"));
    let fixed = planned(&spec(CTR, |spec| spec["hostname"] = json!("web-0")), &policy("standard")).unwrap();
    assert_eq!(fixed.spec.hostname().as_deref(), Some("docklock"));
}

#[test]
fn a_network_namespace_of_its_own_needs_its_loopback_raised() {
    assert!(planned(&spec(CTR, |_| {}), &policy("service")).unwrap().own_network);
    assert!(!planned(&spec(POD, |_| {}), &policy("service")).unwrap().own_network);
}

#[test]
fn a_device_of_the_host_is_refused_by_name() {
    let disk = |spec: &mut Value| {
        spec["linux"]["devices"] = json!([{"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}])
    };
    assert!(refusal(disk, "service").contains("/dev/sda (b 8:0)"));
    let all = |spec: &mut Value| spec["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
    assert!(refusal(all, "service").contains("a *:* rwm"));
}

#[test]
fn a_device_the_profile_names_is_given() {
    let site =
        Policy::parse("site", "extends = \"standard\"\n[[devices]]\ntype = \"c\"\nmajor = 10\nminor = 229").unwrap();
    let fuse = spec(CTR, |spec| {
        spec["linux"]["devices"] = json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]);
        spec["linux"]["resources"]["devices"] =
            json!([{"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm"}]);
    });
    assert!(planned(&fuse, &site).is_ok());
    assert!(matches!(planned(&fuse, &policy("standard")), Err(PlanError::Device { major: 10, .. })));
}

#[test]
fn mounts_that_open_the_host_are_refused() {
    let cases = [
        (json!({"destination": "/host", "type": "bind", "source": "/", "options": ["rbind"]}), "keeps /boot"),
        (json!({"destination": "/d", "type": "bind", "source": "/dev/sda", "options": ["bind"]}), "keeps /dev"),
        (json!({"destination": "/d", "source": "/proc/1", "options": ["rbind"]}), "keeps /proc"),
        (json!({"destination": "/d", "type": "none", "source": "/run", "options": ["bind"]}), "keeps /run/"),
        (json!({"destination": "/d", "type": "bind", "source": "/srv/../proc", "options": ["bind"]}), "without .."),
        (json!({"destination": "/d", "type": "ext4", "source": "/dev/sda"}), "type ext4"),
        (json!({"destination": "/proc2", "type": "proc", "source": "proc"}), "second proc"),
        (json!({"destination": "/proc/sys", "type": "tmpfs", "source": "tmpfs"}), "part of /proc"),
        (json!({"destination": "/", "type": "tmpfs", "source": "tmpfs"}), "cover the root"),
        (json!({"destination": "/d", "type": "bind", "source": "/srv", "options": ["rbind", "rshared"]}), "rshared"),
    ];
    for (mount, word) in cases {
        let sentence = refusal(|spec| spec["mounts"].as_array_mut().unwrap().push(mount.clone()), "service");
        assert!(sentence.contains(word), "{mount}: {sentence}");
    }
}

#[test]
fn a_link_to_what_is_kept_out_is_found_by_looking() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("innocent");
    std::os::unix::fs::symlink("/proc/1", &link).unwrap();
    let mounted = |source: &Path| {
        let mount = json!({"destination": "/d", "type": "bind", "source": source, "options": ["rbind"]});
        planned(&spec(CTR, |spec| spec["mounts"].as_array_mut().unwrap().push(mount)), &policy("service")).unwrap()
    };
    assert!(look_again(&mounted(dir.path())).is_ok());
    assert!(look_again(&mounted(&link)).unwrap_err().to_string().contains("keeps /proc"));
}

#[test]
fn the_hosts_namespace_by_path_is_found_by_looking() {
    let joined = spec(CTR, |spec| spec["linux"]["namespaces"][4]["path"] = json!("/proc/self/ns/net"));
    let plan = planned(&joined, &policy("service")).unwrap();
    assert!(matches!(look_again(&plan), Err(PlanError::HostNamespace { .. })));
    assert!(look_again(&planned(&spec(CTR, |_| {}), &policy("service")).unwrap()).is_ok());
}

#[test]
fn sysfs_and_cgroup_become_read_only() {
    let writable = spec(POD, |spec| {
        for mount in spec["mounts"].as_array_mut().unwrap() {
            if matches!(mount["type"].as_str(), Some("sysfs" | "cgroup")) {
                mount["options"] = json!(["rw", "nosuid"]);
            }
        }
    });
    let plan = planned(&writable, &policy("service")).unwrap();
    for mount in
        plan.spec.mounts().iter().flatten().filter(|mount| matches!(mount.typ().as_deref(), Some("sysfs" | "cgroup")))
    {
        assert_eq!(mount.options().as_deref().unwrap(), ["nosuid", "ro"], "{mount:?}");
    }
}

#[test]
fn what_cannot_be_enforced_is_not_ignored() {
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 5] = [
        (|spec| spec["process"]["selinuxLabel"] = json!("system_u:object_r:x_t:s0"), "process.selinuxLabel"),
        (|spec| spec["process"]["apparmorProfile"] = json!("cri-containerd.apparmor.d"), "process.apparmorProfile"),
        (|spec| spec["linux"]["personality"] = json!({"domain": "LINUX32"}), "linux.personality"),
        (|spec| spec["linux"]["rootfsPropagation"] = json!("rshared"), "linux.rootfsPropagation"),
        (|spec| spec["linux"]["mountLabel"] = json!("system_u:object_r:x_t:s0"), "linux.mountLabel"),
    ];
    for (change, field) in cases {
        assert!(refusal(change, "service").starts_with(field), "{field}");
    }
}

#[test]
fn the_specifications_own_filter_moves_to_the_executor() {
    let filtered = spec(CTR, |spec| spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    let plan = planned(&filtered, &policy("standard")).unwrap();
    assert!(plan.spec.linux().as_ref().unwrap().seccomp().is_none() && plan.fences.tenant_seccomp.is_some());
    assert_ne!(plan.config_digest, planned(&spec(CTR, |_| {}), &policy("standard")).unwrap().config_digest);
}

#[test]
fn an_annotation_in_our_name_that_means_nothing_is_refused() {
    let sentence = refusal(|spec| spec["annotations"] = json!({"io.bpi.docklock.profle": "strict"}), "strict");
    assert!(sentence.contains("io.bpi.docklock.profle"), "{sentence}");
}

#[test]
fn declared_outputs_are_sorted_plain_paths() {
    let declare =
        |value: &'static str| move |spec: &mut Value| spec["annotations"] = json!({"io.bpi.docklock.outputs": value});
    let plan = planned(&spec(CTR, declare("/out:/a/b:/out")), &policy("strict")).unwrap();
    assert_eq!(plan.outputs, OutputScope::Paths(vec![PathBuf::from("/a/b"), PathBuf::from("/out")]));
    for wrong in ["out", "/a/../b", "", "/a:", "/"] {
        assert!(refusal(declare(wrong), "strict").contains("outputs"), "{wrong:?}");
    }
}

#[test]
fn containers_that_differ_in_names_and_places_have_one_digest() {
    let other = spec(POD, |spec| {
        spec["linux"]["cgroupsPath"] = json!("/elsewhere/4");
        spec["linux"]["namespaces"][1]["path"] = json!("/proc/77/ns/ipc");
        spec["annotations"]["io.kubernetes.cri.sandbox-id"] = json!("another");
        spec["mounts"][8]["source"] = json!("/other/hostname");
        spec["ociVersion"] = json!("1.1.0");
        spec["process"]["oomScoreAdj"] = json!(2);
        spec["process"]["capabilities"]["bounding"].as_array_mut().unwrap().reverse();
    });
    let one = planned(&spec(POD, |_| {}), &policy("service")).unwrap();
    let elsewhere = HostCapabilities {
        landlock_abi: 0,
        cgroup: Cgroup { mode: CgroupMode::V2, controllers: BTreeSet::new() },
        ..host()
    };
    let spec = other;
    let request = PlanRequest {
        spec: &spec,
        policy: &policy("service"),
        host: &elsewhere,
        rootfs: Path::new("/elsewhere"),
        has_layer: false,
        seed: None,
    };
    let two = plan(&request).unwrap();
    assert_eq!((one.config_digest, one.argv, one.env), (two.config_digest, two.argv, two.env));
}

#[test]
fn a_seed_follows_from_the_plan_unless_somebody_chose_it_and_a_run_by_the_hosts_scheduler_has_none() {
    let (spec, policy) = (spec(CTR, |_| ()), turns("strict"));
    let seeded = |seed| {
        let host = host();
        let request =
            PlanRequest { spec: &spec, policy: &policy, host: &host, rootfs: Path::new("/r"), has_layer: true, seed };
        plan(&request).unwrap().params
    };
    assert_eq!(seeded(None), seeded(None));
    assert_eq!(seeded(Some([7; 32])).seed, Some(Sha256Digest::from_bytes([7; 32])));
    assert_ne!(seeded(None).seed, seeded(Some([7; 32])).seed);
    let service = planned(&spec, &Policy::embedded("service").unwrap()).unwrap();
    assert_eq!((service.params.seed, service.params.epoch, service.params.schedule.as_str()), (None, None, "host"));
}

#[test]
fn the_normal_form_of_a_plan_is_what_its_digest_is_of() {
    for text in [CTR, POD] {
        let (text, policy) = (spec(text, |_| ()), policy("service"));
        let first = planned(&text, &policy).unwrap();
        assert_eq!(Sha256Digest::of(&first.config), first.config_digest);
    }
}

#[test]
fn containers_that_differ_in_what_they_can_see_have_two_digests() {
    let one = planned(&spec(CTR, |_| {}), &policy("standard")).unwrap().config_digest;
    let changes: [fn(&mut Value); 4] = [
        |spec| spec["process"]["args"] = json!(["/bin/true"]),
        |spec| spec["process"]["cwd"] = json!("/tmp"),
        |spec| spec["root"]["readonly"] = json!(true),
        |spec| spec["linux"]["resources"]["pids"] = json!({"limit": 7}),
    ];
    for change in changes {
        assert_ne!(planned(&spec(CTR, change), &policy("standard")).unwrap().config_digest, one);
    }
}

#[test]
fn numbers_beyond_json_have_a_digest_too() {
    let endless = spec(CTR, |spec| {
        spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NPROC", "hard": u64::MAX, "soft": u64::MAX}])
    });
    assert!(planned(&endless, &policy("standard")).is_ok());
}

#[test]
fn a_missing_fence_is_told_or_refuses() {
    let bare = HostCapabilities { landlock_abi: 0, ..host() };
    let plan = planned_on(&spec(CTR, |_| {}), &policy("standard"), &bare).unwrap();
    assert_eq!((row(&plan, "landlock").status.as_str(), &plan.fences.landlock), ("absent", &None));
    assert_eq!(row(&plan, "apparmor").reason.as_deref(), Some("the kernel does not enforce AppArmor"));
    assert_eq!(row(&plan, "seccomp").status, "in-force");
    let names: Vec<_> = plan.fence_report.iter().map(|fence| fence.name.clone()).collect();
    assert!(names.is_sorted());
    for demand in ["apparmor = \"required\"", "landlock = \"required\""] {
        let site = Policy::parse("site", &format!("extends = \"standard\"\n[fences]\n{demand}")).unwrap();
        assert!(matches!(planned_on(&spec(CTR, |_| {}), &site, &bare), Err(PlanError::Fence { .. })), "{demand}");
    }
}

#[test]
fn a_host_that_cannot_supervise_runs_nothing() {
    for host in [
        HostCapabilities { seccomp_notify: false, ..host() },
        HostCapabilities { seccomp_wait_killable: false, ..host() },
        HostCapabilities { machine: "aarch64".to_owned(), ..host() },
    ] {
        assert!(matches!(
            planned_on(&spec(CTR, |_| {}), &policy("service"), &host),
            Err(PlanError::Fence { fence: "seccomp", .. })
        ));
    }
}

#[test]
fn a_processor_that_lacks_the_baseline_runs_nothing_that_is_shown_it() {
    let old = HostCapabilities { baseline_cpu: false, ..host() };
    let strict = planned_on(&spec(CTR, |_| {}), &policy("strict"), &old);
    assert!(matches!(strict, Err(PlanError::Processor { .. })));
    assert!(planned_on(&spec(CTR, |_| {}), &policy("standard"), &old).is_ok());
}

#[test]
fn a_controller_the_host_lacks_is_left_out_and_told() {
    let mut poor = host();
    poor.cgroup.controllers.remove("memory");
    let plan = planned_on(&spec(POD, |_| {}), &policy("service"), &poor).unwrap();
    assert_eq!(row(&plan, "cgroup-memory").reason.as_deref(), Some("the memory controller is not available"));
    assert_eq!(plan.spec.linux().as_ref().unwrap().resources().as_ref().unwrap().memory(), &None);
    poor.cgroup.controllers.remove("pids");
    assert!(matches!(
        planned_on(&spec(CTR, |_| {}), &policy("strict"), &poor),
        Err(PlanError::Fence { fence: "cgroup-pids", .. })
    ));
}

#[test]
fn apparmor_is_in_force_where_the_host_has_it() {
    let enforcing = HostCapabilities {
        apparmor: AppArmor {
            enabled: true,
            parser: Some(PathBuf::from("/usr/sbin/apparmor_parser")),
            parser_version: None,
        },
        ..host()
    };
    let plan = planned_on(&spec(CTR, |_| {}), &policy("standard"), &enforcing).unwrap();
    let profile = plan.apparmor.as_ref().unwrap();
    // By the executor: at an execve(2) that changes the profile the kernel forgets that addresses are not to be random.
    assert_eq!(plan.spec.process().as_ref().unwrap().apparmor_profile().as_ref(), None);
    assert_eq!(plan.fences.apparmor.as_ref(), Some(&profile.name));
    assert_eq!(row(&plan, "apparmor").status, "in-force");
    assert_eq!(plan.config_digest, planned(&spec(CTR, |_| {}), &policy("standard")).unwrap().config_digest);
}

#[test]
fn a_process_that_enters_later_is_caged_like_the_first() {
    let plan = planned(&spec(CTR, |_| {}), &policy("standard")).unwrap();
    let asked: Process = serde_json::from_value(json!({
        "args": ["/bin/sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "noNewPrivileges": false,
        "capabilities": {"bounding": ["CAP_SYS_ADMIN", "CAP_KILL"], "permitted": ["CAP_SYS_ADMIN", "CAP_KILL"], "effective": ["CAP_SYS_ADMIN"]}
    }))
    .unwrap();
    let caged = plan_exec(&plan, &asked).unwrap();
    assert_eq!((caged.no_new_privileges(), caged.user().umask()), (Some(true), Some(0o022)));
    let kept = caged.capabilities().clone().unwrap();
    assert_eq!(kept.bounding().iter().flatten().map(|cap| process::name(*cap)).collect::<Vec<_>>(), ["CAP_KILL"]);
    assert!(kept.effective().iter().flatten().next().is_none() && kept.ambient().is_some());
}

#[test]
fn a_raw_cgroup_file_cannot_lift_a_limit() {
    let raw =
        spec(CTR, |spec| spec["linux"]["resources"]["unified"] = json!({"pids.max": "max", "memory.min": "4096"}));
    let plan = planned(&raw, &policy("strict")).unwrap();
    let unified = plan.spec.linux().as_ref().unwrap().resources().as_ref().unwrap().unified().clone().unwrap();
    assert_eq!(unified.keys().collect::<Vec<_>>(), ["memory.min"]);
}

#[test]
fn the_stricter_of_two_limits_wins() {
    let site = "extends = \"standard\"\n[limits]\nmemory_bytes_max = 1000\npids_max = 10\ncpu_millis_max = 500";
    let site = Policy::parse("site", site).unwrap();
    let of = |memory: i64, quota: i64| {
        let asked = spec(CTR, |spec| {
            spec["linux"]["resources"]["memory"] = json!({"limit": memory, "swap": -1});
            spec["linux"]["resources"]["cpu"] = json!({"quota": quota, "period": 200_000});
        });
        let plan = planned(&asked, &site).unwrap();
        let resources = plan.spec.linux().as_ref().unwrap().resources().clone().unwrap();
        let (memory, cpu) = (resources.memory().unwrap(), resources.cpu().clone().unwrap());
        (memory.limit(), memory.swap(), cpu.quota(), plan.limits.get("memoryBytes").copied())
    };
    assert_eq!(of(-1, -1), (Some(1000), Some(1000), Some(100_000), Some(1000)));
    assert_eq!(of(7, 20_000), (Some(7), Some(7), Some(20_000), Some(7)));
}

#[test]
fn a_logical_budget_is_in_the_limits_of_the_run() {
    let site = "extends = \"strict\"\nschedule = \"turns\"\n[budget]\ncalls_max = 1000\nvirtual_seconds_max = 60\ntasks_max = 8\nmemory_bytes_max = 5\nfile_bytes_max = 6";
    let plan = planned(&spec(CTR, |_| {}), &Policy::parse("site", site).unwrap()).unwrap();
    let budgets = ["calls", "virtualSeconds", "tasks", "mappedBytes", "fileBytes"].map(|name| plan.limits[name]);
    assert_eq!((budgets, plan.limits["pids"]), ([1000, 60, 8, 5, 6], 4096));
    assert_eq!(rlimit(plan.spec.process().as_ref().unwrap(), "RLIMIT_AS"), Some((5, 5)));
    let without = planned(&spec(CTR, |_| {}), &policy("strict")).unwrap().limits;
    assert_eq!(without.keys().collect::<Vec<_>>(), ["pids"]);
}

fn rlimit(process: &Process, name: &str) -> Option<(u64, u64)> {
    let kind: oci_spec::runtime::PosixRlimitType = name.parse().unwrap();
    let rlimit = process.rlimits().iter().flatten().find(|rlimit| rlimit.typ() == kind)?;
    Some((rlimit.soft(), rlimit.hard()))
}

/// The kernel's list: asm-generic/resource.h.
const RLIMITS: [&str; 16] = [
    "RLIMIT_AS",
    "RLIMIT_CORE",
    "RLIMIT_CPU",
    "RLIMIT_DATA",
    "RLIMIT_FSIZE",
    "RLIMIT_LOCKS",
    "RLIMIT_MEMLOCK",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_NOFILE",
    "RLIMIT_NPROC",
    "RLIMIT_RSS",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
    "RLIMIT_SIGPENDING",
    "RLIMIT_STACK",
];

#[test]
fn under_turns_no_resource_limit_is_the_hosts() {
    let asked = spec(CTR, |spec| {
        spec["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NOFILE", "soft": 256, "hard": 512}, {"type": "RLIMIT_STACK", "soft": 1 << 30, "hard": 1 << 30}])
    });
    for name in ["strict", "standard"] {
        let plan = planned(&asked, &turns(name)).unwrap();
        let first = plan.spec.process().clone().unwrap();
        let entering: Process =
            serde_json::from_value(json!({"args": ["/bin/sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}})).unwrap();
        let later = plan_exec(&plan, &entering).unwrap();
        for rlimit_name in RLIMITS {
            assert!(rlimit(&first, rlimit_name).is_some() && rlimit(&later, rlimit_name).is_some(), "{rlimit_name}");
        }
        assert_eq!(rlimit(&first, "RLIMIT_NOFILE"), Some((256, 512)));
        assert_eq!(rlimit(&first, "RLIMIT_CORE"), Some((0, 0)));
        assert_eq!(rlimit(&first, "RLIMIT_NPROC"), Some((32_768, 32_768)));
    }
    let stack = |name| rlimit(planned(&asked, &turns(name)).unwrap().spec.process().as_ref().unwrap(), "RLIMIT_STACK");
    assert_eq!([stack("strict"), stack("standard")], [Some((8 << 20, 8 << 20)), Some((1 << 30, 1 << 30))]);
    let service = planned(&asked, &policy("service")).unwrap().spec.process().clone().unwrap();
    assert_eq!((rlimit(&service, "RLIMIT_NPROC"), rlimit(&service, "RLIMIT_CORE")), (None, Some((0, 0))));
}

#[test]
fn a_mount_that_others_can_write_is_uncontrolled_and_a_read_only_one_is_left_to_its_measure() {
    let with = |options: &[&str]| {
        let mount = json!({ "destination": "/data", "type": "bind", "source": "/srv/data", "options": options });
        let spec = spec(CTR, |spec| spec["mounts"].as_array_mut().unwrap().push(mount));
        source(&planned(&spec, &policy("standard")).unwrap(), "mounts")
    };
    assert_eq!(
        [with(&["rbind", "ro"]), with(&["ro", "rw", "rbind"]), with(&["rbind"])],
        ["controlled", "uncontrolled", "uncontrolled"]
    );
}

#[test]
fn under_turns_the_engine_tells_what_the_plan_cannot() {
    let names = |policy: &Policy| -> BTreeSet<String> {
        planned(&spec(CTR, |_| {}), policy).unwrap().sources.into_iter().map(|source| source.name).collect()
    };
    let plans = ["aslr", "environment", "hostname", "mounts", "network", "umask"].map(str::to_owned);
    let ordered = BTreeSet::from(plans);
    assert_eq!([names(&turns("strict")), names(&turns("standard"))], [ordered.clone(), ordered.clone()]);
    let open = &names(&policy("service")) - &ordered;
    let service = planned(&spec(CTR, |_| {}), &policy("service")).unwrap();
    assert!(open.contains("clock") && open.contains("cpuid") && open.len() == 11, "{open:?}");
    assert!(open.iter().all(|name| source(&service, name) == "uncontrolled"));
}

#[test]
fn a_program_sees_no_processor_mask_that_its_profile_did_not_ask_for() {
    let env = |policy: &Policy, change: fn(&mut Value)| {
        planned(&spec(CTR, change), policy).unwrap().spec.process().as_ref().unwrap().env().clone().unwrap()
    };
    let masks =
        |env: &[String]| env.iter().filter(|entry| entry.contains("hwcaps") || entry.contains("ia32cap")).count();
    let baseline = Policy::parse("site", "extends = \"standard\"\ncpu_features = \"baseline\"").unwrap();
    for name in Policy::embedded_names() {
        assert_eq!(masks(&env(&policy(name), |_| {})), 0, "{name}");
    }
    assert_eq!(masks(&env(&baseline, |_| {})), 2);
    let own = env(&baseline, |spec| spec["process"]["env"] = json!(["OPENSSL_ia32cap=:0", "LANG=de_DE.UTF-8"]));
    assert_eq!(own[..2], ["OPENSSL_ia32cap=:0", "LANG=de_DE.UTF-8"]);
    assert_eq!(own.iter().filter(|entry| entry.starts_with("OPENSSL_ia32cap=")).count(), 1);
}

#[test]
fn an_update_cannot_lift_a_limit() {
    let plan = planned(&spec(CTR, |_| {}), &policy("strict")).unwrap();
    let asked: LinuxResources =
        serde_json::from_value(json!({"pids": {"limit": -1}, "devices": [{"allow": true, "access": "rwm"}]})).unwrap();
    let narrowed = plan_update(&plan, &asked);
    assert_eq!((narrowed.pids().as_ref().unwrap().limit(), narrowed.devices()), (4096, &None));
}
