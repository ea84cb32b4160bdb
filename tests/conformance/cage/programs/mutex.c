/* Four threads on one mutex: the order in which they get it. */
#include "check.h"
#include <pthread.h>

#define ROUNDS 20000
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t order = MIX_START;
static long counter;
static int switches, last = -1;

static void *thread(void *number) {
  for (int i = 0; i < ROUNDS; i++) {
    pthread_mutex_lock(&lock);
    if (last != (long)number) switches++, last = (long)number;
    order = mix(order, (long)number);
    counter++;
    pthread_mutex_unlock(&lock);
  }
  return NULL;
}

int main(void) {
  pthread_t threads[4];
  for (long i = 0; i < 4; i++) pthread_create(&threads[i], NULL, thread, (void *)i);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  printf("counter %ld, switches %d, order %016lx\n", counter, switches, order);
  return 0;
}
