/* Reductions over axes. */
#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

/* Which axes are reduced: those of input 1; all, or none with noop_with_empty_axes, if it is
 * omitted or empty. Returns 1 if known, 0 if not. */
static int reduced_axes(const Node *n, int rank, bool mask[MAX_RANK], Diag *d)
{
    int64_t list[MAX_ELEMS];
    int count = node_in(n, 1) ? value_ints(n->in[1], list, MAX_ELEMS) : 0;
    bool all = node_int(n, "noop_with_empty_axes", 0) == 0;
    if (count != 0) return axes_of(n, 1, rank, mask, d);
    for (int i = 0; i < rank; i++) mask[i] = all;
    return 1;
}

int infer_reduce(Node *n, Diag *d)
{
    Type x = input_type(n, 0), t = {.dtype = x.dtype};
    bool mask[MAX_RANK] = {0}, keep = node_int(n, "keepdims", 1) != 0;
    if (x.rank < 0) return infer_out(n, 0, x, d);
    int known = reduced_axes(n, x.rank, mask, d);
    TRY(known);
    if (!known && !keep) return infer_out(n, 0, type_unknown(x.dtype), d);
    for (int i = 0; i < x.rank; i++) {
        if (!known)
            t.dim[t.rank++] = DIM_UNKNOWN;
        else if (!mask[i])
            t.dim[t.rank++] = x.dim[i];
        else if (keep)
            t.dim[t.rank++] = 1;
    }
    return infer_out(n, 0, t, d);
}

int infer_sum_product(Node *n, Diag *d)
{
    Type x = input_type(n, 0), y = input_type(n, 1), t = {.dtype = DT_F32};
    bool mask[MAX_RANK] = {0};
    size_t count = 0;
    const int64_t *axes = node_ints(n, "axes", &count);
    TRY(expect_same_dtype(n, 0, 1, d));
    if (!axes) return node_error(d, n, "attribute 'axes' is missing");
    if (x.rank < 0) return infer_out(n, 0, type_unknown(DT_F32), d);
    TRY(expect_rank(n, 1, x.rank, d));
    for (size_t k = 0; k < count; k++) {
        int axis = 0;
        TRY(axis_of(n, axes[k], x.rank, &axis, d));
        mask[axis] = true;
    }
    for (int i = 0; i < x.rank; i++) {
        int64_t both = x.dim[i];
        if (y.rank == x.rank && !dim_agree(x.dim[i], y.dim[i], &both))
            return node_error(d, n, "operands have %lld and %lld elements on axis %d",
                              (long long)x.dim[i], (long long)y.dim[i], i);
        if (!mask[i]) t.dim[t.rank++] = both;
    }
    return infer_out(n, 0, t, d);
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* dy in the shape that keepdims would give, from which it broadcasts to x. */
static Value *kept_dims(Ad *ad, const Node *n, Value *dy)
{
    int64_t axes[MAX_RANK], dim[MAX_RANK];
    const Type *x = &n->in[0]->type;
    int naxes = node_in(n, 1) ? value_ints(n->in[1], axes, MAX_RANK) : 0;
    bool all = naxes == 0 && !node_int(n, "noop_with_empty_axes", 0);
    if (node_int(n, "keepdims", 1)) return dy;
    for (int i = 0; i < x->rank; i++) dim[i] = all ? 1 : x->dim[i];
    for (int k = 0; k < naxes; k++) dim[axes[k] < 0 ? axes[k] + x->rank : axes[k]] = 1;
    return ad_reshape(ad, dy, x->rank, dim);
}

int vjp_reduce_sum(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    dx[0] = kept_dims(ad, n, dy[0]);
    return 0;
}

int vjp_reduce_mean(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    double share = (double)type_count(&n->out[0]->type) / (double)type_count(&n->in[0]->type);
    dx[0] = ad_scale(ad, kept_dims(ad, n, dy[0]), share);
    return 0;
}

/* Of a maximum or minimum: 1 at its place, in equal shares where several places tie. */
static Value *share_of_extremum(Ad *ad, const Node *n)
{
    Value *at = build(ad->g, OP_Equal, IN(n->in[0], kept_dims(ad, n, n->out[0])), NO_ATTRS);
    Value *mask = build(ad->g, OP_Cast, IN(at), ATTRS(attr_int("to", n->in[0]->type.dtype)));
    Value *ties = build(ad->g, OP_ReduceSum, n->nin, ad_inputs(ad, n, mask), n->nattrs, n->attrs);
    return build(ad->g, OP_Div, IN(mask, kept_dims(ad, n, ties)), NO_ATTRS);
}

int vjp_reduce_max(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    dx[0] = build(ad->g, OP_Mul, IN(kept_dims(ad, n, dy[0]), share_of_extremum(ad, n)), NO_ATTRS);
    return 0;
}

int jvp_reduce_max(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    Value *d = build(ad->g, OP_Mul, IN(dx[0], share_of_extremum(ad, n)), NO_ATTRS);
    dy[0] = build(ad->g, OP_ReduceSum, n->nin, ad_inputs(ad, n, d), n->nattrs, n->attrs);
    return 0;
}

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* Axes that remain pass. A sum over lanes is the same without those that are zero; a mean or a
 * maximum is not, and pins them by leaving them alone. */
void rule_lanes_reduce(Lanes *l, const Node *n)
{
    const Value *x = n->in[0], *y = n->out[0];
    bool mask[MAX_RANK] = {0}, keep = node_int(n, "keepdims", 1) != 0;
    Diag quiet = {0};
    int to = 0;
    if (x->type.rank < 0 || reduced_axes(n, x->type.rank, mask, &quiet) != 1) return;
    for (int axis = 0; axis < x->type.rank; axis++) {
        if (!mask[axis])
            lanes_pass(l, x, axis, y, to);
        else if (n->op == OP_ReduceSum && lanes_open(l, x, axis))
            lanes_open_axis(l, x, axis);
        to += !mask[axis] || keep;
    }
}

/* ---- end of channels ---------------------------------------------------------------- */
