/* Named pipes: readers and writers that meet at open. */
#include "check.h"
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

int main(void) {
  CHECK(mkfifo("/tmp/one", 0600));
  CHECK(mkfifo("/tmp/two", 0600));
  for (int writer = 0; writer < 3; writer++)
    if (CHECK(fork()) == 0) {
      int fd = CHECK(open("/tmp/one", O_WRONLY));
      for (int i = 0; i < 40; i++) dprintf(fd, "%d.%d ", writer, i);
      close(fd);
      fd = CHECK(open("/tmp/two", O_RDONLY));
      char byte;
      CHECK(read(fd, &byte, 1));
      _exit(byte);
    }
  /* A writer that comes after the others have left finds nobody reading, and waits: so the end of one reading is not the end. */
  int words = 0, fd;
  while (words < 3 * 40) {
    fd = CHECK(open("/tmp/one", O_RDONLY));
    char buffer[4096];
    ssize_t got;
    while ((got = CHECK(read(fd, buffer, sizeof buffer))) > 0) {
      for (ssize_t i = 0; i < got; i++) words += buffer[i] == ' ';
      CHECK(write(1, buffer, got));
    }
    close(fd);
  }
  fd = CHECK(open("/tmp/two", O_WRONLY));
  CHECK(write(fd, "xyz", 3));
  int status;
  pid_t child;
  while ((child = wait(&status)) > 0) dprintf(1, "\nchild %d got %c", child, WEXITSTATUS(status));
  dprintf(1, "\n");
  return 0;
}
