/* Several writers into one pipe, small lines and pieces larger than the pipe holds. */
#include "check.h"
#include <sys/wait.h>

int main(void) {
  int ends[2];
  char line[64];
  CHECK(pipe(ends));
  for (int writer = 0; writer < 5; writer++)
    if (CHECK(fork()) == 0) {
      close(ends[0]);
      for (int i = 0; i < 200; i++) {
        int length = snprintf(line, sizeof line, "%d:%d\n", writer, i);
        CHECK(write(ends[1], line, length));
      }
      if (writer < 2) {
        static char large[150000];
        memset(large, 'a' + writer, sizeof large);
        CHECK(write(ends[1], large, sizeof large));
      }
      _exit(0);
    }
  close(ends[1]);
  uint64_t digest = MIX_START, sizes = MIX_START;
  static char buffer[10000];
  ssize_t got;
  long total = 0, reads = 0;
  while ((got = CHECK(read(ends[0], buffer, sizeof buffer))) > 0) {
    for (ssize_t i = 0; i < got; i++) digest = mix(digest, buffer[i]);
    sizes = mix(sizes, got);
    total += got, reads++;
  }
  while (wait(NULL) > 0) {
  }
  printf("%ld bytes in %ld reads, content %016lx, sizes %016lx\n", total, reads, digest, sizes);
  return 0;
}
