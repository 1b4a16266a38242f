/* Runs a network with simulated integers beside the one without, as one program on the same
 * samples, and adds up the squares of values and of their differences. */
#include "passes/quant/sqnr.h"

#include <math.h>
#include <string.h>

#include "ir/op.h"
#include "passes/observe.h"
#include "passes/quant/targets.h"
#include "passes/simplify/simplify.h"

/* Sums over pairs of values: 2 k in the plain network, 2 k + 1 in the other. A part holds those of
 * a shard, a signal and a noise per pair. */
typedef struct Pairs {
    int n;
    double *signal, *noise;
} Pairs;

static void see_pair(const void *ctx, int i, const Type *type, const float *x, const float *plain,
                     void *part)
{
    double *sum = (double *)part + i / 2 * 2, signal = 0, noise = 0;
    (void)ctx;
    if (i % 2 == 0) return;
    for (int64_t k = 0, n = type_count(type); k < n; k++) {
        double y = (double)plain[k], e = (double)x[k] - y;
        signal += y * y;
        noise += e * e;
    }
    sum[0] = signal;
    sum[1] = noise;
}

static void add_pairs(void *ctx, const void *part)
{
    Pairs *p = ctx;
    const double *sum = part;
    for (int k = 0; k < p->n; k++) {
        p->signal[k] += sum[2 * k];
        p->noise[k] += sum[2 * k + 1];
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

/* `plain` and `other` as one graph in arena a. pair[2 k] is v[k] of `plain` there, pair[2 k + 1]
 * w[k] of `other`. own: what reads a w[k] gets v[k] instead, so that a pair differs only by what
 * happens since the pairs before it. */
static Graph *beside(Value **pair, Arena *a, const Graph *plain, const Graph *other, int n,
                     Value *const *v, Value *const *w, bool own)
{
    Value **map, **map2;
    Graph *p = graph_clone(plain, a, &map), *q = graph_clone(other, a, &map2);
    Value **got = NEW_ARRAY(a, Value *, n + 1), **in = NEW_ARRAY(a, Value *, p->ninputs + n);
    for (int i = 0; i < p->ninputs; i++) in[i] = p->inputs[i];
    for (int k = 0; k < n; k++) {
        in[p->ninputs + k] = map[v[k]->id];
        got[k] = map2[w[k]->id];
    }
    if (own) cut(q, n, got);
    q->noutputs = 0;
    for (int k = 0; k < n; k++) graph_add_output(q, got[k]);
    simplify_dce(q, a);
    graph_inline(p, q, in, got);
    for (int k = 0; k < n; k++) {
        pair[2 * k] = map[v[k]->id];
        pair[2 * k + 1] = got[k];
    }
    return p;
}

static int compare(double *signal, double *noise, Context *c, const Graph *plain,
                   const Graph *other, int n, Value *const *v, Value *const *w, bool own)
{
    Arena *a = arena_new();
    Value **pair = NEW_ARRAY(a, Value *, 2 * n + 1);
    const Graph *both = beside(pair, a, plain, other, n, v, w, own);
    Pairs sums = {n, signal, noise};
    const Observer by = {see_pair, add_pairs, &sums, 2 * sizeof(double) * (size_t)n};
    int status = observe(both, 2 * n, pair, c->data, MEASURED_SAMPLES, &c->opt, c->diag, &by,
                         &c->peak_bytes);
    arena_free(a);
    return status;
}

static const Node *grid_of(const Node *n, int k)
{
    const Value *v = node_in(n, k);
    return v && v->def && v->def->op == OP_FakeQuant ? v->def : NULL;
}

static bool is_quantized_product(const Node *n)
{
    return quant_weight_axis(n) >= 0 && grid_of(n, 1);
}

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

int measure_sqnr(QuantReport *q, Context *c, const Graph *plain, const Graph *g, bool own)
{
    Arena *a = arena_new();
    Node **node = NEW_ARRAY(a, Node *, g->nnodes), **twin = NEW_ARRAY(a, Node *, g->nnodes);
    const int n = quantized_products(plain, g, node, twin);
    Value **v = NEW_ARRAY(a, Value *, n), **w = NEW_ARRAY(a, Value *, n);
    double *signal = NEW_ARRAY(a, double, n), *noise = NEW_ARRAY(a, double, n);
    for (int k = 0; k < n; k++) {
        v[k] = twin[k]->out[0];
        w[k] = node[k]->out[0];
    }
    const int status = n ? compare(signal, noise, c, plain, g, n, v, w, own) : 0;
    for (int k = 0; k < n; k++) *(own ? &q[k].own : &q[k].sqnr) = decibels(signal[k], noise[k]);
    arena_free(a);
    return status;
}

/* A clone of g in which only the product `layer`, by its place in the node list, is quantized. */
static Graph *only_layer(const Graph *g, int layer, Arena *a)
{
    Graph *q = graph_clone(g, a, NULL);
    const Node *keep = q->nodes[layer];
    Rewrite r = rewrite_begin(q);
    const Node *x = grid_of(keep, 0), *w = grid_of(keep, 1);
    for (int i = 0; i < r.nold; i++) {
        Node *n = r.old[i];
        rewrite_map_inputs(&r, n);
        if (n->op == OP_FakeQuant && n != x && n != w)
            rewrite_replace(&r, n->out[0], n->in[0]);
        else
            node_append(q, n);
    }
    rewrite_end(&r);
    return q;
}

static int layer_cost(double *cost, Context *c, const Graph *plain, const Graph *g, int layer)
{
    Arena *a = arena_new();
    Graph *q = only_layer(g, layer, a);
    int n = 0;
    Value **v = NEW_ARRAY(a, Value *, plain->noutputs),
          **w = NEW_ARRAY(a, Value *, plain->noutputs);
    double *signal = NEW_ARRAY(a, double, plain->noutputs),
           *noise = NEW_ARRAY(a, double, plain->noutputs);
    for (int o = 0; o < plain->noutputs; o++) {
        if (plain->outputs[o]->type.dtype != DT_F32) continue;
        v[n] = plain->outputs[o];
        w[n++] = q->outputs[o];
    }
    int status = n ? compare(signal, noise, c, plain, q, n, v, w, false) : 0;
    *cost = 0;
    for (int k = 0; k < n; k++) *cost += noise[k] / fmax(signal[k], 1e-30);
    arena_free(a);
    return status;
}

int measure_costs(QuantReport *q, int n, Context *c, const Graph *plain, const Graph *g)
{
    int k = 0;
    for (int i = 0; i < g->nnodes && k < n; i++) {
        if (!is_quantized_product(g->nodes[i])) continue;
        TRY(layer_cost(&q[k++].cost, c, plain, g, i));
        pass_progress(c, (double)k / n, "cost of '%s'", node_label(g->nodes[i]));
    }
    return 0;
}
