/* Entropy straight from the processor, where it says that it has some. */
#include "check.h"
#include <cpuid.h>
#include <x86intrin.h>

__attribute__((target("rdrnd"))) static int drawn(unsigned long long *value) { return _rdrand64_step(value); }
__attribute__((target("rdseed"))) static int seeded(unsigned long long *value) { return _rdseed64_step(value); }

int main(void) {
  unsigned a, b, c, d;
  unsigned long long value = 0;
  int has_rdrand = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_RDRND);
  int has_rdseed = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_RDSEED);
  printf("rdrand %d rdseed %d\n", has_rdrand, has_rdseed);
  for (int i = 0; i < 4 && has_rdrand; i++) {
    int good = drawn(&value);
    printf("rdrand %d %016llx\n", good, value);
  }
  for (int i = 0; i < 4 && has_rdseed; i++) {
    int good = seeded(&value);
    printf("rdseed %d %016llx\n", good, value);
  }
  return 0;
}
