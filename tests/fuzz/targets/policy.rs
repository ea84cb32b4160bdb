//! A site's own profile: whatever it says, deciding does not panic, the digest is stable, and the kernel's doors open
//! to nobody who does not name them.

#![no_main]

use bpi_policies::{AUDIT_ARCH_X86_64, Call, Class, Policy, syscalls};
use libfuzzer_sys::fuzz_target;

/// Calls that only a profile that names them may open: no condition, no other field does.
const SHUT: &[&str] =
    &["bpf", "io_uring_setup", "kexec_load", "init_module", "finit_module", "perf_event_open", "mount", "reboot"];

fuzz_target!(|text: &str| {
    let Ok(policy) = Policy::parse("fuzz", text) else { return };
    let again = Policy::parse("fuzz", text).expect("parsing is a function");
    assert_eq!(policy.digest(), again.digest());
    let changes = &policy.profile().syscalls;
    let named = |name: &str| changes.allow.contains(name) || changes.virtualise.contains(name);
    for name in SHUT.iter().copied().filter(|name| !named(name)) {
        let row = syscalls::named(name).expect("a name of the table");
        let call = Call {
            arch: AUDIT_ARCH_X86_64,
            nr: i32::try_from(row.nr).expect("numbers of the table are small"),
            args: [0; 6],
        };
        assert!(matches!(policy.decide(&call), Class::Deny(_)), "{name} was opened");
    }
    for nr in -1..600 {
        let call = Call { arch: AUDIT_ARCH_X86_64, nr, args: [u64::MAX; 6] };
        policy.decide(&call);
    }
});
