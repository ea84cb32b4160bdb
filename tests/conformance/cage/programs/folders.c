/* The order of directories: one that the host filled in any order, one that we fill and thin out while we read it. */
#include "check.h"
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

static int list(const char *path) {
  DIR *dir = opendir(path);
  struct dirent *entry;
  int count = 0;
  if (!dir) return printf("%s errno %d\n", path, errno);
  while ((entry = readdir(dir))) {
    printf("%s/%s ino %lu off %ld type %d\n", path, entry->d_name, entry->d_ino, entry->d_off, entry->d_type);
    count++;
  }
  long end = telldir(dir);
  rewinddir(dir);
  entry = readdir(dir);
  printf("%s: %d entries, end %ld, first again %s\n", path, count, end, entry->d_name);
  closedir(dir);
  return count;
}

int main(void) {
  char name[320];
  list("/work/tree");
  list("/");
  CHECK(mkdir("/tmp/many", 0755));
  for (int i = 0; i < 500; i++) {
    snprintf(name, sizeof name, "/tmp/many/%x", i * 40503u % 65536);
    close(CHECK(open(name, O_CREAT | O_WRONLY, 0644)));
  }
  list("/tmp/many");
  DIR *dir = opendir("/tmp/many");
  struct dirent *entry;
  int seen = 0;
  while ((entry = readdir(dir))) {
    if (entry->d_name[0] == '.') continue;
    snprintf(name, sizeof name, "/tmp/many/%s", entry->d_name);
    CHECK(unlink(name));
    if (++seen == 250) close(CHECK(open("/tmp/many/late", O_CREAT | O_WRONLY, 0644)));
  }
  printf("unlinked %d while reading\n", seen);
  closedir(dir);
  list("/proc/self/task");
  list("/proc/self/fd");
  return 0;
}
