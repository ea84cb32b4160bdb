/* What no cage can control and so none gives: each call's errno. */
#include "check.h"
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#define TRY(call) (errno = 0, (call), printf("%s: %s\n", #call, errno ? strerrorname_np(errno) : "done"))

int main(void) {
  char block[512] = {0};
  TRY(syscall(SYS_io_uring_setup, 4, block));
  TRY(syscall(SYS_perf_event_open, block, 0, -1, -1, 0));
  TRY(syscall(SYS_bpf, BPF_MAP_CREATE, block, sizeof block));
  TRY(syscall(SYS_userfaultfd, 0));
  TRY(syscall(SYS_keyctl, 0, 0, 0, 0, 0));
  TRY(syscall(SYS_add_key, "user", "name", "x", 1, -2));
  TRY(syscall(SYS_kexec_load, 0, 0, 0, 0));
  TRY(syscall(SYS_init_module, 0, 0, ""));
  TRY(syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, ""));
  TRY(syscall(SYS_settimeofday, block, 0));
  TRY(syscall(SYS_rseq, block, 32, 0, 0));
  TRY(syscall(SYS_open_by_handle_at, -1, block, 0));
  TRY(syscall(467, 0));
  TRY(syscall(999999, 0));
  TRY(syscall(SYS_getpid | 0x40000000));
  long result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory");
  printf("32-bit getpid: %ld\n", result);
  return 0;
}
