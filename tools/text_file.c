/* Whole small files: JSON in and out. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ir/outfile.h"
#include "tools/session.h"

int text_write(const char *path, const char *text, Diag *d)
{
    if (ranks_index() > 0) return 0; /* rank 0 writes for all */
    return outfile_whole(path, text, strlen(text), d);
}

char *text_read(Arena *a, const char *path, Diag *d)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        diag_error(d, "cannot open '%s': %s", path, strerror(errno));
        return NULL;
    }
    size_t cap = 1 << 16, n = 0, got;
    char *text = arena_alloc(a, cap);
    while ((got = fread(text + n, 1, cap - n - 1, f)) > 0) {
        n += got;
        if (n + 1 < cap) continue;
        char *bigger = arena_alloc(a, cap * 2);
        memcpy(bigger, text, n);
        text = bigger;
        cap *= 2;
    }
    bool bad = ferror(f);
    fclose(f);
    text[n] = '\0';
    if (bad) diag_error(d, "cannot read '%s'", path);
    return bad ? NULL : text;
}
