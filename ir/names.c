/* The set of value names of a graph: open addressing over borrowed strings. */
#include "ir/names.h"

#include <string.h>

struct NameSet {
    Arena *arena;
    const char **slot;
    size_t cap, used;
};

static size_t hash(const char *s)
{
    size_t h = 14695981039346656037u; /* FNV-1a */
    for (; *s; s++) h = (h ^ (unsigned char)*s) * 1099511628211u;
    return h;
}

static const char **find(const NameSet *set, const char *name)
{
    size_t i = hash(name) & (set->cap - 1);
    while (set->slot[i] && strcmp(set->slot[i], name) != 0) i = (i + 1) & (set->cap - 1);
    return &set->slot[i];
}

static void grow(NameSet *set)
{
    const char **old = set->slot;
    size_t cap = set->cap;
    set->cap = cap ? cap * 2 : 64;
    set->slot = NEW_ARRAY(set->arena, const char *, set->cap);
    for (size_t i = 0; i < cap; i++)
        if (old[i]) *find(set, old[i]) = old[i];
}

NameSet *names_new(Arena *a)
{
    NameSet *set = NEW(a, NameSet);
    set->arena = a;
    grow(set);
    return set;
}

bool names_has(const NameSet *set, const char *name) { return *find(set, name) != NULL; }

void names_add(NameSet *set, const char *name)
{
    if (set->used * 4 >= set->cap * 3) grow(set);
    const char **slot = find(set, name);
    if (*slot) return;
    *slot = name;
    set->used++;
}
