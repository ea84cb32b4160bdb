//! An OCI specification from a stranger: planning never panics, is a function, and whatever is planned is caged.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use bpi_policies::Policy;
use docklock::cage::{PlanRequest, plan, plan_exec};
use docklock::host::{AppArmor, Cgroup, CgroupMode, HostCapabilities};
use libfuzzer_sys::fuzz_target;
use oci_spec::runtime::{Capability, Spec};

static POLICIES: LazyLock<Vec<Policy>> =
    LazyLock::new(|| Policy::embedded_names().filter_map(Policy::embedded).collect());

static HOST: LazyLock<HostCapabilities> = LazyLock::new(|| HostCapabilities {
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
});

/// Capabilities that undo a cage; no embedded profile keeps them.
const NEVER: [Capability; 6] = [
    Capability::SysAdmin,
    Capability::SysModule,
    Capability::SysPtrace,
    Capability::SysRawio,
    Capability::Bpf,
    Capability::MacAdmin,
];

fuzz_target!(|bytes: &[u8]| {
    let Ok(spec) = serde_json::from_slice::<Spec>(bytes) else { return };
    for policy in POLICIES.iter() {
        let request = PlanRequest { spec: &spec, policy, host: &HOST, rootfs: Path::new("/run/fuzz/rootfs"), has_layer: true, seed: None };
        let Ok(planned) = plan(&request) else { continue };
        let again = plan(&request).expect("planning is a function");
        assert_eq!((planned.config_digest, &planned.params), (again.config_digest, &again.params));
        assert!(planned.fences.no_new_privs);
        let linux = planned.spec.linux().as_ref().expect("a caged specification has namespaces");
        assert!(linux.seccomp().is_none(), "libcontainer was left a filter of its own");
        let process = planned.spec.process().as_ref().expect("a caged specification has a process");
        assert_eq!(process.no_new_privileges(), Some(true));
        let capabilities = process.capabilities().as_ref().expect("a caged process has capability sets");
        for set in [capabilities.bounding(), capabilities.effective(), capabilities.permitted(), capabilities.inheritable(), capabilities.ambient()] {
            for capability in set.iter().flatten() {
                assert!(!NEVER.contains(capability), "{capability:?} was kept");
            }
        }
        if let Some(tenant) = spec.process()
            && let Ok(entering) = plan_exec(&planned, tenant)
        {
            assert_eq!(entering.no_new_privileges(), Some(true));
        }
    }
});
