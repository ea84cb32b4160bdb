/* A first process that leaves while others live: its end is everybody's. */
#include "say.h"
#include <pthread.h>
#include <sched.h>
#include <time.h>

static void crowd(void) {
  for (int i = 0; i < 6; i++)
    if (!NEED(fork())) {
      if (i & 1 && !fork())
        for (;;) pause();
      for (;;) i % 3 ? (void)pause() : (void)nanosleep(&(struct timespec){100, 0}, 0);
    }
  for (int i = 0; i < 20; i++) sched_yield();
}

static void sleeping(void) {
  crowd();
  exit(3);
}

static void crash(void) {
  crowd();
  fflush(stdout);
  signal(SIGSEGV, SIG_DFL);
  *(volatile int *)8 = 1;
}

static void *last(void *unused) {
  (void)unused;
  for (int i = 0; i < 50; i++) sched_yield();
  printf("the last thread\n");
  fflush(stdout);
  syscall(SYS_exit, 4);
  return 0;
}

static void last_thread(void) {
  crowd();
  pthread_t thread;
  pthread_create(&thread, 0, last, 0);
  syscall(SYS_exit, 5);
}

int main(int argc, char **argv) {
  static const struct part parts[] = {{"sleeping", sleeping}, {"crash", crash}, {"last-thread", last_thread}};
  return run_parts(parts, COUNT(parts), argc, argv);
}
