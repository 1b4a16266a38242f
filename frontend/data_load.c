/* Whole files into memory, plain or gzip'ed. */
#include <errno.h>
#include <string.h>
#include <zlib.h>

#include "frontend/data.h"

static const size_t LARGEST = (size_t)4 << 30;

/* gzread passes plain files through unchanged, so one loop serves both. The buffer doubles;
 * what it outgrows stays in the arena, at most as much again. */
static int read_all(Bytes *out, Arena *a, gzFile f, const char *path, Diag *d)
{
    size_t cap = (size_t)1 << 20, n = 0;
    char *buf = arena_alloc(a, cap);
    for (;;) {
        size_t room = cap - n < (1u << 30) ? cap - n : 1u << 30;
        int got = gzread(f, buf + n, (unsigned)room);
        if (got < 0) return diag_error(d, "'%s': cannot read: damaged gzip data", path);
        n += (size_t)got;
        if (got == 0) break;
        if (n < cap) continue;
        if (cap >= LARGEST) return diag_error(d, "'%s' is over 4 GiB", path);
        char *bigger = arena_alloc(a, cap * 2);
        memcpy(bigger, buf, n);
        buf = bigger;
        cap *= 2;
    }
    *out = (Bytes){buf, n};
    return 0;
}

static void close_gz(void *f) { gzclose(f); }

int data_load(Bytes *out, Arena *a, const char *path, Diag *d)
{
    gzFile f = gzopen(path, "rb");
    if (!f) return diag_error(d, "cannot open '%s': %s", path, strerror(errno));
    Arena *held = arena_holding(close_gz, f);
    gzbuffer(f, 1 << 18);
    int status = read_all(out, a, f, path, d);
    arena_free(held);
    return status;
}
