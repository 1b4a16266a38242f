/* Memory with one lifetime, and what happens when there is none left.
 *
 * Everything a graph or a pass allocates lives in an Arena and dies with it; free() never
 * appears in ir/ or passes/. An allocation cannot fail from the caller's view: when memory
 * runs out (or an invariant breaks) control leaves by trap(), which unwinds to the
 * innermost trap_enter() of the thread and frees the arenas that the work has made since. What is
 * not memory of an arena (files, mappings, libraries' objects) hangs on one by arena_defer. */
#ifndef EHAP_IR_ARENA_H
#define EHAP_IR_ARENA_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Arena Arena;

Arena *arena_new(void);
/* NULL is allowed. While the trap frame in which it was made lasts, by the same thread. */
void arena_free(Arena *a);

/* n zeroed bytes, aligned to 64 (a cache line: kernels read constants in place). */
void *arena_alloc(Arena *a, size_t n);
/* count * size zeroed bytes; overflow of the product traps like exhausted memory. */
void *arena_array(Arena *a, size_t count, size_t size);
char *arena_strdup(Arena *a, const char *s); /* NULL stays NULL */
void *arena_memdup(Arena *a, const void *p, size_t n);
char *arena_printf(Arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
size_t arena_bytes(const Arena *a); /* total handed out */
/* Calls f(p) when the arena is freed, last deferred first (unmapping a file, say); at once where
 * there is no memory to remember it. */
void arena_defer(Arena *a, void (*f)(void *), void *p);
/* A new arena with f(p) deferred, to hold what is open for the time of a call. */
Arena *arena_holding(void (*f)(void *), void *p);
/* From now on `part` lives and dies with `owner`, whichever trap frame it was made in. */
void arena_own(Arena *owner, Arena *part);

#define NEW(arena, T) ((T *)arena_alloc((arena), sizeof(T)))
#define NEW_ARRAY(arena, T, n) ((T *)arena_array((arena), (size_t)(n), sizeof(T)))

/* Checked products and sums of untrusted sizes: false on overflow, *out then undefined. */
static inline bool mul_ok(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool add_ok(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

typedef enum TrapKind {
    TRAP_NONE,
    TRAP_NO_MEMORY,
    TRAP_INTERNAL,
    TRAP_DEVICE,
    TRAP_DEVICE_MEMORY, /* … has none left */
    TRAP_INPUT,         /* a file that was opened cannot be used after all */
} TrapKind;

/* if (trap_enter(&t) == 0) { work; trap_leave(&t); } else { t.kind, t.message; clean up }
 * Frames nest; a trap with no frame prints its message and aborts. A trap frees, oldest first, the
 * arenas made inside its frame, but for those that others own. What lasts when a frame is left in
 * peace belongs to the outer frame. */
typedef struct Trap {
    jmp_buf jump;
    struct Trap *outer;
    Arena *oldest, *youngest; /* made inside */
    TrapKind kind;
    char message[512];
} Trap;

#define trap_enter(t) (trap_push(t), setjmp((t)->jump))
void trap_push(Trap *t);
void trap_leave(Trap *t);
_Noreturn void trap(TrapKind kind, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
