/* Where things lie in memory. */
#include "check.h"
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/mman.h>

static int data;
static void *thread(void *nothing) {
  int local;
  printf("thread stack %p\n", (void *)&local);
  return nothing;
}

int main(void) {
  int local;
  printf("code %p data %p stack %p break %p\n", (void *)main, (void *)&data, (void *)&local, sbrk(0));
  printf("heap %p large %p mmap %p\n", malloc(100), malloc(1 << 20), mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  char *large = malloc(4 << 20), *larger = malloc(64 << 20);
  printf("4 MiB %p 64 MiB %p\n", (void *)large, (void *)larger);
  large = realloc(large, 40 << 20);
  printf("40 MiB %p\n", (void *)large);
  for (size_t length = (2 << 20) - 4096; length <= (2 << 20) + 4096; length += 4096)
    printf("%zu %p\n", length, mmap(NULL, length, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  printf("code %p low %p\n", mmap(NULL, 8 << 20, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
         mmap(NULL, 8 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0));
  printf("function %p variable %p argument %p\n", (void *)printf, (void *)&stdout, (void *)__environ);
  printf("vdso %lx phdr %lx entry %lx execfn %lx random %lx\n", getauxval(AT_SYSINFO_EHDR), getauxval(AT_PHDR), getauxval(AT_ENTRY),
         getauxval(AT_EXECFN), getauxval(AT_RANDOM));
  unsigned long canary;
  __asm__("mov %%fs:0x28, %0" : "=r"(canary));
  printf("canary %lx\n", canary);
  pthread_t id;
  pthread_create(&id, NULL, thread, NULL);
  pthread_join(id, NULL);
  printf("thread %lx\n", (unsigned long)id);
  return 0;
}
