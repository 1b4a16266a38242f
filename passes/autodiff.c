/* Differentiation of graphs: a reverse and a forward sweep that apply the rules of ops.def. Both
 * append ordinary nodes. */
#include "ir/ad.h"
#include "passes/passes.h"

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
    Sweep s = sweep_begin(g, ad_depends_on(g, 0, nnodes, nx, x), d);
    for (int i = 0; i < nx; i++) sweep_add(&s, x[i], dx[i]);
    const int status = sweep_forward(&s, needed, 0, nnodes);
    g->at = at;
    sweep_get(&s, ny, y, dy);
    return status;
}
