/* As many notifications as threads can make, of cheap and of costly kinds. */
#include "say.h"
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>

enum { THREADS = 24, CALLS = 4000, ENTRIES = 1000 };

static void *flood(void *number) {
  char bytes[64];
  struct stat s;
  int events = eventfd(0, EFD_NONBLOCK);
  for (long i = 0; i < CALLS; i++)
    switch ((i + (long)number) % 8) {
      case 0: syscall(SYS_clock_gettime, CLOCK_MONOTONIC, bytes); break;
      case 1: sched_yield(); break;
      case 2: syscall(SYS_getrandom, bytes, sizeof bytes, 0); break;
      case 3: read(events, bytes, 8); break;
      case 4: syscall(SYS_futex, bytes, 1, 1, 0, 0, 0); break;
      case 5: fstat(events, &s); break;
      case 6: nanosleep(&(struct timespec){0, 1}, 0); break;
      case 7: syscall(SYS_uname, (void *)1); break;
    }
  close(events);
  return 0;
}

static void many_calls(void) {
  pthread_t threads[THREADS];
  for (long i = 0; i < THREADS; i++) pthread_create(&threads[i], 0, flood, (void *)i);
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], 0);
  printf("%d calls\n", THREADS * CALLS);
}

static int pair[2];
static void *wait_for_many(void *unused) {
  (void)unused;
  static struct pollfd entries[ENTRIES];
  struct pollfd *own = memcpy(malloc(sizeof entries), entries, sizeof entries);
  for (int i = 0; i < ENTRIES; i++) own[i] = (struct pollfd){pair[0], POLLIN, 0};
  int ready = poll(own, ENTRIES, 2000);
  free(own);
  return (void *)(long)ready;
}

/* Each entry of a poll is a descriptor that the supervisor may have to hold. */
static void many_descriptors(void) {
  pthread_t threads[100];
  long ready = 0;
  NEED(pipe(pair));
  for (size_t i = 0; i < COUNT(threads); i++) pthread_create(&threads[i], 0, wait_for_many, 0);
  nanosleep(&(struct timespec){1, 0}, 0);
  NEED(write(pair[1], "x", 1));
  for (size_t i = 0; i < COUNT(threads); i++) {
    void *result;
    pthread_join(threads[i], &result);
    ready += (long)result;
  }
  printf("ready %ld\n", ready);
}

/* Answers that are as large as a caller may want. */
static void large_answers(void) {
  size_t size = 64 << 20;
  char *bytes = malloc(size);
  long got = syscall(SYS_getrandom, bytes, size, 0);
  printf("random %ld %016lx\n", got, digest(DIGEST_START, bytes, 4096));
  for (int i = 0; i < 20000; i++) {
    char path[64];
    snprintf(path, sizeof path, "/tmp/f%d", i);
    close(NEED(open(path, O_CREAT | O_WRONLY, 0600)));
  }
  int folder = NEED(open("/tmp", O_RDONLY | O_DIRECTORY));
  long total = 0, read;
  while ((read = syscall(SYS_getdents64, folder, bytes, size)) > 0) total += read;
  printf("folder %ld\n", total);
}

int main(int argc, char **argv) {
  static const struct part parts[] = {{"calls", many_calls}, {"descriptors", many_descriptors}, {"answers", large_answers}};
  return run_parts(parts, COUNT(parts), argc, argv);
}
