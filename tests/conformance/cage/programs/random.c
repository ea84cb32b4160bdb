/* Every door to the kernel's entropy. */
#include "check.h"
#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/random.h>

static void show(const char *what, const unsigned char *bytes, int length) {
  printf("%-28s", what);
  for (int i = 0; i < length; i++) printf("%02x", bytes[i]);
  printf("\n");
}
static void file(const char *path, int length) {
  unsigned char bytes[64] = {0};
  int fd = open(path, O_RDONLY);
  if (fd < 0) {
    printf("%-28serrno %d\n", path, errno);
    return;
  }
  int got = read(fd, bytes, length);
  show(path, bytes, got > 0 ? got : 0);
  close(fd);
}

int main(void) {
  unsigned char bytes[32];
  CHECK(getrandom(bytes, 32, 0));
  show("getrandom", bytes, 32);
  CHECK(getrandom(bytes, 16, GRND_NONBLOCK));
  show("getrandom nonblock", bytes, 16);
  CHECK(getrandom(bytes, 8, GRND_RANDOM));
  show("getrandom random", bytes, 8);
  CHECK(getentropy(bytes, 32));
  show("getentropy", bytes, 32);
  show("AT_RANDOM", (void *)getauxval(AT_RANDOM), 16);
  for (int i = 0; i < 2; i++) {
    file("/dev/urandom", 32);
    file("/dev/random", 16);
    file("/proc/sys/kernel/random/uuid", 36);
    file("/proc/sys/kernel/random/boot_id", 36);
  }
  file("/proc/sys/kernel/random/entropy_avail", 8);
  if (CHECK(fork()) == 0) {
    CHECK(getrandom(bytes, 16, 0));
    show("getrandom of the child", bytes, 16);
    fflush(stdout);
    _exit(0);
  }
  sleep(1);
  char name[] = "/tmp/name-XXXXXX";
  CHECK(mkstemp(name));
  printf("mkstemp %s\n", name);
  return 0;
}
