/* Resize and its transpose. Both are a product of one linear map per axis (ir/resample.h). */
#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/resample.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

int infer_resize(Node *n, Diag *d)
{
    Type t = input_type(n, 0);
    if (t.rank < 0) return infer_out(n, 0, t, d);
    TRY(resize_dims(n, t.dim, d));
    return infer_out(n, 0, t, d);
}

/* dy, and the shape inputs of the Resize -> the shape of its x. */
int infer_resize_grad(Node *n, Diag *d)
{
    size_t rank = 0;
    const int64_t *dim = node_ints(n, "input_shape", &rank);
    const Type dy = input_type(n, 0);
    int64_t out[MAX_RANK], both;
    if (!dim || rank > MAX_RANK) return node_error(d, n, "has no usable 'input_shape'");
    TRY(expect_rank(n, 0, (int)rank, d));
    TRY(resize_dims(n, out, d));
    for (int i = 0; i < dy.rank; i++)
        if (!dim_agree(out[i], dy.dim[i], &both))
            return node_error(d, n, "dy has %lld on axis %d, the Resize makes %lld",
                              (long long)dy.dim[i], i, (long long)out[i]);
    return infer_out(n, 0, type_of(dy.dtype, (int)rank, dim), d);
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* `op` on v, with n's geometry; what lies outside of the image is 0. */
static Value *resize_like(Ad *ad, const Node *n, Op op, Value *v)
{
    const Type *x = &n->in[0]->type;
    Node *m = node_new(ad->g, op, n->nin, n->in, 1);
    for (int k = 0; k < n->nattrs; k++) node_set_attr(ad->g, m, n->attrs[k]);
    node_remove_attr(m, "extrapolation_value");
    if (op == OP_Resize)
        node_remove_attr(m, "input_shape");
    else if (n->op == OP_Resize)
        node_set_attr(ad->g, m, attr_ints("input_shape", (size_t)x->rank, x->dim));
    return build(ad->g, op, n->nin, ad_inputs(ad, n, v), m->nattrs, m->attrs);
}

int vjp_resize(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    dx[0] = resize_like(ad, n, n->op == OP_Resize ? OP_ResizeGrad : OP_Resize, dy[0]);
    return 0;
}

int jvp_resize(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    if (dx[0]) dy[0] = resize_like(ad, n, n->op, dx[0]);
    return 0;
}

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* Whether a list of sizes follows when the axis of x shrinks: a constant can be corrected, and
 * what the graph computes before it is joined with constants comes from shapes. */
static bool sizes_follow(const Value *sizes, int axis)
{
    const Node *n = sizes->def;
    if (value_is_const(sizes)) return true;
    if (!n || n->op != OP_Concat) return false;
    for (int i = 0, at = 0; i < n->nin; i++) {
        int64_t count = type_count(&n->in[i]->type);
        if (count < 0) return false;
        if (axis < at + count) return !value_is_const(n->in[i]);
        at += (int)count;
    }
    return false;
}

void rule_lanes_resize(Lanes *l, const Node *n)
{
    const Value *sizes = node_in(n, 3);
    for (int axis = 0; axis < n->in[0]->type.rank; axis++)
        if (resize_keeps_axis(n, axis) &&
            (!sizes || node_attr(n, "axes") || sizes_follow(sizes, axis)))
            lanes_pass(l, n->in[0], axis, n->out[0], axis);
}

/* Constant sizes repeat the number of channels. */
int shrink_resize(Lanes *l, Graph *g, Node *n, Diag *d)
{
    int64_t size[MAX_RANK];
    const Value *y = n->out[0];
    int count = value_ints(node_in(n, 3), size, MAX_RANK);
    bool changed = false;
    (void)d;
    if (count != y->type.rank || node_attr(n, "axes") || !value_is_const(n->in[3])) return 0;
    for (int i = 0; i < count; i++) {
        int64_t had = lanes_size(l, y, i);
        if (!lanes_open(l, y, i) || size[i] != had) continue;
        size[i] = lanes_survivors(l, y, i, 0, had);
        changed |= size[i] != had;
    }
    if (changed) n->in[3] = const_ints(g, count, size);
    return 0;
}

/* ---- end of channels ---------------------------------------------------------------- */
