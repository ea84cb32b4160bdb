/* Condition variables, barriers, rwlocks, semaphores, once, robust and recursive mutexes: who is woken, in which order. */
#include "check.h"
#include <pthread.h>
#include <semaphore.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_barrier_t barrier;
static sem_t semaphore;
static uint64_t order = MIX_START;
static int tickets;

static void note(int kind, long who) {
  static pthread_mutex_t own = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&own);
  order = mix(order, kind * 100 + who);
  pthread_mutex_unlock(&own);
}

static void *thread(void *number) {
  long me = (long)number;
  for (int round = 0; round < 50; round++) {
    pthread_mutex_lock(&lock);
    while (tickets == 0) pthread_cond_wait(&condition, &lock);
    tickets--;
    pthread_mutex_unlock(&lock);
    note(1, me);
    sem_wait(&semaphore);
    note(2, me);
    sem_post(&semaphore);
    if ((round + me) % 3 == 0) pthread_rwlock_wrlock(&rwlock);
    else pthread_rwlock_rdlock(&rwlock);
    note(3, me);
    pthread_rwlock_unlock(&rwlock);
    if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD) {
      note(4, me);
      pthread_mutex_lock(&lock);
      tickets += 5;
      pthread_cond_broadcast(&condition);
      pthread_mutex_unlock(&lock);
    }
  }
  return NULL;
}

static pthread_mutex_t robust;
static void *dies(void *nothing) {
  pthread_mutex_lock(&robust);
  return nothing;
}

int main(void) {
  pthread_t threads[5], other;
  pthread_barrier_init(&barrier, NULL, 5);
  sem_init(&semaphore, 0, 2);
  for (long i = 0; i < 5; i++) pthread_create(&threads[i], NULL, thread, (void *)i);
  pthread_mutex_lock(&lock);
  tickets = 5;
  pthread_cond_broadcast(&condition);
  pthread_mutex_unlock(&lock);
  for (int i = 0; i < 5; i++) pthread_join(threads[i], NULL);
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(&robust, &attributes);
  pthread_create(&other, NULL, dies, NULL);
  int got = pthread_mutex_lock(&robust);
  printf("order %016lx, robust %s\n", order, got == EOWNERDEAD ? "owner died" : got == 0 ? "locked first" : strerror(got));
  return 0;
}
