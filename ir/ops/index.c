/* Ops that answer with positions, or choose by them: TopK, ArgMax, ArgMin, OneHot, and those whose
 * result's size depends on data: NonZero, Compress, Unique, NonMaxSuppression. That size is known
 * to inference as soon as the data is. */
#include "ir/dynamic.h"

#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

/* (x, k) -> the k largest or smallest along an axis, and where they are. */
int infer_topk(Node *n, Diag *d)
{
    Type t = input_type(n, 0);
    int64_t k = DIM_UNKNOWN;
    int axis = 0;
    if (t.rank >= 0) {
        TRY(axis_of(n, node_int(n, "axis", -1), t.rank, &axis, d));
        if (value_ints(n->in[1], &k, 1) == 1 && k < 0 && !dim_is_sym(k))
            return node_error(d, n, "k is %lld", (long long)k);
        if (k > t.dim[axis] && t.dim[axis] >= 0)
            return node_error(d, n, "k is %lld, axis %d has size %lld", (long long)k, axis,
                              (long long)t.dim[axis]);
        t.dim[axis] = k;
    }
    TRY(infer_out(n, 0, t, d));
    t.dtype = DT_I64;
    if (n->out[0] && n->out[0]->type.rank >= 0 && t.rank >= 0)
        t.dim[axis] = n->out[0]->type.dim[axis];
    return infer_out(n, 1, t, d);
}

int infer_arg(Node *n, Diag *d)
{
    Type x = input_type(n, 0), t = {.dtype = DT_I64};
    int axis = 0;
    if (x.rank < 0) return infer_out(n, 0, type_unknown(DT_I64), d);
    TRY(axis_of(n, node_int(n, "axis", 0), x.rank, &axis, d));
    for (int i = 0; i < x.rank; i++)
        if (i != axis)
            t.dim[t.rank++] = x.dim[i];
        else if (node_int(n, "keepdims", 1))
            t.dim[t.rank++] = 1;
    return infer_out(n, 0, t, d);
}

/* (indices, depth, [off, on]): a new axis of `depth` elements. */
int infer_one_hot(Node *n, Diag *d)
{
    Type x = input_type(n, 0), t = {.dtype = input_type(n, 2).dtype, .rank = x.rank + 1};
    int64_t depth = DIM_UNKNOWN;
    double real;
    int axis = 0;
    TRY(expect_vector(n, 2, 2, "pair of values", d));
    if (x.rank < 0) return infer_out(n, 0, type_unknown(t.dtype), d);
    if (t.rank > MAX_RANK) return node_error(d, n, "result has more than %d dimensions", MAX_RANK);
    TRY(axis_of(n, node_int(n, "axis", -1), t.rank, &axis, d));
    if (value_ints(n->in[1], &depth, 1) != 1 && value_is_const(n->in[1]) &&
        value_scalar(n->in[1], &real) && real >= 0 && real < 0x1p31)
        depth = (int64_t)real;
    for (int i = 0, from = 0; i < t.rank; i++) t.dim[i] = i == axis ? depth : x.dim[from++];
    return infer_out(n, 0, t, d);
}

/* The bytes of input i if they are known. */
static const void *known_data(const Node *n, int i)
{
    const Value *v = node_in(n, i);
    return v && v->data && type_count(&v->type) >= 0 ? v->data : NULL;
}

/* [rank, number of elements that are not zero]; a scalar is a vector of one. */
int infer_nonzero(Node *n, Diag *d)
{
    Type x = input_type(n, 0);
    Type t = type_of(DT_I64, 2,
                     (int64_t[]){x.rank < 0 ? DIM_UNKNOWN
                                 : x.rank   ? x.rank
                                            : 1,
                                 DIM_UNKNOWN});
    const void *data = known_data(n, 0);
    if (data) t.dim[1] = count_set(data, x.dtype, type_count(&x));
    return infer_out(n, 0, t, d);
}

/* (x, condition): what of x's axis (of all of x without one) the condition names. */
int infer_compress(Node *n, Diag *d)
{
    Type x = input_type(n, 0), c = input_type(n, 1), t = x;
    int axis = 0;
    TRY(expect_rank(n, 1, 1, d));
    if (!node_attr(n, "axis"))
        t = type_of(x.dtype, 1, (int64_t[]){type_is_static(&x) ? type_count(&x) : DIM_UNKNOWN});
    if (x.rank < 0) return infer_out(n, 0, node_attr(n, "axis") ? x : t, d);
    TRY(axis_of(n, node_int(n, "axis", 0), t.rank, &axis, d));
    const void *data = known_data(n, 1);
    if (data && t.dim[axis] >= 0 && c.dim[0] > t.dim[axis])
        return node_error(d, n, "the condition has %lld elements, the axis %lld",
                          (long long)c.dim[0], (long long)t.dim[axis]);
    t.dim[axis] = data ? count_set(data, c.dtype, c.dim[0]) : DIM_UNKNOWN;
    return infer_out(n, 0, t, d);
}

/* The number of different slices of x along `axis` (elements if < 0), or DIM_UNKNOWN. */
static int64_t count_unique(const Node *n, const Type *x, int axis)
{
    Slices s = {.data = known_data(n, 0), .dtype = x->dtype, .outer = 1, .inner = 1};
    if (!s.data) return DIM_UNKNOWN;
    Arena *scratch = arena_new();
    s.n = axis < 0 ? type_count(x) : x->dim[axis];
    if (axis >= 0) {
        s.outer = dims_product(x, 0, axis);
        s.inner = dims_product(x, axis + 1, x->rank);
    }
    int64_t count = slices_sort(&s, NEW_ARRAY(scratch, int64_t, s.n + 1));
    arena_free(scratch);
    return count;
}

/* x -> the different slices, where each is first, which each slice is, how many there are. */
int infer_unique(Node *n, Diag *d)
{
    Type x = input_type(n, 0), y = x;
    bool whole = !node_attr(n, "axis");
    int axis = 0;
    int64_t count = DIM_UNKNOWN, all = DIM_UNKNOWN;
    if (x.rank >= 0) {
        if (!whole) TRY(axis_of(n, node_int(n, "axis", 0), x.rank, &axis, d));
        count = count_unique(n, &x, whole ? -1 : axis);
        all = !whole ? x.dim[axis] : type_is_static(&x) ? type_count(&x) : DIM_UNKNOWN;
    }
    if (whole) y = type_of(x.dtype, 1, &count);
    if (y.rank >= 0) y.dim[axis] = count;
    TRY(infer_out(n, 0, y, d));
    TRY(infer_out(n, 1, type_of(DT_I64, 1, &count), d));
    TRY(infer_out(n, 2, type_of(DT_I64, 1, &all), d));
    return infer_out(n, 3, type_of(DT_I64, 1, &count), d);
}

/* Whether boxes, scores and limits are known; then *s has them. */
static bool nms_known(const Node *n, Nms *s)
{
    for (int i = 0; i < n->nin; i++)
        if (n->in[i] && !known_data(n, i)) return false;
    return nms_args(n, n->in[0]->data, n->in[1]->data, node_in(n, 2) ? n->in[2]->data : NULL,
                    node_in(n, 3) ? n->in[3]->data : NULL, node_in(n, 4) ? n->in[4]->data : NULL,
                    s);
}

/* (boxes, scores, most, iou, threshold) -> [number of boxes kept, 3] */
int infer_nms(Node *n, Diag *d)
{
    Type boxes = input_type(n, 0), scores = input_type(n, 1);
    Type t = type_of(DT_I64, 2, (int64_t[]){DIM_UNKNOWN, 3});
    int64_t both;
    Nms s;
    TRY(expect_rank(n, 0, 3, d));
    TRY(expect_rank(n, 1, 3, d));
    for (int i = 0; i < 2; i++)
        if (input_type(n, i).dtype != DT_F32 && input_type(n, i).dtype != DT_NONE)
            return node_error(d, n, "'%s' is not float", n->in[i]->name);
    for (int i = 2; i < n->nin; i++)
        if (n->in[i] && n->in[i]->data &&
            (type_count(&n->in[i]->type) != 1 ||
             n->in[i]->type.dtype != (i == 2 ? DT_I64 : DT_F32)))
            return node_error(d, n, "'%s' is no single number", n->in[i]->name);
    if (boxes.rank == 3 && scores.rank == 3 &&
        (!dim_agree(boxes.dim[0], scores.dim[0], &both) ||
         !dim_agree(boxes.dim[1], scores.dim[2], &both) || !dim_agree(boxes.dim[2], 4, &both)))
        return node_error(d, n, "boxes and scores do not fit");
    if (nms_known(n, &s)) t.dim[0] = nms_select(&s, NULL);
    return infer_out(n, 0, t, d);
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* The same again, with the positions as an output. */
static Node *positions(Ad *ad, const Node *n)
{
    return build_multi(ad->g, OP_TopK, 2, n->nin, n->in, n->nattrs, n->attrs);
}

int vjp_topk(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    if (!dy[0]) return 0;
    dx[0] = build(ad->g, OP_ScatterElements,
                  IN(ad_zeros_like(ad, n->in[0]), positions(ad, n)->out[1], dy[0]),
                  ATTRS(attr_int("axis", node_int(n, "axis", -1)), attr_str("reduction", "add")));
    return 0;
}

int jvp_topk(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    if (!dx[0]) return 0;
    dy[0] = build(ad->g, OP_GatherElements, IN(dx[0], positions(ad, n)->out[1]),
                  ATTRS(attr_int("axis", node_int(n, "axis", -1))));
    return 0;
}

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* All axes but the one that is searched. */
void rule_lanes_topk(Lanes *l, const Node *n)
{
    const Value *x = n->in[0];
    const int axis = axis_attr(n, -1, x->type.rank);
    for (int o = 0; o < n->nout; o++)
        for (int k = 0; k < x->type.rank && n->out[o]; k++)
            if (k != axis) lanes_pass(l, x, k, n->out[o], k);
}

/* All axes but the one that is searched, which may vanish. */
void rule_lanes_arg(Lanes *l, const Node *n)
{
    const Value *x = n->in[0], *y = n->out[0];
    const int axis = axis_attr(n, 0, x->type.rank);
    for (int k = 0; k < x->type.rank; k++) {
        bool moved = k > axis && y->type.rank < x->type.rank;
        if (k != axis) lanes_pass(l, x, k, y, k - moved);
    }
}

/* ---- end of channels ---------------------------------------------------------------- */
