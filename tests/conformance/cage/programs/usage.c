/* What a program has used so far: faults, switches, memory, what is resident. */
#include "check.h"
#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

static void show(const char *what, int who) {
  struct rusage u;
  CHECK(getrusage(who, &u));
  printf("%s maxrss %ld minflt %ld majflt %ld inblock %ld oublock %ld nvcsw %ld nivcsw %ld\n", what, u.ru_maxrss, u.ru_minflt, u.ru_majflt,
         u.ru_inblock, u.ru_oublock, u.ru_nvcsw, u.ru_nivcsw);
}

int main(void) {
  show("at first", RUSAGE_SELF);
  char *memory = malloc(8 << 20);
  memset(memory, 1, 8 << 20);
  show("after 8 MiB", RUSAGE_SELF);
  printf("break moved %d\n", (int)(malloc_usable_size(memory) >= 8 << 20));
  unsigned char resident[16];
  char *pages = mmap(NULL, 16 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  pages[0] = pages[5 * 4096] = 1;
  if (mincore(pages, 16 * 4096, resident) == 0)
    for (int i = 0; i < 16; i++) printf("%d", resident[i] & 1);
  else
    printf("mincore errno %d", errno);
  printf("\n");
  if (CHECK(fork()) == 0) _exit(0);
  struct rusage u;
  int status;
  CHECK(wait4(-1, &status, 0, &u));
  printf("child maxrss %ld minflt %ld utime %ld stime %ld\n", u.ru_maxrss, u.ru_minflt, u.ru_utime.tv_usec, u.ru_stime.tv_usec);
  show("children", RUSAGE_CHILDREN);
  return 0;
}
