/* Growing texts, whole files, and suggestions for misspelt names (Levenshtein distance). */
#include "ir/text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Room for n more bytes and a NUL. */
static void text_reserve(Text *t, size_t n)
{
    size_t need, cap;
    if (!add_ok(t->n, n, &need) || !add_ok(need, 1, &need))
        trap(TRAP_NO_MEMORY, "out of memory: text of %zu bytes", n);
    if (need <= t->cap) return;
    cap = need > 128 ? need : 128;
    if (cap < 2 * t->cap) cap = 2 * t->cap;
    char *p = arena_alloc(t->arena, cap);
    if (t->n) memcpy(p, t->p, t->n);
    t->p = p;
    t->cap = cap;
}

void text_put(Text *t, const void *p, size_t n)
{
    text_reserve(t, n);
    if (n) memcpy(t->p + t->n, p, n);
    t->n += n;
    t->p[t->n] = 0;
}

void text_printf(Text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) trap(TRAP_INTERNAL, "text_printf: bad format '%s'", fmt);
    text_reserve(t, (size_t)n);
    va_start(ap, fmt);
    vsnprintf(t->p + t->n, (size_t)n + 1, fmt, ap);
    va_end(ap);
    t->n += (size_t)n;
}

static void close_file(void *f) { fclose(f); }

int file_read(Bytes *out, Arena *a, const char *path, Diag *d)
{
    char block[1 << 14];
    Text t = {.arena = a};
    FILE *f = fopen(path, "rb");
    if (!f) return diag_error(d, "cannot open '%s': %s", path, strerror(errno));
    Arena *held = arena_holding(close_file, f);
    for (size_t n; (n = fread(block, 1, sizeof block, f)) > 0;) text_put(&t, block, n);
    int failed = ferror(f), why = errno;
    arena_free(held);
    if (failed) return diag_error(d, "cannot read '%s': %s", path, strerror(why));
    text_put(&t, "", 0);
    *out = (Bytes){t.p, t.n};
    return 0;
}

enum { LONGEST = 40 }; /* longer names are not compared */

static size_t edit_distance(const char *a, const char *b)
{
    size_t na = strlen(a), nb = strlen(b), row[LONGEST + 1];
    if (na > LONGEST || nb > LONGEST) return LONGEST;
    for (size_t j = 0; j <= nb; j++) row[j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[nb];
}

const char *nearest_name(const char *name, const char *const *candidates)
{
    const char *best = NULL;
    size_t least = strlen(name) < 4 ? 2 : 3; /* exclusive */
    for (; *candidates; candidates++) {
        size_t d = edit_distance(name, *candidates);
        if (d >= least) continue;
        least = d;
        best = *candidates;
    }
    return best;
}

static bool is_special(char c) { return c == ',' || c == '\\'; }

/* Moves *s behind the name that it starts with; the name, in `a`. */
static const char *first_name(Arena *a, const char **s)
{
    char *name = NEW_ARRAY(a, char, strlen(*s) + 1);
    for (size_t n = 0; **s && **s != ','; (*s)++) {
        if (**s == '\\' && is_special((*s)[1])) (*s)++;
        name[n++] = **s;
    }
    return name;
}

const char *const *name_list(Arena *a, const char *list)
{
    size_t commas = 0, n = 0;
    for (const char *s = list; s && *s; s++) commas += *s == ',';
    const char **names = NEW_ARRAY(a, const char *, commas + 2);
    for (const char *s = list; s && *s; s += *s == ',') {
        const char *name = first_name(a, &s);
        if (*name) names[n++] = name;
    }
    return names;
}

const char *name_list_add(Arena *a, const char *list, const char *name)
{
    Text t = {.arena = a};
    text_printf(&t, "%s%s", list ? list : "", list ? "," : "");
    for (; *name; name++) text_printf(&t, is_special(*name) ? "\\%c" : "%c", *name);
    return t.p;
}

bool name_listed(const char *const *names, const char *name)
{
    for (; *names; names++)
        if (strcmp(*names, name) == 0) return true;
    return false;
}
