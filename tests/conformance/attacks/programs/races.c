/* Threads that change what another thread has just passed to a call: names, times, vectors, futex words, and the mapping itself. */
#include "say.h"
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>

enum { ROUNDS = 300, CHANGERS = 3 };
static volatile int over;
static char name[64] = "/etc/passwd";
static struct timespec moment;
static struct iovec vector[4];
static char space[4096];
static volatile uint32_t word;
static char *page;

static void *change(void *number) {
  for (long round = 0; !over; round++) {
    strcpy(name, round & 1 ? "/proc/self/status" : (long)number & 1 ? "/etc/passwd" : "/work/none");
    moment.tv_nsec = round & 1 ? 1 : -1;
    for (size_t i = 0; i < COUNT(vector); i++) vector[i] = (struct iovec){round & 1 ? space : (void *)1, (round * 7) % 512};
    word = (uint32_t)round;
    mprotect(page, 4096, round & 1 ? PROT_READ : PROT_READ | PROT_WRITE);
    if (round % 3 == 0) sched_yield();
    else syscall(SYS_clock_gettime, CLOCK_MONOTONIC, space);
  }
  return 0;
}

static uint64_t sum = DIGEST_START;
static void saw(long result) {
  int error = result == -1 ? errno : 0;
  sum = digest(sum, &result, sizeof result);
  sum = digest(sum, &error, sizeof error);
}

static void calls(void) {
  struct stat s;
  struct pollfd poll_entry = {0, POLLIN, 0};
  int fd = open(name, O_RDONLY);
  saw(fd < 0 ? -1 : 0);
  saw(stat(name, &s));
  saw(access(name, R_OK));
  if (fd >= 0) {
    saw(readv(fd, vector, COUNT(vector)));
    saw(read(fd, page, 16));
    close(fd);
  }
  saw(syscall(SYS_clock_gettime, CLOCK_REALTIME, page));
  saw(syscall(SYS_getrandom, page, 16, 0));
  saw(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, word, &moment, 0, 0));
  saw(syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0));
  saw(syscall(SYS_ppoll, &poll_entry, 1, &moment, 0, 8));
  saw(stat(name, (struct stat *)page));
}

int main(void) {
  page = NEED(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  pthread_t changers[CHANGERS];
  for (long i = 0; i < CHANGERS; i++) pthread_create(&changers[i], 0, change, (void *)i);
  for (int round = 0; round < ROUNDS; round++) calls();
  over = 1;
  for (int i = 0; i < CHANGERS; i++) pthread_join(changers[i], 0);
  printf("digest %016lx\n", sum);
  return 0;
}
