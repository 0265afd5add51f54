/* A layer between a process and its files that fails on purpose.
 *
 * Loaded with LD_PRELOAD. Operations that change files under one folder are counted, and at a chosen one
 * the process is killed (a write is done in part before), or the operation fails with an error of the
 * disk. It can also write down all such operations, from which power cuts are replayed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { OFF, KILL, FULL, BROKEN, SLOW };

static char folder[4096];
static long at = -1, count = 0;
static int mode = OFF;
static double share = 1.0;
static int trace = -1;

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

/* Fail at the given operation from now on: the `after`-th one under `prefix`, in this manner. */
void faultfs_arm(const char *prefix, long after, int how, double part) {
    snprintf(folder, sizeof folder, "%s", prefix);
    at = after; count = 0; mode = how; share = part;
}

long faultfs_count(void) { return count; }

static ssize_t put(int fd, const void *data, size_t size) { return REAL(write)(fd, data, size); }

/* Write down what happens to the files from now on. */
void faultfs_trace(const char *path) {
    trace = REAL(open)(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

static void note(char op, const char *path, const char *other, int64_t offset, const void *data, int64_t size) {
    if (trace < 0) return;
    int32_t n = (int32_t)strlen(path), m = other ? (int32_t)strlen(other) : 0;
    put(trace, &op, 1);
    put(trace, &n, 4); put(trace, path, n);
    put(trace, &m, 4); if (m) put(trace, other, m);
    put(trace, &offset, 8); put(trace, &size, 8);
    if (data && size > 0) put(trace, data, size);
}

/* A moment that the caller wants to find again, such as "generation 3 is acknowledged". */
void faultfs_mark(long number) { note('M', "", NULL, number, NULL, 0); }

static int ours(const char *path) {
    size_t n = strlen(folder);
    if (!n || strncmp(path, folder, n)) return 0;
    size_t m = strlen(path);
    return !(m > 4 && !strcmp(path + m - 4, "-shm"));  /* shared memory is built anew after a crash */
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, 4095);
    if (n <= 0) return 0;
    path[n] = 0;
    return ours(path);
}

/* The error for this operation, 0 for none; a kill does not return unless a write must be torn first. */
static int fault(int is_write) {
    count++;
    if (mode == SLOW) { usleep(5000); return 0; }
    if (at < 0 || count < at) return 0;
    if (mode == KILL && count == at) {
        if (is_write) return -1;
        kill(getpid(), SIGKILL);
    }
    if (mode == FULL) return ENOSPC;
    if (mode == BROKEN && count == at) return EIO;
    return 0;
}

#define TORN(call)                                                      \
    do {                                                                \
        int why = fault(1);                                             \
        size_t part = (size_t)(share * size);                           \
        if (why == -1) { if (part) { size_t s = part; call(s); } kill(getpid(), SIGKILL); for (;;) pause(); } \
        if (why) { errno = why; return -1; }                            \
    } while (0)

ssize_t write(int fd, const void *data, size_t size) {
    char path[4096];
    if (!path_of(fd, path)) return REAL(write)(fd, data, size);
#define CALL(s) REAL(write)(fd, data, s)
    TORN(CALL);
#undef CALL
    off_t where = lseek(fd, 0, SEEK_CUR);
    if (fcntl(fd, F_GETFL) & O_APPEND) where = lseek(fd, 0, SEEK_END);
    ssize_t done = REAL(write)(fd, data, size);
    if (done > 0) note('W', path, NULL, where, data, done);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    char path[4096];
    if (!path_of(fd, path)) return REAL(pwrite)(fd, data, size, offset);
#define CALL(s) REAL(pwrite)(fd, data, s, offset)
    TORN(CALL);
#undef CALL
    ssize_t done = REAL(pwrite)(fd, data, size, offset);
    if (done > 0) note('W', path, NULL, offset, data, done);
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) { return pwrite(fd, data, size, offset); }

static int failed(int why) { errno = why; return -1; }

#define SYNC(name)                                                      \
    int name(int fd) {                                                  \
        char path[4096];                                                \
        if (!path_of(fd, path)) return REAL(name)(fd);                  \
        int why = fault(0);                                             \
        if (why > 0 && why != ENOSPC) return failed(why);               \
        note('S', path, NULL, 0, NULL, 0);                              \
        return REAL(name)(fd);                                          \
    }
SYNC(fsync)
SYNC(fdatasync)

int ftruncate(int fd, off_t size) {
    char path[4096];
    if (!path_of(fd, path)) return REAL(ftruncate)(fd, size);
    int why = fault(0);
    if (why > 0) return failed(why);
    note('T', path, NULL, size, NULL, 0);
    return REAL(ftruncate)(fd, size);
}

int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

int rename(const char *from, const char *to) {
    if (!ours(from)) return REAL(rename)(from, to);
    int why = fault(0);
    if (why > 0) return failed(why);
    note('R', from, to, 0, NULL, 0);
    return REAL(rename)(from, to);
}

int unlink(const char *path) {
    if (!ours(path)) return REAL(unlink)(path);
    int why = fault(0);
    if (why > 0 && why != ENOSPC) return failed(why);
    note('U', path, NULL, 0, NULL, 0);
    return REAL(unlink)(path);
}
