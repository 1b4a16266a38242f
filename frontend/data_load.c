/* Whole files, plain or gzip'ed. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "frontend/data.h"
#include "frontend/file.h"

static const size_t LARGEST = (size_t)4 << 30, SMALLEST = (size_t)1 << 20;

static void close_file(void *f) { fclose(f); }
static void close_gz(void *f) { gzclose(f); }

/* How much a gzip'ed file unpacks to, by its last four bytes; SMALLEST where that is not likely (or
 * several were appended): then the buffer grows. */
static size_t unpacked_size(const char *path)
{
    uint8_t b[4];
    FILE *f = fopen(path, "rb");
    if (!f) return SMALLEST;
    Arena *held = arena_holding(close_file, f);
    size_t n = 0;
    if (fseek(f, -4, SEEK_END) == 0 && fread(b, 1, 4, f) == 4)
        n = b[0] | (size_t)b[1] << 8 | (size_t)b[2] << 16 | (size_t)b[3] << 24;
    const bool likely = n / 64 <= (size_t)ftell(f);
    arena_free(held);
    return likely && n > SMALLEST ? n : SMALLEST;
}

/* Reads until the end into a buffer that doubles if it has to; an outgrown one is freed. */
static int unpack(Bytes *out, Arena *a, gzFile f, const char *path, Diag *d)
{
    size_t cap = unpacked_size(path) + 1, n = 0;
    Arena *held = arena_new();
    char *buf = arena_alloc(held, cap);
    int got;
    while ((got = gzread(f, buf + n, (unsigned)(cap - n < 1u << 30 ? cap - n : 1u << 30))) > 0) {
        n += (size_t)got;
        if (n > LARGEST) break;
        if (n < cap) continue;
        Arena *larger = arena_new();
        char *bigger = arena_alloc(larger, cap * 2);
        memcpy(bigger, buf, n);
        arena_free(held);
        held = larger;
        buf = bigger;
        cap *= 2;
    }
    arena_own(a, held);
    *out = (Bytes){buf, n};
    if (got < 0) return diag_error(d, "'%s': cannot read: damaged gzip data", path);
    return n > LARGEST ? diag_error(d, "'%s' is over 4 GiB", path) : 0;
}

int data_load(Bytes *out, Arena *a, const char *path, Diag *d)
{
    gzFile f = gzopen(path, "rb");
    if (!f) return diag_error(d, "cannot open '%s': %s", path, strerror(errno));
    Arena *held = arena_holding(close_gz, f);
    gzbuffer(f, 1 << 18);
    int status = gzdirect(f) ? file_bytes(out, a, path, d) : unpack(out, a, f, path, d);
    arena_free(held);
    return status;
}
