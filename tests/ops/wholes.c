/* The op inside a model: written to ONNX and read again, and with channels removed around it. */
#include <math.h>
#include <stdlib.h>

#include "backend/backend.h"
#include "frontend/frontend.h"
#include "passes/prune/remove_channels.h"
#include "runtime/runtime.h"
#include "tests/ops/checks.h"

int check_onnx(const Case *c, Arena *a, Diag *d)
{
    Graph *again;
    void *bytes;
    size_t n;
    double worst;
    const Graph *g = case_graph(c, a, DT_F32, false);
    if (op_info[c->op].domain[0]) return 1; /* an op of our own */
    TRY(onnx_serialize(g, &(EmitOptions){.min_opset = 20}, &bytes, &n, d));
    const int status = onnx_read_memory(&again, a, arena_memdup(a, bytes, n), n, ".", d);
    free(bytes);
    if (status < 0) return -1;
    TRY(graphs_differ(&worst, g, again, NULL, 5, d));
    if (worst == 0) return 0;
    return diag_error(d, "onnx: results differ by %g after writing and reading", worst);
}

/* ---- channels ----------------------------------------------------------------------- */

static Value *weights(Graph *g, int64_t out, int64_t in, int rank, bool positive)
{
    /* [out, in, 1 …] of a 1x1 convolution, or [in, out] of a product */
    const Type t =
        rank > 2 ? (Type){DT_F32, rank, {out, in, 1, 1, 1}} : (Type){DT_F32, 2, {in, out}};
    const int64_t n = type_count(&t);
    float *w = NEW_ARRAY(g->arena, float, n + 1);
    Rng r = rng_new(3, (uint64_t)(in + out));
    for (int64_t k = 0; k < n; k++) {
        w[k] = rng_normal(&r);
        if (positive) w[k] = fabsf(w[k]);
    }
    return value_const(g, "w", t, w);
}

/* Mixes the channels of v into n others: what makes channels, and what consumes them. */
static Value *mixed(Graph *g, Value *v, int64_t n, bool positive)
{
    const int rank = v->type.rank;
    return build(g, rank > 2 ? OP_Conv : OP_MatMul,
                 IN(v, weights(g, n, v->type.dim[1], rank, positive)), NO_ATTRS);
}

static bool has_channels(const Type *t)
{
    return t->dtype == DT_F32 && t->rank >= 2 && t->rank <= 5 && t->dim[1] > 0;
}

/* Whether the case feeds the op numbers above 0 only, as logarithms and roots want. */
static bool wants_positive(const Case *c)
{
    const int64_t n = type_count(&c->in[0].type);
    for (int64_t k = 0; k < n; k++)
        if (((const float *)c->in[0].data)[k] <= 0) return false;
    return n > 0;
}

/* The op between two such layers, its other operands being constants; NULL if it cannot be. */
static Graph *sandwich(const Case *c, Arena *a)
{
    Graph *g = graph_new(a, "sandwich");
    Value *in[CASE_INPUTS] = {NULL};
    if (c->nin == 0 || !c->in[0].name || !has_channels(&c->in[0].type)) return NULL;
    in[0] =
        mixed(g, graph_add_input(g, "x0", c->in[0].type), c->in[0].type.dim[1], wants_positive(c));
    for (int i = 1; i < c->nin; i++)
        if (c->in[i].name) in[i] = value_const(g, c->in[i].name, c->in[i].type, c->in[i].data);
    Node *n = build_multi(g, c->op, c->nout, c->nin, in, c->nattrs, c->attrs);
    for (int o = 0; o < c->nout; o++) {
        const Value *y = n->out[o];
        graph_add_output(g, has_channels(&y->type) ? mixed(g, n->out[o], 2, false) : n->out[o]);
    }
    return g;
}

int check_lanes(const Case *c, Arena *a, Diag *d)
{
    Graph *g = sandwich(c, a);
    double worst;
    if (!g) return 1;
    Lanes *l = lanes_new(g, a);
    lanes_run(l);
    const int n = lanes_count_classes(l);
    bool *removed = NEW_ARRAY(a, bool, n), any = false;
    for (int k = 0, free_ones = 0; k < n; k++) {
        bool pinned;
        lanes_pinned_by(l, k, &pinned);
        if (pinned || free_ones++ % 3 != 1) continue;
        removed[k] = any = true;
    }
    if (!any) return 1;
    const Graph *masked = channels_masked(g, l, removed, a);
    TRY(channels_remove(g, l, removed, d));
    TRY(graph_verify(g, d));
    TRY(graphs_differ(&worst, masked, g, NULL, 5, d));
    if (worst < 1e-5) return 0;
    return diag_error(d, "lanes: removing channels and zeroing them differ by %g", worst);
}
