/* Runs a network with simulated integers beside the one without, as one program on the same
 * samples, and adds up the squares of values and of their differences. */
#include "passes/sqnr.h"

#include <math.h>

#include "ir/op.h"
#include "passes/observe.h"
#include "passes/simplify.h"
#include "passes/targets.h"

enum { MEASURED_SAMPLES = 128 };

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

static int compare(double *signal, double *noise, Context *c, const Graph *plain,
                   const Graph *other, int n, Value *const *v, Value *const *w)
{
    Arena *a = arena_new();
    Value **map, **map2;
    Graph *p = graph_clone(plain, a, &map), *q = graph_clone(other, a, &map2);
    Value **pair = NEW_ARRAY(a, Value *, 2 * n + 1), **got = NEW_ARRAY(a, Value *, n + 1);
    q->noutputs = 0;
    for (int k = 0; k < n; k++) graph_add_output(q, map2[w[k]->id]);
    simplify_dce(q, a);
    graph_inline(p, q, p->inputs, got);
    for (int k = 0; k < n; k++) {
        pair[2 * k] = map[v[k]->id];
        pair[2 * k + 1] = got[k];
    }
    Pairs sums = {n, signal, noise};
    const Observer by = {see_pair, add_pairs, &sums, 2 * sizeof(double) * (size_t)n};
    int status =
        observe(p, 2 * n, pair, c->data, MEASURED_SAMPLES, &c->opt, c->diag, &by, &c->peak_bytes);
    arena_free(a);
    return status;
}

static const Node *grid_of(const Node *n, int k)
{
    const Value *v = node_in(n, k);
    return v && v->def && v->def->op == OP_FakeQuant ? v->def : NULL;
}

static bool is_quantised_product(const Node *n)
{
    return quant_weight_axis(n) >= 0 && grid_of(n, 1);
}

static const char *layer_name(const Node *n) { return n->name ? n->name : n->out[0]->name; }

/* The plain twin of each node of g that is no FakeQuant: nodes keep their order. */
static int products(const Graph *plain, const Graph *g, const Node **node, const Node **twin)
{
    int n = 0, at = 0;
    for (int i = 0; i < g->nnodes && at < plain->nnodes; i++) {
        if (g->nodes[i]->op == OP_FakeQuant) continue;
        if (is_quantised_product(g->nodes[i])) {
            node[n] = g->nodes[i];
            twin[n++] = plain->nodes[at];
        }
        at++;
    }
    return n;
}

int measure_sqnr(QuantReport **out, int *n, Context *c, const Graph *plain, const Graph *g,
                 Arena *a)
{
    const Node **node = NEW_ARRAY(a, const Node *, g->nnodes),
               **twin = NEW_ARRAY(a, const Node *, g->nnodes);
    *n = products(plain, g, node, twin);
    Value **v = NEW_ARRAY(a, Value *, *n), **w = NEW_ARRAY(a, Value *, *n);
    double *signal = NEW_ARRAY(a, double, *n), *noise = NEW_ARRAY(a, double, *n);
    *out = NEW_ARRAY(a, QuantReport, *n);
    for (int k = 0; k < *n; k++) {
        v[k] = twin[k]->out[0];
        w[k] = node[k]->out[0];
    }
    if (*n) TRY(compare(signal, noise, c, plain, g, *n, v, w));
    for (int k = 0; k < *n; k++)
        (*out)[k] =
            (QuantReport){.node = layer_name(node[k]),
                          .sqnr = 10 * log10(fmax(signal[k], 1e-30) / fmax(noise[k], 1e-30)),
                          .cost = -1};
    return 0;
}

/* A clone of g in which only the product `layer`, by its place in the node list, is quantised. */
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
    int status = n ? compare(signal, noise, c, plain, q, n, v, w) : 0;
    *cost = 0;
    for (int k = 0; k < n; k++) *cost += noise[k] / fmax(signal[k], 1e-30);
    arena_free(a);
    return status;
}

int measure_costs(QuantReport *q, int n, Context *c, const Graph *plain, const Graph *g)
{
    int k = 0;
    for (int i = 0; i < g->nnodes && k < n; i++) {
        if (!is_quantised_product(g->nodes[i])) continue;
        TRY(layer_cost(&q[k++].cost, c, plain, g, i));
        pass_progress(c, (double)k / n, "cost of '%s'", layer_name(g->nodes[i]));
    }
    return 0;
}
