/* What the processor says of itself; leaves 1, 0xb and 0x8000001e tell on which core. */
#include "check.h"
#include <cpuid.h>
#include <sched.h>
#include <sys/auxv.h>

static void leaf(unsigned number, unsigned sub) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  __cpuid_count(number, sub, a, b, c, d);
  printf("%08x.%x %08x %08x %08x %08x\n", number, sub, a, b, c, d);
}

int main(void) {
  unsigned a, b, c, d;
  __cpuid(0, a, b, c, d);
  unsigned highest = a;
  for (unsigned number = 0; number <= highest; number++)
    for (unsigned sub = 0; sub < 2; sub++) leaf(number, sub);
  for (unsigned number = 0x80000000; number <= 0x8000001e; number++) leaf(number, 0);
  __cpuid(1, a, b, c, d);
  if (c & bit_OSXSAVE) {
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    printf("xgetbv %x %x\n", low, high);
  }
  unsigned cpu = 9, node = 9;
  CHECK(getcpu(&cpu, &node));
  printf("getcpu %u %u sched_getcpu %d\n", cpu, node, sched_getcpu());
  printf("hwcap %lx %lx clktck %lu minsigstksz %lu\n", getauxval(AT_HWCAP), getauxval(AT_HWCAP2), getauxval(AT_CLKTCK), getauxval(AT_MINSIGSTKSZ));
  return 0;
}
