/* The only task of a cage, asleep in the kernel for ever: somebody must say so. */
#include "say.h"
#include <sys/epoll.h>
#include <sys/stat.h>

static void own_pipe(void) {
  int ends[2];
  char byte;
  NEED(pipe(ends));
  printf("read %zd\n", read(ends[0], &byte, 1));
}

static void fifo(void) {
  NEED(mkfifo("/tmp/fifo", 0600));
  printf("open %d\n", open("/tmp/fifo", O_RDONLY));
}

static void polling(void) {
  int epoll = NEED(epoll_create1(0)), ends[2];
  struct epoll_event event = {.events = EPOLLIN};
  NEED(pipe(ends));
  NEED(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event));
  printf("epoll %d\n", epoll_wait(epoll, &event, 1, -1));
}

int main(int argc, char **argv) {
  static const struct part parts[] = {{"pipe", own_pipe}, {"fifo", fifo}, {"epoll", polling}};
  return run_parts(parts, COUNT(parts), argc, argv);
}
