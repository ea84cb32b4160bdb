/* alarm, interval timers, POSIX timers by signal and by thread, timerfd: when they fire and how often. */
#include "check.h"
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>

static volatile sig_atomic_t alarms, real_ticks, posix_ticks;
static int64_t now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * 1000000000 + at.tv_nsec;
}
static void on_alarm(int signal) { (void)signal, alarms++; }
static void on_posix(int signal) { (void)signal, posix_ticks++; }
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t fired = PTHREAD_COND_INITIALIZER;
static int by_thread;
static void in_thread(union sigval value) {
  pthread_mutex_lock(&lock);
  by_thread += value.sival_int;
  pthread_cond_signal(&fired);
  pthread_mutex_unlock(&lock);
}

int main(void) {
  signal(SIGALRM, on_alarm);
  signal(SIGRTMIN, on_posix);
  int64_t start = now();
  alarm(1);
  pause();
  printf("alarm after %ld, %d\n", now() - start, alarms);

  struct itimerval every = {{0, 2000}, {0, 2000}};
  start = now();
  alarms = 0;
  CHECK(setitimer(ITIMER_REAL, &every, NULL));
  unsigned long computed = 0;
  while (alarms < 5) computed += getppid() >= 0;
  memset(&every, 0, sizeof every);
  struct itimerval left;
  CHECK(setitimer(ITIMER_REAL, &every, &left));
  printf("itimer: 5 ticks after %ld, %lu rounds, left %ld\n", now() - start, computed, left.it_value.tv_usec);

  timer_t timer;
  struct sigevent by_signal = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
  CHECK(timer_create(CLOCK_MONOTONIC, &by_signal, &timer));
  struct itimerspec steps = {{0, 3000000}, {0, 1000000}};
  start = now();
  CHECK(timer_settime(timer, 0, &steps, NULL));
  while (posix_ticks < 4) pause();
  CHECK(timer_gettime(timer, &steps));
  printf("posix timer: 4 ticks after %ld, left %ld, overrun %d\n", now() - start, steps.it_value.tv_nsec, timer_getoverrun(timer));
  CHECK(timer_delete(timer));

  struct sigevent threaded = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = in_thread, .sigev_value.sival_int = 7};
  CHECK(timer_create(CLOCK_REALTIME, &threaded, &timer));
  steps = (struct itimerspec){{0, 0}, {0, 2000000}};
  start = now();
  CHECK(timer_settime(timer, 0, &steps, NULL));
  pthread_mutex_lock(&lock);
  while (!by_thread) pthread_cond_wait(&fired, &lock);
  pthread_mutex_unlock(&lock);
  printf("thread timer: %d after %ld\n", by_thread, now() - start);

  int fd = CHECK(timerfd_create(CLOCK_MONOTONIC, 0));
  steps = (struct itimerspec){{0, 1500000}, {0, 1500000}};
  start = now();
  CHECK(timerfd_settime(fd, 0, &steps, NULL));
  for (int i = 0; i < 3; i++) {
    uint64_t expirations;
    CHECK(read(fd, &expirations, sizeof expirations));
    printf("timerfd %lu after %ld\n", expirations, now() - start);
  }
  return 0;
}
