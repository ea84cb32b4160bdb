/* Sleeps in every way and prints how long each took. */
#include "check.h"
#include <poll.h>
#include <sys/select.h>
#include <time.h>

static int64_t now(void) {
  struct timespec at;
  CHECK(clock_gettime(CLOCK_MONOTONIC, &at));
  return at.tv_sec * 1000000000 + at.tv_nsec;
}

int main(void) {
  struct timespec short_nap = {0, 3000000}, at;
  int64_t before = now();
  CHECK(nanosleep(&short_nap, NULL));
  printf("nanosleep %ld\n", now() - before);
  before = now();
  CHECK(usleep(2500));
  printf("usleep %ld\n", now() - before);
  before = now();
  CHECK(clock_gettime(CLOCK_REALTIME, &at));
  at.tv_nsec += 4000000;
  if (at.tv_nsec >= 1000000000) at.tv_sec++, at.tv_nsec -= 1000000000;
  printf("clock_nanosleep %d", clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &at, NULL));
  printf(" %ld\n", now() - before);
  before = now();
  CHECK(poll(NULL, 0, 5));
  printf("poll %ld\n", now() - before);
  before = now();
  struct timeval nap = {0, 6000};
  CHECK(select(0, NULL, NULL, NULL, &nap));
  printf("select %ld left %ld\n", now() - before, nap.tv_usec);
  before = now();
  sleep(1);
  printf("sleep %ld\n", now() - before);
  return 0;
}
