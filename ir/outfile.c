/* Temporary files and renames: see outfile.h. */
#include "ir/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
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

/* Opens PATH.PID-K.tmp for the first K that is free. */
static int create(Arena *a, OutFile *f)
{
    int fd = -1;
    for (int k = 0; k < 100; k++) {
        char *name = arena_printf(a, "%s.%ld-%d.tmp", f->path, (long)getpid(), k);
        f->slot = slot_take(name);
        fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0) {
            f->temporary = name;
            break;
        }
        int why = errno;
        slot_give(f->slot);
        errno = why;
        if (why != EEXIST) break;
    }
    return fd;
}

OutFile *outfile_new(Arena *a, const char *path, Diag *d)
{
    struct stat st;
    OutFile *f = NEW(a, OutFile);
    *f = (OutFile){.path = arena_strdup(a, path), .slot = -1};
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
        diag_error(d, "cannot write '%s': it is not a regular file", path);
        return NULL;
    }
    arena_defer(a, discard, f);
    int fd = create(a, f);
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

int outfile_close(OutFile *f, Diag *d)
{
    if (!f->error && (fflush(f->f) != 0 || fsync(fileno(f->f)) != 0)) f->error = errno;
    if (fclose(f->f) != 0 && !f->error) f->error = errno;
    f->f = NULL;
    return f->error ? failed(f, f->error, d) : 0;
}

/* So that the new name outlives a loss of power; not every file system can, none needs the check.
 */
static void sync_folder(const char *path)
{
    char dir[PATH_MAX] = ".";
    const char *slash = strrchr(path, '/');
    size_t n = slash == path ? 1 : (size_t)(slash ? slash - path : 0);
    if (n >= sizeof dir) return;
    if (n) {
        memcpy(dir, path, n);
        dir[n] = '\0';
    }
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd);
    close(fd);
}

int outfile_publish(OutFile *f, Diag *d)
{
    if (rename(f->temporary, f->path) < 0) return failed(f, errno, d);
    f->temporary = NULL;
    slot_give(f->slot);
    sync_folder(f->path);
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
