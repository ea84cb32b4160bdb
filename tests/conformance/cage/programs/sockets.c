/* Sockets on the loopback device and in the file system: several clients, one server with epoll, ports and order. */
#include "check.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

static void client(int family, struct sockaddr *address, socklen_t length, int me) {
  int fd = CHECK(socket(family, SOCK_STREAM, 0));
  CHECK(connect(fd, address, length));
  for (int i = 0; i < 20; i++) {
    char text[32], answer[32];
    int size = snprintf(text, sizeof text, "%d.%d", me, i);
    CHECK(send(fd, text, size, 0));
    CHECK(recv(fd, answer, sizeof answer, 0));
  }
  _exit(0);
}

static void serve(int family, struct sockaddr *address, socklen_t length) {
  int listener = CHECK(socket(family, SOCK_STREAM, 0));
  CHECK(bind(listener, address, length));
  CHECK(listen(listener, 8));
  socklen_t size = length;
  if (family == AF_INET) {
    CHECK(getsockname(listener, address, &size));
    printf("port %d\n", ntohs(((struct sockaddr_in *)address)->sin_port));
  }
  fflush(stdout);
  for (int i = 0; i < 4; i++)
    if (CHECK(fork()) == 0) client(family, address, length, i);
  int epoll = CHECK(epoll_create1(0));
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[8];
  CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event));
  uint64_t order = MIX_START;
  int accepted = 0, open_now = 0, served = 0;
  do {
    int ready = CHECK(epoll_wait(epoll, events, 8, 5000));
    for (int i = 0; i < ready; i++) {
      if (events[i].data.fd == listener) {
        struct sockaddr_in from = {0};
        socklen_t from_size = sizeof from;
        int fd = CHECK(accept(listener, (struct sockaddr *)&from, &from_size));
        if (family == AF_INET) order = mix(order, from.sin_port);
        event.data.fd = fd;
        CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
        accepted++, open_now++;
        continue;
      }
      char text[32];
      ssize_t got = CHECK(recv(events[i].data.fd, text, sizeof text, 0));
      if (got == 0) {
        close(events[i].data.fd);
        open_now--;
        continue;
      }
      for (ssize_t at = 0; at < got; at++) order = mix(order, text[at]);
      CHECK(send(events[i].data.fd, text, got, 0));
      served++;
    }
  } while (accepted < 4 || open_now > 0);
  while (wait(NULL) > 0) {
  }
  printf("served %d, order %016lx\n", served, order);
}

int main(void) {
  struct sockaddr_in inet = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct sockaddr_un local = {.sun_family = AF_UNIX, .sun_path = "/tmp/socket"};
  serve(AF_UNIX, (struct sockaddr *)&local, sizeof local);
  serve(AF_INET, (struct sockaddr *)&inet, sizeof inet);
  int udp = CHECK(socket(AF_INET, SOCK_DGRAM, 0));
  inet.sin_port = 0;
  CHECK(bind(udp, (struct sockaddr *)&inet, sizeof inet));
  socklen_t size = sizeof inet;
  CHECK(getsockname(udp, (struct sockaddr *)&inet, &size));
  CHECK(sendto(udp, "hello", 5, 0, (struct sockaddr *)&inet, size));
  char text[8] = {0};
  CHECK(recv(udp, text, 7, 0));
  printf("udp port %d %s\n", ntohs(inet.sin_port), text);
  return 0;
}
