/* Differentiation of graphs: a reverse and a forward sweep that apply the rules of ops.def.
 *
 * Both append ordinary nodes. A zero is NULL and is never made into a tensor unless a rule needs
 * one. What a rule returns may have any shape that sums down or broadcasts to the value's own:
 * ad_fit makes it exact, here and nowhere else. */
#include <string.h>

#include "ir/ad.h"
#include "passes/passes.h"

/* Whether any value of the list is active. */
static bool any_active(const bool *active, int n, Value *const *v)
{
    for (int i = 0; i < n; i++)
        if (v[i] && active[v[i]->id]) return true;
    return false;
}

/* Marks what depends on wrt[]: real values only, for no gradient crosses an integer. */
static bool *depends_on(const Graph *g, int n, Value *const *wrt)
{
    bool *active = NEW_ARRAY(g->arena, bool, g->nvalues);
    for (int i = 0; i < n; i++) active[wrt[i]->id] = true;
    for (int k = 0; k < g->nnodes; k++) {
        const Node *m = g->nodes[k];
        if (!any_active(active, m->nin, m->in)) continue;
        for (int o = 0; o < m->nout; o++)
            if (m->out[o] && dtype_is_float(m->out[o]->type.dtype)) active[m->out[o]->id] = true;
    }
    return active;
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

/* Side table: for each value known at the start of a sweep, its cotangent or tangent. */
typedef struct Sweep {
    Ad ad;
    Value **d;
} Sweep;

static Sweep sweep_begin(Graph *g, const bool *active, Diag *diag)
{
    return (Sweep){.ad = {g, diag, active, g->nvalues},
                   .d = NEW_ARRAY(g->arena, Value *, g->nvalues)};
}

/* The entries of a list of values, as a list; returns whether there is any. */
static bool sweep_get(const Sweep *s, int n, Value *const *v, Value **d)
{
    bool any = false;
    for (int i = 0; i < n; i++) {
        d[i] = v[i] ? s->d[v[i]->id] : NULL;
        any |= d[i] != NULL;
    }
    return any;
}

static void sweep_add(Sweep *s, Value *v, Value *d)
{
    Value **at = &s->d[v->id];
    d = ad_fit(&s->ad, d, &v->type);
    *at = *at ? build(s->ad.g, OP_Add, IN(*at, d), NO_ATTRS) : d;
}

static int reverse_node(Sweep *s, const Node *n)
{
    Graph *g = s->ad.g;
    Value **dy = NEW_ARRAY(g->arena, Value *, n->nout), **dx = NEW_ARRAY(g->arena, Value *, n->nin);
    if (!any_active(s->ad.active, n->nin, n->in) || !sweep_get(s, n->nout, n->out, dy)) return 0;
    TRY(check_node(g, n, s->ad.diag));
    if (!op_info[n->op].vjp) return no_rule(s->ad.diag, n, "gradient");
    TRY(op_info[n->op].vjp(&s->ad, n, dy, dx));
    for (int i = 0; i < n->nin; i++)
        if (dx[i] && ad_wants(&s->ad, n->in[i])) sweep_add(s, n->in[i], dx[i]);
    return 0;
}

int ad_vjp(Graph *g, int ny, Value *const *y, Value *const *dy, int n, Value *const *wrt,
           Value **dx, Diag *d)
{
    Sweep s = sweep_begin(g, depends_on(g, n, wrt), d);
    const Node *at = g->at;
    int status = 0, nnodes = g->nnodes;
    for (int i = 0; i < ny; i++)
        if (s.ad.active[y[i]->id]) sweep_add(&s, y[i], dy[i]);
    for (int k = nnodes - 1; k >= 0 && status == 0; k--) {
        g->at = g->nodes[k];
        status = reverse_node(&s, g->nodes[k]);
    }
    g->at = at;
    sweep_get(&s, n, wrt, dx);
    return status;
}

int ad_grad(Graph *g, Value *loss, int n, Value *const *wrt, Value **grad, Diag *d)
{
    Value *one = const_f32(g, 1);
    return ad_vjp(g, 1, &loss, &one, n, wrt, grad, d);
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

int ad_jvp(Graph *g, int nx, Value *const *x, Value *const *dx, int ny, Value *const *y, Value **dy,
           Diag *d)
{
    bool *needed = needed_by(g, ny, y);
    Sweep s = sweep_begin(g, depends_on(g, nx, x), d);
    const Node *at = g->at;
    int status = 0, nnodes = g->nnodes;
    for (int i = 0; i < nx; i++) sweep_add(&s, x[i], dx[i]);
    for (int k = 0; k < nnodes && status == 0; k++) {
        g->at = g->nodes[k];
        if (any_active(needed, g->nodes[k]->nout, g->nodes[k]->out))
            status = forward_node(&s, g->nodes[k]);
    }
    g->at = at;
    sweep_get(&s, ny, y, dy);
    return status;
}
