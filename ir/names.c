/* Open addressing with FNV-1a over borrowed strings, at most three quarters full. */
#include "ir/names.h"

#include <string.h>

typedef struct Slot {
    const char *name;
    void *what;
} Slot;

struct Names {
    Arena *arena;
    Slot *slots;
    size_t cap, used; /* cap is a power of two */
};

static Slot *find(const Names *names, const char *name)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (const char *s = name; *s; s++) h = (h ^ (uint8_t)*s) * 0x100000001b3u;
    size_t i = (h ^ h >> 32) & (names->cap - 1);
    while (names->slots[i].name && strcmp(names->slots[i].name, name) != 0)
        i = (i + 1) & (names->cap - 1);
    return &names->slots[i];
}

static void resize(Names *names, size_t cap)
{
    Names old = *names;
    names->cap = cap;
    names->slots = NEW_ARRAY(names->arena, Slot, cap);
    for (size_t i = 0; i < old.cap; i++)
        if (old.slots[i].name) *find(names, old.slots[i].name) = old.slots[i];
}

Names *names_new(Arena *a)
{
    Names *names = NEW(a, Names);
    names->arena = a;
    resize(names, 16);
    return names;
}

void *names_get(const Names *names, const char *name) { return find(names, name)->what; }

void names_put(Names *names, const char *name, void *what)
{
    if (4 * ++names->used > 3 * names->cap) resize(names, 2 * names->cap);
    *find(names, name) = (Slot){name, what};
}
