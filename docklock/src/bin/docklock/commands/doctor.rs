//! `docklock doctor`: what this host can enforce, and what is missing.

use bpi_policies::Policy;
use clap::Args;
use docklock::branches::{SelfTest, self_test};
use docklock::host::{CgroupMode, HostCapabilities};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{Format, columns, print, print_json};

/// Say what this host can enforce
#[derive(Args)]
#[command(
    long_about = "Looks at the kernel and says which fences of the cage it can enforce: seccomp with a supervisor, Landlock, AppArmor, cgroup controllers. \
A fence that a profile requires and this host lacks means that containers under that profile do not start; one that is required only \
if available is named in each receipt as absent.

Exit status: 0 when every embedded profile can run here, 1 when something that all of them need is missing.

Examples:
  docklock doctor
  docklock doctor --format json | jq .host.landlockAbi"
)]
pub(crate) struct Arguments {
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// One line of the answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    name: &'static str,
    /// `ok`, `absent` (the receipt will say so) or `missing` (nothing can run).
    status: &'static str,
    detail: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let host = HostCapabilities::probe_slowly();
    let findings = findings(&host);
    let missing = findings.iter().any(|finding| finding.status == "missing");
    match arguments.format {
        Format::Json => {
            print_json(
                &serde_json::json!({ "version": docklock::seal::VERSION, "canRun": !missing, "host": host, "findings": findings }),
            )?;
        }
        Format::Text => {
            let rows: Vec<Vec<String>> = findings
                .into_iter()
                .map(|finding| vec![finding.status.to_owned(), finding.name.to_owned(), finding.detail])
                .collect();
            let profiles = Policy::embedded_names().collect::<Vec<_>>().join(", ");
            let verdict = if missing { "no container can run here" } else { "containers can run here" };
            print(&format!("{}{verdict} (profiles: {profiles})\n", columns(&rows)))?;
        }
    }
    Ok(u8::from(missing))
}

fn findings(host: &HostCapabilities) -> Vec<Finding> {
    let needed =
        |name, holds: bool, detail: String| Finding { name, status: if holds { "ok" } else { "missing" }, detail };
    let wanted =
        |name, holds: bool, detail: String| Finding { name, status: if holds { "ok" } else { "absent" }, detail };
    let root = nix::unistd::geteuid().is_root();
    let supervisor = match (host.seccomp_notify, host.seccomp_wait_killable) {
        (true, true) => "calls can be answered by a supervisor, whatever signal arrives".to_owned(),
        (true, false) => "WAIT_KILLABLE_RECV is missing: it takes Linux 5.19".to_owned(),
        (false, _) => "user notification is missing: it takes Linux 5.0 with CONFIG_SECCOMP_FILTER".to_owned(),
    };
    let landlock = match host.landlock_abi {
        0 => "not in this kernel".to_owned(),
        abi => format!("ABI {abi}"),
    };
    let apparmor = match (host.apparmor.enabled, &host.apparmor.parser) {
        (true, Some(parser)) => {
            format!("enforced; {} {}", parser.display(), host.apparmor.parser_version.as_deref().unwrap_or_default())
        }
        (true, None) => "in the kernel, but apparmor_parser is missing: apt-get install apparmor".to_owned(),
        (false, _) => "not enabled in this kernel".to_owned(),
    };
    let mode = match host.cgroup.mode {
        CgroupMode::Absent => "not mounted",
        CgroupMode::V1 => "v1",
        CgroupMode::Hybrid => "hybrid (controllers on v1)",
        CgroupMode::V2 => "v2",
    };
    let controllers = host.cgroup.controllers.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
    let mut findings = vec![
        needed("machine", host.machine == "x86_64", format!("{}, Linux {}", host.machine, host.kernel)),
        needed("root", root, if root { "yes" } else { "this user cannot make containers; run as root" }.to_owned()),
        needed("seccomp", host.seccomp_notify && host.seccomp_wait_killable, supervisor),
        needed("libseccomp", !host.libseccomp.is_empty(), host.libseccomp.clone()),
        needed("cgroups", host.cgroup.mode != CgroupMode::Absent, format!("{mode}: {controllers}")),
        wanted(
            "baseline cpu",
            host.baseline_cpu,
            if host.baseline_cpu { "x86-64-v2" } else { "less than x86-64-v2, which strict promises" }.to_owned(),
        ),
        wanted("landlock", host.landlock_abi > 0, landlock),
        wanted("apparmor", host.apparmor.enabled && host.apparmor.parser.is_some(), apparmor),
        wanted(
            "user namespaces",
            host.user_namespaces,
            if host.user_namespaces { "can be made" } else { "cannot be made" }.to_owned(),
        ),
    ];
    findings.push(branch_counter());
    if !host.lsms.is_empty() {
        findings.push(wanted("security modules", true, host.lsms.join(" ")));
    }
    findings
}

/// How often the branches of how long a loop are counted.
const COUNTED_RUNS: usize = 20;
const COUNTED_TURNS: u64 = 1_000_000;

/// The same work, counted several times.
fn branch_counter() -> Finding {
    let test = self_test(COUNTED_RUNS, COUNTED_TURNS);
    let work = format!("{COUNTED_RUNS} runs of a loop of {COUNTED_TURNS} turns");
    let detail = match &test {
        SelfTest::Exact { count } => format!("exact: {work} retired {count} conditional branches each"),
        SelfTest::Inexact { least, most } => {
            format!("inexact: {work} retired {least} to {most} conditional branches")
        }
        SelfTest::Absent { reason } => format!("no count of retired conditional branches: {reason}"),
    };
    let status = if matches!(test, SelfTest::Exact { .. }) { "ok" } else { "absent" };
    Finding { name: "branch counter", status, detail }
}
