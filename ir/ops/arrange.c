/* Ops that repeat, mask, accumulate or reverse along axes, and those that make sequences: Tile,
 * Trilu, CumSum, ReverseSequence, EyeLike, Range, Size. */
#include <math.h>

#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

int infer_tile(Node *n, Diag *d)
{
    Type t = input_type(n, 0);
    int64_t times[MAX_RANK];
    if (t.rank < 0) return infer_out(n, 0, t, d);
    TRY(expect_vector(n, 1, t.rank, "list of repeats", d));
    int known = value_ints(n->in[1], times, MAX_RANK);
    for (int i = 0; i < t.rank; i++) {
        if (known >= 0 && times[i] < 0 && !dim_is_sym(times[i]))
            return node_error(d, n, "axis %d is repeated %lld times", i, (long long)times[i]);
        t.dim[i] = known < 0 ? DIM_UNKNOWN : dim_times(t.dim[i], times[i]);
    }
    return infer_out(n, 0, t, d);
}

/* The upper or lower triangle of the matrices on the last two axes. */
int infer_trilu(Node *n, Diag *d)
{
    Type t = input_type(n, 0);
    if (t.rank == 0 || t.rank == 1)
        return node_error(d, n, "'%s' has rank %d, needs 2", n->in[0]->name, t.rank);
    return infer_out(n, 0, t, d);
}

/* The axis that input 1 of a CumSum says, -1 if it is not known. */
static int cumsum_axis(const Node *n, Diag *d)
{
    int64_t axis;
    int out = -1;
    if (input_type(n, 0).rank < 0 || value_ints(n->in[1], &axis, 1) != 1) return -1;
    return axis_of(n, axis, n->in[0]->type.rank, &out, d) < 0 ? -2 : out;
}

int infer_cumsum(Node *n, Diag *d)
{
    if (cumsum_axis(n, d) == -2) return -1;
    return infer_out(n, 0, input_type(n, 0), d);
}

/* x is [time, batch, …] or [batch, time, …]; input 1 has a length per sample. */
int infer_reverse_sequence(Node *n, Diag *d)
{
    Type t = input_type(n, 0);
    int64_t batch = node_int(n, "batch_axis", 1), time = node_int(n, "time_axis", 0);
    if (t.rank < 0) return infer_out(n, 0, t, d);
    if (t.rank < 2 || batch == time || batch < 0 || batch > 1 || time < 0 || time > 1)
        return node_error(d, n, "batch_axis %lld and time_axis %lld do not fit rank %d",
                          (long long)batch, (long long)time, t.rank);
    TRY(expect_vector(n, 1, t.dim[batch], "list of lengths", d));
    return infer_out(n, 0, t, d);
}

int infer_eye_like(Node *n, Diag *d)
{
    Type t = input_type(n, 0);
    TRY(expect_rank(n, 0, 2, d));
    t.dtype = (DType)node_int(n, "dtype", t.dtype);
    return infer_out(n, 0, t, d);
}

/* start, start + delta, … before limit: max(ceil((limit - start) / delta), 0) of them. */
static int range_count(const Node *n, int64_t *count, Diag *d)
{
    double x[3];
    int64_t k;
    *count = DIM_UNKNOWN;
    for (int i = 0; i < 3; i++)
        if (value_ints(n->in[i], &k, 1) == 1 && !dim_is_sym(k))
            x[i] = (double)k;
        else if (!value_is_const(n->in[i]) || !value_scalar(n->in[i], &x[i]))
            return 0;
    double size = ceil((x[1] - x[0]) / x[2]);
    if (!(fabs(size) < 0x1p40))
        return node_error(d, n, "a range from %g to %g in steps of %g", x[0], x[1], x[2]);
    *count = size > 0 ? (int64_t)size : 0;
    return 0;
}

int infer_range(Node *n, Diag *d)
{
    Type t = {.dtype = input_type(n, 0).dtype, .rank = 1};
    int64_t e[MAX_ELEMS], start, delta;
    TRY(expect_same_dtype(n, 0, 1, d));
    TRY(expect_same_dtype(n, 0, 2, d));
    TRY(range_count(n, &t.dim[0], d));
    TRY(infer_out(n, 0, t, d));
    if (t.dim[0] < 0 || t.dim[0] > MAX_ELEMS || value_ints(n->in[0], &start, 1) != 1 ||
        value_ints(n->in[2], &delta, 1) != 1)
        return 0;
    for (int64_t i = 0; i < t.dim[0]; i++) e[i] = start + i * delta;
    infer_elems(n, 0, (int)t.dim[0], e);
    return 0;
}

int infer_size(Node *n, Diag *d)
{
    Type x = input_type(n, 0);
    int64_t size = 1;
    TRY(infer_out(n, 0, type_of(DT_I64, 0, NULL), d));
    if (x.rank < 0) return 0;
    for (int i = 0; i < x.rank; i++) size = dim_times(size, x.dim[i]);
    if (size != DIM_BAD && size != DIM_UNKNOWN) infer_elems(n, 0, 1, &size);
    return 0;
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* Axis by axis, [.., r d, ..] as [.., r, d, ..] summed over the r copies. */
int vjp_tile(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    const Type *x = &n->in[0]->type;
    Value *v = dy[0];
    for (int k = 0; k < x->rank; k++) {
        int64_t dim[MAX_RANK + 1];
        if (v->type.dim[k] == x->dim[k]) continue;
        if (x->dim[k] == 0 || x->rank == MAX_RANK)
            return node_error(ad->diag, n, "has no gradient at this shape");
        for (int i = 0; i <= x->rank; i++)
            dim[i] = i < k ? v->type.dim[i] : i > k ? v->type.dim[i - 1] : 0;
        dim[k] = v->type.dim[k] / x->dim[k];
        dim[k + 1] = x->dim[k];
        v = ad_reshape(ad, v, x->rank + 1, dim);
        v = build(ad->g, OP_ReduceSum, IN(v, CONST_INTS(ad->g, k)), ATTRS(attr_int("keepdims", 0)));
    }
    dx[0] = v;
    return 0;
}

/* A mask is its own transpose, and so is reversing. */
int vjp_self(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    dx[0] = build(ad->g, n->op, n->nin, ad_inputs(ad, n, dy[0]), n->nattrs, n->attrs);
    return 0;
}

/* Each element takes part in the sums that follow: accumulated the other way round. */
int vjp_cumsum(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    dx[0] = build(ad->g, OP_CumSum, IN(dy[0], n->in[1]),
                  ATTRS(attr_int("exclusive", node_int(n, "exclusive", 0)),
                        attr_int("reverse", !node_int(n, "reverse", 0))));
    return 0;
}

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* Copies of a channel go with it; those of one element, and axes of constants, are offered. */
void rule_lanes_tile(Lanes *l, const Node *n)
{
    const Value *x = n->in[0], *y = n->out[0];
    int64_t times[MAX_RANK];
    bool known = value_ints(n->in[1], times, MAX_RANK) >= 0;
    for (int k = 0; k < x->type.rank; k++) {
        int64_t size = x->type.dim[k], total = y->type.dim[k];
        if (size == 1 && total > 1 && known) lanes_offer(l, y, k);
        if (size == total && value_is_const(x)) lanes_offer(l, x, k);
        if (size == total) lanes_pass(l, x, k, y, k);
        if (size == total || size <= 1 || total < 0 || !lanes_open(l, x, k)) continue;
        for (int64_t i = 0; i < total; i++) lanes_tie(l, x, k, i % size, y, k, i);
    }
}

static void pass_axes(Lanes *l, const Node *n, int but, int but_too)
{
    for (int k = 0; k < n->in[0]->type.rank; k++)
        if (k != but && k != but_too) lanes_pass(l, n->in[0], k, n->out[0], k);
}

/* Rows and columns of a triangle stay. */
void rule_lanes_trilu(Lanes *l, const Node *n)
{
    pass_axes(l, n, n->in[0]->type.rank - 1, n->in[0]->type.rank - 2);
}

/* Zeros add nothing to the sums that follow; but they end products. */
void rule_lanes_cumsum(Lanes *l, const Node *n)
{
    Diag quiet = {0};
    int axis = n->op == OP_CumSum ? -1 : cumsum_axis(n, &quiet);
    if (n->op == OP_CumSum || axis >= 0) pass_axes(l, n, axis, axis);
}

void rule_lanes_reverse_sequence(Lanes *l, const Node *n) { pass_axes(l, n, 0, 1); }

/* ---- end of channels ---------------------------------------------------------------- */
