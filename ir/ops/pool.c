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

/* An op of the pool family with n's window. */
static Value *pool_like(Ad *ad, const Node *n, Op op, int nin, Value *const *in)
{
    return build(ad->g, op, nin, in, n->nattrs, n->attrs);
}

int vjp_maxpool(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    if (dy[0]) dx[0] = pool_like(ad, n, OP_MaxPoolGrad, IN(dy[0], n->in[0]));
    return 0;
}

int jvp_maxpool(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    dy[0] = pool_like(ad, n, OP_MaxPoolPick, IN(dx[0], n->in[0]));
    return 0;
}

/* MaxPoolGrad(dy, x): linear in dy; where the maxima are does not move with x. */
int jvp_maxpool_grad(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    if (dx[0]) dy[0] = pool_like(ad, n, OP_MaxPoolGrad, IN(dx[0], n->in[1]));
    return 0;
}

int vjp_avgpool(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    Attr attrs[16];
    int k = 0;
    const Type *x = &n->in[0]->type;
    for (; k < n->nattrs && k < 15; k++) attrs[k] = n->attrs[k];
    attrs[k++] = attr_ints("input_shape", (size_t)x->rank, x->dim);
    dx[0] = build(ad->g, OP_AveragePoolGrad, IN(dy[0]), k, attrs);
    return 0;
}

int vjp_avgpool_grad(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    Node *m = node_new(ad->g, OP_AveragePool, 1, dy, 1);
    for (int k = 0; k < n->nattrs; k++) node_set_attr(ad->g, m, n->attrs[k]);
    node_remove_attr(m, "input_shape");
    dx[0] = build(ad->g, OP_AveragePool, IN(dy[0]), m->nattrs, m->attrs);
    return 0;
}

int vjp_global_avgpool(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    double positions = (double)type_count(&n->in[0]->type) / (double)type_count(&n->out[0]->type);
    dx[0] = ad_scale(ad, dy[0], 1 / positions);
    return 0;
}

/* GlobalMaxPool is a MaxPool whose window is the image. */
static Value *global_max(Ad *ad, const Node *n, Op op, Value *d)
{
    const Type *x = &n->in[0]->type;
    return build(ad->g, op, IN(d, n->in[0]),
                 ATTRS(attr_ints("kernel_shape", (size_t)(x->rank - 2), x->dim + 2)));
}

int vjp_global_maxpool(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    dx[0] = global_max(ad, n, OP_MaxPoolGrad, dy[0]);
    return 0;
}

int jvp_global_maxpool(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    dy[0] = global_max(ad, n, OP_MaxPoolPick, dx[0]);
    return 0;
}

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

void rule_lanes_pool(Lanes *l, const Node *n)
{
    for (int axis = 0; axis < 2 && n->in[0]->type.rank > 1; axis++)
        for (int o = 0; o < n->nout; o++)
            if (n->out[o]) lanes_pass(l, n->in[0], axis, n->out[o], axis);
}

/* ---- end of channels ---------------------------------------------------------------- */
