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

static Value *two(Ad *ad, Op op, Value *a, Value *b)
{
    return build(ad->g, op, IN(a, b), NO_ATTRS);
}

/* n's reduction by another op. */
static Value *reduced_by(Ad *ad, const Node *n, Op op, Value *x)
{
    return build(ad->g, op, n->nin, ad_inputs(ad, n, x), n->nattrs, n->attrs);
}

static Value *as_float(Ad *ad, const Node *n, Value *truth)
{
    return build(ad->g, OP_Cast, IN(truth), ATTRS(attr_int("to", n->in[0]->type.dtype)));
}

/* Of a maximum or minimum: 1 at its place, in equal shares where several places tie. */
static Value *slope_of_extremum(Ad *ad, const Node *n, Value *y)
{
    Value *mask = as_float(ad, n, two(ad, OP_Equal, n->in[0], y));
    return two(ad, OP_Div, mask, kept_dims(ad, n, reduced_by(ad, n, OP_ReduceSum, mask)));
}

/* Of a product: that of all others. With p the product of those that are not 0 and z their number
 * among the others: p / (x or, if 0, 1) where z = 0, else 0. */
static Value *slope_of_product(Ad *ad, const Node *n)
{
    Value *x = n->in[0], *zero = const_f32(ad->g, 0);
    Value *is_zero = as_float(ad, n, two(ad, OP_Equal, x, zero));
    Value *safe = two(ad, OP_Add, x, is_zero);
    Value *p = kept_dims(ad, n, reduced_by(ad, n, OP_ReduceProd, safe));
    Value *zeros = kept_dims(ad, n, reduced_by(ad, n, OP_ReduceSum, is_zero));
    Value *none = two(ad, OP_Equal, two(ad, OP_Sub, zeros, is_zero), zero);
    return build(ad->g, OP_Where, IN(none, two(ad, OP_Div, p, safe), zero), NO_ATTRS);
}

/* dy/dx of y = reduction of x, for each x; y with its axes kept. */
static Value *reduce_slope(Ad *ad, const Node *n)
{
    Value *x = n->in[0], *y = kept_dims(ad, n, n->out[0]);
    switch ((int)n->op) {
    case OP_ReduceSumSquare:
        return ad_scale(ad, x, 2);
    case OP_ReduceL1:
        return build(ad->g, OP_Sign, IN(x), NO_ATTRS);
    case OP_ReduceL2:
        return two(ad, OP_Div, x, y);
    case OP_ReduceLogSum:
        return build(ad->g, OP_Exp, IN(build(ad->g, OP_Neg, IN(y), NO_ATTRS)), NO_ATTRS);
    case OP_ReduceLogSumExp:
        return build(ad->g, OP_Exp, IN(two(ad, OP_Sub, x, y)), NO_ATTRS);
    case OP_ReduceProd:
        return slope_of_product(ad, n);
    default:
        return slope_of_extremum(ad, n, y);
    }
}

int vjp_reduce_slope(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    dx[0] = two(ad, OP_Mul, kept_dims(ad, n, dy[0]), reduce_slope(ad, n));
    return 0;
}

int jvp_reduce_slope(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    dy[0] = reduced_by(ad, n, OP_ReduceSum, two(ad, OP_Mul, dx[0], reduce_slope(ad, n)));
    return 0;
}

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* What terms of 0 add nothing to. */
static bool sums_up(Op op)
{
    return op == OP_ReduceSum || op == OP_ReduceSumSquare || op == OP_ReduceL1 ||
           op == OP_ReduceL2 || op == OP_ReduceLogSum;
}

/* How many elements a mean is over, removed lanes included; 0: not known. */
static int64_t terms(const Lanes *l, const Value *x, const bool *mask)
{
    size_t count = 1;
    for (int axis = 0; axis < x->type.rank; axis++) {
        const int64_t size = mask[axis] ? lanes_size(l, x, axis) : 1;
        if (size < 1 || !mul_ok(count, (size_t)size, &count)) return 0;
    }
    return count <= INT64_MAX ? (int64_t)count : 0;
}

/* Axes that remain pass. A sum over lanes is the same without those that are zero; so is a mean,
 * divided by their number as it was (shrink_reduce_mean). A maximum is not, and pins them by
 * leaving them alone. */
void rule_lanes_reduce(Lanes *l, const Node *n)
{
    const Value *x = n->in[0], *y = n->out[0];
    bool mask[MAX_RANK] = {0}, keep = node_int(n, "keepdims", 1) != 0;
    Diag quiet = {0};
    int to = 0;
    if (x->type.rank < 0 || reduced_axes(n, x->type.rank, mask, &quiet) != 1) return;
    const bool mean = n->op == OP_ReduceMean && x->type.dtype == DT_F32 && terms(l, x, mask) > 0;
    for (int axis = 0; axis < x->type.rank; axis++) {
        if (!mask[axis])
            lanes_pass(l, x, axis, y, to);
        else if ((mean || sums_up(n->op)) && lanes_open(l, x, axis))
            lanes_open_axis(l, x, axis);
        to += !mask[axis] || keep;
    }
}

/* Where terms are gone, the mean becomes their sum by the number that there were. */
int shrink_reduce_mean(Lanes *l, Graph *g, Node *n, Diag *d)
{
    const Value *x = n->in[0];
    bool mask[MAX_RANK] = {0}, fewer = false;
    if (x->type.rank < 0 || reduced_axes(n, x->type.rank, mask, d) != 1) return 0;
    for (int axis = 0; axis < x->type.rank; axis++) {
        const int64_t size = lanes_size(l, x, axis);
        fewer |= mask[axis] && lanes_survivors(l, x, axis, 0, size) < size;
    }
    if (!fewer) return 0;
    Value *sum = build(g, OP_ReduceSum, n->nin, n->in, n->nattrs, n->attrs);
    Value *mul[] = {sum, const_f32(g, (float)(1 / (double)terms(l, x, mask)))};
    n->op = OP_Mul;
    n->in = arena_memdup(g->arena, mul, sizeof mul);
    n->nin = 2;
    n->nattrs = 0;
    return 0;
}

/* ---- end of channels ---------------------------------------------------------------- */
