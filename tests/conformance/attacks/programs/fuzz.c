/* Random system calls with random arguments, from a seed: `fuzz SEED CALLS`. Several processes with several threads each, all bounded in number,
 * time and file size. Prints a digest of every number and result, so that two runs of one seed can be compared; where a call is merely likely to
 * end the fuzzer rather than to find something (exit, a return from no signal) it is made seldom. */
#include "say.h"
#include <pthread.h>
#include <setjmp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

enum { PROCESSES = 3, THREADS_MAX = 3, NUMBERS = 1200, PAGE = 4096, PAGES = 8, PLACE = 0x50000000, REFRESH = 12 };

/* What all of them count, where no random pointer leads. */
static struct tally {
  _Atomic long calls, answered, refused_unknown, by_number[NUMBERS];
} *tally;

struct fuzzer {
  uint64_t state, sum;
  long left;
  char *region;
  int index;
};

static uint64_t roll(struct fuzzer *f) {
  f->state ^= f->state >> 12;
  f->state ^= f->state << 25;
  f->state ^= f->state >> 27;
  return f->state * 2685821657736338717u;
}
static uint64_t below(struct fuzzer *f, uint64_t limit) { return (roll(f) >> 20) % limit; }

static const char *const paths[] = {
    "/tmp/f0", "/tmp/f1", "/tmp/d0", "/tmp", "/", ".", "..", "", "/proc/self/status", "/proc/self/fd", "/proc/self/maps", "/proc/1/stat",
    "/proc/uptime", "/proc/self/mem", "/sys/devices/system/cpu/online", "/dev/null", "/dev/urandom", "/dev/zero", "/dev/shm/s0", "/work/fuzz",
    "/proc/self/root/../proc/stat", "//proc/self/exe", "/etc/passwd", "/tmp/fifo",
};
static int files[24];

static uint64_t word(struct fuzzer *f) {
  static const uint64_t words[] = {0,    1,    2,          3,          4,       7,          8,   16,      64,          512,       1000,
                                   4096, 4095, 65536,      1000000,    1 << 20, 999999999,  ~0u, 1 << 30, 0x7fffffff,  ~0ull,     1ull << 32,
                                   -2ull, -100ull, 1ull << 47, 1ull << 63, 0x1ff,   0x80000000, 6,   0x5401,  0x8000, 0x100000};
  return below(f, 4) ? words[below(f, COUNT(words))] : roll(f) >> below(f, 64);
}

static uint64_t pointer(struct fuzzer *f) {
  uint64_t at = (uint64_t)f->region + below(f, PAGES) * PAGE;
  switch (below(f, 12)) {
    case 0: return 0;
    case 1: return (uint64_t)f->region + PAGES * PAGE - 1 - below(f, 16);
    case 2: return word(f);
    case 3: return 0xffffffff81000000u;
    case 4: return at + below(f, PAGE);
    case 5: return (uint64_t)f->region - PAGE; /* read-only */
    default: return at + below(f, 64) * 8;
  }
}

static uint64_t argument(struct fuzzer *f) {
  switch (below(f, 8)) {
    case 0: case 1: case 2: return pointer(f);
    case 3: case 4: return (uint64_t)files[below(f, COUNT(files))];
    case 5: return below(f, 10);
    default: return word(f);
  }
}

/* Fills the pages with what calls may take for names, times, vectors and sets. */
static void refresh(struct fuzzer *f) {
  mmap(f->region - PAGE, PAGE, PROT_READ, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mmap(f->region, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) return;
  uint64_t *words = (uint64_t *)f->region;
  for (int i = 0; i < PAGES * PAGE / 8; i++) words[i] = i % 5 == 0 ? pointer(f) : i % 5 == 1 ? (uint64_t)files[below(f, COUNT(files))] : word(f);
  for (int i = 0; i < 24; i++) strcpy(f->region + below(f, PAGES) * PAGE + below(f, 60) * 64, paths[below(f, COUNT(paths))]);
  memset(f->region + 6 * PAGE, 'a', PAGE);
  struct itimerval often = {{0, 20000}, {0, 20000}};
  setitimer(ITIMER_REAL, &often, 0);
  sigset_t none;
  sigemptyset(&none);
  pthread_sigmask(SIG_SETMASK, &none, 0);
}

static long number_of(struct fuzzer *f) {
  switch (below(f, 40)) {
    case 0: return (long)below(f, NUMBERS);
    case 1: return (long)word(f);
    case 2: return (long)(below(f, 600) | 0x40000000);
    default: return (long)below(f, 472);
  }
}

static int seldom(struct fuzzer *f, long number) {
  switch ((int)number) {
    /* uretprobe and uprobe pass by every filter and answer strangers with SIGILL. */
    case 335: case 336: return 1;
    case SYS_exit: case SYS_exit_group: case SYS_rt_sigreturn: case SYS_sync: case SYS_syncfs: case SYS_vfork: case SYS_execve: case SYS_execveat:
      return below(f, 40) != 0;
    case SYS_fork: case SYS_clone: case SYS_munmap: case SYS_brk: case SYS_close_range: case SYS_chroot: case SYS_mremap: case SYS_setuid:
    case SYS_setresuid: case SYS_setreuid: case SYS_rt_sigaction: case SYS_mprotect: case SYS_seccomp: case SYS_prctl:
      return below(f, 4) != 0;
    default: return 0;
  }
}

/* Arguments that keep the fuzzer alive, or lead somewhere. */
static void bend(struct fuzzer *f, long number, uint64_t *args) {
  static const int numbers[] = {0, SIGUSR1, SIGUSR2, SIGALRM, SIGCHLD, SIGCONT, SIGSTOP, SIGKILL, SIGTERM, 34, 64, 65};
  int signal_number = below(f, 6) ? (int)below(f, 3) ? SIGUSR1 : 0 : numbers[below(f, COUNT(numbers))];
  uint64_t who = below(f, 8) ? (uint64_t)getpid() : below(f, 8) ? below(f, 14) : -(uint64_t)below(f, 3);
  switch ((int)number) {
    case SYS_kill: case SYS_tkill: case SYS_rt_sigqueueinfo: args[0] = who; args[1] = (uint64_t)signal_number; break;
    case SYS_tgkill: case SYS_rt_tgsigqueueinfo: args[0] = who; args[1] = who; args[2] = (uint64_t)signal_number; break;
    case SYS_clone: args[0] = below(f, 3) ? SIGCHLD : (args[0] & ~0x100ul) | SIGCHLD; args[1] = 0; break;
    case SYS_mmap: if (below(f, 4)) { args[0] = 0; args[1] = PAGE << below(f, 4); args[2] &= 7; } break;
    case SYS_nanosleep: case SYS_poll: case SYS_futex: if (below(f, 2)) args[1] &= 15; break;
    case SYS_fcntl: args[1] = below(f, 2) ? below(f, 40) : 1024 + below(f, 20); break;
    case SYS_ioctl: if (below(f, 2)) args[1] = 0x5400 + below(f, 0x70); break;
    case SYS_socket: args[0] = below(f, 18); args[1] = below(f, 8); args[2] = below(f, 3); break;
    default: break;
  }
}

static long enter(int by_int80, long number, const uint64_t *args) {
  long result;
  if (by_int80) {
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"((unsigned)args[0]), "c"((unsigned)args[1]), "d"((unsigned)args[2]), "S"(0), "D"(0)
                     : "memory", "r8", "r9", "r10", "r11");
    return result;
  }
  register uint64_t r10 __asm__("r10") = args[3], r8 __asm__("r8") = args[4], r9 __asm__("r9") = args[5];
  __asm__ volatile("syscall\n\ttest %%rax, %%rax\n\tjnz 1f\n\tcmp $56, %1\n\tjl 1f\n\tcmp $58, %1\n\tjg 1f\n\tmov $231, %%eax\n\tmov $9, %%edi\n\tsyscall\n1:"
                   : "=&a"(result) : "r"((uint64_t)number), "D"(args[0]), "S"(args[1]), "d"(args[2]), "r"(r10), "r"(r8), "r"(r9), "0"(number)
                   : "rcx", "r11", "memory");
  return result;
}

static __thread sigjmp_buf back;
static __thread volatile int inside;
static void on_signal(int number) {
  if ((number == SIGSEGV || number == SIGBUS) && inside) siglongjmp(back, 1);
  if (number == SIGSEGV || number == SIGBUS || number == SIGILL) _exit(60);
}

static void *fuzz(void *argument_) {
  struct fuzzer *f = argument_;
  refresh(f);
  while (f->left-- > 0) {
    inside = 1;
    if (sigsetjmp(back, 1)) f->sum = digest(f->sum, "fault", 5);
    else if (f->left % REFRESH == 0) refresh(f);
    inside = 0;
    long number = number_of(f);
    uint64_t args[6];
    for (int i = 0; i < 6; i++) args[i] = argument(f);
    if (seldom(f, number)) continue;
    bend(f, number, args);
    int by_int80 = below(f, 60) == 0;
    tally->calls++;
    if (number >= 0 && number < NUMBERS && !by_int80) tally->by_number[number]++;
    long result = enter(by_int80, number, args);
    /* The kernel looks at 32 bits of a number. */
    if (result != -ENOSYS && (unsigned)number >= 472 && !by_int80) tally->refused_unknown++;
    if (result >= 0) tally->answered++;
    f->sum = digest(f->sum, &number, sizeof number);
    f->sum = digest(f->sum, &result, sizeof result);
  }
  return 0;
}

static void prepare_files(void) {
  int at = 0, ends[2];
  files[at++] = open("/tmp/f0", O_CREAT | O_RDWR, 0600);
  files[at++] = open("/tmp", O_RDONLY | O_DIRECTORY);
  files[at++] = open("/dev/null", O_RDWR);
  files[at++] = open("/dev/zero", O_RDONLY);
  files[at++] = open("/proc/self/status", O_RDONLY);
  files[at++] = open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
  files[at++] = open("/dev/urandom", O_RDONLY);
  files[at++] = eventfd(0, 0);
  files[at++] = epoll_create1(0);
  files[at++] = memfd_create("m", 0);
  if (!pipe(ends)) files[at++] = ends[0], files[at++] = ends[1];
  if (!pipe2(ends, O_NONBLOCK)) files[at++] = ends[0], files[at++] = ends[1];
  if (!socketpair(AF_UNIX, SOCK_STREAM, 0, ends)) files[at++] = ends[0], files[at++] = ends[1];
  if (!socketpair(AF_UNIX, SOCK_DGRAM, 0, ends)) files[at++] = ends[0], files[at++] = ends[1];
  files[at++] = socket(AF_INET, SOCK_STREAM, 0);
  files[at++] = AT_FDCWD;
  files[at++] = -1;
  files[at++] = 999;
  while (at < (int)COUNT(files)) files[at] = at, at++;
}

static void in_process(uint64_t seed, int index, long calls) {
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_NODEFER};
  static char stack[1 << 16];
  sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, 0);
  static const int handled[] = {SIGALRM, SIGUSR1, SIGUSR2, SIGSEGV, SIGBUS, SIGILL, SIGTERM, SIGHUP, SIGXFSZ, SIGPIPE, SIGIO, SIGSYS};
  for (size_t i = 0; i < COUNT(handled); i++) sigaction(handled[i], &action, 0);
  prepare_files();
  struct fuzzer all[THREADS_MAX + 1];
  int threads = (int)(seed % (THREADS_MAX + 1));
  pthread_t thread[THREADS_MAX];
  for (int i = 0; i <= threads; i++) {
    all[i] = (struct fuzzer){seed * 0x9e3779b97f4a7c15u + (uint64_t)(index * 97 + i * 13 + 1), DIGEST_START, calls,
                             (char *)(PLACE + (uint64_t)i * 0x1000000), index};
    roll(&all[i]);
    if (i) pthread_create(&thread[i - 1], 0, fuzz, &all[i]);
  }
  fuzz(&all[0]);
  uint64_t sum = DIGEST_START;
  for (int i = 0; i <= threads; i++) {
    if (i) pthread_join(thread[i - 1], 0);
    sum = digest(sum, &all[i].sum, sizeof sum);
  }
  dprintf(1, "process %d: %016lx\n", index, sum);
  _exit(0);
}

int main(int argc, char **argv) {
  if (argc < 3) return 7;
  uint64_t seed = strtoull(argv[1], 0, 0);
  long calls = strtol(argv[2], 0, 0);
  tally = NEED(mmap(0, sizeof *tally, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  NEED(setrlimit(RLIMIT_FSIZE, &(struct rlimit){1 << 20, 1 << 20}));
  NEED(setrlimit(RLIMIT_NPROC, &(struct rlimit){200, 200}));
  pid_t children[PROCESSES];
  for (int i = 0; i < PROCESSES; i++)
    if (!(children[i] = NEED(fork()))) in_process(seed + (uint64_t)i, i, calls);
  for (int patience = 0; patience < 400; patience++) {
    int status;
    pid_t ended = waitpid(-1, &status, WNOHANG);
    if (ended < 0) break;
    if (ended > 0) {
      for (int i = 0; i < PROCESSES; i++)
        if (children[i] == ended) printf("process %d ended: %x\n", i, status);
    } else nanosleep(&(struct timespec){0, 100000000}, 0);
    if (patience > 200) kill(-1, SIGKILL);
  }
  int kinds = 0;
  for (int i = 0; i < NUMBERS; i++) kinds += tally->by_number[i] > 0;
  printf("calls %ld kinds %d answered %ld unknown but not ENOSYS %ld\n", tally->calls, kinds, tally->answered, tally->refused_unknown);
  return 0;
}
