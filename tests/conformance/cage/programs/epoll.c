/* Worker threads that take from one epoll instance, edge triggered and one shot. */
#include "check.h"
#include <pthread.h>
#include <sys/epoll.h>

static int epoll, ends[6][2];
static uint64_t order = MIX_START;
static int left = 300;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *worker(void *number) {
  for (;;) {
    struct epoll_event event;
    int ready = epoll_wait(epoll, &event, 1, 100);
    if (ready == 0) return NULL;
    char byte;
    if (ready == 1 && read(ends[event.data.u32][0], &byte, 1) == 1) {
      pthread_mutex_lock(&lock);
      order = mix(order, event.data.u32 * 16 + (long)number);
      left--;
      pthread_mutex_unlock(&lock);
    }
    event.events = EPOLLIN | EPOLLET | EPOLLONESHOT;
    CHECK(epoll_ctl(epoll, EPOLL_CTL_MOD, ends[event.data.u32][0], &event));
  }
}

int main(void) {
  pthread_t threads[3];
  epoll = CHECK(epoll_create1(0));
  for (unsigned i = 0; i < 6; i++) {
    CHECK(pipe(ends[i]));
    struct epoll_event event = {.events = EPOLLIN | EPOLLET | EPOLLONESHOT, .data.u32 = i};
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[i][0], &event));
  }
  for (long i = 0; i < 3; i++) pthread_create(&threads[i], NULL, worker, (void *)i);
  for (int i = 0; i < 300; i++) CHECK(write(ends[i * 7 % 6][1], "x", 1));
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  printf("left %d, order %016lx\n", left, order);
  return 0;
}
