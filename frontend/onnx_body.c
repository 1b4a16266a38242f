/* Subgraphs of opaque nodes (If, Loop, Scan): what they read from outside.
 *
 * A name in a body means the innermost definition around it. References that leave the
 * outermost body are captures of the node. */
#include <stdio.h>
#include <string.h>

#include "frontend/onnx_import.h"
#include "ir/names.h"

static const char prefix[] = CAPTURE_PREFIX;

/* The graphs around a reference, innermost first. */
typedef struct Scope {
    NameTable *names;
    const struct Scope *outer;
} Scope;

typedef struct Body {
    Import *im;
    const Onnx__NodeProto *node;
    NameTable *seen; /* captured names; index is K */
    Captures *out;
    int cap;
} Body;

static int define(Body *b, NameTable *names, const char *name)
{
    if (!name || !*name) return 0;
    if (strncmp(name, prefix, sizeof prefix - 1) == 0)
        return proto_error(b->im, b->node, "its body uses the reserved name '%s'", name);
    table_find(names, name, true);
    /* A new outer value of this name would be shadowed. */
    if (!names_get(b->im->g->names, name))
        names_put(b->im->g->names, arena_strdup(b->im->g->arena, name), b->im->g);
    return 0;
}

static int define_all(Body *b, NameTable *names, const Onnx__GraphProto *p)
{
    for (size_t i = 0; i < p->n_input; i++) TRY(define(b, names, p->input[i]->name));
    for (size_t i = 0; i < p->n_initializer; i++) TRY(define(b, names, p->initializer[i]->name));
    for (size_t i = 0; i < p->n_sparse_initializer; i++)
        if (p->sparse_initializer[i]->values)
            TRY(define(b, names, p->sparse_initializer[i]->values->name));
    for (size_t i = 0; i < p->n_node; i++)
        for (size_t o = 0; o < p->node[i]->n_output; o++)
            TRY(define(b, names, p->node[i]->output[o]));
    return 0;
}

static void add_capture(Body *b, const NameEntry *e)
{
    Captures *c = b->out;
    if (c->n == b->cap) {
        b->cap = b->cap ? 2 * b->cap : 4;
        Value **v = NEW_ARRAY(b->im->tmp, Value *, b->cap);
        int *node = NEW_ARRAY(b->im->tmp, int, b->cap);
        if (c->n) memcpy(v, c->v, (size_t)c->n * sizeof *v);
        if (c->n) memcpy(node, c->node, (size_t)c->n * sizeof *node);
        c->v = v;
        c->node = node;
    }
    c->v[c->n] = e->v;
    c->node[c->n++] = e->node;
}

/* Replaces *name by its placeholder if no scope defines it. */
static int refer(Body *b, const Scope *scope, char **name)
{
    if (!*name || !**name) return 0;
    for (const Scope *s = scope; s; s = s->outer)
        if (table_find(s->names, *name, false)) return 0;
    NameEntry *seen = table_find(b->seen, *name, false);
    if (!seen) {
        const NameEntry *e = table_find(b->im->names, *name, false);
        if (!e)
            return proto_error(b->im, b->node, "its body reads '%s', which nothing makes", *name);
        seen = table_find(b->seen, *name, true);
        seen->index = b->out->n;
        add_capture(b, e);
    }
    *name = arena_printf(b->im->tmp, "%s%d", prefix, seen->index);
    return 0;
}

static int walk_node(Body *b, const Scope *scope, Onnx__NodeProto *n);

static int walk_graph(Body *b, const Scope *outer, Onnx__GraphProto *p)
{
    if (!p) return 0;
    Scope scope = {table_new(b->im->tmp), outer};
    TRY(define_all(b, scope.names, p));
    for (size_t i = 0; i < p->n_node; i++) {
        for (size_t k = 0; k < p->node[i]->n_input; k++)
            TRY(refer(b, &scope, &p->node[i]->input[k]));
        TRY(walk_node(b, &scope, p->node[i]));
    }
    for (size_t i = 0; i < p->n_output; i++) TRY(refer(b, &scope, &p->output[i]->name));
    return 0;
}

static int walk_node(Body *b, const Scope *scope, Onnx__NodeProto *n)
{
    for (size_t i = 0; i < n->n_attribute; i++) {
        TRY(walk_graph(b, scope, n->attribute[i]->g));
        for (size_t k = 0; k < n->attribute[i]->n_graphs; k++)
            TRY(walk_graph(b, scope, n->attribute[i]->graphs[k]));
    }
    return 0;
}

int body_captures(Import *im, Onnx__NodeProto *n, Captures *out)
{
    Body b = {.im = im, .node = n, .out = out};
    bool plain = true;
    for (size_t i = 0; i < n->n_attribute; i++)
        plain &= !n->attribute[i]->g && n->attribute[i]->n_graphs == 0;
    if (plain) return 0;
    b.seen = table_new(im->tmp);
    return walk_node(&b, NULL, n);
}
