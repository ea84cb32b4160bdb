/* What all programs of the corpus share: a call that may not fail, and a digest for orders too long to print. */
#ifndef CHECK_H
#define CHECK_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(call)                                                          \
  ({                                                                         \
    __typeof__(call) result_ = (call);                                       \
    if (result_ == (__typeof__(call))-1) {                                   \
      printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, strerror(errno)); \
      exit(3);                                                               \
    }                                                                        \
    result_;                                                                 \
  })

/* FNV-1a, one value more. */
static inline uint64_t mix(uint64_t digest, uint64_t value) {
  for (int byte = 0; byte < 8; byte++, value >>= 8) digest = (digest ^ (value & 255)) * 1099511628211u;
  return digest;
}
#define MIX_START 1469598103934665603u
#endif
