/* Whole small files: JSON in and out. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/session.h"

static int write_and_sync(int fd, const char *text)
{
    size_t n = strlen(text);
    for (size_t at = 0; at < n;) {
        ssize_t got = write(fd, text + at, n - at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return -1;
        at += (size_t)got;
    }
    return fsync(fd);
}

int text_write(const char *path, const char *text, Diag *d)
{
    char temp[4096];
    if (ranks_index() > 0) return 0; /* rank 0 writes for all */
    if (snprintf(temp, sizeof temp, "%s.XXXXXX", path) >= (int)sizeof temp)
        return diag_error(d, "cannot write '%.200s…': the path is too long", path);
    int fd = mkstemp(temp);
    if (fd < 0) return diag_error(d, "cannot write '%s': %s", path, strerror(errno));
    int status = write_and_sync(fd, text), error = errno;
    if (close(fd) < 0 && status == 0) status = -1, error = errno;
    if (status == 0 && rename(temp, path) < 0) status = -1, error = errno;
    if (status == 0) return 0;
    unlink(temp);
    return diag_error(d, "cannot write '%s': %s", path, strerror(error));
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
