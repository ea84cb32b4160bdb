/* Threads that wait for one another with sched_yield, as spin locks in user space do. */
#include "check.h"
#include <pthread.h>
#include <sched.h>

static volatile int baton;
static long waits;

static void *thread(void *number) {
  for (int round = 0; round < 200; round++) {
    while (baton != (long)number) {
      __sync_fetch_and_add(&waits, 1);
      sched_yield();
    }
    baton = (baton + 1) % 3;
  }
  return NULL;
}

int main(void) {
  pthread_t threads[3];
  for (long i = 0; i < 3; i++) pthread_create(&threads[i], NULL, thread, (void *)i);
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  printf("%ld waits\n", waits);
  return 0;
}
