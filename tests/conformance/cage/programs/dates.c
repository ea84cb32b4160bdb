/* What has which date and number after names were made, taken away and moved, and after owners, modes and bytes were changed. */
#include "check.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>

static struct stat last;

/* Prints a file, and whether its dates moved since it was printed before. */
static void show(const char *deed, const char *path) {
  struct stat s;
  CHECK(lstat(path, &s));
  printf("%-10s %s ino %lu mode %o nlink %lu mtime %ld.%09ld ctime %ld.%09ld%s\n", deed, path, s.st_ino, s.st_mode, s.st_nlink, s.st_mtim.tv_sec,
         s.st_mtim.tv_nsec, s.st_ctim.tv_sec, s.st_ctim.tv_nsec, s.st_ino == last.st_ino && s.st_dev == last.st_dev ? " (the same)" : "");
  last = s;
}

static void write_to(const char *path, int flags) {
  int fd = CHECK(open(path, flags, 0644));
  CHECK(write(fd, "x", 1));
  CHECK(close(fd));
}

int main(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/tmp/dates/socket"};
  CHECK(mkdir("/tmp/dates", 0755));
  show("mkdir", "/tmp/dates");
  write_to("/tmp/dates/a", O_CREAT | O_WRONLY);
  show("create", "/tmp/dates/a");
  show("create", "/tmp/dates");
  CHECK(symlink("a", "/tmp/dates/link"));
  show("symlink", "/tmp/dates/link");
  CHECK(mkfifo("/tmp/dates/fifo", 0644));
  show("mkfifo", "/tmp/dates/fifo");
  CHECK(bind(CHECK(socket(AF_UNIX, SOCK_STREAM, 0)), (struct sockaddr *)&address, sizeof address));
  show("bind", "/tmp/dates/socket");
  CHECK(link("/tmp/dates/a", "/tmp/dates/b"));
  show("link", "/tmp/dates/a");
  CHECK(chmod("/tmp/dates/a", 0600));
  show("chmod", "/tmp/dates/b");
  CHECK(chown("/tmp/dates/link", 1, 1));
  show("chown", "/tmp/dates/a");
  setxattr("/tmp/dates/a", "user.x", "y", 1, 0);
  show("setxattr", "/tmp/dates/a");
  CHECK(rename("/tmp/dates/a", "/tmp/dates/c"));
  show("rename", "/tmp/dates/c");
  CHECK(unlink("/tmp/dates/b"));
  show("unlink", "/tmp/dates/c");
  show("unlink", "/tmp/dates");
  struct timespec times[2] = {{1, 2}, {3, 4}};
  CHECK(utimensat(AT_FDCWD, "/tmp/dates/c", times, 0));
  show("utimens", "/tmp/dates/c");
  CHECK(truncate("/tmp/dates/c", 8192));
  show("truncate", "/tmp/dates/c");
  int to = CHECK(open("/tmp/dates/c", O_RDWR)), from = CHECK(open("/work/dates", O_RDONLY));
  CHECK(sendfile(to, from, NULL, 100));
  show("sendfile", "/tmp/dates/c");
  char *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, to, 0);
  *mapped = 1;
  show("mmap", "/tmp/dates/c");
  CHECK(mkdir("/tmp/dates/d", 0755));
  CHECK(rename("/tmp/dates/c", "/tmp/dates/d/c"));
  show("move", "/tmp/dates/d");
  CHECK(unlink("/tmp/dates/d/c"));
  write_to("/tmp/dates/d/new", O_CREAT | O_WRONLY);
  show("again", "/tmp/dates/d/new");
  /* Files of the image: an overlay copies them up, and they stay what they were. */
  show("image", "/etc/passwd");
  int before = CHECK(open("/etc/passwd", O_RDONLY));
  CHECK(chmod("/etc/passwd", 0640));
  show("chmod", "/etc/passwd");
  write_to("/etc/passwd", O_WRONLY | O_APPEND);
  show("append", "/etc/passwd");
  struct stat s;
  CHECK(fstat(before, &s));
  printf("an older descriptor has number %lu\n", s.st_ino);
  show("image", "/etc/group");
  CHECK(link("/etc/group", "/etc/group-2"));
  show("link", "/etc/group-2");
  CHECK(rename("/etc/group", "/etc/group-3"));
  show("rename", "/etc/group-3");
  show("image", "/work/tree");
  CHECK(mkdir("/work/tree/new-folder", 0755));
  show("mkdir", "/work/tree");
  CHECK(rmdir("/work/tree/new-folder"));
  show("rmdir", "/work/tree");
  return 0;
}
