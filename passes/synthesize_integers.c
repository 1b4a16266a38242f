/* Numbers for inputs that are no signals: what they may be is told by those who read them, and by
 * their names.
 *
 *     gathered by          below the size of what is gathered from
 *     bool, "…mask…"       1: everything is let through
 *     "…position…"         0, 1, 2 … along the last axis
 *     "…len…", one each    the largest size of the other inputs' samples: all of it counts
 *     else                 below 100 */
#include <string.h>

#include "ir/batch.h"
#include "ir/op.h"
#include "passes/synthesize.h"

/* By value id: v, and what is made of it by moving its elements. */
static bool *mark_moved(const Graph *g, const Value *v, Arena *a)
{
    bool *same = NEW_ARRAY(a, bool, g->nvalues);
    same[v->id] = true;
    for (int k = 0; k < g->nnodes; k++) {
        const Node *n = g->nodes[k];
        if (n->nin == 0 || !n->in[0] || n->nout == 0 || !n->out[0]) continue;
        const bool moves = (op_info[n->op].flags & OPF_MOVES) != 0 || n->op == OP_Cast;
        if (moves && same[n->in[0]->id]) same[n->out[0]->id] = true;
    }
    return same;
}

/* Below what v may be as an index of the constants that are gathered by it; else 100. */
static uint32_t indices_of(const Graph *g, const Value *v)
{
    enum { USUAL = 100 };
    int64_t most = INT64_MAX;
    Arena *scratch = arena_new();
    const bool *same = mark_moved(g, v, scratch);
    for (int k = 0; k < g->nnodes; k++) {
        const Node *n = g->nodes[k];
        if (n->op != OP_Gather || !n->in[1] || !same[n->in[1]->id]) continue;
        const Type *t = &n->in[0]->type;
        int64_t axis = node_int(n, "axis", 0);
        if (axis < 0) axis += t->rank;
        if (axis >= 0 && axis < t->rank && t->dim[axis] > 0 && t->dim[axis] < most)
            most = t->dim[axis];
    }
    arena_free(scratch);
    return most <= INT32_MAX ? (uint32_t)most : USUAL;
}

double synthesize_number(const Graph *g, const Value *v)
{
    double x = 1;
    bool found = false;
    Arena *scratch = arena_new();
    const bool *same = mark_moved(g, v, scratch);
    for (int k = 0; k < g->nnodes && !found; k++) {
        const Node *n = g->nodes[k];
        if (n->nin != 2 || !n->in[0] || !n->in[1]) continue;
        if (n->nout < 1 || !n->out[0] || n->out[0]->type.dtype != DT_BOOL) continue;
        for (int i = 0; i < 2 && !found; i++)
            found = same[n->in[i]->id] && value_scalar(n->in[1 - i], &x);
    }
    arena_free(scratch);
    return found ? x : 1;
}

static void set_element(void *data, DType t, int64_t i, double x)
{
    const int64_t whole = (int64_t)x;
    const size_t size = dtype_size(t);
    if (t == DT_F32)
        ((float *)data)[i] = (float)x;
    else if (t == DT_F64)
        ((double *)data)[i] = x;
    else
        memcpy((char *)data + (size_t)i * size, &whole, size); /* the low bytes */
}

void *make_number(Context *c, const Value *v)
{
    void *out = arena_alloc(c->arena, sizeof(int64_t));
    set_element(out, v->type.dtype, 0, synthesize_number(c->original, v));
    return out;
}

/* The largest size of a sample of another input. */
static int64_t longest(const Context *c, const Value *v)
{
    const Graph *g = c->original;
    Arena *scratch = arena_new();
    const int *axes = batch_axes(g, scratch);
    int64_t most = 1;
    for (int i = 0; i < g->ninputs; i++) {
        const Type t = synthesize_type(&g->inputs[i]->type, axes[i], &c->opt);
        for (int k = 0; k < t.rank && g->inputs[i] != v; k++)
            if (t.dim[k] > most) most = t.dim[k];
    }
    arena_free(scratch);
    return most;
}

void *make_integers(Context *c, const Value *v, const Type *sample, int64_t count)
{
    const DType t = v->type.dtype;
    const int64_t n = type_count(sample), last = sample->rank ? sample->dim[sample->rank - 1] : 1;
    const uint32_t below = indices_of(c->original, v);
    const bool ones = t == DT_BOOL || strcasestr(v->name, "mask"),
               steps = strcasestr(v->name, "position") != NULL;
    const int64_t length = n == 1 && strcasestr(v->name, "len") ? longest(c, v) : 0;
    Rng r = rng_new(c->opt.seed ^ 0x5e7f, 0);
    void *out = arena_array(c->arena, (size_t)(n * count), dtype_size(t));
    for (int64_t k = 0; k < n * count; k++) {
        const int64_t x = ones     ? 1
                          : steps  ? k % last % below
                          : length ? length
                                   : (int64_t)rng_below(&r, below);
        set_element(out, t, k, (double)x);
    }
    return out;
}
