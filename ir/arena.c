/* A chunked bump allocator: chunks double up to 1 MiB, larger requests get their own. */
#include "ir/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64, FIRST_CHUNK = 1 << 14, LAST_CHUNK = 1 << 20 };

typedef struct Chunk {
    struct Chunk *next;
    size_t size, used; /* of the payload, which starts ALIGN bytes in */
} Chunk;

_Static_assert(sizeof(Chunk) <= ALIGN, "the header fits before the payload");

typedef struct Deferred {
    struct Deferred *next;
    void (*f)(void *);
    void *p;
} Deferred;

struct Arena {
    Chunk *chunks;
    Deferred *deferred;
    size_t next_size, bytes;
    Trap *frame; /* that frees it when it springs; NULL: none */
    Arena *older, *younger;
};

static _Thread_local Trap *innermost;

void trap_push(Trap *t)
{
    t->outer = innermost;
    t->kind = TRAP_NONE;
    t->oldest = t->youngest = NULL;
    innermost = t;
}

static void frame_add(Trap *t, Arena *a)
{
    a->frame = t;
    a->younger = NULL;
    a->older = t ? t->youngest : NULL;
    if (!t) return;
    *(t->youngest ? &t->youngest->younger : &t->oldest) = a;
    t->youngest = a;
}

static void frame_remove(Arena *a)
{
    Trap *t = a->frame;
    if (!t) return;
    *(a->older ? &a->older->younger : &t->oldest) = a->younger;
    *(a->younger ? &a->younger->older : &t->youngest) = a->older;
}

void trap_leave(Trap *t)
{
    innermost = t->outer;
    for (Arena *a = t->oldest, *next; a; a = next) {
        next = a->younger;
        frame_add(t->outer, a);
    }
}

_Noreturn void trap(TrapKind kind, const char *fmt, ...)
{
    Trap *t = innermost;
    va_list ap;
    va_start(ap, fmt);
    if (!t) {
        vfprintf(stderr, fmt, ap);
        fputc('\n', stderr);
        abort();
    }
    vsnprintf(t->message, sizeof t->message, fmt, ap);
    va_end(ap);
    t->kind = kind;
    innermost = t->outer;
    while (t->oldest) arena_free(t->oldest);
    longjmp(t->jump, 1);
}

static Arena *arena_try(void)
{
    Arena *a = calloc(1, sizeof *a);
    if (!a) return NULL;
    a->next_size = FIRST_CHUNK;
    frame_add(innermost, a);
    return a;
}

Arena *arena_new(void)
{
    Arena *a = arena_try();
    if (!a) trap(TRAP_NO_MEMORY, "out of memory");
    return a;
}

void arena_free(Arena *a)
{
    if (!a) return;
    frame_remove(a);
    for (Deferred *d = a->deferred, *next; d; d = next) {
        next = d->next;
        d->f(d->p);
        free(d);
    }
    for (Chunk *c = a->chunks, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    free(a);
}

static Chunk *chunk_new(Arena *a, size_t need)
{
    size_t size = need > a->next_size ? need : a->next_size, total;
    if (a->next_size < LAST_CHUNK) a->next_size *= 2;
    Chunk *c = add_ok(size, ALIGN, &total) ? aligned_alloc(ALIGN, total) : NULL;
    if (!c) trap(TRAP_NO_MEMORY, "out of memory: %zu bytes wanted", need);
    *c = (Chunk){.size = size};
    return c;
}

void *arena_alloc(Arena *a, size_t n)
{
    size_t need;
    if (!add_ok(n ? n : 1, ALIGN - 1, &need))
        trap(TRAP_NO_MEMORY, "out of memory: %zu bytes wanted", n);
    need &= ~(size_t)(ALIGN - 1);
    Chunk *c = a->chunks;
    if (!c || c->size - c->used < need) {
        c = chunk_new(a, need);
        /* A big request must not retire a half-empty chunk. */
        if (a->chunks && need > a->next_size / 2) {
            c->next = a->chunks->next;
            a->chunks->next = c;
        } else {
            c->next = a->chunks;
            a->chunks = c;
        }
    }
    void *p = (char *)c + ALIGN + c->used;
    c->used += need;
    a->bytes += need;
    return memset(p, 0, need);
}

void *arena_array(Arena *a, size_t count, size_t size)
{
    size_t n;
    if (!mul_ok(count, size, &n))
        trap(TRAP_NO_MEMORY, "out of memory: %zu elements of %zu bytes wanted", count, size);
    return arena_alloc(a, n);
}

void *arena_memdup(Arena *a, const void *p, size_t n)
{
    void *q = arena_alloc(a, n);
    return n ? memcpy(q, p, n) : q;
}

char *arena_strdup(Arena *a, const char *s) { return s ? arena_memdup(a, s, strlen(s) + 1) : NULL; }

char *arena_printf(Arena *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) trap(TRAP_INTERNAL, "arena_printf: bad format '%s'", fmt);
    char *s = arena_alloc(a, (size_t)n + 1);
    va_start(ap, fmt);
    vsnprintf(s, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return s;
}

void arena_defer(Arena *a, void (*f)(void *), void *p)
{
    Deferred *d = a ? malloc(sizeof *d) : NULL;
    if (!d) {
        f(p);
        trap(TRAP_NO_MEMORY, "out of memory");
    }
    *d = (Deferred){a->deferred, f, p};
    a->deferred = d;
}

Arena *arena_holding(void (*f)(void *), void *p)
{
    Arena *a = arena_try();
    arena_defer(a, f, p);
    return a;
}

static void free_part(void *part) { arena_free(part); }

void arena_own(Arena *owner, Arena *part)
{
    frame_remove(part);
    part->frame = NULL;
    arena_defer(owner, free_part, part);
}

size_t arena_bytes(const Arena *a) { return a->bytes; }
