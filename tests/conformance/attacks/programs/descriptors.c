/* The program takes away, or replaces, every descriptor it has: what is answered through descriptors must still be answered. */
#include "say.h"
#include <dirent.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>

static void look(const char *when) {
  char bytes[4096];
  struct stat s;
  int fd = open("/proc/self/status", O_RDONLY);
  ssize_t got = fd < 0 ? -errno : read(fd, bytes, sizeof bytes);
  int random = open("/dev/urandom", O_RDONLY);
  ssize_t drawn = random < 0 ? -errno : read(random, bytes, 8);
  int folder = open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
  long listed = folder < 0 ? -errno : syscall(SYS_getdents64, folder, bytes, sizeof bytes);
  dprintf(1, "%s: status %d %zd random %d %zd folder %d %ld stat %d\n", when, fd, got, random, drawn, folder, listed, stat("/", &s));
  if (fd > 2) close(fd);
  if (random > 2) close(random);
  if (folder > 2) close(folder);
}

static void closed(void) {
  look("before");
  syscall(SYS_close_range, 3, ~0u, 0);
  look("close_range from 3");
  int kept = dup(1);
  syscall(SYS_close_range, 0, 0, 0);
  look("without standard input");
  close(2);
  look("without standard error");
  int saved = fcntl(kept, F_DUPFD, 900);
  close(1);
  close(kept);
  open("/proc/self/status", O_RDONLY);
  dup2(saved, 1);
  look("standard output back");
}

static void replaced(void) {
  int pair[2];
  NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  for (int fd = 3; fd < 1024; fd++)
    if (fd != pair[0]) dup2(pair[0], fd);
  look("every descriptor taken");
  char byte = 0;
  dprintf(1, "write %zd read by nobody; open %d\n", write(1000, &byte, 1), open("/etc/passwd", O_RDONLY));
  syscall(SYS_close_range, 3, ~0u, 0);
  look("given back");
}

static void limited(void) {
  struct rlimit none = {3, 3};
  NEED(setrlimit(RLIMIT_NOFILE, &none));
  look("no descriptor allowed");
}

/* A folder of /proc that outlives its process. */
static void outlived(void) {
  pid_t child = NEED(fork());
  if (!child) {
    int folder = open("/proc/self/fd", O_RDONLY | O_DIRECTORY), task = open("/proc/self/task", O_RDONLY | O_DIRECTORY);
    if (fork()) _exit(0);
    for (int i = 0; i < 10; i++) sched_yield();
    char bytes[512];
    errno = 0;
    long listed = syscall(SYS_getdents64, folder, bytes, sizeof bytes);
    dprintf(1, "fd of the dead: %ld %s\n", listed, strerrorname_np(errno));
    errno = 0;
    listed = syscall(SYS_getdents64, task, bytes, sizeof bytes);
    dprintf(1, "task of the dead: %ld %s\n", listed, strerrorname_np(errno));
    _exit(0);
  }
  waitpid(child, 0, 0);
  for (int i = 0; i < 30; i++) sched_yield();
}

/* Descriptors that travel. */
static void passed(void) {
  int pair[2];
  NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  if (!NEED(fork())) {
    int random = open("/dev/urandom", O_RDONLY);
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 'x';
    struct iovec vector = {&byte, 1};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(header), &random, sizeof random);
    sendmsg(pair[1], &message, 0);
    _exit(0);
  }
  char control[CMSG_SPACE(sizeof(int))], byte;
  struct iovec vector = {&byte, 1};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  NEED(recvmsg(pair[0], &message, 0));
  int random;
  memcpy(&random, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof random);
  uint64_t drawn[4] = {0};
  dprintf(1, "random bytes by a descriptor that came over a socket: %zd %016lx %016lx\n", read(random, drawn, sizeof drawn), drawn[0], drawn[1]);
  /* The kernel copies these itself, past every read(2). */
  uint64_t *mapped = mmap(0, 4096, PROT_READ, MAP_PRIVATE, random, 0);
  dprintf(1, "mapped: %s\n", mapped == MAP_FAILED ? strerrorname_np(errno) : "done");
  int ends[2], file = NEED(open("/tmp/drawn", O_CREAT | O_RDWR, 0600));
  NEED(pipe(ends));
  ssize_t spliced = splice(random, 0, ends[1], 0, 32, 0);
  memset(drawn, 0, sizeof drawn);
  if (spliced > 0) read(ends[0], drawn, sizeof drawn);
  dprintf(1, "spliced: %zd %016lx\n", spliced, drawn[0]);
  ssize_t sent = sendfile(file, random, 0, 32);
  memset(drawn, 0, sizeof drawn);
  pread(file, drawn, sizeof drawn, 0);
  dprintf(1, "sent: %zd %016lx\n", sent, drawn[0]);
  ssize_t copied = copy_file_range(random, 0, file, 0, 32, 0);
  dprintf(1, "copied: %zd %s\n", copied, copied < 0 ? strerrorname_np(errno) : "");
  waitpid(-1, 0, 0);
}

int main(int argc, char **argv) {
  static const struct part parts[] = {{"outlived", outlived}, {"passed", passed}, {"closed", closed}, {"replaced", replaced}, {"limited", limited}};
  return run_parts(parts, COUNT(parts), argc, argv);
}
