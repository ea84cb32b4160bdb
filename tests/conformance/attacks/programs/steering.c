/* One task that tries to read, steer or rewrite another one, its supervisor, or what the supervisor put into its own memory. */
#include "say.h"
#include <elf.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <time.h>

static void traces(void) {
  pid_t child = NEED(fork());
  if (!child)
    for (;;) pause();
  char space[64];
  struct iovec own = {space, sizeof space}, theirs = {space, sizeof space};
  TRY(ptrace(PTRACE_TRACEME, 0, 0, 0));
  TRY(ptrace(PTRACE_ATTACH, child, 0, 0));
  TRY(ptrace(PTRACE_SEIZE, child, 0, 0));
  TRY(ptrace(PTRACE_SEIZE, getppid(), 0, 0));
  TRY(syscall(SYS_process_vm_readv, child, &own, 1, &theirs, 1, 0));
  TRY(syscall(SYS_process_vm_writev, getpid(), &own, 1, &theirs, 1, 0));
  TRY(syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, child, 0), 1, 0) >= 0);
  TRY(syscall(SYS_kcmp, getpid(), child, 0, 1, 1));
  TRY(getppid());
  TRY(kill(getppid(), SIGKILL));
  kill(child, SIGKILL);
  waitpid(child, 0, 0);
}

static long clock_of(clockid_t which) {
  struct timespec t = {0};
  clock_gettime(which, &t);
  return t.tv_sec;
}

static int store(unsigned long address, const void *bytes, size_t length) {
  int memory = open("/proc/self/mem", O_RDWR);
  if (memory < 0) return -errno;
  ssize_t done = pwrite(memory, bytes, length, (off_t)address);
  int result = done < 0 ? -errno : (int)done;
  close(memory);
  return result;
}

/* Its own pages: the random bytes, and the kernel's, of which there are none: the clock of the host is behind no page of its. */
static void own_pages(void) {
  unsigned char *random = (unsigned char *)getauxval(AT_RANDOM);
  printf("random %016lx\n", digest(DIGEST_START, random, 16));
  TRY(store((unsigned long)random, "0123456789abcdef", 16));
  printf("random %016lx\n", digest(DIGEST_START, random, 16));
  printf("vdso %lx\n", getauxval(AT_SYSINFO_EHDR));
  /* Wherever kernels put their vDSO and its data when addresses are not random: what can be read there, the kernel tells write(2). */
  int ends[2];
  NEED(pipe(ends));
  int mapped = 0;
  for (unsigned long page = 0x7ffff7f00000; page < 0x7ffff7fff000; page += 4096) {
    char first[4];
    if (write(ends[1], (void *)page, 4) != 4) continue;
    NEED(read(ends[0], first, 4));
    mapped++;
    if (!memcmp(first, "\177ELF", 4)) printf("an image at %lx\n", page);
  }
  printf("pages of others: %d\n", mapped);
  printf("realtime %ld monotonic %ld\n", clock_of(CLOCK_REALTIME), clock_of(CLOCK_MONOTONIC));
}

/* The vDSO asked for again, in both forms that processes can ask for. */
static void vdso_moves(void) {
  TRY(syscall(SYS_arch_prctl, 0x2001 /* ARCH_MAP_VDSO_X32 */, 0x20000000));
  TRY(syscall(SYS_arch_prctl, 0x2003 /* ARCH_MAP_VDSO_64 */, 0x20000000));
  struct timespec t;
  TRY(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t));
  pid_t child = NEED(fork());
  if (!child) _exit(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t) ? 1 : 0);
  int status;
  NEED(waitpid(child, &status, 0));
  printf("child %x\n", status);
}

static void stack_moves(void) {
  TRY(syscall(SYS_mremap, 0x7ffffffde000, 4096, 4096, MREMAP_MAYMOVE) != 0);
  TRY(munmap((void *)0x7fffff000000, 4096));
  struct timespec t;
  TRY(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t));
}

/* Options of the own process that would take the cage's hands off it. */
static void options(void) {
  TRY(prctl(PR_SET_TSC, PR_TSC_ENABLE, 0, 0, 0));
  int tsc = 0;
  TRY(prctl(PR_GET_TSC, &tsc, 0, 0, 0));
  printf("tsc %d\n", tsc);
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  printf("rdtsc %u %u\n", low, high);
  TRY(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
  TRY(open("/proc/self/mem", O_RDWR) >= 0);
  TRY(open("/proc/self/status", O_RDONLY) >= 0);
  TRY(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
  TRY(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
  TRY(prctl(PR_SET_MM, PR_SET_MM_ARG_START, 0x1000, 0, 0));
  TRY(prctl(PR_SET_SYSCALL_USER_DISPATCH, 1, 0, 0, 0));
  TRY(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
  TRY(prctl(PR_SET_SECCOMP, 1, 0, 0, 0));
  TRY(syscall(SYS_arch_prctl, 0x1012 /* ARCH_SET_CPUID */, 0));
  TRY(syscall(SYS_arch_prctl, 0x1011 /* ARCH_GET_CPUID */, 0));
  TRY(syscall(SYS_personality, 0));
  TRY(syscall(SYS_personality, 0x0040000 | 0x0400000));
  struct timespec t;
  TRY(syscall(SYS_clock_gettime, CLOCK_REALTIME, &t));
}

int main(int argc, char **argv) {
  static const struct part parts[] = {{"traces", traces}, {"pages", own_pages}, {"options", options}, {"vdso", vdso_moves}, {"stack", stack_moves}};
  return run_parts(parts, COUNT(parts), argc, argv);
}
