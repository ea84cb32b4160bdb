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

fn service() -> Policy {
    Policy::embedded("service").unwrap()
}

/// An embedded profile where tasks take turns, whatever it says itself.
fn turns(base: &str) -> Policy {
    Policy::parse("site", &format!("extends = {base:?}\nschedule = \"turns\"")).unwrap()
}

/// What `name` becomes with these arguments where tasks take turns, and where they do not.
fn classes(name: &str, args: [u64; 6]) -> (Class, Class) {
    (turns("standard").decide(&call(name, args)), service().decide(&call(name, args)))
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
    "09a8d03325adce44fe4e861581ffcd1debc3e436787dd5e93d88008fd3479691",
    "a59e58663c5f6b112b2cf9794ef2623cab4a05870b93db1f26c9c1d4eecd92eb",
    "67b31f0204b032d829837ee2278cbf8f326d6a1b109422ba4ca44dd5ac43e4b8",
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
    let service = service();
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
    assert_eq!(classes("mknodat", [0, 0, 0o020_666, 0, 0, 0]), (denied("EPERM"), denied("EPERM")));
    assert_eq!(classes("mknodat", [0, 0, 0o010_666, 0, 0, 0]), (Class::Virtual, Class::Allow));
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

/// The calls seen in tracing busybox, dash, Python, Node, Go, Rust and Java: without turns they must not cost a round trip.
#[test]
fn without_turns_the_calls_every_program_makes_pass_whatever_their_arguments() {
    let hot = "read write openat close fstat newfstatat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn pread64 \
        readv writev access pipe2 sched_yield mremap madvise dup dup2 dup3 nanosleep getpid sendto recvfrom sendmsg recvmsg bind listen \
        connect accept4 execve exit wait4 kill uname fcntl getdents64 getcwd chdir rename mkdir unlink readlink chmod getuid getgid \
        geteuid getegid getppid gettid futex sched_getaffinity set_tid_address clock_gettime clock_nanosleep exit_group epoll_wait \
        epoll_ctl tgkill openat2 epoll_pwait epoll_create1 eventfd2 set_robust_list prlimit64 getrandom statx faccessat2 sigaltstack \
        sysinfo getrlimit poll ppoll select pselect6 gettimeofday getrusage vfork fork copy_file_range membarrier sendfile";
    for name in hot.split_whitespace() {
        let service = service();
        let rule = service.rules().find(|rule| rule.name == name).unwrap();
        assert_eq!((rule.class, rule.clauses.len()), (Class::Allow, 0), "{name}");
    }
}

/// No answer of theirs depends on the host, and none of them waits.
#[test]
fn under_turns_pure_calls_pass_whatever_their_arguments() {
    let pure = "close munmap brk rt_sigaction rt_sigprocmask rt_sigreturn pipe2 dup dup2 dup3 getpid execve getcwd \
        getuid getgid geteuid getegid gettid epoll_ctl epoll_create1 eventfd2 set_robust_list sigaltstack getrlimit vfork fork";
    for name in pure.split_whitespace() {
        for policy in Policy::embedded_names().map(turns) {
            let rule = policy.rules().find(|rule| rule.name == name).unwrap();
            assert_eq!((rule.class, rule.clauses.len()), (Class::Allow, 0), "{name}");
        }
    }
}

#[test]
fn without_turns_nothing_is_virtual() {
    let site = "extends = \"service\"\n[syscalls]\nvirtual = [\"getpid\", \"socket\"]";
    for policy in [service(), Policy::parse("site", site).unwrap()] {
        for rule in policy.rules() {
            let classes = rule.clauses.iter().map(|(class, _)| *class).chain([rule.class]);
            assert!(classes.into_iter().all(|class| class != Class::Virtual), "{}", rule.name);
        }
    }
}

#[test]
fn what_tells_one_host_from_another_is_virtual_under_turns() {
    for name in [
        "clock_gettime",
        "getrandom",
        "uname",
        "newfstatat",
        "getdents64",
        "openat",
        "read",
        "futex",
        "ppoll",
        "wait4",
        "exit_group",
        "kill",
        "nanosleep",
        "timer_settime",
        "flock",
        "semtimedop",
        "sendfile",
        "sched_yield",
        "utimensat",
        "unlink",
        "ftruncate",
        "signalfd4",
        "timerfd_create",
        "getppid",
    ] {
        assert_eq!(classes(name, [u64::MAX; 6]), (Class::Virtual, Class::Allow), "{name}");
    }
}

#[test]
fn what_the_engine_does_not_model_is_refused_under_turns_alone() {
    for name in ["mincore", "io_submit", "inotify_init1", "pkey_alloc", "fchmodat2", "futex_waitv", "openat2"] {
        assert_eq!(classes(name, [0; 6]), (denied("ENOSYS"), Class::Allow), "{name}");
    }
    assert_eq!(classes("clock_adjtime", [0; 6]), (denied("EPERM"), Class::Allow));
    assert_eq!(classes("name_to_handle_at", [0; 6]), (denied("EOPNOTSUPP"), denied("EOPNOTSUPP")));
    assert_eq!(classes("clone3", [0; 6]), (denied("ENOSYS"), denied("ENOSYS")));
}

#[test]
fn what_becomes_code_is_seen_and_what_becomes_data_is_not() {
    const PRIVATE: u64 = 2;
    const SHARED: u64 = 1;
    const ANONYMOUS: u64 = 0x20;
    let mmap = |prot, flags| classes("mmap", [0, 4096, prot, flags, 3, 0]).0;
    assert_eq!(mmap(3, PRIVATE), Class::Allow);
    assert_eq!(mmap(5, PRIVATE), Class::Virtual);
    assert_eq!(mmap(7, PRIVATE | ANONYMOUS), Class::Virtual);
    assert_eq!(mmap(3, SHARED | ANONYMOUS), Class::Allow);
    assert_eq!(mmap(3, SHARED), Class::Virtual);
    // A reader's mapping may be made writable later.
    assert_eq!(mmap(1, SHARED), Class::Virtual);
    assert_eq!(classes("mprotect", [0, 4096, 3, 0, 0, 0]), (Class::Allow, Class::Allow));
    assert_eq!(classes("mprotect", [0, 4096, 5, 0, 0, 0]), (Class::Virtual, Class::Allow));
    assert_eq!(classes("shmat", [0, 0, 0x8000, 0, 0, 0]), (denied("EACCES"), Class::Allow));
}

#[test]
fn where_a_large_area_goes_is_asked() {
    const LARGE: u64 = 2 << 20;
    let mmap = |length, flags| classes("mmap", [0, length, 3, flags, 3, 0]);
    let mremap = |length, flags| classes("mremap", [4096, 4096, length, flags, 0, 0]);
    for kind in [0x2, 0x22, 0x21] {
        assert_eq!(mmap(LARGE - 1, kind), (Class::Allow, Class::Allow));
        for length in [LARGE, LARGE + 1, 1 << 40, u64::MAX] {
            assert_eq!(mmap(length, kind), (Class::Virtual, Class::Allow));
            for fixed in [0x10, 0x10_0000, 0x10_0010] {
                assert_eq!(mmap(length, kind | fixed), (Class::Allow, Class::Allow));
            }
        }
    }
    assert_eq!(mremap(LARGE, 1), (Class::Virtual, Class::Allow));
    for (length, flags) in [(LARGE - 1, 1), (LARGE, 0), (LARGE, 2), (LARGE, 3)] {
        assert_eq!(mremap(length, flags), (Class::Allow, Class::Allow));
    }
}

#[test]
fn a_lock_that_waits_is_seen_and_one_that_does_not_is_not() {
    for (command, class) in [
        (3, Class::Allow),
        (6, Class::Allow),
        (7, Class::Virtual),
        (37, Class::Allow),
        (38, Class::Virtual),
        (1024, denied("EINVAL")),
        (1030, Class::Allow),
        (9999, Class::Virtual),
    ] {
        assert_eq!(classes("fcntl", [3, command, 0, 0, 0, 0]), (class, Class::Allow), "{command}");
    }
}

#[test]
fn no_task_leaves_the_tracers_sight() {
    for flag in [0x2000, 0x80_0000] {
        assert_eq!(classes("clone", [0x003d_0f00 | flag, 0, 0, 0, 0, 0]), (denied("EPERM"), denied("EPERM")));
    }
}

#[test]
fn real_times_do_not_come_through_a_side_door() {
    let refusals = [
        ("ioctl", [3, 0x8906, 0, 0, 0, 0], "ENOTTY"),
        ("setsockopt", [3, 1, 29, 0, 4, 0], "ENOPROTOOPT"),
        ("getsockopt", [3, 6, 11, 0, 0, 0], "ENOPROTOOPT"),
        ("madvise", [0, 4096, 8, 0, 0, 0], "EINVAL"),
        ("lseek", [3, 0, 4, 0, 0, 0], "EINVAL"),
        ("preadv2", [3, 0, 0, 0, 0, 8], "EOPNOTSUPP"),
        ("copy_file_range", [3, 0, 4, 0, 4096, 0], "ENOSYS"),
        ("fallocate", [3, 8, 0, 4096, 0, 0], "EOPNOTSUPP"),
        ("arch_prctl", [0x1011, 0, 0, 0, 0, 0], "EINVAL"),
        ("prctl", [52, 0, 0, 0, 0, 0], "EINVAL"),
        ("shmctl", [0, 2, 0, 0, 0, 0], "EINVAL"),
    ];
    for (name, args, errno) in refusals {
        assert_eq!(classes(name, args), (denied(errno), Class::Allow), "{name}");
    }
    assert_eq!(classes("prlimit64", [0, 0, 0x1000, 0, 0, 0]), (Class::Virtual, Class::Allow));
    assert_eq!(classes("prlimit64", [0, 11, 0x1000, 0, 0, 0]), (Class::Virtual, Class::Allow));
    assert_eq!(classes("prlimit64", [0, 7, 0x1000, 0, 0, 0]), (Class::Allow, Class::Allow));
    assert_eq!(classes("prlimit64", [0, 0, 0, 0x1000, 0, 0]), (Class::Allow, Class::Allow));
}

#[test]
fn a_profile_cannot_open_what_a_condition_refuses() {
    let site = "extends = \"standard\"\nschedule = \"turns\"\n[syscalls]\nallow = [\"clone\", \"setsockopt\", \"fcntl\"]\nvirtual = [\"socket\"]";
    let site = Policy::parse("site", site).unwrap();
    assert_eq!(site.decide(&call("clone", [0x2_0000, 0, 0, 0, 0, 0])), denied("EPERM"));
    assert_eq!(site.decide(&call("setsockopt", [3, 1, 29, 0, 0, 0])), denied("ENOPROTOOPT"));
    assert_eq!(site.decide(&call("fcntl", [3, 3, 0, 0, 0, 0])), Class::Allow);
    assert_eq!(site.decide(&call("socket", [1, 1, 0, 0, 0, 0])), Class::Virtual);
    assert_eq!(site.decide(&call("socket", [17, 3, 768, 0, 0, 0])), denied("EPERM"));
}

/// docs/profiles.md shows what a site may write.
#[test]
fn the_documented_profile_can_be_read() {
    let page = include_str!("../../../docs/profiles.md");
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let policy = Policy::parse("site", example).unwrap();
    let profile = policy.profile();
    assert_eq!(
        (profile.schedule, profile.epoch, profile.budget.tasks_max),
        (Schedule::Turns, 1_767_225_600, Some(256))
    );
    assert_eq!(policy.decide(&call("getpriority", [0; 6])), Class::Virtual);
}

#[test]
fn how_the_embedded_profiles_schedule_and_end_is_known() {
    let schedules = Policy::embedded_names().map(|name| Policy::embedded(name).unwrap().profile().schedule);
    assert_eq!(schedules.collect::<Vec<_>>(), [Schedule::Turns, Schedule::Host, Schedule::Host]);
    let ends = |name: &str| {
        let policy = Policy::embedded(name).unwrap();
        (policy.profile().on_deadlock, policy.profile().on_spin)
    };
    assert_eq!((ends("strict"), ends("standard")), ((Outcome::End, Spin::End), (Outcome::Wait, Spin::Preempt)));
}

#[test]
fn a_number_of_the_schedule_outside_its_range_is_refused() {
    for (line, field) in [
        ("epoch = 253402300800", "epoch"),
        ("quantum = 0", "quantum"),
        ("schedule = \"turns\"\n[budget]\ncalls_max = 0", "budget"),
        ("schedule = \"host\"\n[budget]\ntasks_max = 9", "budget"),
    ] {
        let error = Policy::parse("site", &format!("extends = \"strict\"\n{line}")).unwrap_err();
        assert!(matches!(error, PolicyError::Value { field: named, .. } if named == field), "{error}");
    }
}

proptest! {
    #[test]
    fn the_allow_terms_of_a_rule_hold_exactly_when_it_allows(nr in 0_i32..470, seed: [u64; 6], small in 0_u64..70, changed in changed()) {
        for policy in Policy::embedded_names().flat_map(|name| [Policy::embedded(name).unwrap(), turns(name)]).chain([changed]) {
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

/// Any departure from the table, on any embedded profile under either schedule.
fn changed() -> impl Strategy<Value = Policy> {
    let names: Vec<&str> = syscalls::table().iter().map(|row| row.name).collect();
    let lists = proptest::collection::btree_map(proptest::sample::select(names), 0_u8..3, 0..40);
    let schedule = proptest::sample::select(vec!["host", "turns"]);
    (proptest::sample::select(EMBEDDED.map(|(name, _)| name).to_vec()), schedule, lists).prop_map(
        |(base, schedule, lists)| {
            let list = |kind| lists.iter().filter(|(_, of)| **of == kind).map(|(name, _)| *name).collect::<Vec<_>>();
            let deny: Vec<_> = list(2).iter().map(|name| format!("{name} = \"EPERM\"")).collect();
            let syscalls = format!(
                "[syscalls]\nallow = {:?}\nvirtual = {:?}\n[syscalls.deny]\n{}",
                list(0),
                list(1),
                deny.join("\n")
            );
            Policy::parse("site", &format!("extends = {base:?}\nschedule = {schedule:?}\n{syscalls}")).unwrap()
        },
    )
}
