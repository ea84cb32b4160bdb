/* Processes that compete for one file lock, by flock, by fcntl, by open file description. */
#include "check.h"
#include <fcntl.h>
#include <sys/file.h>
#include <sys/wait.h>

static void compete(const char *path, int kind, int me) {
  int fd = CHECK(open(path, O_RDWR | O_CREAT | O_APPEND, 0644));
  for (int i = 0; i < 30; i++) {
    struct flock whole = {.l_type = F_WRLCK};
    if (kind == 0) CHECK(flock(fd, LOCK_EX));
    else CHECK(fcntl(fd, kind == 1 ? F_SETLKW : F_OFD_SETLKW, &whole));
    char letter = 'a' + me;
    CHECK(write(fd, &letter, 1));
    if (i % 10 == me) usleep(50);
    CHECK(write(fd, &letter, 1));
    whole.l_type = F_UNLCK;
    if (kind == 0) CHECK(flock(fd, LOCK_UN));
    else CHECK(fcntl(fd, kind == 1 ? F_SETLK : F_OFD_SETLK, &whole));
  }
}

int main(void) {
  for (int kind = 0; kind < 3; kind++) {
    char path[32], text[1024] = {0};
    snprintf(path, sizeof path, "/out/log%d", kind);
    for (int me = 0; me < 4; me++)
      if (CHECK(fork()) == 0) {
        compete(path, kind, me);
        _exit(0);
      }
    while (wait(NULL) > 0) {
    }
    int fd = CHECK(open(path, O_RDONLY));
    CHECK(read(fd, text, sizeof text - 1));
    printf("%s\n", text);
    close(fd);
  }
  return 0;
}
