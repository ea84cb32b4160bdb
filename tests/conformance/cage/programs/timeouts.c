/* Everything that waits for something that never comes, with a limit. */
#include "check.h"
#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int64_t now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * 1000000000 + at.tv_nsec;
}
static struct timespec in_ms(int ms) {
  struct timespec at;
  clock_gettime(CLOCK_REALTIME, &at);
  at.tv_nsec += ms * 1000000;
  if (at.tv_nsec >= 1000000000) at.tv_sec++, at.tv_nsec -= 1000000000;
  return at;
}
#define TIMED(what, call)                                      \
  do {                                                         \
    int64_t before_ = now();                                   \
    errno = 0;                                                 \
    long result_ = (call);                                     \
    printf("%s: %ld errno %d after %ld\n", what, result_, errno, now() - before_); \
  } while (0)

static void ignored(int signal) { (void)signal; }
static void sleep_ms(int ms) {
  struct timespec pause = {0, ms * 1000000};
  nanosleep(&pause, NULL);
}

/* Waits of a process for another one, with a limit or until an alarm. */
static void between_processes(void) {
  int set = CHECK(semget(IPC_PRIVATE, 1, 0600));
  struct sembuf take = {0, -1, 0}, give = {0, 1, 0}, try = {0, -1, IPC_NOWAIT};
  struct timespec limit = {0, 3000000}, tiny = {0, 1};
  TIMED("semaphore of System V", semtimedop(set, &take, 1, &limit));
  TIMED("semaphore of System V, 1 ns", semtimedop(set, &take, 1, &tiny));
  TIMED("semaphore of System V, tried", semtimedop(set, &try, 1, &limit));
  if (CHECK(fork()) == 0) {
    sleep_ms(2);
    _exit(semop(set, &give, 1));
  }
  TIMED("semaphore of System V, given", semtimedop(set, &take, 1, &limit));
  wait(NULL);

  struct mq_attr small = {.mq_maxmsg = 1, .mq_msgsize = 8};
  mqd_t queue = CHECK(mq_open("/timeouts", O_RDWR | O_CREAT, 0600, &small));
  CHECK(mq_unlink("/timeouts"));
  char text[8] = "text";
  struct timespec until = in_ms(4), past = {0, 0};
  TIMED("queue", mq_timedreceive(queue, text, 8, NULL, &until));
  TIMED("queue, past", mq_timedreceive(queue, text, 8, NULL, &past));
  if (CHECK(fork()) == 0) {
    sleep_ms(2);
    _exit(mq_send(queue, "message", 8, 0));
  }
  until = in_ms(4);
  TIMED("queue, sent", mq_timedreceive(queue, text, 8, NULL, &until));
  wait(NULL);
  CHECK(mq_send(queue, text, 8, 0));
  TIMED("queue, full", mq_timedsend(queue, text, 8, 0, &past));

  int ready[2];
  CHECK(pipe(ready));
  int file = CHECK(open("/tmp/timeouts", O_RDWR | O_CREAT, 0600));
  pid_t holder = CHECK(fork());
  if (holder == 0) {
    int other = CHECK(open("/tmp/timeouts", O_RDWR));
    CHECK(flock(other, LOCK_EX));
    CHECK(write(ready[1], "x", 1));
    sleep_ms(90);
    _exit(0);
  }
  CHECK(read(ready[0], text, 1));
  struct sigaction action = {.sa_handler = ignored};
  CHECK(sigaction(SIGALRM, &action, NULL));
  ualarm(5000, 0);
  TIMED("lock, interrupted", flock(file, LOCK_EX));
  ualarm(5000, 0);
  TIMED("semaphore of System V, interrupted", semop(set, &take, 1));
  action.sa_flags = SA_RESTART;
  CHECK(sigaction(SIGALRM, &action, NULL));
  ualarm(5000, 0);
  TIMED("semaphore of System V, interrupted all the same", semop(set, &take, 1));
  ualarm(5000, 0);
  TIMED("lock, restarted", flock(file, LOCK_EX) != 0);
  wait(NULL);
}

int main(void) {
  between_processes();
  int pipe_ends[2], pair[2];
  CHECK(pipe(pipe_ends));
  struct pollfd wanted = {pipe_ends[0], POLLIN, 0};
  TIMED("poll", poll(&wanted, 1, 7));
  struct timespec limit = {0, 8000000};
  TIMED("ppoll", ppoll(&wanted, 1, &limit, NULL));
  fd_set set;
  FD_ZERO(&set);
  FD_SET(pipe_ends[0], &set);
  TIMED("pselect", pselect(pipe_ends[0] + 1, &set, NULL, NULL, &limit, NULL));
  int hung_up[2];
  CHECK(pipe(hung_up));
  CHECK(close(hung_up[1]));
  struct timeval patient = {0, 8000};
  FD_ZERO(&set);
  FD_SET(hung_up[0], &set);
  TIMED("select, to write where the other end has hung up", select(hung_up[0] + 1, NULL, &set, NULL, &patient));
  patient = (struct timeval){0, 8000};
  FD_ZERO(&set);
  FD_SET(900, &set);
  TIMED("select, beyond all descriptors", select(1000, &set, NULL, NULL, &patient));
  TIMED("poll, a count with an upper half", syscall(SYS_poll, &wanted, 0x100000001UL, 7));
  int epoll = CHECK(epoll_create1(0));
  struct epoll_event event = {.events = EPOLLIN};
  CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, pipe_ends[0], &event));
  TIMED("epoll", epoll_wait(epoll, &event, 1, 9));
  sem_t semaphore;
  CHECK(sem_init(&semaphore, 0, 0));
  struct timespec until = in_ms(5);
  TIMED("semaphore", sem_timedwait(&semaphore, &until));
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
  pthread_mutex_lock(&mutex);
  until = in_ms(6);
  TIMED("condition", pthread_cond_timedwait(&condition, &mutex, &until));
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGUSR1);
  sigprocmask(SIG_BLOCK, &signals, NULL);
  limit = (struct timespec){0, 4000000};
  TIMED("sigtimedwait", sigtimedwait(&signals, NULL, &limit));
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  struct timeval patience = {0, 5000};
  CHECK(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience));
  char byte;
  TIMED("recv", recv(pair[0], &byte, 1, 0));
  socklen_t length = sizeof patience;
  CHECK(getsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &patience, &length));
  printf("limit %ld.%06ld\n", patience.tv_sec, patience.tv_usec);
  CHECK(setsockopt(pair[1], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience));
  static char much[4 << 20];
  TIMED("send", send(pair[1], much, sizeof much, 0) > 0);
  TIMED("send again", send(pair[1], much, sizeof much, 0));
  return 0;
}
