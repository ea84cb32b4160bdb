/* What a file system says of old and new files. */
#include "check.h"
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

static void show(const char *path) {
  struct stat s;
  if (lstat(path, &s) != 0) {
    printf("%s errno %d\n", path, errno);
    return;
  }
  printf("%s dev %lx ino %lu mode %o nlink %lu uid %u size %ld blocks %ld blksize %ld rdev %lx atime %ld.%ld mtime %ld.%ld ctime %ld.%ld\n", path,
         s.st_dev, s.st_ino, s.st_mode, s.st_nlink, s.st_uid, s.st_size, s.st_blocks, s.st_blksize, s.st_rdev, s.st_atim.tv_sec,
         s.st_atim.tv_nsec, s.st_mtim.tv_sec, s.st_mtim.tv_nsec, s.st_ctim.tv_sec, s.st_ctim.tv_nsec);
}

int main(void) {
  show("/");
  show("/bin");
  show("/work");
  show("/work/tree");
  show("/proc");
  show("/proc/self/stat");
  show("/dev/null");
  CHECK(mkdir("/tmp/d", 0755));
  int fd = CHECK(open("/tmp/d/new", O_CREAT | O_RDWR, 0644));
  show("/tmp/d/new");
  for (int i = 0; i < 300; i++) CHECK(write(fd, "0123456789abcdef", 16));
  show("/tmp/d/new");
  CHECK(link("/tmp/d/new", "/tmp/d/second"));
  CHECK(symlink("new", "/tmp/d/link"));
  CHECK(ftruncate(fd, 1 << 20));
  show("/tmp/d/new");
  show("/tmp/d/link");
  show("/tmp/d");
  struct timespec times[2] = {{0, UTIME_NOW}, {1234567890, 987654321}};
  CHECK(futimens(fd, times));
  show("/tmp/d/second");
  CHECK(unlink("/tmp/d/second"));
  CHECK(rename("/tmp/d/new", "/tmp/d/other"));
  struct stat s;
  CHECK(fstat(fd, &s));
  printf("fstat ino %lu nlink %lu ctime %ld.%ld\n", s.st_ino, s.st_nlink, s.st_ctim.tv_sec, s.st_ctim.tv_nsec);
  struct statx x;
  CHECK(statx(AT_FDCWD, "/tmp/d/other", 0, STATX_ALL | STATX_BTIME | STATX_MNT_ID, &x));
  printf("statx mask %x ino %llu btime %lld.%u mnt %llu dev %u:%u\n", x.stx_mask, x.stx_ino, x.stx_btime.tv_sec, x.stx_btime.tv_nsec,
         x.stx_mnt_id, x.stx_dev_major, x.stx_dev_minor);
  struct statfs f;
  CHECK(statfs("/", &f));
  printf("statfs type %lx bsize %ld blocks %lu free %lu files %lu ffree %lu fsid %x %x\n", f.f_type, f.f_bsize, f.f_blocks, f.f_bfree,
         f.f_files, f.f_ffree, f.f_fsid.__val[0], f.f_fsid.__val[1]);
  CHECK(fstat(0, &s));
  printf("stdin dev %lx ino %lu mode %o\n", s.st_dev, s.st_ino, s.st_mode);
  CHECK(fstat(1, &s));
  printf("stdout dev %lx ino %lu mode %o\n", s.st_dev, s.st_ino, s.st_mode);
  return 0;
}
