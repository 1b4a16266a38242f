/* Where the samples of a batch lie: votes over the dimensions of inputs and outputs (batch.h). */
#include "ir/batch.h"

#include <string.h>
#include <strings.h>

static int axis_of(const Type *t, int64_t size)
{
    for (int k = 0; k < t->rank; k++)
        if (t->dim[k] == size) return k;
    return -1;
}

static const char *symbol_name(const Graph *g, int64_t size)
{
    return dim_is_sym(size) ? g->symbols[size - DIM_SYM_BASE] : NULL;
}

static bool is_called_batch(const Graph *g, int64_t size)
{
    const char *name = symbol_name(g, size);
    return name && (strcasestr(name, "batch") || strcmp(name, "N") == 0);
}

/* What speaks for a size, the most important first. */
typedef struct Votes {
    int by[4];
} Votes;

static void count_votes(Votes *v, Value *const *values, int n, int64_t size)
{
    for (int k = 0; k < n; k++) {
        const int axis = axis_of(&values[k]->type, size);
        v->by[2] += axis == 0;
        v->by[3] += axis >= 0;
    }
}

/* A symbol has to have a name that says it, or to begin an input; of numbers those that begin
 * inputs are asked for, and it matters less at which axis the others have them. */
static Votes votes_for(const Graph *g, int64_t size)
{
    Votes v = {{0}};
    const bool open = dim_is_sym(size), called = is_called_batch(g, size);
    count_votes(&v, g->inputs, g->ninputs, size);
    if (v.by[3] == 0 || (v.by[2] == 0 && !called)) return (Votes){{0}};
    count_votes(&v, g->outputs, g->noutputs, size);
    v.by[0] = 2 * open + called;
    v.by[1] = open ? v.by[2] : v.by[3];
    return v;
}

static bool is_better(const Votes *a, const Votes *b)
{
    for (int k = 0; k < 4; k++)
        if (a->by[k] != b->by[k]) return a->by[k] > b->by[k];
    return false;
}

/* The dimension that counts samples; -1: there are no dimensions. */
static int64_t batch_size(const Graph *g)
{
    Votes best = {{0}};
    int64_t size = -1;
    for (int i = 0; i < g->ninputs; i++) {
        const Type *t = &g->inputs[i]->type;
        for (int k = 0; k < t->rank; k++) {
            const Votes v = votes_for(g, t->dim[k]);
            if (!is_better(&v, &best)) continue;
            best = v;
            size = t->dim[k];
        }
    }
    return size;
}

/* The one open dimension; -1: there is none, or another. */
static int only_open(const Type *t)
{
    int axis = -1;
    for (int k = 0; k < t->rank; k++) {
        if (!dim_is_sym(t->dim[k])) continue;
        if (axis >= 0) return -1;
        axis = k;
    }
    return axis;
}

static int axis_for(const Graph *g, const Type *t, int64_t size)
{
    const int axis = axis_of(t, size);
    if (axis >= 0 || t->rank < 1) return axis;
    if (dim_is_sym(t->dim[0])) return 0;
    const int own = dim_is_sym(size) && !symbol_name(g, size) ? only_open(t) : -1;
    return own >= 0 ? own : axis_of(t, 1);
}

int *batch_axes(const Graph *g, Arena *a)
{
    const int64_t size = batch_size(g);
    int *axes = NEW_ARRAY(a, int, g->ninputs);
    for (int i = 0; i < g->ninputs; i++) axes[i] = axis_for(g, &g->inputs[i]->type, size);
    return axes;
}

Type batch_part(const Type *t, int axis)
{
    Type part = *t;
    if (axis < 0 || t->rank < 1) return part;
    part.rank--;
    for (int k = axis; k < part.rank; k++) part.dim[k] = t->dim[k + 1];
    return part;
}

int64_t batch_outer(const Type *t, int axis)
{
    int64_t outer = axis < 0 ? 0 : 1;
    for (int k = 0; k < axis; k++) outer *= t->dim[k];
    return outer;
}

static void move_runs(char *to, size_t to_step, const char *from, size_t from_step, int64_t runs,
                      size_t bytes)
{
    for (int64_t k = 0; k < runs; k++, to += to_step, from += from_step) memcpy(to, from, bytes);
}

void batch_get(void *part, const void *tensor, int64_t outer, int64_t i, int64_t n, size_t bytes)
{
    if (outer < 1) outer = n = 1, i = 0;
    const size_t run = bytes / (size_t)outer;
    move_runs(part, run, (const char *)tensor + (size_t)i * run, (size_t)n * run, outer, run);
}

void batch_put(void *tensor, const void *part, int64_t outer, int64_t i, int64_t n, size_t bytes)
{
    if (outer < 1) outer = n = 1, i = 0;
    const size_t run = bytes / (size_t)outer;
    move_runs((char *)tensor + (size_t)i * run, (size_t)n * run, part, run, outer, run);
}
