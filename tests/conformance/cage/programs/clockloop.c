/* Computes until 20 ms have passed on the clock, and tells how far it came. */
#include "check.h"
#include <time.h>

static int64_t now(void) {
  struct timespec at;
  CHECK(clock_gettime(CLOCK_MONOTONIC, &at));
  return at.tv_sec * 1000000000 + at.tv_nsec;
}

int main(void) {
  int64_t until = now() + 20000000;
  unsigned long rounds = 0;
  while (now() < until) rounds++;
  printf("%lu rounds in 20 ms\n", rounds);
  return 0;
}
