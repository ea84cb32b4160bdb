#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::sync::OnceLock;

use bpi_policies::{AUDIT_ARCH_X86_64, Call, Class, Schedule, syscalls};
use libseccomp::ScmpArch;
use oci_spec::runtime::LinuxSeccomp;
use proptest::prelude::*;

use super::*;

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_NOTIFY: u32 = 0x7fc0_0000;
const RET_EPERM: u32 = 0x0005_0001;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;

/// Each embedded profile under either schedule, one without a network, and two that change the class of every call.
fn policies() -> &'static [(Policy, Vec<u8>)] {
    static COMPILED: OnceLock<Vec<(Policy, Vec<u8>)>> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let names: Vec<_> = syscalls::table().iter().map(|row| row.name).collect();
        let mut texts = vec!["extends = \"strict\"\nnetwork = \"none\"".to_owned()];
        for base in Policy::embedded_names() {
            texts.extend(["host", "turns"].map(|schedule| format!("extends = {base:?}\nschedule = {schedule:?}")));
        }
        for list in ["allow", "virtual"] {
            texts.push(format!("extends = \"standard\"\n[syscalls]\n{list} = {names:?}"));
        }
        let policies = texts.iter().map(|text| Policy::parse("site", text).unwrap());
        policies.map(|policy| (policy.clone(), compile(&policy).unwrap())).collect()
    })
}

fn call(name: &str, args: [u64; 6]) -> Call {
    Call { arch: AUDIT_ARCH_X86_64, nr: i32::try_from(syscalls::named(name).unwrap().nr).unwrap(), args }
}

/// What the policy says must come out of the filter: allowed calls pass, everything else reaches the supervisor.
fn agree(policy: &Policy, program: &[u8], call: &Call) -> Result<(), TestCaseError> {
    let wanted = if policy.decide(call) == Class::Allow { RET_ALLOW } else { RET_NOTIFY };
    prop_assert_eq!(interpreter::run(program, call), wanted, "{:?} under {}", call, policy.name());
    Ok(())
}

#[test]
fn a_filter_fits_into_the_kernel_with_room_for_a_tenants() {
    for (policy, program) in policies() {
        let instructions = program.len() / INSTRUCTION_BYTES;
        assert!(instructions < INSTRUCTIONS_MAX / 2, "{}: {instructions}", policy.name());
    }
}

/// Numbers are few: each is tried with the values its conditions name, their neighbours, and garbage in the high half.
#[test]
fn the_filter_and_the_policy_agree_on_every_number_around_every_named_value() {
    for (policy, program) in policies() {
        for nr in (0..600).chain([-1, i32::MAX, i32::MIN, 0x4000_0000, 0x4000_0201]) {
            for arch in [AUDIT_ARCH_X86_64, AUDIT_ARCH_I386, 0] {
                agree(policy, program, &Call { arch, nr, args: [0; 6] }).unwrap();
                agree(policy, program, &Call { arch, nr, args: [u64::MAX; 6] }).unwrap();
            }
        }
        for rule in policy.rules() {
            for (arg, value) in rule.clauses.iter().flat_map(|(_, clause)| clause.values()) {
                for bit in 0..64 {
                    for value in [value, value ^ (1 << bit), value.wrapping_add(bit), value.wrapping_sub(bit)] {
                        let mut args = [1, 1, 0, 0, 0, 0];
                        args[usize::from(arg)] = value;
                        agree(policy, program, &call(rule.name, args)).unwrap();
                    }
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn the_filter_and_the_policy_agree_on_any_call(nr in prop_oneof![0_i32..480, any::<i32>()], args: [u64; 6], small in 0_u64..80) {
        for (policy, program) in policies() {
            for args in [args, [small; 6], [small, args[1] & 0xf, args[2] & 0xff, 0, 0, 0], [2, small, 6, 0, 0, 0]] {
                agree(policy, program, &Call { arch: AUDIT_ARCH_X86_64, nr, args })?;
            }
        }
    }

    #[test]
    fn a_foreign_entry_never_passes(nr: i32, arch: u32, args: [u64; 6]) {
        prop_assume!(arch != AUDIT_ARCH_X86_64);
        for (_, program) in policies() {
            prop_assert_eq!(interpreter::run(program, &Call { arch, nr, args }), RET_NOTIFY);
        }
    }
}

/// The kernel asks its bitmap instead of the filter only for numbers that pass without a look at an argument.
#[test]
fn an_unconditional_call_passes_whatever_its_arguments() {
    let pure = ["close", "brk", "munmap", "rt_sigprocmask", "dup2", "pipe2", "getpid", "execve", "epoll_ctl"];
    let ordered = ["read", "write", "futex", "mmap", "clock_gettime", "getrandom", "sendmsg", "exit_group", "madvise"];
    for (policy, program) in &policies()[1..=2 * Policy::embedded_names().count()] {
        let free = pure.iter().chain(ordered.iter().filter(|_| policy.profile().schedule == Schedule::Host));
        for name in free {
            assert_eq!(interpreter::run(program, &call(name, [u64::MAX; 6])), RET_ALLOW, "{name}");
        }
    }
}

/// What the engine orders must reach it: one call that passed by would run when the kernel likes.
#[test]
fn under_turns_what_the_engine_orders_never_passes() {
    let policy = Policy::parse("site", "extends = \"strict\"\nschedule = \"turns\"").unwrap();
    let program = compile(&policy).unwrap();
    for rule in policy.rules().filter(|rule| rule.class != Class::Allow && rule.clauses.is_empty()) {
        for args in [[0; 6], [1; 6], [u64::MAX; 6]] {
            assert_eq!(interpreter::run(&program, &call(rule.name, args)), RET_NOTIFY, "{}", rule.name);
        }
    }
}

/// libseccomp knows the kernel's table as well: what it names and the policies do not would be refused as unknown.
#[test]
fn every_call_that_libseccomp_knows_has_a_row_of_its_name() {
    let mut known = 0;
    for nr in 0..1024 {
        let Ok(name) = ScmpSyscall::from_raw_syscall(nr).get_name_by_arch(ScmpArch::X8664) else { continue };
        assert_eq!(syscalls::named(&name).map(|row| row.nr), u32::try_from(nr).ok(), "{name}");
        known += 1;
    }
    assert!(known > 350, "{known}");
}

#[test]
fn a_cached_filter_is_the_compiled_one() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, program) = &policies()[0];
    let file = cached(policy, &dir.path().join("filters")).unwrap();
    assert_eq!(&std::fs::read(&file).unwrap(), program);
    assert_eq!(cached(policy, &dir.path().join("filters")).unwrap(), file);
}

#[test]
fn a_cached_filter_that_lost_its_content_is_compiled_again() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("filters");
    let (policy, program) = &policies()[0];
    let file = cached(policy, &cache).unwrap();
    std::fs::write(&file, b"").unwrap();
    assert_eq!(&std::fs::read(cached(policy, &cache).unwrap()).unwrap(), program);
}

#[test]
fn a_cache_that_others_can_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(cached(&policies()[0].0, dir.path()), Err(FilterError::CacheExposed { mode: 0o777, .. })));
}

fn tenant(json: &str) -> Result<Vec<u8>, FilterError> {
    compile_tenant(&serde_json::from_str::<LinuxSeccomp>(json).unwrap())
}

#[test]
fn a_tenants_allow_list_refuses_the_rest() {
    let program = tenant(
        r#"{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": [
            {"names": ["read", "fchmodat2", "arm_fadvise64_64"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}"#,
    )
    .unwrap();
    let answer = |name, args| interpreter::run(&program, &call(name, args));
    assert_eq!(answer("read", [0; 6]), RET_ALLOW);
    assert_eq!(answer("fchmodat2", [0; 6]), RET_ALLOW);
    assert_eq!(answer("write", [0; 6]), RET_EPERM);
    assert_eq!(answer("clone3", [0; 6]), 0x0005_0026);
    assert_eq!(answer("clone", [0x11, 0, 0, 0, 0, 0]), RET_ALLOW);
    assert_eq!(answer("clone", [0x1000_0011, 0, 0, 0, 0, 0]), RET_EPERM);
}

#[test]
fn several_conditions_on_one_argument_are_alternatives() {
    let program = tenant(
        r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]}]}"#,
    )
    .unwrap();
    for (value, wanted) in [(0, RET_ALLOW), (8, RET_ALLOW), (4, RET_EPERM)] {
        assert_eq!(interpreter::run(&program, &call("personality", [value, 0, 0, 0, 0, 0])), wanted);
    }
}

#[test]
fn a_tenants_own_listener_is_refused() {
    let error = tenant(r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#).unwrap_err();
    assert!(error.to_string().contains("only listener"), "{error}");
}

#[test]
fn an_unknown_name_that_a_tenant_wants_refused_is_an_error() {
    let json =
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["frobnicate"], "action": "SCMP_ACT_ERRNO"}]}"#;
    let error = tenant(json).unwrap_err();
    assert!(error.to_string().contains("\"frobnicate\""), "{error}");
}
