/* What the attacking programs share: one line for each thing they saw, and a digest for what is too long to print. */
#ifndef SAY_H
#define SAY_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Says what a call gave: its errno by name, or its value. */
#define TRY(call)                                                                        \
  ({                                                                                     \
    errno = 0;                                                                           \
    long tried_ = (long)(call);                                                          \
    if (tried_ == -1 && errno) printf("%s: %s\n", #call, strerrorname_np(errno));        \
    else printf("%s: %ld\n", #call, tried_);                                             \
    tried_;                                                                              \
  })

/* What the program itself needs and so may not fail. */
#define NEED(call)                                                      \
  ({                                                                    \
    __typeof__(call) needed_ = (call);                                  \
    if (needed_ == (__typeof__(call))-1) {                              \
      printf("%s: %s\n", #call, strerror(errno));                       \
      exit(3);                                                          \
    }                                                                   \
    needed_;                                                            \
  })

/* FNV-1a over bytes. */
static inline uint64_t digest(uint64_t sum, const void *bytes, size_t length) {
  for (const unsigned char *at = bytes; length--; at++) sum = (sum ^ *at) * 1099511628211u;
  return sum;
}
#define DIGEST_START 1469598103934665603u

/* A numbered part of a program, chosen by its name on the command line; without a name, all of them. */
struct part {
  const char *name;
  void (*run)(void);
};

static inline int run_parts(const struct part *parts, size_t count, int argc, char **argv) {
  int found = argc < 2;
  for (size_t i = 0; i < count; i++)
    if (argc < 2 || !strcmp(parts[i].name, argv[1])) {
      found = 1;
      printf("-- %s\n", parts[i].name);
      fflush(stdout);
      parts[i].run();
      fflush(stdout);
    }
  if (!found) fprintf(stderr, "no part is called %s\n", argv[1]);
  return found ? 0 : 2;
}
#endif
