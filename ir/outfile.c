/* Temporary files and renames: see outfile.h.
 *
 * Where the file system can (O_TMPFILE), the file has no name until it is whole, so that nothing is
 * left of a process that is killed; a name that is taken already is replaced by way of
 * PATH.PID-K.tmp within two system calls. Elsewhere the file has that name from the start. What a
 * killed process has left under such a name goes when the same file is written next: it is locked
 * as long as its writer lives. */
#include "ir/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Names of temporary files for outfiles_remove, which may come at any moment: a name is only
 * looked at while its slot is `ready`, and is complete then. */
enum { SLOTS = 16 };
static struct {
    atomic_bool taken, ready;
    char name[PATH_MAX];
} slots[SLOTS];

static int slot_take(const char *name)
{
    if (strlen(name) >= PATH_MAX) return -1;
    for (int k = 0; k < SLOTS; k++) {
        bool free_slot = false;
        if (!atomic_compare_exchange_strong(&slots[k].taken, &free_slot, true)) continue;
        strcpy(slots[k].name, name);
        atomic_store(&slots[k].ready, true);
        return k;
    }
    return -1;
}

static void slot_give(int k)
{
    if (k < 0) return;
    atomic_store(&slots[k].ready, false);
    atomic_store(&slots[k].taken, false);
}

void outfiles_remove(void)
{
    for (int k = 0; k < SLOTS; k++)
        if (atomic_load(&slots[k].ready)) unlink(slots[k].name);
}

static int failed(const OutFile *f, int why, Diag *d)
{
    return diag_error(d, "cannot write '%s': %s", f->path, strerror(why));
}

static void discard(void *p)
{
    OutFile *f = p;
    if (f->f) fclose(f->f);
    if (f->temporary) {
        unlink(f->temporary);
        slot_give(f->slot);
    }
    f->f = NULL;
    f->temporary = NULL;
}

/* What holds the target: "." or all before the last slash. */
static const char *folder_of(Arena *a, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash) return ".";
    return slash == path ? "/" : arena_printf(a, "%.*s", (int)(slash - path), path);
}

/* Makes PATH.PID-K.tmp for the first K that is free: a link to `to`, or, where that is NULL, a new
 * file. A descriptor of the new file, 0 for a link; -1 after an error. */
static int take_name(OutFile *f, const char *to)
{
    for (int k = 0; k < 100; k++) {
        char *name = arena_printf(f->arena, "%s.%ld-%d.tmp", f->path, (long)getpid(), k);
        f->slot = slot_take(name);
        int fd = to ? linkat(AT_FDCWD, to, AT_FDCWD, name, AT_SYMLINK_FOLLOW)
                    : open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0) {
            f->temporary = name;
            return fd;
        }
        int why = errno;
        slot_give(f->slot);
        f->slot = -1;
        errno = why;
        if (why != EEXIST) break;
    }
    return -1;
}

/* A path to an open file, whether it has a name or not. */
typedef struct Link {
    char path[32];
} Link;

static Link link_of(int fd)
{
    Link l;
    snprintf(l.path, sizeof l.path, "/proc/self/fd/%d", fd);
    return l;
}

/* A file without a name, or one with a temporary name; -1 after an error. */
static int create(OutFile *f)
{
    int fd = open(folder_of(f->arena, f->path), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
    if (fd >= 0 && access(link_of(fd).path, F_OK) == 0) return fd;
    if (fd >= 0) close(fd);
    fd = take_name(f, NULL);
    if (fd >= 0) flock(fd, LOCK_EX | LOCK_NB);
    return fd;
}

/* Whether nobody writes to it any more. One that is new may be about to be locked. */
static bool is_stale(const char *name)
{
    enum { A_MINUTE = 60 };
    struct stat st;
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    bool stale = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
                 st.st_mtime < time(NULL) - A_MINUTE && flock(fd, LOCK_EX | LOCK_NB) == 0;
    if (fd >= 0) close(fd);
    return stale;
}

/* PATH with what glob() would take as a pattern quoted, and behind it .PID-K.tmp of any. */
static char *pattern_of(Arena *a, const char *path)
{
    static const char tail[] = ".[0-9]*-[0-9]*.tmp";
    char *pattern = arena_alloc(a, 2 * strlen(path) + sizeof tail), *to = pattern;
    for (; *path; path++) {
        if (strchr("*?[\\", *path)) *to++ = '\\';
        *to++ = *path;
    }
    memcpy(to, tail, sizeof tail);
    return pattern;
}

static void remove_stale(Arena *a, const char *path)
{
    glob_t found;
    if (glob(pattern_of(a, path), 0, NULL, &found) != 0) return;
    for (size_t k = 0; k < found.gl_pathc; k++)
        if (is_stale(found.gl_pathv[k])) unlink(found.gl_pathv[k]);
    globfree(&found);
}

OutFile *outfile_new(Arena *a, const char *path, Diag *d)
{
    struct stat st;
    OutFile *f = NEW(a, OutFile);
    *f = (OutFile){.arena = a, .path = arena_strdup(a, path), .slot = -1};
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
        diag_error(d, "cannot write '%s': it is not a regular file", path);
        return NULL;
    }
    remove_stale(a, path);
    arena_defer(a, discard, f);
    int fd = create(f);
    f->f = fd >= 0 ? fdopen(fd, "wb") : NULL;
    if (f->f) return f;
    failed(f, errno, d);
    if (fd >= 0) close(fd);
    return NULL;
}

void outfile_write(OutFile *f, const void *p, size_t n)
{
    errno = 0;
    if (n && !f->error && fwrite(p, 1, n, f->f) != n) f->error = errno ? errno : EIO;
}

/* A file without a name stays open until it has one. */
int outfile_close(OutFile *f, Diag *d)
{
    if (!f->error && (fflush(f->f) != 0 || fsync(fileno(f->f)) != 0)) f->error = errno;
    if (f->temporary || f->error) {
        if (fclose(f->f) != 0 && !f->error) f->error = errno;
        f->f = NULL;
    }
    return f->error ? failed(f, f->error, d) : 0;
}

/* So that the new name outlives a loss of power; not every file system can, none needs the check.
 */
static void sync_folder(const OutFile *f)
{
    int fd = open(folder_of(f->arena, f->path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd);
    close(fd);
}

/* Gives a file without a name its own, if that is free, else a temporary one. */
static int name_it(OutFile *f)
{
    const Link from = link_of(fileno(f->f));
    int status = linkat(AT_FDCWD, from.path, AT_FDCWD, f->path, AT_SYMLINK_FOLLOW);
    return status < 0 && errno == EEXIST ? take_name(f, from.path) : status;
}

int outfile_publish(OutFile *f, Diag *d)
{
    if (f->f) {
        if (name_it(f) < 0) return failed(f, errno, d);
        fclose(f->f); /* all is on the disk */
        f->f = NULL;
    }
    if (f->temporary) {
        if (rename(f->temporary, f->path) < 0) return failed(f, errno, d);
        f->temporary = NULL;
        slot_give(f->slot);
    }
    sync_folder(f);
    return 0;
}

int outfile_whole(const char *path, const void *p, size_t n, Diag *d)
{
    Arena *a = arena_new();
    OutFile *f = outfile_new(a, path, d);
    int status = -1;
    if (f) {
        outfile_write(f, p, n);
        status = outfile_close(f, d);
        if (status == 0) status = outfile_publish(f, d);
    }
    arena_free(a);
    return status;
}
