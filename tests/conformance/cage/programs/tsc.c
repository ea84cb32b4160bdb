/* The cycle counter: its value, its steps, and the processor it was read on. */
#include "check.h"
#include <x86intrin.h>

int main(void) {
  unsigned processor;
  unsigned long long first = __rdtsc();
  for (int i = 0; i < 5; i++) {
    unsigned long long at = __rdtsc();
    printf("rdtsc %llu step %llu\n", at, at - first);
    at = __rdtscp(&processor);
    printf("rdtscp %llu processor %u\n", at, processor);
  }
  unsigned long smallest = -1;
  for (int i = 0; i < 1000; i++) {
    unsigned long long before = __rdtsc();
    unsigned long step = __rdtsc() - before;
    if (step < smallest) smallest = step;
  }
  printf("smallest step %lu\n", smallest);
  return 0;
}
