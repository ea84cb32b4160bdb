//! What a reader of a receipt could change: by the profiles and the system call table of this build.

use bpi_policies::{AUDIT_ARCH_X86_64, Call, Class, ExecRule, Policy, syscalls};
use bpi_protocol::claim::Shortfall;
use bpi_protocol::explain::Advice;
use bpi_protocol::run::{CallCount, Run};

/// How a profile is chosen.
const CHOOSE: &str = "annotation io.bpi.docklock.profile, or docklock run --profile";

/// Calls that stay shut in every profile, and what programs do without.
const SHUT: [(&str, &str); 7] = [
    ("io_uring_", "programs fall back to epoll or to threads"),
    ("bpf", "load programs into the kernel from the host instead"),
    ("perf_event_open", "measure from the host instead"),
    ("userfaultfd", "programs fall back to signals"),
    ("rseq", "the C library falls back by itself; only the profile service allows it"),
    ("clone3", "the C library falls back to clone by itself"),
    ("keyctl", "keep keys in files or in the environment"),
];

/// The rules of this build.
pub(super) struct FromProfiles;

impl Advice for FromProfiles {
    fn on_denied(&self, run: &Run, call: &CallCount) -> Option<String> {
        match call.syscall.as_str() {
            "foreign-abi" => {
                return Some("32-bit and x32 programs cannot run in the cage; use a 64-bit build".to_owned());
            }
            "unknown" => {
                return Some(
                    "a call newer than this build's table; programs fall back, or a newer docklock knows it".to_owned(),
                );
            }
            _ => {}
        }
        let row = syscalls::named(&call.syscall)?;
        if let Some((_, instead)) = SHUT.iter().find(|(name, _)| row.name.starts_with(name)) {
            return Some((*instead).to_owned());
        }
        let args = if row.condition.is_some() { "with other arguments it may pass" } else { "whatever its arguments" };
        let nr = i32::try_from(row.nr).ok()?;
        let open = Policy::embedded_names().filter(|name| *name != run.cage.profile).find(|name| {
            let call = Call { arch: AUDIT_ARCH_X86_64, nr, args: [0; 6] };
            row.condition.is_none()
                && Policy::embedded(name).is_some_and(|policy| !matches!(policy.decide(&call), Class::Deny(_)))
        });
        Some(match open {
            Some(name) => format!("profile {name} allows it ({CHOOSE})"),
            None => format!(
                "{}; {args}. A site's own profile can open it with [syscalls] allow = [\"{}\"], and the receipt then names that profile",
                row.reason, row.name
            ),
        })
    }

    fn on_shortfall(&self, run: &Run, shortfall: &Shortfall) -> Option<String> {
        Some(match shortfall {
            Shortfall::UnknownImage => {
                "run it from an image that containerd knows, or with docklock run --image or --rootfs, which measure it"
                    .to_owned()
            }
            Shortfall::UnpinnedMounts => {
                "mount files and folders of less than 64 MiB and 4096 entries, or put the content into the image"
                    .to_owned()
            }
            Shortfall::Entered { .. } => {
                let closed = Policy::embedded_names().find(|name| {
                    Policy::embedded(name).is_some_and(|policy| policy.profile().exec == ExecRule::Refuse)
                })?;
                format!("profile {closed} lets nobody in ({CHOOSE})")
            }
            Shortfall::Service | Shortfall::HostSchedule if run.cage.profile == "service" => {
                format!("profile standard or strict takes time, randomness and order into the cage ({CHOOSE})")
            }
            Shortfall::HostCpu => {
                "a profile with cpu_features = \"baseline\", as strict is, shows every program the same CPU".to_owned()
            }
            Shortfall::Escaped { .. } => "profile strict ends such a run instead of going on".to_owned(),
            _ => return None,
        })
    }

    fn on_abort(&self, reason: &str) -> Option<String> {
        let reason = reason.to_lowercase();
        let advice = [
            (
                "deadlock",
                "Each task waits for another, or for something outside that the cage keeps out. If it waits for the network or for a person, \
                 profile standard waits on (on_deadlock = \"wait\").",
            ),
            (
                "without a call",
                "A task computes without a system call while others wait for it. Profile standard stops it by the host's clock and says so in \
                 the receipt (on_spin = \"preempt\"); a program that sleeps or yields while it waits needs no such thing.",
            ),
            (
                "budget",
                "The run used up what its profile's [budget] allows; it would end at the same place on every host. Raise that budget in a \
                 site's own profile.",
            ),
        ];
        advice.into_iter().find(|(word, _)| reason.contains(word)).map(|(_, words)| words.to_owned())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn run() -> Run {
        let digest = serde_json::json!({ "sha256": "0".repeat(64) });
        let stream = serde_json::json!({ "digest": digest, "bytes": 0 });
        let run = serde_json::json!({
            "type": bpi_protocol::run::RUN_TYPE,
            "platform": "linux/amd64",
            "config": { "digest": digest },
            "cage": { "profile": "strict", "digest": digest },
            "runtime": { "name": "docklock", "abi": 2 },
            "inputs": [],
            "params": { "schedule": "host" },
            "limits": {},
            "result": {
                "exitCode": 0,
                "stdout": stream,
                "stderr": stream,
                "outputs": { "scope": "none", "digest": digest, "entries": 0 },
            },
            "denied": [],
            "virtualised": [],
        });
        serde_json::from_value(run).unwrap()
    }

    #[test]
    fn every_call_that_a_profile_refuses_has_a_word_of_advice() {
        let run = run();
        for row in syscalls::table() {
            let call = CallCount { syscall: row.name.to_owned(), errno: Some("EPERM".to_owned()), count: 1 };
            let advice = FromProfiles.on_denied(&run, &call);
            assert!(advice.is_some_and(|words| words.len() > 10), "{}", row.name);
        }
    }

    #[test]
    fn a_deadlock_a_spin_and_a_budget_are_three_things() {
        let advice: std::collections::BTreeSet<_> = [
            "deadlock: task 1 waits in futex for: another task; task 2 waits in read for: a file",
            "task 3 used the processor for 1000 ms without a call while others waited; the profile ends such a run",
            "the budget of 10 calls is spent",
        ]
        .map(|reason| FromProfiles.on_abort(reason).unwrap())
        .into();
        assert_eq!(advice.len(), 3);
        assert_eq!(FromProfiles.on_abort("the disk is full"), None);
    }
}
