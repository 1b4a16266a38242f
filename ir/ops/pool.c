/* Pooling, and the two linear maps that differentiate max pooling. */
#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"
#include "ir/window.h"

/* ---- shapes and costs --------------------------------------------------------------- */

int infer_pool(Node *n, Diag *d)
{
    Type t = input_type(n, 0);
    Window w;
    if (t.rank >= 0) {
        TRY(node_window(n, &w, d));
        for (int i = 0; i < w.n; i++) t.dim[i + 2] = w.out[i];
    }
    TRY(infer_out(n, 0, t, d));
    t.dtype = DT_I64;
    return infer_out(n, 1, t, d);
}

int infer_global_pool(Node *n, Diag *d)
{
    Type t = input_type(n, 0);
    if (t.rank >= 0 && t.rank < 3)
        return node_error(d, n, "input has rank %d, needs 3 or more", t.rank);
    for (int i = 2; i < t.rank; i++) t.dim[i] = 1;
    return infer_out(n, 0, t, d);
}

/* Errors unless input i has the shape that pooling `x` gives. */
static int expect_pooled(const Node *n, int i, const Type *x, const Window *w, Diag *d)
{
    Type t = input_type(n, i);
    TRY(expect_rank(n, i, x->rank, d));
    for (int k = 0; k < t.rank; k++) {
        int64_t need = k < 2 ? x->dim[k] : w->out[k - 2], both;
        if (!dim_agree(t.dim[k], need, &both))
            return node_error(d, n, "'%s' has %lld on axis %d, the pool makes %lld", n->in[i]->name,
                              (long long)t.dim[k], k, (long long)need);
    }
    return 0;
}

/* (dy, x) -> the shape of x. */
int infer_maxpool_grad(Node *n, Diag *d)
{
    Type x = input_type(n, 1);
    Window w;
    if (x.rank >= 0) {
        TRY(node_window(n, &w, d));
        TRY(expect_pooled(n, 0, &x, &w, d));
    }
    return infer_out(n, 0, x, d);
}

/* (dx, x), both of the input's shape -> the shape of the pool's output. */
int infer_maxpool_pick(Node *n, Diag *d)
{
    Type x = input_type(n, 1);
    Window w;
    if (x.rank < 0) return infer_out(n, 0, x, d);
    TRY(expect_rank(n, 0, x.rank, d));
    TRY(node_window(n, &w, d));
    for (int i = 0; i < w.n; i++) x.dim[i + 2] = w.out[i];
    return infer_out(n, 0, x, d);
}

int infer_avgpool_grad(Node *n, Diag *d)
{
    size_t rank = 0;
    const int64_t *dim = node_ints(n, "input_shape", &rank);
    Window w;
    TRY(node_window(n, &w, d));
    Type x = type_of(input_type(n, 0).dtype, (int)rank, dim);
    TRY(expect_pooled(n, 0, &x, &w, d));
    return infer_out(n, 0, x, d);
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* ---- end of channels ---------------------------------------------------------------- */
