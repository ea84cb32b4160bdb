#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn call(name: &str, args: [u64; 6]) -> Call {
    Call { arch: AUDIT_ARCH_X86_64, nr: i32::try_from(syscalls::named(name).unwrap().nr).unwrap(), args }
}

fn denied(errno: &str) -> Class {
    Class::Deny(Errno::from_name(errno).unwrap())
}

fn standard() -> Policy {
    Policy::embedded("standard").unwrap()
}

#[test]
fn every_embedded_profile_can_be_read() {
    for (name, text) in EMBEDDED {
        Policy::parse(name, text).unwrap();
    }
}

/// A changed digest is a changed cage: every receipt made before names the old one.
#[test]
fn the_digests_of_the_embedded_profiles_are_known() {
    let digests: Vec<_> =
        Policy::embedded_names().map(|name| Policy::embedded(name).unwrap().digest().to_string()).collect();
    assert_eq!(digests, GOLDEN);
}

const GOLDEN: [&str; 3] = [
    "91651957afaec895b411624ea01a6949334bfd54f94996242bfe9195fefdcb28",
    "af03fe0d20691512ac03977ce011111382dc494ae5da398bc6cc4d61fe0502bf",
    "d3549248421a13dc5e2148f6dd6f02e2c4ac1bb2a288ca214e2bd1d28c5fa9f6",
];

#[test]
fn a_profile_that_only_renames_another_has_its_digest() {
    let copy = Policy::parse("site", "extends = \"standard\"\ndescription = \"another word\"").unwrap();
    assert_eq!(copy.digest(), standard().digest());
}

#[test]
fn one_denied_call_more_is_another_digest() {
    let site = Policy::parse("site", "extends = \"standard\"\n[syscalls.deny]\nmlock = \"EPERM\"").unwrap();
    assert_ne!(site.digest(), standard().digest());
    assert_eq!(site.decide(&call("mlock", [0; 6])), denied("EPERM"));
}

#[test]
fn a_field_that_is_not_known_is_refused() {
    let error = Policy::parse("site", "extends = \"standard\"\nexce = \"refuse\"").unwrap_err();
    assert!(error.to_string().contains("exce"), "{error}");
}

#[test]
fn a_profile_without_a_base_must_say_everything() {
    let error = Policy::parse("site", "description = \"bare\"").unwrap_err();
    assert!(error.to_string().contains("missing field"), "{error}");
}

#[test]
fn a_profile_cannot_extend_itself_or_an_unknown_one() {
    assert!(matches!(Policy::parse("strict", "extends = \"strict\""), Err(PolicyError::Base { .. })));
    assert!(matches!(Policy::parse("site", "extends = \"nowhere\""), Err(PolicyError::Base { .. })));
}

#[test]
fn a_call_that_does_not_exist_is_refused_by_name() {
    let error = Policy::parse("site", "extends = \"strict\"\n[syscalls]\nallow = [\"reed\"]").unwrap_err();
    assert!(error.to_string().contains("\"reed\""), "{error}");
}

#[test]
fn a_call_has_one_class() {
    let text = "extends = \"strict\"\n[syscalls]\nallow = [\"mlock\"]\n[syscalls.deny]\nmlock = \"EPERM\"";
    assert!(matches!(Policy::parse("site", text), Err(PolicyError::Value { .. })));
}

#[test]
fn a_path_with_dots_is_refused() {
    let text = "extends = \"strict\"\nmasked_paths = [\"/proc/../etc\"]";
    assert!(matches!(Policy::parse("site", text), Err(PolicyError::Value { .. })));
}

#[test]
fn a_text_beyond_the_limit_is_refused_unread() {
    assert!(matches!(Policy::parse("site", &"#".repeat(TEXT_BYTES_MAX + 1)), Err(PolicyError::TooLong { .. })));
}

#[test]
fn only_service_randomises_addresses_and_may_keep_that() {
    let service = Policy::embedded("service").unwrap();
    let set = call("personality", [0x40000, 0, 0, 0, 0, 0]);
    let clear = call("personality", [0; 6]);
    assert_eq!((standard().decide(&set), standard().decide(&clear)), (Class::Allow, denied("EPERM")));
    assert_eq!((service.decide(&set), service.decide(&clear)), (denied("EPERM"), Class::Allow));
    assert_eq!(service.decide(&call("personality", [0xffff_ffff, 0, 0, 0, 0, 0])), Class::Allow);
}

#[test]
fn a_process_may_be_cloned_but_no_namespace_with_it() {
    let threads = 0x003d_0f00;
    assert_eq!(standard().decide(&call("clone", [threads, 0, 0, 0, 0, 0])), Class::Allow);
    for namespace in [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000_u64] {
        assert_eq!(standard().decide(&call("clone", [threads | namespace, 0, 0, 0, 0, 0])), denied("EPERM"));
        assert_eq!(standard().decide(&call("unshare", [namespace, 0, 0, 0, 0, 0])), denied("EPERM"));
    }
    assert_eq!(standard().decide(&call("clone3", [0; 6])), denied("ENOSYS"));
}

#[test]
fn sockets_are_unix_internet_and_route_netlink() {
    let answers = [
        ([1, 1, 0], Class::Allow),
        ([2, 0x80001, 6], Class::Allow),
        ([10, 2, 17], Class::Allow),
        ([16, 0x80003, 0], Class::Allow),
        ([16, 3, 9], denied("EPROTONOSUPPORT")),
        ([2, 3, 1], denied("EPERM")),
        ([2, 1, 132], denied("EPROTONOSUPPORT")),
        ([17, 3, 768], denied("EPERM")),
        ([38, 5, 0], denied("EAFNOSUPPORT")),
        ([40, 1, 0], denied("EAFNOSUPPORT")),
    ];
    for ([family, kind, protocol], class) in answers {
        assert_eq!(
            standard().decide(&call("socket", [family, kind, protocol, 0, 0, 0])),
            class,
            "socket({family}, {kind}, {protocol})"
        );
    }
}

#[test]
fn without_a_network_there_are_no_internet_sockets() {
    let cut_off = Policy::parse("site", "extends = \"standard\"\nnetwork = \"none\"").unwrap();
    assert_eq!(cut_off.decide(&call("socket", [2, 1, 6, 0, 0, 0])), denied("EAFNOSUPPORT"));
    assert_eq!(cut_off.decide(&call("socket", [1, 1, 0, 0, 0, 0])), Class::Allow);
}

#[test]
fn garbage_above_an_int_changes_nothing() {
    let garbage = 0xdead_beef_0000_0000;
    assert_eq!(standard().decide(&call("ioctl", [0, 0x5412 | garbage, 0, 0, 0, 0])), denied("EPERM"));
    assert_eq!(standard().decide(&call("ioctl", [0, 0x5413 | garbage, 0, 0, 0, 0])), Class::Allow);
    assert_eq!(standard().decide(&call("prctl", [26 | garbage, 0, 0, 0, 0, 0])), denied("EPERM"));
}

#[test]
fn a_second_listener_is_refused_and_a_filter_is_not() {
    assert_eq!(standard().decide(&call("seccomp", [1, 8, 0, 0, 0, 0])), denied("EBUSY"));
    assert_eq!(standard().decide(&call("seccomp", [1, 0, 0, 0, 0, 0])), Class::Allow);
}

#[test]
fn devices_cannot_be_made_and_fifos_can() {
    assert_eq!(standard().decide(&call("mknodat", [0, 0, 0o020_666, 0, 0, 0])), denied("EPERM"));
    assert_eq!(standard().decide(&call("mknodat", [0, 0, 0o010_666, 0, 0, 0])), Class::Allow);
}

#[test]
fn foreign_entries_and_unknown_numbers_do_not_exist() {
    let policy = standard();
    let i386 = Call { arch: 0x4000_0003, ..call("read", [0; 6]) };
    let x32 = Call { nr: 0x4000_0000, ..call("read", [0; 6]) };
    let future = Call { nr: 9999, ..call("read", [0; 6]) };
    let negative = Call { nr: -1, ..call("read", [0; 6]) };
    assert_eq!([i386, x32, future, negative].map(|call| policy.decide(&call)), [denied("ENOSYS"); 4]);
    assert_eq!(
        [i386, x32, future, negative].map(|call| policy.name_of(&call)),
        ["foreign-abi", "foreign-abi", "unknown", "unknown"]
    );
}

/// The calls seen in tracing busybox, dash, Python, Node, Go, Rust and Java: they must not cost a round trip.
#[test]
fn the_calls_every_program_makes_are_allowed_whatever_their_arguments() {
    let hot = "read write openat close fstat newfstatat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn pread64 \
        readv writev access pipe2 sched_yield mremap madvise dup dup2 dup3 nanosleep getpid sendto recvfrom sendmsg recvmsg bind listen \
        connect accept4 execve exit wait4 kill uname fcntl getdents64 getcwd chdir rename mkdir unlink readlink chmod getuid getgid \
        geteuid getegid getppid gettid futex sched_getaffinity set_tid_address clock_gettime clock_nanosleep exit_group epoll_wait \
        epoll_ctl tgkill openat2 epoll_pwait epoll_create1 eventfd2 set_robust_list prlimit64 getrandom statx faccessat2 sigaltstack \
        sysinfo getrlimit poll ppoll select pselect6 gettimeofday getrusage vfork fork copy_file_range membarrier sendfile";
    for name in hot.split_whitespace() {
        for policy in Policy::embedded_names().filter_map(Policy::embedded) {
            let rule = policy.rules().find(|rule| rule.name == name).unwrap();
            assert_eq!((rule.class, rule.clauses.len()), (Class::Allow, 0), "{name}");
        }
    }
}

proptest! {
    #[test]
    fn the_allow_terms_of_a_rule_hold_exactly_when_it_allows(nr in 0_i32..470, seed: [u64; 6], small in 0_u64..70) {
        for policy in Policy::embedded_names().filter_map(Policy::embedded) {
            let Some(rule) = policy.rules.get(&u32::try_from(nr).unwrap()) else { continue };
            for args in [seed, [small; 6], [0, small, seed[2], 0, 0, 0]] {
                let passes = rule.allow_terms().iter().any(|term| {
                    term.iter().all(|compare| args[usize::from(compare.arg)] & compare.mask == compare.value)
                });
                let class = policy.decide(&Call { arch: AUDIT_ARCH_X86_64, nr, args });
                prop_assert_eq!(passes, class == Class::Allow);
            }
        }
    }
}
