/* Sweeps of differentiation: rules applied to a run of nodes, back to front or front to back; and
 * the derivatives of an op that is built of others.
 *
 * A zero is NULL and is never made into a tensor unless a rule needs one. What a rule returns may
 * have any shape that sums down or broadcasts to the value's own: ad_fit makes it exact, here and
 * nowhere else. */
#include "ir/ad.h"

static bool any_active(const Ad *ad, int n, Value *const *v)
{
    for (int i = 0; i < n; i++)
        if (ad_wants(ad, v[i])) return true;
    return false;
}

static int no_rule(Diag *d, const Node *n, const char *what)
{
    return node_error(d, n, "has no %s, but the result depends on it", what);
}

/* Rules need shapes that are fixed and numbers that are float; only a Cast may have others. */
static int check_value(const Graph *g, const Node *n, const Value *v, Diag *d)
{
    char text[128];
    if (!v) return 0;
    if (!type_is_static(&v->type))
        return node_error(d, n, "cannot be differentiated: the shape of '%s' is not fixed: %s",
                          v->name, type_print(g, &v->type, text, sizeof text));
    if (dtype_is_float(v->type.dtype) && v->type.dtype != DT_F32 && n->op != OP_Cast)
        return node_error(d, n, "cannot be differentiated: '%s' is %s, not float", v->name,
                          dtype_name(v->type.dtype));
    return 0;
}

static int check_node(const Graph *g, const Node *n, Diag *d)
{
    for (int i = 0; i < n->nin; i++) TRY(check_value(g, n, n->in[i], d));
    for (int o = 0; o < n->nout; o++) TRY(check_value(g, n, n->out[o], d));
    return 0;
}

bool *ad_depends_on(const Graph *g, int first, int last, int n, Value *const *wrt)
{
    bool *active = NEW_ARRAY(g->arena, bool, g->nvalues);
    const Ad ad = {.active = active, .nactive = g->nvalues};
    for (int i = 0; i < n; i++) active[wrt[i]->id] = true;
    for (int k = first; k < last; k++) {
        const Node *m = g->nodes[k];
        if (!any_active(&ad, m->nin, m->in)) continue;
        for (int o = 0; o < m->nout; o++)
            if (m->out[o] && dtype_is_float(m->out[o]->type.dtype)) active[m->out[o]->id] = true;
    }
    return active;
}

Sweep sweep_begin(Graph *g, const bool *active, Diag *diag)
{
    return (Sweep){.ad = {g, diag, active, g->nvalues},
                   .d = NEW_ARRAY(g->arena, Value *, g->nvalues)};
}

bool sweep_get(const Sweep *s, int n, Value *const *v, Value **d)
{
    bool any = false;
    for (int i = 0; i < n; i++) {
        d[i] = v[i] ? s->d[v[i]->id] : NULL;
        any |= d[i] != NULL;
    }
    return any;
}

void sweep_add(Sweep *s, Value *v, Value *d)
{
    Value **at = &s->d[v->id];
    d = ad_fit(&s->ad, d, &v->type);
    *at = *at ? build(s->ad.g, OP_Add, IN(*at, d), NO_ATTRS) : d;
}

/* A' B, as weights' gradients are. */
static bool is_outer_product(const Value *v)
{
    const Node *n = v->def;
    return n && n->op == OP_Gemm && n->nin == 2 && n->nattrs == 1 && node_int(n, "transA", 0);
}

/* The sum of A' B over many small A and B (a weight that steps share) is one product of all the A
 * and all the B, below each other: nothing of the weight's size is added up. */
static Value *joined_products(Graph *g, Value *sum)
{
    enum { LEAST = 4 };
    int n = 1;
    Value *v = sum;
    for (; v && v->def && v->def->op == OP_Add && is_outer_product(v->def->in[1]); n++)
        v = v->def->in[0];
    if (n < LEAST || !is_outer_product(v)) return sum;
    Value **a = NEW_ARRAY(g->arena, Value *, n), **b = NEW_ARRAY(g->arena, Value *, n);
    for (int k = n - 1; k >= 0; k--, sum = sum->def->in[0]) {
        const Node *product = k ? sum->def->in[1]->def : sum->def;
        a[k] = product->in[0];
        b[k] = product->in[1];
        if (!k) break;
    }
    return build_gemm(g, build(g, OP_Concat, n, a, ATTRS(attr_int("axis", 0))),
                      build(g, OP_Concat, n, b, ATTRS(attr_int("axis", 0))), 1, true, false);
}

static int reverse_node(Sweep *s, const Node *n)
{
    Graph *g = s->ad.g;
    Value **dy = NEW_ARRAY(g->arena, Value *, n->nout), **dx = NEW_ARRAY(g->arena, Value *, n->nin);
    if (!any_active(&s->ad, n->nin, n->in) || !sweep_get(s, n->nout, n->out, dy)) return 0;
    TRY(check_node(g, n, s->ad.diag));
    for (int o = 0; o < n->nout; o++)
        if (dy[o]) dy[o] = joined_products(g, dy[o]);
    if (!op_info[n->op].vjp) return no_rule(s->ad.diag, n, "gradient");
    TRY(op_info[n->op].vjp(&s->ad, n, dy, dx));
    for (int i = 0; i < n->nin; i++)
        if (dx[i] && ad_wants(&s->ad, n->in[i])) sweep_add(s, n->in[i], dx[i]);
    return 0;
}

int sweep_reverse(Sweep *s, int first, int last)
{
    Graph *g = s->ad.g;
    for (int k = last - 1; k >= first; k--) {
        g->at = g->nodes[k];
        TRY(reverse_node(s, g->nodes[k]));
    }
    return 0;
}

static int forward_node(Sweep *s, const Node *n)
{
    Graph *g = s->ad.g;
    Value **dy = NEW_ARRAY(g->arena, Value *, n->nout), **dx = NEW_ARRAY(g->arena, Value *, n->nin);
    bool real = false;
    for (int o = 0; o < n->nout; o++) real |= n->out[o] && dtype_is_float(n->out[o]->type.dtype);
    if (!real || !sweep_get(s, n->nin, n->in, dx)) return 0;
    TRY(check_node(g, n, s->ad.diag));
    if (!op_info[n->op].jvp) return no_rule(s->ad.diag, n, "tangent");
    TRY(op_info[n->op].jvp(&s->ad, n, dx, dy));
    for (int o = 0; o < n->nout; o++)
        if (dy[o] && n->out[o]) sweep_add(s, n->out[o], dy[o]);
    return 0;
}

int sweep_forward(Sweep *s, const bool *needed, int first, int last)
{
    Graph *g = s->ad.g;
    for (int k = first; k < last; k++) {
        const Node *n = g->nodes[k];
        bool read = !needed;
        for (int o = 0; o < n->nout && needed; o++) read |= n->out[o] && needed[n->out[o]->id];
        g->at = n;
        if (read) TRY(forward_node(s, n));
    }
    return 0;
}

/* ---- ops made of others ------------------------------------------------------------- */

/* The entries of the operands; one that is listed twice counts once. */
static void take(const Sweep *s, int n, Value *const *v, Value **d)
{
    sweep_get(s, n, v, d);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < i; k++)
            if (v[i] && v[k] == v[i]) d[i] = NULL;
}

int vjp_expanded(Ad *ad, const Node *n, Expansion *expand, Value *const *dy, Value **dx)
{
    Graph *g = ad->g;
    Value **out = NEW_ARRAY(g->arena, Value *, n->nout),
          **wrt = NEW_ARRAY(g->arena, Value *, n->nin);
    const Node *at = g->at;
    int first = g->nnodes, nwrt = 0;
    TRY(expand(ad, n, out));
    int last = g->nnodes;
    for (int i = 0; i < n->nin; i++)
        if (ad_wants(ad, n->in[i])) wrt[nwrt++] = n->in[i];
    Sweep s = sweep_begin(g, ad_depends_on(g, first, last, nwrt, wrt), ad->diag);
    for (int o = 0; o < n->nout; o++)
        if (dy[o] && out[o]) sweep_add(&s, out[o], dy[o]);
    TRY(sweep_reverse(&s, first, last));
    g->at = at;
    take(&s, n->nin, n->in, dx);
    return 0;
}

int jvp_expanded(Ad *ad, const Node *n, Expansion *expand, Value *const *dx, Value **dy)
{
    Graph *g = ad->g;
    Value **out = NEW_ARRAY(g->arena, Value *, n->nout), **x = NEW_ARRAY(g->arena, Value *, n->nin);
    const Node *at = g->at;
    int first = g->nnodes, nx = 0;
    TRY(expand(ad, n, out));
    int last = g->nnodes;
    for (int i = 0; i < n->nin; i++)
        if (dx[i]) x[nx++] = n->in[i];
    Sweep s = sweep_begin(g, ad_depends_on(g, first, last, nx, x), ad->diag);
    for (int i = 0; i < n->nin; i++)
        if (dx[i]) s.d[n->in[i]->id] = dx[i];
    TRY(sweep_forward(&s, NULL, first, last));
    g->at = at;
    sweep_get(&s, n->nout, out, dy);
    return 0;
}
