/* Reading and mapping files; names inside a model are resolved with openat() component by
 * component, so that a model can reach nothing outside its own folder. */
#include "frontend/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ir/digest.h"
#include "ir/mapped.h"

enum { MAP_FROM = 16 << 20 };

typedef struct Mapping {
    void *p;
    size_t n;
} Mapping;

static void unmap(void *p)
{
    Mapping *m = p;
    mapped_remove(m->p);
    munmap(m->p, m->n);
}

static int read_all(int fd, uint8_t *p, size_t n)
{
    while (n) {
        ssize_t got = read(fd, p, n);
        if (got < 0 && errno == EINTR) continue;
        if (got == 0) errno = EIO;
        if (got <= 0) return -1;
        p += got;
        n -= (size_t)got;
    }
    return 0;
}

static int map_all(Bytes *out, Arena *a, int fd, size_t n)
{
    Mapping *m = NEW(a, Mapping);
    void *p = mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) return -1;
    *m = (Mapping){p, n};
    mapped_add(p, n);
    arena_defer(a, unmap, m);
    *out = (Bytes){p, n};
    return 0;
}

static void close_file(void *fd) { close((int)(intptr_t)fd); }

/* Takes over fd. */
static int bytes_of(Bytes *out, Arena *a, int fd, const char *name, Diag *d)
{
    struct stat st;
    Arena *held = arena_holding(close_file, (void *)(intptr_t)fd);
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        arena_free(held);
        return diag_error(d, "'%s' is not a regular file", name);
    }
    size_t n = (size_t)st.st_size;
    int status;
    if (n >= MAP_FROM) {
        status = map_all(out, a, fd, n);
    } else {
        uint8_t *p = arena_alloc(a, n);
        *out = (Bytes){p, n};
        status = read_all(fd, p, n);
    }
    int why = errno;
    arena_free(held);
    return status < 0 ? diag_error(d, "cannot read '%s': %s", name, strerror(why)) : 0;
}

int file_bytes(Bytes *out, Arena *a, const char *path, Diag *d)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return diag_error(d, "cannot open '%s': %s", path, strerror(errno));
    return bytes_of(out, a, fd, path, d);
}

/* A relative path of at least one step, none of them empty, "." or "..". */
static bool is_plain(const char *name)
{
    for (;; name++) {
        size_t n = strcspn(name, "/");
        if (n == 0 || n > NAME_MAX || (n == 1 && *name == '.')) return false;
        if (n == 2 && name[0] == '.' && name[1] == '.') return false;
        name += n;
        if (!*name) return true;
    }
}

/* Opens a plain path step by step, following no link. Takes over dir. */
static int open_below(int dir, const char *name)
{
    for (;;) {
        char part[NAME_MAX + 1];
        size_t n = strcspn(name, "/");
        bool last = name[n] == 0;
        int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (last ? 0 : O_DIRECTORY);
        memcpy(part, name, n);
        part[n] = 0;
        int next = openat(dir, part, flags), why = errno;
        close(dir);
        errno = why;
        if (last || next < 0) return next;
        dir = next;
        name += n + 1;
    }
}

int file_bytes_below(Bytes *out, Arena *a, const char *dir, const char *name, Diag *d)
{
    int base, fd = -1;
    errno = EINVAL;
    if (is_plain(name)) {
        base = open(*dir ? dir : ".", O_RDONLY | O_CLOEXEC | O_DIRECTORY);
        if (base < 0) return diag_error(d, "cannot open folder '%s': %s", dir, strerror(errno));
        fd = open_below(base, name);
    }
    if (fd >= 0) return bytes_of(out, a, fd, name, d);
    if (errno == EINVAL || errno == ELOOP || errno == ENOTDIR)
        return diag_error(d, "external data '%s' is not a plain path below the model's folder",
                          name);
    return diag_error(d, "cannot open external data '%s': %s", name, strerror(errno));
}

uint64_t file_stamp(uint64_t h, const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0) return h;
    const int64_t what[] = {st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec};
    return digest(h, what, sizeof what);
}
