/* Differentiation of graphs: a reverse and a forward sweep that apply the rules of ops.def. Both
 * append ordinary nodes. Pairs of QuantizeLinear and DequantizeLinear that the model came with
 * become FakeQuant first, through which derivatives go straight. */
#include <string.h>

#include "ir/ad.h"
#include "passes/passes.h"

/* ---- what is quantized already ------------------------------------------------------ */

static bool integer_bounds(DType t, int *lo, int *hi)
{
    *lo = t == DT_I8 ? -128 : t == DT_I16 ? -32768 : 0;
    *hi = t == DT_I8 ? 127 : t == DT_I16 ? 32767 : t == DT_U16 ? 65535 : 255;
    return t == DT_I8 || t == DT_U8 || t == DT_I16 || t == DT_U16;
}

static bool same_constant(const Value *v, const Value *w)
{
    if (v == w) return !v || value_is_const(v);
    return v && w && value_is_const(v) && value_is_const(w) && type_equal(&v->type, &w->type) &&
           memcmp(v->data, w->data, (size_t)type_bytes(&v->type)) == 0;
}

/* The QuantizeLinear that dq undoes on the same constant grid, or NULL. */
static const Node *pair_of(const Node *dq)
{
    const Node *q = dq->op == OP_DequantizeLinear ? dq->in[0]->def : NULL;
    bool pair = q && q->op == OP_QuantizeLinear && q->in[0]->type.dtype == DT_F32 &&
                dq->out[0]->type.dtype == DT_F32 && !node_int(q, "block_size", 0) &&
                same_constant(q->in[1], dq->in[1]) &&
                same_constant(node_in(q, 2), node_in(dq, 2)) &&
                node_int(q, "axis", 1) == node_int(dq, "axis", 1);
    return pair && type_count(&q->in[1]->type) > 0 ? q : NULL;
}

/* Zero points as floats, of the scale's shape. */
static Value *float_zero(Graph *g, const Node *dq)
{
    const Value *z = node_in(dq, 2);
    const Type t = dq->in[1]->type;
    int64_t n = type_count(&t), *points = NEW_ARRAY(g->arena, int64_t, n);
    float *x = NEW_ARRAY(g->arena, float, n);
    if (z && value_ints(z, points, (int)n) != n) return NULL;
    for (int64_t i = 0; i < n; i++) x[i] = (float)points[i];
    return value_const(g, NULL, t, x);
}

static void simulate_pairs(Graph *g)
{
    for (int k = 0; k < g->nnodes; k++) {
        Node *n = g->nodes[k];
        const Node *q = pair_of(n);
        int lo, hi;
        Value *zero;
        if (!q || !integer_bounds(n->in[0]->type.dtype, &lo, &hi) || !(zero = float_zero(g, n)))
            continue;
        Value *in[] = {q->in[0], n->in[1], zero};
        n->op = OP_FakeQuant;
        n->in = arena_memdup(g->arena, in, sizeof in);
        n->nin = 3;
        node_set_attr(g, n, attr_int("qmin", lo));
        node_set_attr(g, n, attr_int("qmax", hi));
    }
}

/* ---- sweeps ------------------------------------------------------------------------- */

/* Whether any value of the list is active. */
static bool any_active(const bool *active, int n, Value *const *v)
{
    for (int i = 0; i < n; i++)
        if (v[i] && active[v[i]->id]) return true;
    return false;
}

/* Marks what y[] depends on. */
static bool *needed_by(const Graph *g, int n, Value *const *y)
{
    bool *needed = NEW_ARRAY(g->arena, bool, g->nvalues);
    for (int i = 0; i < n; i++) needed[y[i]->id] = true;
    for (int k = g->nnodes - 1; k >= 0; k--) {
        const Node *m = g->nodes[k];
        if (!any_active(needed, m->nout, m->out)) continue;
        for (int i = 0; i < m->nin; i++)
            if (m->in[i]) needed[m->in[i]->id] = true;
    }
    return needed;
}

int ad_vjp(Graph *g, int ny, Value *const *y, Value *const *dy, int n, Value *const *wrt,
           Value **dx, Diag *d)
{
    const int nnodes = g->nnodes;
    const Node *at = g->at;
    simulate_pairs(g);
    Sweep s = sweep_begin(g, ad_depends_on(g, 0, nnodes, n, wrt), d);
    for (int i = 0; i < ny; i++)
        if (s.ad.active[y[i]->id]) sweep_add(&s, y[i], dy[i]);
    const int status = sweep_reverse(&s, 0, nnodes);
    g->at = at;
    sweep_get(&s, n, wrt, dx);
    return status;
}

int ad_grad(Graph *g, Value *loss, int n, Value *const *wrt, Value **grad, Diag *d)
{
    Value *one = const_f32(g, 1);
    return ad_vjp(g, 1, &loss, &one, n, wrt, grad, d);
}

int ad_jvp(Graph *g, int nx, Value *const *x, Value *const *dx, int ny, Value *const *y, Value **dy,
           Diag *d)
{
    const int nnodes = g->nnodes;
    const Node *at = g->at;
    const bool *needed = needed_by(g, ny, y);
    simulate_pairs(g);
    Sweep s = sweep_begin(g, ad_depends_on(g, 0, nnodes, nx, x), d);
    for (int i = 0; i < nx; i++) sweep_add(&s, x[i], dx[i]);
    const int status = sweep_forward(&s, needed, 0, nnodes);
    g->at = at;
    sweep_get(&s, ny, y, dy);
    return status;
}
