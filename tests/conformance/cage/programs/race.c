/* A data race on purpose: threads write their number to the next place without a lock, and give way now and then. */
#include "check.h"
#include <pthread.h>
#include <sched.h>

#define EACH 30000
static volatile int next;
static volatile unsigned char log_of[EACH * 4 + 4];

static void *thread(void *number) {
  for (int i = 0; i < EACH; i++) {
    int at = next;
    log_of[at] = 1 + (long)number;
    next = at + 1;
    if (i % 1000 == (long)number) sched_yield();
  }
  return NULL;
}

int main(void) {
  pthread_t threads[4];
  for (long i = 0; i < 4; i++) pthread_create(&threads[i], NULL, thread, (void *)i);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  uint64_t digest = MIX_START;
  for (int i = 0; i < EACH * 4; i++) digest = mix(digest, log_of[i]);
  printf("lost %d, order %016lx\n", EACH * 4 - next, digest);
  return 0;
}
