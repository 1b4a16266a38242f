/* Runs a network with simulated integers beside the one without, as one program on the same
 * samples, and adds up the squares of values and of their differences. */
#include "passes/quant/sqnr.h"

#include <math.h>
#include <string.h>

#include "ir/op.h"
#include "passes/observe.h"
#include "passes/quant/targets.h"
#include "passes/simplify/simplify.h"

/* Values to compare, and sums over them. */
typedef struct Pairs {
    int n;
    Value **v, **w; /* in the plain network, in the other */
    double *signal, *noise, *count;
} Pairs;

static Pairs pairs_new(Arena *a, int most)
{
    return (Pairs){.v = NEW_ARRAY(a, Value *, most),
                   .w = NEW_ARRAY(a, Value *, most),
                   .signal = NEW_ARRAY(a, double, most),
                   .noise = NEW_ARRAY(a, double, most),
                   .count = NEW_ARRAY(a, double, most)};
}

static void pairs_add(Pairs *p, Value *v, Value *w)
{
    p->v[p->n] = v;
    p->w[p->n++] = w;
}

/* What a shard adds to a pair. Value 2 k is of the plain network, 2 k + 1 of the other. */
typedef struct PairSums {
    double signal, noise, count;
} PairSums;

static void see_pair(const void *ctx, int i, const Type *type, const float *x, const float *plain,
                     void *part)
{
    const int64_t n = type_count(type);
    double signal = 0, noise = 0;
    (void)ctx;
    if (i % 2 == 0) return;
    for (int64_t k = 0; k < n; k++) {
        double y = (double)plain[k], e = (double)x[k] - y;
        signal += y * y;
        noise += e * e;
    }
    ((PairSums *)part)[i / 2] = (PairSums){signal, noise, (double)n};
}

static void add_pairs(void *ctx, const void *part)
{
    Pairs *p = ctx;
    const PairSums *sum = part;
    for (int k = 0; k < p->n; k++) {
        p->signal[k] += sum[k].signal;
        p->noise[k] += sum[k].noise;
        p->count[k] += sum[k].count;
    }
}

/* What reads w[k] in q reads an input instead, added in the order of k. */
static void cut(Graph *q, int n, Value *const *w)
{
    Value **fed = NEW_ARRAY(q->arena, Value *, q->nvalues);
    for (int k = 0; k < n; k++) fed[w[k]->id] = graph_add_input(q, w[k]->name, w[k]->type);
    const uint32_t values = q->nvalues - (uint32_t)n;
    for (int i = 0; i < q->nnodes; i++) {
        const Node *m = q->nodes[i];
        for (int k = 0; k < m->nin; k++)
            if (m->in[k] && m->in[k]->id < values && fed[m->in[k]->id])
                m->in[k] = fed[m->in[k]->id];
    }
}

/* `plain` and `other` as one graph in arena a. pair[2 k] is p->v[k] there, pair[2 k + 1] p->w[k].
 * own: what reads a p->w[k] gets p->v[k] instead, so that a pair differs only by what happens since
 * the pairs before it. */
static Graph *beside(Value **pair, Arena *a, const Graph *plain, const Graph *other, const Pairs *p,
                     bool own)
{
    const int n = p->n;
    Value **map, **map2;
    Graph *g = graph_clone(plain, a, &map), *q = graph_clone(other, a, &map2);
    Value **got = NEW_ARRAY(a, Value *, n + 1), **in = NEW_ARRAY(a, Value *, g->ninputs + n);
    for (int i = 0; i < g->ninputs; i++) in[i] = g->inputs[i];
    for (int k = 0; k < n; k++) {
        in[g->ninputs + k] = map[p->v[k]->id];
        got[k] = map2[p->w[k]->id];
    }
    if (own) cut(q, n, got);
    q->noutputs = 0;
    for (int k = 0; k < n; k++) graph_add_output(q, got[k]);
    simplify_dce(q, a);
    graph_inline(g, q, in, got);
    for (int k = 0; k < n; k++) {
        pair[2 * k] = map[p->v[k]->id];
        pair[2 * k + 1] = got[k];
    }
    return g;
}

static int compare(Pairs *p, Context *c, const Graph *plain, const Graph *other, int64_t limit,
                   bool own)
{
    if (p->n == 0) return 0;
    Arena *a = arena_new();
    Value **pair = NEW_ARRAY(a, Value *, 2 * p->n);
    const Graph *both = beside(pair, a, plain, other, p, own);
    const Observer by = {see_pair, add_pairs, p, sizeof(PairSums) * (size_t)p->n};
    int status =
        observe(both, 2 * p->n, pair, c->data, limit, &c->opt, c->diag, &by, &c->peak_bytes);
    arena_free(a);
    return status;
}

static const Node *grid_of(const Node *n, int k)
{
    const Value *v = node_in(n, k);
    return v && v->def && v->def->op == OP_FakeQuant ? v->def : NULL;
}

bool is_quantized_product(const Node *n) { return quant_weight_axis(n) >= 0 && grid_of(n, 1); }

/* Nodes keep their order. */
int quantized_products(const Graph *plain, const Graph *g, Node **node, Node **twin)
{
    int n = 0, at = 0;
    for (int i = 0; i < g->nnodes && at < plain->nnodes; i++) {
        if (g->nodes[i]->op == OP_FakeQuant) continue;
        if (is_quantized_product(g->nodes[i])) {
            node[n] = g->nodes[i];
            twin[n++] = plain->nodes[at];
        }
        at++;
    }
    return n;
}

/* 300: no noise, as where both networks deliver zeros. */
static double decibels(double signal, double noise)
{
    return noise > 0 ? fmin(300, 10 * log10(fmax(signal, 1e-300) / noise)) : 300;
}

static Pairs product_pairs(const Graph *plain, const Graph *g, Arena *a)
{
    Node **node = NEW_ARRAY(a, Node *, g->nnodes), **twin = NEW_ARRAY(a, Node *, g->nnodes);
    const int n = quantized_products(plain, g, node, twin);
    Pairs p = pairs_new(a, n + g->noutputs);
    for (int k = 0; k < n; k++) pairs_add(&p, twin[k]->out[0], node[k]->out[0]);
    return p;
}

int measure_own_sqnr(QuantReport *q, Context *c, const Graph *plain, const Graph *g)
{
    Arena *a = arena_new();
    Pairs p = product_pairs(plain, g, a);
    const int status = compare(&p, c, plain, g, MEASURED_SAMPLES, true);
    for (int k = 0; k < p.n; k++) q[k].own = decibels(p.signal[k], p.noise[k]);
    arena_free(a);
    return status;
}

/* ---- outputs ------------------------------------------------------------------------ */

static void add_outputs(Pairs *p, const Graph *plain, const Graph *g)
{
    for (int o = 0; o < plain->noutputs; o++)
        if (plain->outputs[o]->type.dtype == DT_F32) pairs_add(p, plain->outputs[o], g->outputs[o]);
}

/* Whether v is what a function delivers whose range is known, perhaps moved since. */
static bool is_bounded(const Value *v)
{
    const Node *n = v->def;
    float lo, hi;
    while (n && n->nin && (op_info[n->op].flags & OPF_MOVES) && n->op != OP_Concat)
        n = n->in[0]->def;
    return n && fixed_range(n->op, &lo, &hi);
}

/* The power of pair k in the plain network, where it is an output. */
static double output_signal(const Pairs *p, int k)
{
    static const double step = 1.0 / 255;
    return is_bounded(p->v[k]) ? fmax(p->signal[k], p->count[k] * step * step) : p->signal[k];
}

int measure_sqnr(QuantReport *q, double *outputs, Context *c, const Graph *plain, const Graph *g)
{
    Arena *a = arena_new();
    Pairs p = product_pairs(plain, g, a);
    const int n = p.n;
    add_outputs(&p, plain, g);
    const int status = n ? compare(&p, c, plain, g, MEASURED_SAMPLES, false) : 0;
    *outputs = INFINITY;
    for (int k = 0; k < n; k++) q[k].sqnr = decibels(p.signal[k], p.noise[k]);
    for (int k = n; k < p.n && n; k++)
        if (p.signal[k] > 0) *outputs = fmin(*outputs, decibels(output_signal(&p, k), p.noise[k]));
    arena_free(a);
    return status;
}

/* A clone of g with those FakeQuant nodes alone. */
static Graph *only_grids(const Graph *g, const bool *grids, Arena *a)
{
    Graph *q = graph_clone(g, a, NULL);
    Rewrite r = rewrite_begin(q);
    for (int i = 0; i < r.nold; i++) {
        Node *n = r.old[i];
        rewrite_map_inputs(&r, n);
        if (n->op == OP_FakeQuant && !grids[i])
            rewrite_replace(&r, n->out[0], n->in[0]);
        else
            node_append(q, n);
    }
    rewrite_end(&r);
    return q;
}

int grids_cost(double *cost, Context *c, const Graph *plain, const Graph *g, const bool *grids,
               int64_t limit)
{
    Arena *a = arena_new();
    const Graph *q = only_grids(g, grids, a);
    Pairs p = pairs_new(a, plain->noutputs);
    add_outputs(&p, plain, q);
    const int status = compare(&p, c, plain, q, limit, false);
    *cost = 0;
    for (int k = 0; k < p.n; k++) *cost += p.noise[k] / fmax(output_signal(&p, k), 1e-30);
    arena_free(a);
    return status;
}

int measure_costs(QuantReport *q, int n, Context *c, const Graph *plain, const Graph *g)
{
    Arena *a = arena_new();
    int status = 0;
    for (int i = 0, k = 0; i < g->nnodes && k < n && status == 0; i++) {
        const Node *m = g->nodes[i];
        if (!is_quantized_product(m)) continue;
        bool *grids = NEW_ARRAY(a, bool, g->nnodes);
        for (int j = 0; j < i; j++)
            grids[j] = g->nodes[j] == grid_of(m, 0) || g->nodes[j] == grid_of(m, 1);
        status = grids_cost(&q[k++].cost, c, plain, g, grids, MEASURED_SAMPLES);
        pass_progress(c, (double)k / n, "cost of '%s'", node_label(m));
    }
    arena_free(a);
    return status;
}
