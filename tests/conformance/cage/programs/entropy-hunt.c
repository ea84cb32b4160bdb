/* Looks for anything that tells one host, or one run, from another: every source it can think of, one line each, so that a difference names it.
 * What the processor itself tells (cpuid, xgetbv, the size of signal frames) has rows of its own. */
#include "check.h"
#include <dirent.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <mqueue.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>

static uint64_t bytes_of(const void *at, size_t length) {
  uint64_t sum = MIX_START;
  for (const unsigned char *byte = at; length--; byte++) sum = mix(sum, *byte);
  return sum;
}

/* A result, and what the call wrote. */
static void tell(const char *what, long result, const void *wrote, size_t length) {
  printf("%s %ld %s %016lx\n", what, result, result < 0 ? strerrorname_np(errno) : "-", wrote && result >= 0 ? bytes_of(wrote, length) : 0);
}
#define TELL(what, call, wrote) (memset(&wrote, 0, sizeof wrote), errno = 0, tell(what, (long)(call), &wrote, sizeof wrote))
#define VALUE(what, call) (errno = 0, tell(what, (long)(call), 0, 0))

static void of_start(char **argv, char **environ_) {
  static const int types[] = {AT_PAGESZ, AT_PHDR, AT_PHNUM, AT_BASE, AT_FLAGS, AT_ENTRY, AT_UID, AT_EUID, AT_SECURE, AT_CLKTCK, AT_RANDOM, AT_EXECFN};
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) printf("auxv %d %lx\n", types[i], getauxval(types[i]));
  tell("AT_RANDOM", 0, (void *)getauxval(AT_RANDOM), 16);
  printf("AT_EXECFN %s argv %s stack %p heap %p code %p\n", (char *)getauxval(AT_EXECFN), argv[0], (void *)&argv, sbrk(0), (void *)of_start);
  for (char **entry = environ_; *entry; entry++) printf("environment %s\n", *entry);
  void *page = mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  printf("mmap %p\n", page);
  unsigned long low, high, extra;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  printf("rdtsc %lx %lx\n", high, low);
  __asm__ volatile("rdtscp" : "=a"(low), "=d"(high), "=c"(extra));
  printf("rdtscp %lx %lx %lx\n", high, low, extra);
}

static void of_random(void) {
  char drawn[64];
  int ends[2];
  TELL("getrandom", getrandom(drawn, 64, 0), drawn);
  CHECK(symlink("/dev/urandom", "/tmp/harmless"));
  CHECK(chdir("/dev"));
  const char *names[] = {"/dev/urandom", "/dev/random", "//dev/../dev/urandom", "urandom", "/tmp/harmless", "/proc/self/root/dev/urandom"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    int fd = open(names[i], O_RDONLY);
    TELL(names[i], read(fd, drawn, 32), drawn);
    CHECK(pipe(ends));
    VALUE("splice", splice(fd, 0, ends[1], 0, 16, 0));
    int file = CHECK(open("/tmp/drawn", O_CREAT | O_RDWR | O_TRUNC, 0600));
    VALUE("sendfile", sendfile(file, fd, 0, 16));
    VALUE("entropy", ioctl(fd, 0x80045200, drawn));
    close(fd), close(file), close(ends[0]), close(ends[1]);
  }
  /* A descriptor that the next program inherits: it is not asked how it came. */
  int inherited = open("/dev/urandom", O_RDONLY);
  fflush(stdout);
  if (!CHECK(fork())) {
    dup2(inherited, 20);
    execl("/proc/self/exe", "entropy-hunt", "inherited", (char *)0);
    _exit(9);
  }
  int status;
  wait(&status);
  CHECK(chdir("/work"));
}

static void of_clocks(void) {
  struct timespec t;
  struct timeval v;
  struct tms tms;
  struct rusage r;
  char timex[256];
  for (int id = -20; id < 20; id++) {
    char name[32];
    snprintf(name, sizeof name, "clock %d", id);
    TELL(name, syscall(SYS_clock_gettime, id, &t), t);
    TELL("resolution", syscall(SYS_clock_getres, id, &t), t);
  }
  TELL("gettimeofday", gettimeofday(&v, 0), v);
  TELL("times", times(&tms), tms);
  VALUE("time", time(0));
  TELL("adjtimex", syscall(SYS_adjtimex, timex), timex);
  TELL("clock_adjtime", syscall(SYS_clock_adjtime, CLOCK_REALTIME, timex), timex);
  for (int who = -1; who < 2; who++) TELL("getrusage", getrusage(who, &r), r);
}

static void of_process(void) {
  struct rlimit limit;
  struct sigaction action;
  char set[128], name[32];
  int value;
  gid_t groups[64];
  printf("ids %d %d %d %d %d %d %d %d\n", getpid(), getppid(), getpgrp(), getsid(0), gettid(), getuid(), getgid(), (int)umask(0));
  TELL("groups", getgroups(64, groups), groups);
  for (int i = 0; i < RLIM_NLIMITS; i++) TELL("rlimit", getrlimit(i, &limit), limit);
  for (int i = 1; i < 65; i++)
    if (!sigaction(i, 0, &action) && action.sa_handler != SIG_DFL) printf("signal %d is not default\n", i);
  TELL("mask", syscall(SYS_rt_sigprocmask, 0, 0, set, 8), set);
  TELL("pending", syscall(SYS_rt_sigpending, set, 8), set);
  static const int gets[] = {PR_GET_DUMPABLE, PR_GET_KEEPCAPS, PR_GET_SECCOMP, PR_GET_SECUREBITS, PR_GET_TIMERSLACK, PR_GET_NO_NEW_PRIVS, PR_GET_THP_DISABLE,
                             PR_TASK_PERF_EVENTS_DISABLE, PR_GET_IO_FLUSHER, 66 /* mdwe */, 68 /* merge */};
  for (size_t i = 0; i < sizeof gets / sizeof *gets; i++) printf("prctl %d ", gets[i]), VALUE("", prctl(gets[i], 0, 0, 0, 0));
  TELL("tsc", prctl(PR_GET_TSC, &value), value);
  TELL("subreaper", prctl(PR_GET_CHILD_SUBREAPER, &value), value);
  TELL("death signal", prctl(PR_GET_PDEATHSIG, &value), value);
  TELL("name", prctl(PR_GET_NAME, name), name);
  VALUE("personality", personality(0xffffffff));
  VALUE("nice", getpriority(PRIO_PROCESS, 0));
  VALUE("io priority", syscall(SYS_ioprio_get, 1, 0));
  VALUE("scheduler", sched_getscheduler(0));
  struct sched_param parameter;
  TELL("parameter", sched_getparam(0, &parameter), parameter);
  TELL("affinity", syscall(SYS_sched_getaffinity, 0, 128, set), set);
  VALUE("membarrier", syscall(SYS_membarrier, 0, 0, 0));
  for (int fd = 0; fd < 64; fd++)
    if (fcntl(fd, F_GETFD) >= 0) printf("fd %d flags %x pipe %d\n", fd, fd ? fcntl(fd, F_GETFL) & ~O_APPEND : 0, fd > 2 ? fcntl(fd, F_GETPIPE_SZ) : 0);
}

static void of_host(void) {
  struct utsname uts;
  struct sysinfo info;
  TELL("uname", uname(&uts), uts);
  TELL("sysinfo", sysinfo(&info), info);
  printf("processors %ld %ld pages %ld hostid %lx\n", sysconf(_SC_NPROCESSORS_ONLN), sysconf(_SC_NPROCESSORS_CONF), sysconf(_SC_PHYS_PAGES), gethostid());
  double loads[3] = {0};
  TELL("loads", getloadavg(loads, 3), loads);
}

static void of_files(void) {
  struct stat s;
  struct statfs f;
  char statx_[256], label[256], list[512];
  const char *names[] = {"/", "/proc", "/proc/self", "/proc/self/ns/net", "/proc/self/fd/0", "/sys", "/dev", "/dev/null", "/dev/urandom", "/dev/shm", "/dev/pts",
                         "/dev/mqueue", "/tmp", "/work", "/work/tree", "/work/tree/sub", "/etc", "/bin"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    TELL(names[i], stat(names[i], &s), s);
    TELL("lstat", lstat(names[i], &s), s);
    TELL("statx", syscall(SYS_statx, AT_FDCWD, names[i], 0, 0xfffff, statx_), statx_);
    TELL("statfs", statfs(names[i], &f), f);
    TELL("xattr", listxattr(names[i], list, sizeof list), list);
    int fd = open(names[i], O_RDONLY | O_NONBLOCK);
    TELL("uuid", ioctl(fd, 0x80111500, label), label);
    TELL("sysfs", ioctl(fd, 0x80811501, label), label);
    TELL("label", ioctl(fd, 0x81009431, label), label);
    TELL("version", ioctl(fd, 0x80087601, label), label);
    TELL("pidfd or namespace", ioctl(fd, 0xb701, label), label);
    if (fd >= 0) close(fd);
  }
  int ends[2];
  CHECK(pipe(ends));
  int made[] = {ends[0], eventfd(0, 0), epoll_create1(0), memfd_create("m", 0), socket(AF_UNIX, SOCK_STREAM, 0), (int)syscall(SYS_pidfd_open, getpid(), 0)};
  for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
    char link[64], target[128] = {0};
    TELL("fstat", fstat(made[i], &s), s);
    snprintf(link, sizeof link, "/proc/self/fd/%d", made[i]);
    errno = 0;
    long length = readlink(link, target, sizeof target - 1);
    printf("link %ld %s\n", length, target);
    snprintf(link, sizeof link, "/proc/self/fdinfo/%d", made[i]);
    int fd = open(link, O_RDONLY);
    TELL("fdinfo", read(fd, list, sizeof list), list);
    if (fd >= 0) close(fd);
  }
  struct { uint64_t mask, words[32]; } pidfd_info = {.mask = ~0ull};
  errno = 0;
  long result = ioctl(made[5], 0xc040ff0b, &pidfd_info);
  tell("PIDFD_GET_INFO", result, &pidfd_info, sizeof pidfd_info);
}

/* Every file below a folder, by name, kind and content. */
static void walk(const char *folder, int depth) {
  DIR *dir = opendir(folder);
  if (!dir) return;
  struct dirent *entry;
  while ((entry = readdir(dir))) {
    if (entry->d_name[0] == '.') continue;
    char path[512], content[8192], target[256] = {0};
    struct stat s;
    snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    printf("%s ino %lu type %d off %ld ", path, entry->d_ino, entry->d_type, telldir(dir));
    if (lstat(path, &s)) {
      printf("%s\n", strerrorname_np(errno));
    } else if (S_ISLNK(s.st_mode)) {
      printf("-> %ld %s\n", readlink(path, target, sizeof target - 1), target);
    } else if (S_ISDIR(s.st_mode)) {
      printf("folder\n");
      if (depth) walk(path, depth - 1);
    } else {
      int fd = S_ISREG(s.st_mode) && !strstr(path, "/mem") && !strstr(path, "kmsg") ? open(path, O_RDONLY | O_NONBLOCK) : -1;
      long length = fd < 0 ? -1 : read(fd, content, sizeof content);
      tell("content", length, content, length > 0 ? (size_t)length : 0);
      if (fd >= 0) close(fd);
    }
  }
  closedir(dir);
}

static void of_sockets(void) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  struct sockaddr_un name;
  socklen_t length = sizeof at;
  int value;
  int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0), datagram = socket(AF_INET, SOCK_DGRAM, 0);
  static const struct { int level, name; } options[] = {{SOL_SOCKET, SO_RCVBUF}, {SOL_SOCKET, SO_SNDBUF}, {SOL_SOCKET, SO_COOKIE}, {SOL_SOCKET, SO_INCOMING_CPU},
                                                        {SOL_SOCKET, SO_MAX_PACING_RATE}, {IPPROTO_TCP, TCP_MAXSEG}, {IPPROTO_TCP, TCP_CONGESTION}, {IPPROTO_TCP, TCP_INFO}};
  for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
    char answer[256] = {0};
    length = sizeof answer;
    errno = 0;
    long result = getsockopt(client, options[i].level, options[i].name, answer, &length);
    printf("%d ", options[i].name);
    tell("option", result, answer, sizeof answer);
  }
  VALUE("bind", bind(listener, (struct sockaddr *)&at, sizeof at));
  VALUE("listen", listen(listener, 5));
  length = sizeof at;
  VALUE("getsockname", getsockname(listener, (struct sockaddr *)&at, &length));
  printf("port %d\n", ntohs(at.sin_port));
  VALUE("connect", connect(client, (struct sockaddr *)&at, sizeof at));
  length = sizeof at;
  getsockname(client, (struct sockaddr *)&at, &length);
  printf("client port %d\n", ntohs(at.sin_port));
  at.sin_port = htons(9);
  VALUE("sendto", sendto(datagram, "x", 1, 0, (struct sockaddr *)&at, sizeof at));
  length = sizeof at;
  getsockname(datagram, (struct sockaddr *)&at, &length);
  printf("datagram port %d\n", ntohs(at.sin_port));
  int unix_socket = socket(AF_UNIX, SOCK_STREAM, 0);
  name.sun_family = AF_UNIX;
  VALUE("autobind", bind(unix_socket, (struct sockaddr *)&name, sizeof name.sun_family));
  length = sizeof name;
  memset(&name, 0, sizeof name);
  getsockname(unix_socket, (struct sockaddr *)&name, &length);
  tell("abstract name", length, &name, sizeof name);
  struct ifconf list = {.ifc_len = 4096, .ifc_buf = calloc(1, 4096)};
  VALUE("interfaces", ioctl(client, SIOCGIFCONF, &list));
  struct ifreq request = {.ifr_name = "lo"};
  TELL("hardware", ioctl(client, SIOCGIFHWADDR, &request), request);
  int route = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
  struct { struct nlmsghdr header; struct ifinfomsg info; } ask = {{sizeof ask, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 1, 0}, {0}};
  static char answer[16384];
  VALUE("netlink", send(route, &ask, sizeof ask, 0));
  long got = recv(route, answer, sizeof answer, 0);
  tell("links", got, answer, got > 0 ? (size_t)got : 0);
  (void)value;
}

static void of_ipc(void) {
  int shm = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600), sem = semget(IPC_PRIVATE, 1, IPC_CREAT | 0600), msg = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
  printf("ipc %d %d %d at %p\n", shm, sem, msg, shmat(shm, 0, 0));
  struct mq_attr attributes;
  mqd_t queue = mq_open("/q", O_CREAT | O_RDWR, 0600, 0);
  TELL("queue", mq_getattr(queue, &attributes), attributes);
  struct stat s;
  TELL("queue's file", fstat(queue, &s), s);
}


int main(int argc, char **argv, char **environ_) {
  char drawn[16];
  if (argc > 1) {
    TELL("inherited", read(20, drawn, sizeof drawn), drawn);
    return 0;
  }
  of_start(argv, environ_);
  of_random();
  of_clocks();
  of_process();
  of_host();
  of_files();
  of_ipc();
  of_sockets();
  walk("/proc/self", 2);
  walk("/proc", 0);
  walk("/proc/sys", 4);
  walk("/sys", 6);
  walk("/dev", 1);
  walk("/work/tree", 1);
  return 0;
}
