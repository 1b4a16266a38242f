/* Names to values: open addressing, FNV-1a, at most half full. */
#include <string.h>

#include "frontend/onnx_import.h"

struct NameTable {
    Arena *arena;
    NameEntry *slots;
    size_t n, cap; /* cap is a power of two */
};

NameTable *table_new(Arena *a)
{
    NameTable *t = NEW(a, NameTable);
    *t = (NameTable){.arena = a, .slots = NEW_ARRAY(a, NameEntry, 16), .cap = 16};
    return t;
}

static NameEntry *slot(NameTable *t, const char *name)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (const char *s = name; *s; s++) h = (h ^ (uint8_t)*s) * 0x100000001b3u;
    size_t i = (h ^ h >> 32) & (t->cap - 1);
    while (t->slots[i].name && strcmp(t->slots[i].name, name) != 0) i = (i + 1) & (t->cap - 1);
    return &t->slots[i];
}

static void grow(NameTable *t)
{
    NameTable old = *t;
    t->cap *= 2;
    t->slots = NEW_ARRAY(t->arena, NameEntry, t->cap);
    for (size_t i = 0; i < old.cap; i++)
        if (old.slots[i].name) *slot(t, old.slots[i].name) = old.slots[i];
}

NameEntry *table_find(NameTable *t, const char *name, bool add)
{
    NameEntry *e = slot(t, name);
    if (e->name || !add) return e->name ? e : NULL;
    if (2 * ++t->n > t->cap) {
        grow(t);
        e = slot(t, name);
    }
    *e = (NameEntry){.name = name, .node = -1};
    return e;
}
