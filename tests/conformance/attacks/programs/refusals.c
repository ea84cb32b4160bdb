/* Makes every call of a list (entry, number, arguments, expected errno, name) and says which did not answer as the table of calls documents. */
#include "say.h"

static long entered_by_int80(long number) {
  long result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(0), "c"(0), "d"(0), "S"(0), "D"(0) : "memory", "r8", "r9", "r10", "r11");
  return result;
}

static long entered_by_syscall(long number, const unsigned long *args) {
  long result;
  register unsigned long r10 __asm__("r10") = args[3], r8 __asm__("r8") = args[4], r9 __asm__("r9") = args[5];
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(args[0]), "S"(args[1]), "d"(args[2]), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
  return result;
}

int main(int argc, char **argv) {
  FILE *list = fopen(argc > 1 ? argv[1] : "/work/refusals", "r");
  if (!list) return 3;
  char kind[16], name[64];
  long number, expected, made = 0, wrong = 0;
  unsigned long args[6];
  while (fscanf(list, "%15s %ld %lx %lx %lx %lx %lx %lx %ld %63s", kind, &number, &args[0], &args[1], &args[2], &args[3], &args[4], &args[5], &expected,
                name) == 10) {
    long result = kind[0] == 'i' ? entered_by_int80(number) : entered_by_syscall(number, args);
    made++;
    if (result == -expected) continue;
    wrong++;
    printf("%s %ld %s(%lx, %lx, %lx): %ld instead of -%ld\n", kind, number, name, args[0], args[1], args[2], result, expected);
  }
  printf("%ld calls, %ld of them wrong\n", made, wrong);
  return wrong != 0;
}
