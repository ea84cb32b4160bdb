/* Ways into /proc that do not begin with its name: doubled slashes, `..`, links, descriptors, working folders; and what is not there. */
#include "check.h"
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

static void show(int folder, const char *path) {
  char text[512];
  struct stat s = {0};
  int looked = fstatat(folder, path, &s, 0), fd = openat(folder, path, O_RDONLY);
  printf("%s: stat %d mode %o ino %lu size %ld mtime %ld, access %d, ", path, looked, s.st_mode, s.st_ino, s.st_size, s.st_mtim.tv_sec,
         faccessat(folder, path, R_OK, 0));
  if (fd < 0) {
    printf("errno %d\n", errno);
    return;
  }
  ssize_t got = read(fd, text, sizeof text);
  printf("%zd bytes %.*s\n", got, got > 60 ? 60 : got > 0 ? (int)got : 0, text);
  close(fd);
}

static void point(int folder, const char *path) {
  char text[512];
  ssize_t length = readlinkat(folder, path, text, sizeof text - 1);
  text[length < 0 ? 0 : length] = 0;
  printf("%s -> %s\n", path, length < 0 ? strerror(errno) : text);
}

static void list(const char *path) {
  DIR *dir = opendir(path);
  struct dirent *entry;
  while (dir && (entry = readdir(dir))) printf("%s has %s %lu\n", path, entry->d_name, entry->d_ino);
  if (dir) closedir(dir);
}

int main(void) {
  int ends[2];
  CHECK(mkdir("/tmp/ways", 0755));
  CHECK(symlink("/proc/uptime", "/tmp/ways/file"));
  CHECK(symlink("../../proc", "/tmp/ways/folder"));
  CHECK(symlink("folder/self/cwd", "/tmp/ways/round"));
  CHECK(symlink("loop", "/tmp/ways/loop"));
  const char *const paths[] = {"//proc//uptime", "/proc/./uptime", "/etc/../proc/uptime", "/tmp/ways/file", "/tmp/ways/folder/uptime",
                               "/proc/self/root/proc/uptime", "/proc/1/root/proc/1/../uptime", "/proc/self/task/../stat",
                               "/proc/thread-self/../../stat", "/dev/fd/../stat", "/proc/self/fd/../../uptime", "/tmp/ways/round/ways/file",
                               "/tmp/ways/loop", "/proc/kallsyms", "/proc/net/tcp", "/proc/self/attr/current", "/proc/sys/kernel/osrelease",
                               "/sys/devices/../../proc/version", "/sys/class/net", "/sys/devices/system/cpu/online", "/proc/self/mountinfo"};
  CHECK(chdir("/tmp"));
  for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++) show(AT_FDCWD, paths[i]);
  int proc = CHECK(open("/tmp/ways/folder", O_RDONLY | O_DIRECTORY)), path = CHECK(open("/proc/self", O_PATH));
  show(proc, "uptime");
  show(path, "../loadavg");
  show(path, "stat");
  CHECK(fchdir(proc));
  show(AT_FDCWD, "uptime");
  show(AT_FDCWD, "self/cwd/meminfo");
  CHECK(chdir("/proc/self"));
  show(AT_FDCWD, "../version");
  show(AT_FDCWD, "statm");
  char through[64];
  snprintf(through, sizeof through, "/proc/self/fd/%d/uptime", proc);
  show(AT_FDCWD, through);
  CHECK(unlink("/tmp/ways/file"));
  CHECK(close(CHECK(open("/tmp/ways/file", O_CREAT | O_WRONLY, 0600))));
  show(AT_FDCWD, "/tmp/ways/file");
  CHECK(rename("/tmp/ways/folder", "/tmp/ways/other"));
  CHECK(symlink("/proc/version", "/tmp/ways/folder"));
  show(AT_FDCWD, "/tmp/ways/folder");
  show(AT_FDCWD, "/tmp/ways/other/uptime");
  CHECK(pipe(ends));
  snprintf(through, sizeof through, "/proc/self/fd/%d", ends[0]);
  point(AT_FDCWD, through);
  snprintf(through, sizeof through, "/proc/self/fdinfo/%d", ends[0]);
  show(AT_FDCWD, through);
  point(AT_FDCWD, "/proc/self/ns/mnt");
  point(AT_FDCWD, "/proc/uptime");
  point(path, "exe");
  struct stat s;
  CHECK(fstat(proc, &s));
  printf("descriptor of /proc: ino %lu nlink %lu\n", s.st_ino, s.st_nlink);
  struct statfs f;
  CHECK(statfs("/tmp/ways/other/uptime", &f));
  printf("file system %lx\n", f.f_type);
  list("/proc");
  list("/proc/self");
  list("/proc/self/ns");
  list("/sys");
  return 0;
}
