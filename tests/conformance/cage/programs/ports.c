/* Ports and abstract names that nobody asked for by number: bind to 0, connect, listen and send without a bind, IPv4 and IPv6, unix. */
#include "check.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

static int port_of(int fd) {
  struct sockaddr_storage own;
  socklen_t size = sizeof own;
  CHECK(getsockname(fd, (struct sockaddr *)&own, &size));
  return ntohs(own.ss_family == AF_INET ? ((struct sockaddr_in *)&own)->sin_port : ((struct sockaddr_in6 *)&own)->sin6_port);
}

static void unix_name(const char *deed, int fd) {
  struct sockaddr_un own;
  socklen_t size = sizeof own;
  CHECK(getsockname(fd, (struct sockaddr *)&own, &size));
  printf("%s: %u bytes @%.*s\n", deed, size, size > 3 ? (int)size - 3 : 0, own.sun_path + 1);
}

static void family(int family, struct sockaddr *any, socklen_t size, in_port_t *port) {
  int first = CHECK(socket(family, SOCK_STREAM, 0)), second = CHECK(socket(family, SOCK_STREAM, 0));
  *port = 0;
  CHECK(bind(first, any, size));
  printf("bind to 0: %d\n", port_of(first));
  CHECK(listen(first, 4));
  CHECK(listen(second, 4));
  printf("listen alone: %d\n", port_of(second));
  *port = htons(port_of(first));
  for (int i = 0; i < 3; i++) {
    int client = CHECK(socket(family, SOCK_STREAM, 0));
    CHECK(connect(client, any, size));
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int served = CHECK(accept(first, (struct sockaddr *)&peer, &length));
    printf("connect: %d, accepted from %d\n", port_of(client), ntohs(((struct sockaddr_in *)&peer)->sin_port));
    close(served);
    close(client);
  }
  int udp = CHECK(socket(family, SOCK_DGRAM, 0)), other = CHECK(socket(family, SOCK_DGRAM, 0)), third = CHECK(socket(family, SOCK_DGRAM, 0));
  *port = 0;
  CHECK(bind(udp, any, size));
  *port = htons(port_of(udp));
  CHECK(sendto(other, "x", 1, 0, any, size));
  CHECK(connect(third, any, size));
  printf("udp: %d, sendto from %d, connect from %d\n", port_of(udp), port_of(other), port_of(third));
}

int main(void) {
  struct sockaddr_in inet = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct sockaddr_in6 inet6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  family(AF_INET, (struct sockaddr *)&inet, sizeof inet, &inet.sin_port);
  int test = socket(AF_INET6, SOCK_STREAM, 0);
  if (test >= 0 && bind(test, (struct sockaddr *)&inet6, sizeof inet6) == 0)
    family(AF_INET6, (struct sockaddr *)&inet6, sizeof inet6, &inet6.sin6_port);
  sa_family_t none = AF_UNIX;
  for (int i = 0; i < 3; i++) {
    int fd = CHECK(socket(AF_UNIX, SOCK_DGRAM, 0));
    CHECK(bind(fd, (struct sockaddr *)&none, sizeof none));
    unix_name("autobind", fd);
  }
  struct sockaddr_un server = {.sun_family = AF_UNIX, .sun_path = "/tmp/ports"};
  int listener = CHECK(socket(AF_UNIX, SOCK_DGRAM, 0)), client = CHECK(socket(AF_UNIX, SOCK_DGRAM, 0)), on = 1;
  CHECK(bind(listener, (struct sockaddr *)&server, sizeof server));
  CHECK(setsockopt(client, SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
  CHECK(connect(client, (struct sockaddr *)&server, sizeof server));
  unix_name("connect with credentials", client);
  return 0;
}
