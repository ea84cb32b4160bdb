/* The work of `scripts/bpi bench cage`, one mode each. It says "b" before and "e" after its work: a program in a cage cannot tell how long it took. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CALLS 100000
#define FEW 10000 /* calls of stat */
#define SPAWNS 100
#define THREADS 4
#define LOCKS 1000000

static void check(int good, const char *what) {
  if (!good) {
    perror(what);
    exit(1);
  }
}

static void say(const char *word) { check(write(1, word, 2) == 2, "write"); }

/* One virtual call that the engine answers from its own state. */
static void intercepted(void) {
  struct timespec now;
  for (int i = 0; i < CALLS; i++) check(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now) == 0, "clock_gettime");
}

/* Eight kinds in equal shares: three of class allow, five virtual (getppid and the last four). */
static void mixed(void) {
  char bytes[64];
  struct timespec now;
  struct stat stat;
  int file = open("/bin/sh", O_RDONLY), null = open("/dev/null", O_WRONLY);
  check(file >= 0 && null >= 0, "open");
  for (int i = 0; i < CALLS / 8; i++) {
    syscall(SYS_getpid);
    syscall(SYS_getppid);
    syscall(SYS_getuid);
    check(lseek(file, i % 4096, SEEK_SET) >= 0, "lseek");
    check(pread(file, bytes, sizeof bytes, i % 4096) > 0, "pread");
    check(write(null, bytes, 1) == 1, "write");
    check(fstat(file, &stat) == 0, "fstat");
    check(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now) == 0, "clock_gettime");
  }
}

static void stats(void) {
  struct stat stat_of;
  for (int i = 0; i < FEW; i++) check(stat("/etc/passwd", &stat_of) == 0, "stat");
}

/* Through libc: natively that is no system call. */
static void clocks(void) {
  struct timespec now;
  for (int i = 0; i < CALLS; i++) check(clock_gettime(CLOCK_REALTIME, &now) == 0, "clock_gettime");
}

static void spawns(void) {
  char *words[] = {"/bin/true", NULL}, *environment[] = {NULL};
  for (int i = 0; i < SPAWNS; i++) {
    pid_t child;
    int status;
    check(posix_spawn(&child, words[0], NULL, NULL, words, environment) == 0, "posix_spawn");
    check(waitpid(child, &status, 0) == child && status == 0, "waitpid");
  }
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long counter;

static void *locks(void *nothing) {
  for (int i = 0; i < LOCKS; i++) {
    pthread_mutex_lock(&lock);
    counter++;
    pthread_mutex_unlock(&lock);
  }
  return nothing;
}

static void mutex(void) {
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) check(pthread_create(&threads[i], NULL, locks, NULL) == 0, "pthread_create");
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  check(counter == (long)THREADS * LOCKS, "count");
}

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    void (*work)(void);
  } modes[] = {{"intercepted", intercepted}, {"mixed", mixed}, {"stats", stats}, {"clocks", clocks}, {"spawns", spawns}, {"mutex", mutex}};
  for (size_t i = 0; argc == 2 && i < sizeof modes / sizeof *modes; i++) {
    if (strcmp(argv[1], modes[i].name) == 0) {
      say("b\n");
      modes[i].work();
      say("e\n");
      return 0;
    }
  }
  fprintf(stderr, "modes: intercepted mixed stats clocks spawns mutex\n");
  return 2;
}
