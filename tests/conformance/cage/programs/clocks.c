/* Every clock a program can ask without sleeping. */
#include "check.h"
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/times.h>
#include <time.h>

int main(void) {
  for (int round = 0; round < 3; round++) {
    for (clockid_t id = 0; id <= 11; id++) {
      struct timespec now, resolution;
      if (clock_gettime(id, &now) == 0 && clock_getres(id, &resolution) == 0)
        printf("clock %d %ld.%09ld (%ld.%09ld)\n", id, now.tv_sec, now.tv_nsec, resolution.tv_sec, resolution.tv_nsec);
      else
        printf("clock %d errno %d\n", id, errno);
    }
    struct timeval day;
    struct timezone zone;
    CHECK(gettimeofday(&day, &zone));
    printf("gettimeofday %ld.%06ld zone %d\ntime %ld\n", day.tv_sec, day.tv_usec, zone.tz_minuteswest, time(NULL));
    struct tms spent;
    printf("times %ld", times(&spent));
    printf(" %ld %ld\nclock() %ld\n", spent.tms_utime, spent.tms_stime, clock());
    struct rusage usage;
    CHECK(getrusage(RUSAGE_SELF, &usage));
    printf("rusage %ld.%06ld %ld.%06ld\n", usage.ru_utime.tv_sec, usage.ru_utime.tv_usec, usage.ru_stime.tv_sec, usage.ru_stime.tv_usec);
  }
  return 0;
}
