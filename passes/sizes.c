/* Dimensions that a model leaves open stay open in the output, but costs and samples need numbers:
 * those of --shape, those of the samples, or else the first row of a list of usual ones under which
 * the shapes of the whole network can be inferred and nothing is empty. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ir/batch.h"
#include "ir/process.h"
#include "ir/text.h"
#include "passes/passes.h"

/* ---- graphs of static shapes -------------------------------------------------------- */

static bool nothing_empty(const Graph *g)
{
    for (int i = 0; i < g->nnodes; i++)
        for (int o = 0; o < g->nodes[i]->nout; o++) {
            const Value *v = g->nodes[i]->out[o];
            if (v && dtype_is_float(v->type.dtype) && type_count(&v->type) == 0) return false;
        }
    return true;
}

Graph *graph_sized(const Graph *g, const Options *o, Arena *a, Value ***map)
{
    Diag quiet = {0};
    int64_t *dims = NEW_ARRAY(a, int64_t, g->nsymbols + 1);
    for (int k = 0; k < g->nsymbols; k++) dims[k] = o && k < o->ndims ? o->dims[k] : -1;
    Graph *sized = graph_specialize_mapped(g, a, dims, map, &quiet);
    return sized ? sized : graph_clone(g, a, map);
}

int64_t graph_flops_at(const Graph *g, const Options *o)
{
    Arena *a = arena_new();
    int64_t flops = graph_flops(graph_sized(g, o, a, NULL));
    arena_free(a);
    return flops;
}

double graph_work_at(const Graph *g, const Options *o, double *elements)
{
    enum { FLOPS_PER_ELEMENT = 64 }; /* as a core needs about 1 ns for either */
    Arena *a = arena_new();
    const Graph *sized = graph_sized(g, o, a, NULL);
    double count = 0;
    for (int i = 0; i < sized->nnodes; i++)
        for (int k = 0; k < sized->nodes[i]->nout; k++) {
            const Value *v = sized->nodes[i]->out[k];
            const int64_t n = v && dtype_is_float(v->type.dtype) ? type_count(&v->type) : 0;
            count += n > 0 ? (double)n : 0;
        }
    const double work = (double)graph_flops(sized) + FLOPS_PER_ELEMENT * count;
    if (elements) *elements = count;
    arena_free(a);
    return work;
}

/* How many times the work of a few cores the device does in the same time. */
static double device_speed(const Options *o)
{
    enum { GPU = 50 };
    return runtime_is_parallel(o->device) ? GPU : 1;
}

int64_t samples_affordable(const Graph *g, const Options *o, int64_t wanted)
{
    const double most_work = o->made_up ? 1e12 : 4e12, fewest = o->made_up ? 16 : 64;
    const double n = floor(most_work * device_speed(o) / (graph_work_at(g, o, NULL) + 1));
    return (int64_t)fmin(fmax(n, fewest), (double)wanted);
}

/* A step takes three times the work of its samples: forwards, and backwards to values and weights.
 */
double steps_affordable(const Graph *g, const Options *o, int64_t batch, double wanted)
{
    const double most_work = o->made_up ? 1e13 : 3e14;
    const double work = 3 * graph_work_at(g, o, NULL) * (double)batch;
    return fmin(wanted, fmax(1, floor(most_work * device_speed(o) / fmax(work, 1))));
}

/* ---- choice ------------------------------------------------------------------------- */

static int64_t *open_dim(int64_t *dims, int64_t dim)
{
    return dim_is_sym(dim) && dims[dim - DIM_SYM_BASE] < 0 ? &dims[dim - DIM_SYM_BASE] : NULL;
}

/* Batches are of one sample: costs are per sample. */
static void set_batches(const Graph *g, const int *axes, int64_t *dims)
{
    for (int i = 0; i < g->ninputs; i++) {
        int64_t *dim = axes[i] >= 0 ? open_dim(dims, g->inputs[i]->type.dim[axes[i]]) : NULL;
        if (dim) *dim = 1;
    }
}

typedef struct Usual {
    int64_t side, length, samples; /* of an image, of a sequence, of a signal */
} Usual;

/* Whether axis k of an open image has the colours; where the last has so few, it does. */
static bool is_color(const Type *t, int k)
{
    const int64_t last = t->rank == 4 ? t->dim[3] : 0;
    return k == 1 && t->rank == 4 && !(last >= 1 && last <= 4);
}

static void set_usual(const Graph *g, const Usual *u, int64_t *dims)
{
    for (int i = 0; i < g->ninputs; i++) {
        const Type *t = &g->inputs[i]->type;
        bool signal = t->rank == 2 && dtype_is_float(t->dtype);
        for (int k = 0; k < t->rank; k++) {
            int64_t *dim = open_dim(dims, t->dim[k]); /* the batch is set */
            if (dim)
                *dim = is_color(t, k) ? 3
                       : t->rank >= 4 ? u->side
                       : signal       ? u->samples
                                      : u->length;
        }
    }
}

static bool possible(const Graph *g, const int64_t *dims)
{
    Diag quiet = {0};
    Arena *a = arena_new();
    const Graph *sized = graph_specialize(g, a, dims, &quiet);
    const bool good = sized && nothing_empty(sized);
    arena_free(a);
    return good;
}

/* The symbols that inputs have and nobody has given, at most `most`. */
static int open_symbols(const Graph *g, const int64_t *given, int64_t *symbols, int most)
{
    int n = 0;
    for (int i = 0; i < g->ninputs; i++)
        for (int k = 0; k < g->inputs[i]->type.rank; k++) {
            const int64_t s = g->inputs[i]->type.dim[k] - DIM_SYM_BASE;
            if (!dim_is_sym(g->inputs[i]->type.dim[k]) || given[s] >= 0) continue;
            bool listed = false;
            for (int m = 0; m < n; m++) listed |= symbols[m] == s;
            if (!listed && n < most) symbols[n++] = s;
        }
    return n;
}

/* A decoder's past, what is new, and the whole of both that its mask covers: makes one of the sizes
 * the sum of two others, or one more than another, so that the network is possible. */
static bool find_sum(const Graph *g, const int64_t *given, int64_t *dims)
{
    enum { MOST = 6 };
    int64_t symbol[MOST];
    const int n = open_symbols(g, given, symbol, MOST);
    for (int t = 0; t < n; t++)
        for (int x = 0; x < n; x++)
            for (int y = -1; y < x; y++) { /* -1: the number 1 */
                if (t == x || t == y) continue;
                const int64_t was = dims[symbol[t]];
                dims[symbol[t]] = dims[symbol[x]] + (y < 0 ? 1 : dims[symbol[y]]);
                if (possible(g, dims)) return true;
                dims[symbol[t]] = was;
            }
    return false;
}

static int shape_error(Context *c, const Value *v, const char *text)
{
    char t[128];
    return diag_error(c->diag, "--shape gives '%s', input '%s' is %s", text, v->name,
                      type_print(c->graph, &v->type, t, sizeof t));
}

/* "1x3x224x224" */
static int set_shape(Context *c, const Value *v, const char *text, int64_t *dims)
{
    enum { MOST_SIZE = 100000000 };
    const char *p = text;
    size_t bytes = dtype_size(v->type.dtype);
    for (int k = 0; k < v->type.rank; k++) {
        char *end;
        long long n = strtoll(p, &end, 10);
        int64_t have = v->type.dim[k], *dim = open_dim(dims, have);
        if (end == p || n < 1 || *end != (k + 1 < v->type.rank ? 'x' : '\0'))
            return shape_error(c, v, text);
        if (n > MOST_SIZE)
            return diag_error(c->diag, "--shape: a dimension of input '%s' is %.*s, the most is %d",
                              v->name, (int)(end - p), p, MOST_SIZE);
        if (!mul_ok(bytes, (size_t)n, &bytes)) bytes = SIZE_MAX;
        if (dim) *dim = n;
        if (!dim && n != (dim_is_sym(have) ? dims[have - DIM_SYM_BASE] : have))
            return shape_error(c, v, text);
        p = end + 1;
    }
    if (v->type.rank < 1) return shape_error(c, v, text);
    const size_t most = c->opt.memory ? c->opt.memory : process_memory();
    if (bytes <= most) return 0;
    return diag_error(c->diag, "--shape: input '%s' of %s has more than the %zu bytes that %s",
                      v->name, text, most, c->opt.memory ? "--memory allows" : "this machine has");
}

/* "x=1x3x224x224,y=1x80" */
static int set_shapes(Context *c, int64_t *dims)
{
    for (const char *const *one = name_list(c->arena, c->opt.shape); *one; one++) {
        const char *eq = strrchr(*one, '=');
        const size_t n = eq ? (size_t)(eq - *one) : strlen(*one);
        const Value *v = NULL;
        for (int i = 0; eq && i < c->graph->ninputs; i++) {
            const char *name = c->graph->inputs[i]->name;
            if (strlen(name) == n && memcmp(name, *one, n) == 0) v = c->graph->inputs[i];
        }
        if (!v) return diag_error(c->diag, "--shape: the model has no input '%.*s'", (int)n, *one);
        TRY(set_shape(c, v, eq + 1, dims));
    }
    return 0;
}

static void say_sizes(Context *c, const int *axes, const int64_t *dims)
{
    for (int i = 0; i < c->graph->ninputs; i++) {
        const Value *v = c->graph->inputs[i];
        char text[128];
        Type t = v->type;
        bool open = false;
        for (int k = 0; k < t.rank; k++) {
            open |= k != axes[i] && dim_is_sym(t.dim[k]);
            if (dim_is_sym(t.dim[k])) t.dim[k] = dims[t.dim[k] - DIM_SYM_BASE];
        }
        if (open)
            diag_remark(c->diag, "input '%s' is analysed as %s (--shape chooses)", v->name,
                        type_print(c->graph, &t, text, sizeof text));
    }
}

int sizes_choose(Context *c)
{
    static const Usual usual[] = {
        {224, 64, 16000}, {320, 128, 48000}, {256, 32, 1024}, {64, 16, 256}, {512, 512, 160000}};
    const Graph *g = c->graph;
    Arena *a = arena_new();
    int n = g->nsymbols;
    int64_t *given = NEW_ARRAY(c->arena, int64_t, n + 1), *dims = NEW_ARRAY(c->arena, int64_t, n);
    for (int k = 0; k < n; k++) given[k] = -1;
    int status = c->opt.shape ? set_shapes(c, given) : 0;
    const int *axes = batch_axes(g, a);
    set_batches(g, axes, given);
    bool found = false;
    for (size_t k = 0; k < sizeof usual / sizeof *usual && status == 0 && !found; k++) {
        memcpy(dims, given, (size_t)n * sizeof *dims);
        set_usual(g, &usual[k], dims);
        found = possible(g, dims);
    }
    if (status == 0 && !found) {
        set_usual(g, &usual[0], memcpy(dims, given, (size_t)n * sizeof *dims));
        find_sum(g, given, dims);
    }
    c->opt.dims = dims;
    c->opt.ndims = n;
    if (status == 0 && !c->opt.shape) say_sizes(c, axes, dims);
    arena_free(a);
    return status;
}

void sizes_of_samples(Context *c, const Samples *s)
{
    const Graph *g = c->original;
    int64_t *dims = arena_memdup(c->arena, c->opt.dims, (size_t)c->opt.ndims * sizeof *dims);
    for (int i = 0; i < g->ninputs && i < s->ninputs; i++) {
        const Type *x = &s->inputs[i].type,
                   t = batch_part(&g->inputs[i]->type, s->inputs[i].batch_axis);
        for (int k = 0; k < t.rank && x->rank == t.rank; k++) {
            int64_t symbol = t.dim[k] - DIM_SYM_BASE;
            if (dim_is_sym(t.dim[k]) && symbol < c->opt.ndims) dims[symbol] = x->dim[k];
        }
    }
    c->opt.dims = dims;
}
