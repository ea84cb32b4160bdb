//! The cage holds: each denied class, tried by init and by an exec'd process, and counted in the receipt.

use bpi_tests::daemon::Version;
use bpi_tests::world::World;
use bpi_tests::{Failure, Outcome, done, ensure};

use crate::detached::ENTERABLE;

pub const TESTS: &[(&str, crate::Test)] = &[
    ("each_denied_class_is_refused_to_init_and_counted", init),
    ("each_denied_class_is_refused_to_an_execd_process_and_counted", exec),
    ("init_and_exec_have_a_filter_no_new_privileges_and_fixed_addresses", status),
    ("the_host_name_and_the_umask_are_fixed", fixed_names),
];

/// Deed of `probe`, and the system call by which the receipt counts its denial; empty where a file system or a capability denies it.
const DENIED: &[(&str, &str)] = &[
    ("mount", "mount"),
    ("umount", "umount2"),
    ("pivot-root", "pivot_root"),
    ("fsopen", "fsopen"),
    ("open-tree", "open_tree"),
    ("ptrace", "ptrace"),
    ("process-vm", "process_vm_readv"),
    ("io-uring", "io_uring_setup"),
    ("user-namespace", "unshare"),
    ("mount-namespace", "unshare"),
    ("clone-user-namespace", "clone"),
    ("clone3", "clone3"),
    ("setns", "setns"),
    ("raw-socket", "socket"),
    ("packet-socket", "socket"),
    ("vsock", "socket"),
    ("alg-socket", "socket"),
    ("audit-socket", "socket"),
    ("add-key", "add_key"),
    ("request-key", "request_key"),
    ("keyctl", "keyctl"),
    ("bpf", "bpf"),
    ("perf", "perf_event_open"),
    ("userfaultfd", "userfaultfd"),
    ("block-device", ""),
    ("open-by-handle", "open_by_handle_at"),
    ("kexec", "kexec_load"),
    ("module", "init_module"),
    ("kernel-log", "syslog"),
    ("io-ports", "iopl"),
    ("swap", "swapon"),
    ("reboot", "reboot"),
    ("set-clock", ""),
    ("hostname", "sethostname"),
    ("fake-input", "ioctl"),
    ("personality", "personality"),
    ("unknown-call", "unknown"),
    ("foreign-abi", ""),
    ("x32-abi", ""),
    ("write-sysctl", ""),
    ("write-sysrq", ""),
    ("write-sys", ""),
    ("write-cgroup", ""),
    ("read-kcore", ""),
    ("setuid-program", ""),
];

/// The command that tries them all.
pub fn argv() -> Vec<&'static str> {
    std::iter::once("probe").chain(DENIED.iter().map(|(deed, _)| *deed)).collect()
}

/// Lines of `probe` that say that a deed was done.
fn done_deeds(output: &str) -> Vec<&str> {
    output.lines().filter(|line| !line.contains(" refused ")).collect()
}

/// Lines about the deeds of the table; the set-user-ID program adds one of its own.
fn answers(output: &str) -> usize {
    output.lines().filter(|line| DENIED.iter().any(|(deed, _)| line.starts_with(&format!("{deed} ")))).count()
}

/// Passes when `output` says of every deed that it was refused.
pub fn expect_refusals(output: &str) -> Result<(), Failure> {
    let done = done_deeds(output);
    ensure(done.is_empty(), format!("the cage let these through: {done:?}"))?;
    let answered = answers(output);
    ensure(answered == DENIED.len(), format!("probe answered {answered} of {}: {output}", DENIED.len()))
}

/// Passes when the receipt counts every denial.
pub fn expect_counts(receipt: &bpi_tests::records::Record) -> Result<(), Failure> {
    let expected = |name: &str| DENIED.iter().filter(|(_, syscall)| *syscall == name).count() as u64;
    let wrong: Vec<String> = DENIED
        .iter()
        .filter(|(_, syscall)| !syscall.is_empty() && receipt.denied(syscall) < expected(syscall))
        .map(|(deed, syscall)| {
            format!("{deed}: {syscall} denied {} times of {}", receipt.denied(syscall), expected(syscall))
        })
        .collect();
    ensure(wrong.is_empty(), format!("the receipt miscounts {wrong:?}; it has {}", receipt.predicate["run"]["denied"]))
}

fn init(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("cage")?;
    let finished = namespace.run("init", &[], &argv())?;
    expect_refusals(&finished.text())?;
    finished.expect_code(1)?;
    expect_counts(&namespace.receipt("init")?)?;
    done()
}

fn exec(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("cagex")?;
    namespace.start("entered", ENTERABLE, &["sleep", "1000"])?;
    let mut words = vec!["tasks", "exec", "--exec-id", "probe", "entered"];
    words.extend(argv());
    let finished = namespace.ctr(&words)?;
    expect_refusals(&finished.text())?;
    finished.expect_code(1)?;
    namespace.ctr(&["tasks", "kill", "--signal", "SIGKILL", "entered"])?.ok()?;
    namespace.reaches("entered", "STOPPED")?;
    expect_counts(&namespace.receipt("entered")?)?;
    namespace.remove("entered")?;
    namespace.leaves_nothing()?;
    done()
}

fn status(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("status")?;
    namespace.start("status", ENTERABLE, &["sleep", "1000"])?;
    // Init is looked at from outside: its own Landlock domain hides it from a process that entered.
    let pid = namespace.pid("status")?;
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let of_init = format!("{}{}", read("status"), read("personality"));
    let script = "cat /proc/self/status /proc/self/personality";
    let of_exec = namespace.ctr(&["tasks", "exec", "--exec-id", "status", "status", "sh", "-c", script])?.ok()?.text();
    for (who, said) in [("init", of_init), ("exec", of_exec)] {
        for fact in ["NoNewPrivs:\t1", "Seccomp:\t2", "00040000"] {
            ensure(said.contains(fact), format!("{fact:?} should hold of {who}: {said}"))?;
        }
    }
    namespace.remove("status")?;
    done()
}

fn fixed_names(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("names")?;
    let said = namespace.run("names", &[], &["sh", "-c", "uname -n; umask; echo $PATH"])?.ok()?.text();
    ensure(said.starts_with("docklock\n0022\n"), format!("host name and umask are {said}"))?;
    done()
}
