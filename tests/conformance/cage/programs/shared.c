/* Memory, semaphores and queues that processes share. */
#include "check.h"
#include <fcntl.h>
#include <mqueue.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/wait.h>

struct shared {
  sem_t semaphore;
  int next;
  unsigned char order[4000];
};

int main(void) {
  struct shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(sem_init(&shared->semaphore, 1, 1));
  for (int me = 0; me < 4; me++)
    if (CHECK(fork()) == 0) {
      for (int i = 0; i < 300; i++) {
        sem_wait(&shared->semaphore);
        shared->order[shared->next++] = me;
        sem_post(&shared->semaphore);
        if (i % 50 == 0) sched_yield();
      }
      _exit(0);
    }
  while (wait(NULL) > 0) {
  }
  uint64_t digest = MIX_START;
  for (int i = 0; i < shared->next; i++) digest = mix(digest, shared->order[i]);
  printf("shared %d order %016lx\n", shared->next, digest);

  int events = CHECK(eventfd(0, EFD_SEMAPHORE));
  for (int me = 0; me < 3; me++)
    if (CHECK(fork()) == 0) {
      uint64_t one;
      CHECK(read(events, &one, 8));
      dprintf(1, "eventfd wakes %d\n", me);
      _exit(0);
    }
  uint64_t three = 3;
  CHECK(write(events, &three, 8));
  while (wait(NULL) > 0) {
  }

  int queue = msgget(IPC_PRIVATE, 0600 | IPC_CREAT);
  printf("msgget %s\n", queue < 0 ? strerror(errno) : "good");
  if (queue >= 0) {
    struct { long type; char text[8]; } message;
    for (int me = 0; me < 3; me++)
      if (CHECK(fork()) == 0) {
        for (int i = 0; i < 10; i++) {
          message.type = 1 + me;
          snprintf(message.text, 8, "%d.%d", me, i);
          CHECK(msgsnd(queue, &message, 8, 0));
        }
        _exit(0);
      }
    for (int i = 0; i < 30; i++) {
      CHECK(msgrcv(queue, &message, 8, 0, 0));
      printf("%s ", message.text);
    }
    printf("\n");
    while (wait(NULL) > 0) {
    }
    CHECK(msgctl(queue, IPC_RMID, NULL));
  }
  int set = semget(IPC_PRIVATE, 1, 0600 | IPC_CREAT);
  printf("semget %s\n", set < 0 ? strerror(errno) : "good");
  if (set >= 0) {
    fflush(stdout);
    for (int me = 0; me < 3; me++)
      if (CHECK(fork()) == 0) {
        struct sembuf take = {0, -1, 0};
        CHECK(semop(set, &take, 1));
        dprintf(1, "semop wakes %d\n", me);
        _exit(0);
      }
    struct sembuf give = {0, 3, 0};
    CHECK(semop(set, &give, 1));
    while (wait(NULL) > 0) {
    }
    CHECK(semctl(set, 0, IPC_RMID));
  }
  mqd_t mq = mq_open("/queue", O_CREAT | O_RDWR, 0600, NULL);
  printf("mq_open %s\n", mq == (mqd_t)-1 ? strerror(errno) : "good");
  return 0;
}
