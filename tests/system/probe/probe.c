/* probe DEED: tries one thing that a cage must not allow, and says how it went.
 *
 * Prints "DEED refused ERRNO" and ends with 1, or "DEED done" and ends with 0: for every deed of the first table, 0 is the bad news.
 * Static, so that it needs nothing of the image; raw system calls, so that no library falls back to another call. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/keyctl.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static long mount_tmpfs(void) { return syscall(SYS_mount, "none", "/tmp", "tmpfs", 0UL, NULL); }
static long umount_proc(void) { return syscall(SYS_umount2, "/proc", 2); }
static long pivot(void) { return syscall(SYS_pivot_root, "/", "/"); }
static long new_mount_api(void) { return syscall(SYS_fsopen, "tmpfs", 0); }
static long open_tree_clone(void) { return syscall(SYS_open_tree, AT_FDCWD, "/", 1); }

static long ptrace_other(void) {
  pid_t child = fork();
  if (child == 0) {
    pause();
    _exit(0);
  }
  long answer = syscall(SYS_ptrace, PTRACE_ATTACH, child, NULL, NULL);
  int kept = errno;
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  errno = kept;
  return answer;
}

static long read_memory_of_init(void) {
  char here[8];
  struct iovec local = {here, sizeof here}, remote = {(void *)environ, sizeof here};
  return syscall(SYS_process_vm_readv, getppid() > 0 ? getppid() : 1, &local, 1UL, &remote, 1UL, 0UL);
}

static long io_uring(void) {
  char params[120] = {0};
  return syscall(SYS_io_uring_setup, 8, params);
}

static long new_user_namespace(void) { return syscall(SYS_unshare, CLONE_NEWUSER); }
static long new_mount_namespace(void) { return syscall(SYS_unshare, CLONE_NEWNS); }
static long clone_user_namespace(void) {
  long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, 0UL);
  if (pid == 0) _exit(0);
  return pid;
}
static long clone3_user_namespace(void) {
  uint64_t args[8] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD, 0, 0, 0};
  long pid = syscall(SYS_clone3, args, sizeof args);
  if (pid == 0) _exit(0);
  return pid;
}
static long join_namespace(void) {
  /* Where that file is not shown either, the call is tried all the same. */
  return syscall(SYS_setns, open("/proc/self/ns/uts", O_RDONLY), 0);
}

static long raw_socket(void) { return syscall(SYS_socket, AF_INET, SOCK_RAW, 1); }
static long packet_socket(void) { return syscall(SYS_socket, AF_PACKET, SOCK_RAW, 0); }
static long vsock_socket(void) { return syscall(SYS_socket, AF_VSOCK, SOCK_STREAM, 0); }
static long alg_socket(void) { return syscall(SYS_socket, AF_ALG, SOCK_SEQPACKET, 0); }
static long audit_socket(void) { return syscall(SYS_socket, AF_NETLINK, SOCK_RAW, NETLINK_AUDIT); }

static long add_key(void) { return syscall(SYS_add_key, "user", "probe", "x", 1UL, KEY_SPEC_SESSION_KEYRING); }
static long request_key(void) { return syscall(SYS_request_key, "user", "probe", NULL, KEY_SPEC_SESSION_KEYRING); }
static long keyctl(void) { return syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 1); }

static long bpf(void) {
  uint32_t attributes[32] = {2, 4, 4, 1};
  return syscall(SYS_bpf, 0, attributes, sizeof attributes);
}
static long perf(void) {
  struct perf_event_attr attributes = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attributes};
  return syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0UL);
}
static long userfaultfd(void) { return syscall(SYS_userfaultfd, 1); }

static long make_block_device(void) { return syscall(SYS_mknodat, AT_FDCWD, "/tmp/probe-disk", S_IFBLK | 0600, makedev(8, 0)); }
static long open_by_handle(void) { return syscall(SYS_open_by_handle_at, AT_FDCWD, "", O_RDONLY); }
static long kexec(void) { return syscall(SYS_kexec_load, 0UL, 0UL, NULL, 0UL); }
static long load_module(void) { return syscall(SYS_init_module, "", 0UL, ""); }
static long kernel_log(void) { return syscall(SYS_syslog, 3, "", 0); }
static long io_ports(void) { return syscall(SYS_iopl, 3); }
static long swap(void) { return syscall(SYS_swapon, "/tmp", 0); }
static long restart_machine(void) { return syscall(SYS_reboot, 0, 0, 0, NULL); }
static long set_clock(void) {
  long now[2] = {1, 0};
  return syscall(SYS_clock_settime, 0, now);
}
static long rename_host(void) { return syscall(SYS_sethostname, "probe", 5UL); }
static long fake_input(void) { return ioctl(0, TIOCSTI, "x"); }
static long unpin_addresses(void) { return syscall(SYS_personality, 0); }
static long unknown_call(void) { return syscall(1023); }
static long foreign_abi(void) {
  long answer;
  __asm__ volatile("int $0x80" : "=a"(answer) : "a"(20L) : "memory", "r8", "r9", "r10", "r11"); /* getpid of i386 */
  if (answer < 0) {
    errno = (int)-answer;
    return -1;
  }
  return 0;
}
static long x32_abi(void) { return syscall(0x40000000L | SYS_getpid); }

static long write_file(const char *path) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  long answer = write(fd, "1", 1);
  close(fd);
  return answer < 0 ? -1 : 0;
}
static long write_sysctl(void) { return write_file("/proc/sys/kernel/core_pattern"); }
static long write_sysrq(void) { return write_file("/proc/sysrq-trigger"); }
static long write_sys(void) { return write_file("/sys/kernel/mm/transparent_hugepage/enabled"); }
static long write_cgroup(void) {
  int made = mkdir("/sys/fs/cgroup/probe", 0755);
  return made < 0 ? mkdir("/sys/fs/cgroup/memory/probe", 0755) : made;
}
static long read_kcore(void) {
  char byte;
  int fd = open("/proc/kcore", O_RDONLY);
  if (fd < 0) return -1;
  long got = read(fd, &byte, 1);
  if (got == 0) errno = ENODATA; /* masked by an empty file */
  return got > 0 ? 0 : -1;
}

/* As nobody, run a set-user-ID root program: it must not become root. */
static long setuid_program(void) {
  pid_t child = fork();
  if (child == 0) {
    if (syscall(SYS_setgid, 65534) != 0 || syscall(SYS_setuid, 65534) != 0) _exit(2);
    execl("/bin/probe-setuid", "probe-setuid", "am-i-root", (char *)NULL);
    _exit(3);
  }
  int status = 0;
  waitpid(child, &status, 0);
  errno = EPERM;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}
static long am_i_root(void) {
  errno = EPERM;
  return geteuid() == 0 ? 0 : -1;
}

static const struct {
  const char *name;
  long (*deed)(void);
} DEEDS[] = {
    {"mount", mount_tmpfs},
    {"umount", umount_proc},
    {"pivot-root", pivot},
    {"fsopen", new_mount_api},
    {"open-tree", open_tree_clone},
    {"ptrace", ptrace_other},
    {"process-vm", read_memory_of_init},
    {"io-uring", io_uring},
    {"user-namespace", new_user_namespace},
    {"mount-namespace", new_mount_namespace},
    {"clone-user-namespace", clone_user_namespace},
    {"clone3", clone3_user_namespace},
    {"setns", join_namespace},
    {"raw-socket", raw_socket},
    {"packet-socket", packet_socket},
    {"vsock", vsock_socket},
    {"alg-socket", alg_socket},
    {"audit-socket", audit_socket},
    {"add-key", add_key},
    {"request-key", request_key},
    {"keyctl", keyctl},
    {"bpf", bpf},
    {"perf", perf},
    {"userfaultfd", userfaultfd},
    {"block-device", make_block_device},
    {"open-by-handle", open_by_handle},
    {"kexec", kexec},
    {"module", load_module},
    {"kernel-log", kernel_log},
    {"io-ports", io_ports},
    {"swap", swap},
    {"reboot", restart_machine},
    {"set-clock", set_clock},
    {"hostname", rename_host},
    {"fake-input", fake_input},
    {"personality", unpin_addresses},
    {"unknown-call", unknown_call},
    {"foreign-abi", foreign_abi},
    {"x32-abi", x32_abi},
    {"write-sysctl", write_sysctl},
    {"write-sysrq", write_sysrq},
    {"write-sys", write_sys},
    {"write-cgroup", write_cgroup},
    {"read-kcore", read_kcore},
    {"setuid-program", setuid_program},
    {"am-i-root", am_i_root},
};

static int attempt(const char *name) {
  for (size_t i = 0; i < sizeof DEEDS / sizeof *DEEDS; i++) {
    if (strcmp(DEEDS[i].name, name) != 0) continue;
    errno = 0;
    if (DEEDS[i].deed() >= 0) {
      printf("%s done\n", name);
      return 0;
    }
    printf("%s refused %d %s\n", name, errno, strerrorname_np(errno));
    return 1;
  }
  printf("%s unknown\n", name);
  return 2;
}

/* Allocates and touches memory until the kernel objects. */
static int eat_memory(void) {
  for (;;) {
    char *page = malloc(1 << 20);
    if (page == NULL) return 3;
    memset(page, 1, 1 << 20);
  }
}

/* Forks until the kernel objects; prints how many children there were. */
static int count_forks(void) {
  int children = 0;
  while (children < 4096) {
    pid_t child = fork();
    if (child < 0) break;
    if (child == 0) {
      pause();
      _exit(0);
    }
    children++;
  }
  printf("children %d\n", children);
  fflush(stdout);
  kill(0, SIGKILL);
  return 0;
}

/* Reads from a pipe whose only writer is the reader itself: nothing ever comes. */
static int wait_for_pipe(void) {
  char byte;
  int ends[2];
  if (pipe(ends) != 0) return 3;
  return read(ends[0], &byte, 1) == 1 ? 0 : 3;
}

/* Waits for a futex that nobody else can reach. */
static int wait_for_futex(void) {
  static uint32_t word;
  while (syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0) == 0) continue;
  return 3;
}

int main(int argc, char **argv) {
  int refused = 0;
  if (argc < 2) {
    fprintf(stderr, "usage: probe DEED… | memory | forks | wait-for-pipe | wait-for-futex\n");
    return 2;
  }
  if (strcmp(argv[1], "memory") == 0) return eat_memory();
  if (strcmp(argv[1], "forks") == 0) return count_forks();
  if (strcmp(argv[1], "wait-for-pipe") == 0) return wait_for_pipe();
  if (strcmp(argv[1], "wait-for-futex") == 0) return wait_for_futex();
  for (int i = 1; i < argc; i++) {
    int answer = attempt(argv[i]);
    if (argc == 2) return answer;
    refused += answer == 1;
    fflush(stdout);
  }
  return refused == argc - 1 ? 1 : 0;
}
