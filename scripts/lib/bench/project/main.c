#include "config.h"

#include <stdio.h>

#define EACH(what) what(1) what(2) what(3) what(4) what(5) what(6) what(7) what(8)
#define DECLARE(part) int words##part(const char *text, FILE *out);
#define CALL(part) sum += words##part("the quick brown fox jumps over the lazy dog the end", stdout);

EACH(DECLARE)

int main(void) {
  int sum = 0;
  EACH(CALL)
  return sum == 0;
}
