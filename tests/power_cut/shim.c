/* Notes which parts of which files were synced, so that a test can take back the rest, as a power cut would.
 *
 *   LD_PRELOAD=shim.so POWER_CUT_BOOK=<file> POWER_CUT_FOLDER=<folder> program
 *
 * Every file of the folder that is opened for writing, synced or renamed gets a line in the book:
 *
 *   O <bytes> <path>       opened with so many bytes in it; what it had before counts as synced
 *   S <bytes> <path>       synced up to there
 *   R <old>\t<new>         renamed
 *
 * With POWER_CUT_DEAF=<suffix>, syncs of files of that suffix are not noted: as if the program had left them out.
 * Files are taken to be appended to, which is what a log-structured store does. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int book = -1;
static const char *folder;
static const char *deaf;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("POWER_CUT_BOOK");
  folder = getenv("POWER_CUT_FOLDER");
  deaf = getenv("POWER_CUT_DEAF");
  if (path && folder)
    book = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int watched(const char *path) {
  return book >= 0 && path && strncmp(path, folder, strlen(folder)) == 0;
}

static int ends_with(const char *text, const char *end) {
  size_t a = strlen(text), b = strlen(end);
  return a >= b && strcmp(text + a - b, end) == 0;
}

static void note(const char *line, int length) {
  /* One write is one line, also from several threads. */
  if (length > 0 && syscall(SYS_write, book, line, (size_t)length) != length)
    abort();
}

static int path_of(int fd, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, PATH_MAX - 1);
  if (length < 0)
    return 0;
  path[length] = 0;
  return watched(path);
}

static void note_size(char kind, const char *path, long long bytes) {
  char line[PATH_MAX + 64];
  note(line, snprintf(line, sizeof line, "%c %lld %s\n", kind, bytes, path));
}

static int opened(int fd, int flags) {
  char path[PATH_MAX];
  struct stat stat;
  if (fd >= 0 && (flags & O_ACCMODE) != O_RDONLY && path_of(fd, path) && fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode))
    note_size('O', path, (long long)stat.st_size);
  return fd;
}

#define MODE(flags, last)                                                                                              \
  mode_t mode = 0;                                                                                                     \
  if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                               \
    va_list rest;                                                                                                      \
    va_start(rest, last);                                                                                              \
    mode = va_arg(rest, mode_t);                                                                                       \
    va_end(rest);                                                                                                      \
  }

int open(const char *path, int flags, ...) {
  MODE(flags, flags)
  return opened((int)syscall(SYS_openat, AT_FDCWD, path, flags, mode), flags);
}

int open64(const char *path, int flags, ...) {
  MODE(flags, flags)
  return opened((int)syscall(SYS_openat, AT_FDCWD, path, flags | O_LARGEFILE, mode), flags);
}

int openat(int at, const char *path, int flags, ...) {
  MODE(flags, flags)
  return opened((int)syscall(SYS_openat, at, path, flags, mode), flags);
}

int openat64(int at, const char *path, int flags, ...) {
  MODE(flags, flags)
  return opened((int)syscall(SYS_openat, at, path, flags | O_LARGEFILE, mode), flags);
}

static int synced(int fd, long number) {
  char path[PATH_MAX];
  struct stat stat;
  /* Taken before the sync: what is written meanwhile may not be part of it. */
  int known = path_of(fd, path) && fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode);
  int result = (int)syscall(number, fd);
  if (result == 0 && known && !(deaf && *deaf && ends_with(path, deaf)))
    note_size('S', path, (long long)stat.st_size);
  return result;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }

int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int rename(const char *from, const char *to) {
  int result = (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
  if (result == 0 && watched(from)) {
    char line[2 * PATH_MAX + 8];
    note(line, snprintf(line, sizeof line, "R %s\t%s\n", from, to));
  }
  return result;
}
