/* A program that puts filters of its own before the cage's: they may take calls away from it and never give any back. */
#include "say.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <time.h>

static int filter(unsigned number, unsigned what, unsigned flags) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, what),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {COUNT(code), code};
  return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

static long clock_call(void) {
  struct timespec t;
  return syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
}

static void in_child(const char *what, unsigned number, unsigned action) {
  printf("%s: ", what);
  fflush(stdout);
  pid_t child = NEED(fork());
  if (!child) {
    if (filter(number, action, 0)) _exit(50);
    errno = 0;
    long result = number == SYS_clock_gettime ? clock_call() : syscall((long)number, 0, 0, 0, 0, 0, 0);
    _exit(result < 0 ? errno : 0);
  }
  int status;
  NEED(waitpid(child, &status, 0));
  printf("%s %d\n", WIFSIGNALED(status) ? "signal" : "exit", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

static void own(void) {
  TRY(filter(SYS_clock_gettime, SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER));
  TRY(filter(SYS_clock_gettime, SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_TSYNC));
  in_child("allow what is answered", SYS_clock_gettime, SECCOMP_RET_ALLOW);
  in_child("allow what is refused", SYS_ptrace, SECCOMP_RET_ALLOW);
  in_child("log what is refused", SYS_bpf, SECCOMP_RET_LOG);
  in_child("trace what is answered", SYS_clock_gettime, SECCOMP_RET_TRACE | 7);
  in_child("trace what is refused", SYS_ptrace, SECCOMP_RET_TRACE | 7);
  in_child("notify nobody", SYS_clock_gettime, SECCOMP_RET_USER_NOTIF);
  in_child("notify nobody of the refused", SYS_ptrace, SECCOMP_RET_USER_NOTIF);
  in_child("an errno", SYS_clock_gettime, SECCOMP_RET_ERRNO | 77);
  in_child("a trap", SYS_clock_gettime, SECCOMP_RET_TRAP);
  in_child("kill the thread", SYS_clock_gettime, SECCOMP_RET_KILL_THREAD);
  in_child("kill the process", SYS_clock_gettime, SECCOMP_RET_KILL_PROCESS);
  in_child("no exit_group", SYS_exit_group, SECCOMP_RET_ERRNO | 1);
  /* The supervisor lets exit be: a thread that may not exit spins in libc, so only its number is tried. */
  in_child("no futex", SYS_futex, SECCOMP_RET_ERRNO | 1);
  printf("clock %ld\n", clock_call());
}

static void deep(void) {
  int many = 0;
  while (many < 200 && !filter(SYS_getpgid, SECCOMP_RET_ERRNO | 1, 0)) many++;
  printf("filters %d\n", many);
  printf("clock %ld\n", clock_call());
}

int main(int argc, char **argv) {
  static const struct part parts[] = {{"own", own}, {"deep", deep}};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  return run_parts(parts, COUNT(parts), argc, argv);
}
