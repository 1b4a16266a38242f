/* Rebuilding node lists, cloning, inlining, and who reads what. */
#include <string.h>

#include "ir/op.h"

Rewrite rewrite_begin(Graph *g)
{
    Rewrite r = {.g = g, .old = g->nodes, .nold = g->nnodes, .cap = g->nvalues};
    r.to = NEW_ARRAY(g->arena, Value *, r.cap);
    g->nodes = NULL;
    g->nnodes = g->cap_nodes = 0;
    return r;
}

Value *rewrite_value(const Rewrite *r, Value *v)
{
    while (v && v->id < r->cap && r->to[v->id]) v = r->to[v->id];
    return v;
}

void rewrite_map_inputs(Rewrite *r, Node *n)
{
    for (int i = 0; i < n->nin; i++) n->in[i] = rewrite_value(r, n->in[i]);
}

void rewrite_replace(Rewrite *r, Value *from, Value *to)
{
    if (from->id >= r->cap) trap(TRAP_INTERNAL, "rewrite: '%s' is new in this pass", from->name);
    if (rewrite_value(r, to) != from) r->to[from->id] = to;
}

void value_swap_names(Value *a, Value *b)
{
    const char *name = a->name;
    a->name = b->name;
    b->name = name;
}

/* A replaced output is called what the file called it, so its replacement takes the name. A
 * replacement that is itself an input or another output cannot: it stands behind an Identity. */
void rewrite_end(Rewrite *r)
{
    Graph *g = r->g;
    for (int o = 0; o < g->noutputs; o++) {
        Value *from = g->outputs[o], *to = rewrite_value(r, from);
        if (to == from) continue;
        bool named = value_is_input(to) || value_is_const(to);
        for (int p = 0; p < g->noutputs; p++) named |= p != o && g->outputs[p] == to;
        if (named) {
            g->at = NULL;
            to = build(g, OP_Identity, IN(to), NO_ATTRS);
        }
        value_swap_names(from, to);
        to->doc = from->doc;
        to->declared = from->declared;
        to->extra = from->extra;
        to->aside = from->aside;
        g->outputs[o] = to;
    }
}

static Value *clone_value(Graph *g, const Value *v, Value **map)
{
    if (!v) return NULL;
    if (!map[v->id]) {
        Value *w = value_new(g, v->name, v->type);
        w->data = v->data;
        w->elems = v->elems;
        w->doc = v->doc;
        w->opaque_type = v->opaque_type;
        w->declared = v->declared;
        w->extra = v->extra;
        w->aside = v->aside;
        map[v->id] = w;
    }
    return map[v->id];
}

static void clone_node(Graph *g, const Node *n, Value **map)
{
    Node *m = NEW(g->arena, Node);
    *m = *n;
    m->in = NEW_ARRAY(g->arena, Value *, n->nin);
    m->out = NEW_ARRAY(g->arena, Value *, n->nout);
    m->attrs = arena_memdup(g->arena, n->attrs, (size_t)n->nattrs * sizeof *n->attrs);
    for (int i = 0; i < n->nin; i++) m->in[i] = clone_value(g, n->in[i], map);
    for (int o = 0; o < n->nout; o++) m->out[o] = clone_value(g, n->out[o], map);
    node_append(g, m);
}

Graph *graph_clone(const Graph *src, Arena *a, Value ***map_out)
{
    Graph *g = graph_new(a, src->name);
    Value **map = NEW_ARRAY(a, Value *, src->nvalues);
    g->doc = src->doc;
    g->info = src->info;
    for (int k = 0; k < src->nsymbols; k++) {
        graph_symbol(g, NULL);
        g->symbols[k] = src->symbols[k];
    }
    for (int i = 0; i < src->ninputs; i++) clone_value(g, src->inputs[i], map);
    for (int i = 0; i < src->nnodes; i++) clone_node(g, src->nodes[i], map);
    for (int o = 0; o < src->noutputs; o++) clone_value(g, src->outputs[o], map);
    g->inputs = NEW_ARRAY(a, Value *, src->ninputs);
    g->outputs = NEW_ARRAY(a, Value *, src->noutputs);
    g->ninputs = src->ninputs;
    g->noutputs = src->noutputs;
    for (int i = 0; i < g->ninputs; i++) g->inputs[i] = map[src->inputs[i]->id];
    for (int o = 0; o < g->noutputs; o++) g->outputs[o] = map[src->outputs[o]->id];
    if (map_out) *map_out = map;
    return g;
}

static void bind_dims(Type *t, const int64_t *dims)
{
    for (int i = 0; i < t->rank; i++) {
        int64_t k = t->dim[i] - DIM_SYM_BASE;
        if (dim_is_sym(t->dim[i]) && dims[k] >= 0) t->dim[i] = dims[k];
    }
}

Graph *graph_specialize_mapped(const Graph *src, Arena *a, const int64_t *dims, Value ***map,
                               Diag *d)
{
    Graph *g = graph_clone(src, a, map);
    for (int i = 0; i < g->ninputs; i++) bind_dims(&g->inputs[i]->type, dims);
    /* Everything else is inferred anew; what an opaque node declared keeps its type. */
    for (int i = 0; i < g->nnodes; i++)
        for (int o = 0; o < g->nodes[i]->nout; o++)
            if (g->nodes[i]->out[o]) {
                bind_dims(&g->nodes[i]->out[o]->type, dims);
                g->nodes[i]->out[o]->elems = NULL;
            }
    return graph_infer(g, d) < 0 ? NULL : g;
}

Graph *graph_specialize(const Graph *src, Arena *a, const int64_t *dims, Diag *d)
{
    return graph_specialize_mapped(src, a, dims, NULL, d);
}

void graph_inline(Graph *dst, const Graph *src, Value *const *in, Value **out)
{
    Value **map = NEW_ARRAY(dst->arena, Value *, src->nvalues);
    for (int i = 0; i < src->ninputs; i++) map[src->inputs[i]->id] = in[i];
    for (int i = 0; i < src->nnodes; i++) clone_node(dst, src->nodes[i], map);
    for (int o = 0; o < src->noutputs; o++) out[o] = clone_value(dst, src->outputs[o], map);
}

static void count_use(Uses *u, const Value *v)
{
    if (v) u->n[v->id]++;
}

static void add_use(Uses *u, const Value *v, Node *n)
{
    if (v) u->at[v->id][u->n[v->id]++] = n;
}

Uses graph_uses(const Graph *g, Arena *a)
{
    Uses u = {NEW_ARRAY(a, Node **, g->nvalues), NEW_ARRAY(a, int, g->nvalues)};
    for (int i = 0; i < g->nnodes; i++)
        for (int k = 0; k < g->nodes[i]->nin; k++) count_use(&u, g->nodes[i]->in[k]);
    for (int o = 0; o < g->noutputs; o++) count_use(&u, g->outputs[o]);
    size_t total = 0;
    for (uint32_t v = 0; v < g->nvalues; v++) total += (size_t)u.n[v];
    Node **flat = NEW_ARRAY(a, Node *, total);
    for (uint32_t v = 0; v < g->nvalues; v++) {
        u.at[v] = flat;
        flat += u.n[v];
        u.n[v] = 0;
    }
    for (int i = 0; i < g->nnodes; i++)
        for (int k = 0; k < g->nodes[i]->nin; k++) add_use(&u, g->nodes[i]->in[k], g->nodes[i]);
    for (int o = 0; o < g->noutputs; o++) add_use(&u, g->outputs[o], NULL);
    return u;
}

bool value_is_read(const Graph *g, const Value *v)
{
    for (int o = 0; o < g->noutputs; o++)
        if (g->outputs[o] == v) return true;
    for (int k = 0; k < g->nnodes; k++)
        for (int i = 0; i < g->nodes[k]->nin; i++)
            if (g->nodes[k]->in[i] == v) return true;
    return false;
}

Node *only_reader(const Uses *u, const Value *v)
{
    return u->n[v->id] == 1 ? u->at[v->id][0] : NULL;
}
