/* The names of one scope, with what the importer knows of each. */
#include "frontend/onnx_import.h"

struct NameTable {
    Arena *arena;
    Names *names;
};

NameTable *table_new(Arena *a)
{
    NameTable *t = NEW(a, NameTable);
    *t = (NameTable){.arena = a, .names = names_new(a)};
    return t;
}

NameEntry *table_find(NameTable *t, const char *name, bool add)
{
    NameEntry *e = names_get(t->names, name);
    if (e || !add) return e;
    e = NEW(t->arena, NameEntry);
    *e = (NameEntry){.name = name, .node = -1};
    names_put(t->names, name, e);
    return e;
}
