/* Two threads that each hold what the other wants. */
#include "check.h"
#include <pthread.h>

static pthread_mutex_t locks[2] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER};
static pthread_barrier_t both;

static void *thread(void *number) {
  long mine = (long)number;
  pthread_mutex_lock(&locks[mine]);
  pthread_barrier_wait(&both);
  pthread_mutex_lock(&locks[1 - mine]);
  return NULL;
}

int main(void) {
  pthread_t other;
  pthread_barrier_init(&both, NULL, 2);
  printf("now\n");
  fflush(stdout);
  pthread_create(&other, NULL, thread, (void *)1);
  thread((void *)0);
  return 0;
}
