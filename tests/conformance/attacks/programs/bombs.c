/* More tasks than there may be: the limit answers EAGAIN, and the run goes on. */
#include "say.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

enum { TASKS = 10000 };

static pid_t children[TASKS];

/* A flat bomb of sleeping processes. */
static void processes(void) {
  int made = 0;
  while (made < TASKS) {
    pid_t child = fork();
    if (child < 0) {
      printf("fork: %s\n", strerrorname_np(errno));
      break;
    }
    if (!child) {
      pause();
      _exit(0);
    }
    children[made++] = child;
  }
  printf("%s\n", made < TASKS ? "the limit is below ten thousand" : "ten thousand live");
  for (int i = 0; i < made; i++) kill(children[i], SIGKILL);
  int reaped = 0;
  while (wait(0) > 0) reaped++;
  printf("made %d reaped %d\n", made, reaped);
}

static void *rest(void *unused) {
  (void)unused;
  pause();
  return 0;
}

/* The same of threads. */
static void threads(void) {
  pid_t child = NEED(fork());
  if (!child) {
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 16384);
    int made = 0, error = 0;
    pthread_t thread;
    while (made < TASKS && !(error = pthread_create(&thread, &small, rest, 0))) made++;
    printf("threads %d, then %s\n", made, error ? strerrorname_np(error) : "enough");
    fflush(stdout);
    _exit(0);
  }
  NEED(waitpid(child, 0, 0));
}

/* Each of them forks: the classic. All end when the first one does. */
static void everybody(void) {
  pid_t child = NEED(fork());
  if (!child) {
    setpgid(0, 0);
    for (int round = 0; round < 12; round++) fork();
    for (;;) pause();
  }
  nanosleep(&(struct timespec){5, 0}, 0);
  kill(-child, SIGKILL);
  int reaped = 0;
  while (wait(0) > 0) reaped++;
  printf("reaped some: %d\n", reaped > 0);
}

int main(int argc, char **argv) {
  static const struct part parts[] = {{"processes", processes}, {"threads", threads}, {"everybody", everybody}};
  return run_parts(parts, COUNT(parts), argc, argv);
}
