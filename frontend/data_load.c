/* Whole files, plain or gzip'ed. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "frontend/data.h"
#include "frontend/file.h"
#include "ir/process.h"

static const size_t LARGEST = (size_t)4 << 30;

static void close_file(void *f) { fclose(f); }
static void close_gz(void *f) { gzclose(f); }

/* How much a gzip'ed file unpacks to, by its last four bytes; 0 where that is not likely. */
static size_t promised_size(const char *path)
{
    uint8_t b[4];
    FILE *f = fopen(path, "rb");
    if (!f) return 0;
    Arena *held = arena_holding(close_file, f);
    size_t n = 0;
    if (fseek(f, -4, SEEK_END) == 0 && fread(b, 1, 4, f) == 4)
        n = b[0] | (size_t)b[1] << 8 | (size_t)b[2] << 16 | (size_t)b[3] << 24;
    const bool likely = n / 64 <= (size_t)ftell(f);
    arena_free(held);
    return likely ? n : 0;
}

/* Reads on to the end without keeping anything: how much there was, or just over `most`. */
static size_t count_rest(gzFile f, size_t most)
{
    char buf[1 << 16];
    size_t n = 0;
    for (int got; n <= most && (got = gzread(f, buf, sizeof buf)) > 0;) n += (size_t)got;
    return n;
}

static bool is_damaged(gzFile f)
{
    int why;
    gzerror(f, &why);
    return why != Z_OK && why != Z_STREAM_END;
}

/* Up to n bytes; -1: the data is damaged. */
static int64_t read_up_to(gzFile f, char *to, size_t n)
{
    size_t at = 0;
    while (at < n) {
        const size_t left = n - at;
        const int got = gzread(f, to + at, (unsigned)(left < 1u << 30 ? left : 1u << 30));
        if (got < 0) return -1;
        if (got == 0) break;
        at += (size_t)got;
    }
    return (int64_t)at;
}

/* What may be held of one file, beside what is held already. */
static size_t most_unpacked(size_t memory)
{
    const size_t half = process_memory_free() / 2, most = half < LARGEST ? half : LARGEST;
    const size_t held = memory ? process_resident() : 0, left = memory > held ? memory - held : 0;
    return memory && left < most ? left : most;
}

/* What is held is allocated once, when its size is known: that which the file promises, or, if
 * there turns out to be more, what a first reading counts. */
static int unpack(Bytes *out, const Parts *ps, gzFile f, const char *path)
{
    Diag *d = ps->diag;
    const size_t most = most_unpacked(ps->pre->memory);
    size_t size = promised_size(path);
    for (;;) {
        if (size > most)
            return diag_error(d, "'%s' unpacks to more than %zu MiB, which is what %s", path,
                              most >> 20,
                              ps->pre->memory ? "--memory leaves" : "there is room for");
        Arena *held = arena_new();
        char *bytes = arena_alloc(held, size + 1);
        const int64_t n = read_up_to(f, bytes, size);
        const size_t more = n < 0 ? 0 : count_rest(f, most);
        if (n < 0 || (!more && is_damaged(f))) {
            arena_free(held);
            return diag_error(d, "'%s': cannot read: damaged gzip data", path);
        }
        if (!more) {
            arena_own(ps->arena, held);
            *out = (Bytes){bytes, (size_t)n};
            return 0;
        }
        arena_free(held);
        size += more;
        if (gzrewind(f) != 0) return diag_error(d, "cannot read '%s' again", path);
    }
}

int data_load(Bytes *out, const Parts *ps, const char *path)
{
    Arena *a = ps->arena;
    Diag *d = ps->diag;
    gzFile f = gzopen(path, "rb");
    if (!f) return diag_error(d, "cannot open '%s': %s", path, strerror(errno));
    Arena *held = arena_holding(close_gz, f);
    gzbuffer(f, 1 << 18);
    int status = gzdirect(f) ? file_bytes(out, a, path, d) : unpack(out, ps, f, path);
    arena_free(held);
    return status;
}
