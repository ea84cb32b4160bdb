/* A thread that waits for another one without a system call. */
#include "check.h"
#include <pthread.h>

static volatile int ready;
static volatile unsigned long turns;

static void *thread(void *nothing) {
  ready = 1;
  return nothing;
}

int main(void) {
  pthread_t id;
  pthread_create(&id, NULL, thread, NULL);
  while (!ready) turns++;
  pthread_join(id, NULL);
  printf("waited %lu turns\n", turns);
  return 0;
}
