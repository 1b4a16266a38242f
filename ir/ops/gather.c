/* Ops that read or write elements at given positions: GatherElements, GatherND, ScatterElements,
 * ScatterND. Each gather is the transpose of the scatter that adds. */
#include <string.h>

#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

/* Inputs i and j must have equal shapes, but for axis `but`. */
static int expect_same_shape(const Node *n, int i, int j, int but, Diag *d)
{
    Type a = input_type(n, i), b = input_type(n, j);
    int64_t both;
    if (a.rank < 0 || b.rank < 0) return 0;
    TRY(expect_rank(n, i, b.rank, d));
    for (int k = 0; k < a.rank; k++)
        if (k != but && !dim_agree(a.dim[k], b.dim[k], &both))
            return node_error(d, n, "'%s' has %lld on axis %d, '%s' has %lld", n->in[i]->name,
                              (long long)a.dim[k], k, n->in[j]->name, (long long)b.dim[k]);
    return 0;
}

/* y[i, j, k] = x[index[i, j, k], j, k] for axis 0. */
int infer_gather_elements(Node *n, Diag *d)
{
    Type x = input_type(n, 0), t = input_type(n, 1);
    int axis;
    if (x.rank >= 0) {
        TRY(expect_rank(n, 1, x.rank, d));
        TRY(axis_of(n, node_int(n, "axis", 0), x.rank, &axis, d));
    }
    t.dtype = x.dtype;
    return infer_out(n, 0, t, d);
}

static int known_reduction(const Node *n, Diag *d)
{
    static const char *const names[] = {"none", "add", "mul", "max", "min"};
    const char *s = node_str(n, "reduction", "none");
    for (size_t k = 0; k < sizeof names / sizeof *names; k++)
        if (strcmp(s, names[k]) == 0) return 0;
    return node_error(d, n, "'reduction' is '%s'", s);
}

int infer_scatter_elements(Node *n, Diag *d)
{
    Type x = input_type(n, 0);
    int axis;
    TRY(known_reduction(n, d));
    TRY(expect_same_dtype(n, 0, 2, d));
    TRY(expect_same_shape(n, 2, 1, -1, d));
    if (x.rank >= 0) {
        TRY(expect_rank(n, 1, x.rank, d));
        TRY(axis_of(n, node_int(n, "axis", 0), x.rank, &axis, d));
    }
    return infer_out(n, 0, x, d);
}

/* The shape that positions `index` [.., k] pick from x: the index's axes but the last, then what
 * of x the k numbers leave. *t has rank -1 if k is not known. */
static int picked_type(const Node *n, const Type *x, const Type *index, int64_t batch, Type *t,
                       Diag *d)
{
    int64_t k = index->rank < 1 ? DIM_UNKNOWN : index->dim[index->rank - 1];
    *t = type_unknown(x->dtype);
    if (index->rank == 0) return node_error(d, n, "'%s' is a scalar", n->in[1]->name);
    if (x->rank < 0 || k < 0) return 0;
    if (batch < 0 || batch >= index->rank || batch + k > x->rank)
        return node_error(d, n, "%lld batch axes and positions of %lld numbers do not fit rank %d",
                          (long long)batch, (long long)k, x->rank);
    if (index->rank - 1 + x->rank - batch - k > MAX_RANK)
        return node_error(d, n, "result has more than %d dimensions", MAX_RANK);
    t->rank = 0;
    for (int i = 0; i < index->rank - 1; i++) t->dim[t->rank++] = index->dim[i];
    for (int i = (int)(batch + k); i < x->rank; i++) t->dim[t->rank++] = x->dim[i];
    return 0;
}

int infer_gather_nd(Node *n, Diag *d)
{
    Type x = input_type(n, 0), index = input_type(n, 1), t;
    TRY(picked_type(n, &x, &index, node_int(n, "batch_dims", 0), &t, d));
    return infer_out(n, 0, t, d);
}

int infer_scatter_nd(Node *n, Diag *d)
{
    Type x = input_type(n, 0), index = input_type(n, 1), updates = input_type(n, 2), t;
    int64_t both;
    TRY(known_reduction(n, d));
    TRY(expect_same_dtype(n, 0, 2, d));
    TRY(picked_type(n, &x, &index, 0, &t, d));
    if (t.rank >= 0 && updates.rank >= 0) {
        TRY(expect_rank(n, 2, t.rank, d));
        for (int i = 0; i < t.rank; i++)
            if (!dim_agree(t.dim[i], updates.dim[i], &both))
                return node_error(d, n, "'%s' has %lld on axis %d, needs %lld", n->in[2]->name,
                                  (long long)updates.dim[i], i, (long long)t.dim[i]);
    }
    return infer_out(n, 0, x, d);
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

int vjp_gather_elements(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    dx[0] = build(ad->g, OP_ScatterElements, IN(ad_zeros_like(ad, n->in[0]), n->in[1], dy[0]),
                  ATTRS(attr_int("axis", node_int(n, "axis", 0)), attr_str("reduction", "add")));
    return 0;
}

/* The numbers of the batch axes written in front of each position: GatherND with batch_dims as one
 * without. */
static Value *batched_positions(Ad *ad, const Node *n, int64_t batch)
{
    Type t = n->in[1]->type;
    int last = t.rank - 1;
    int64_t stride[MAX_RANK], *at;
    if (batch == 0) return n->in[1];
    t.dtype = DT_I64;
    t.dim[last] = batch;
    row_major_strides(&t, stride);
    int64_t count = type_count(&t);
    at = NEW_ARRAY(ad->g->arena, int64_t, count);
    for (int64_t i = 0; i < count; i++) at[i] = i / stride[i % batch] % t.dim[i % batch];
    Value *index = build(ad->g, OP_Cast, IN(n->in[1]), ATTRS(attr_int("to", DT_I64)));
    return build(ad->g, OP_Concat, IN(value_const(ad->g, "batch", t, at), index),
                 ATTRS(attr_int("axis", last)));
}

int vjp_gather_nd(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    Value *at = batched_positions(ad, n, node_int(n, "batch_dims", 0));
    dx[0] = build(ad->g, OP_ScatterND, IN(ad_zeros_like(ad, n->in[0]), at, dy[0]),
                  ATTRS(attr_str("reduction", "add")));
    return 0;
}

/* Without reduction, or adding, a scatter is linear; else it has no derivative here. */
static int expect_linear(const Ad *ad, const Node *n, const char *what)
{
    const char *s = node_str(n, "reduction", "none");
    if (strcmp(s, "none") == 0 || strcmp(s, "add") == 0) return 0;
    return node_error(ad->diag, n, "has no %s with reduction '%s'", what, s);
}

/* dy at the positions belongs to the updates; without reduction x loses it there. Positions that
 * occur twice without reduction are left undefined by ONNX. */
static int scatter_grad(Ad *ad, const Node *n, Op gather, Value *dy, Value **dx)
{
    bool adds = strcmp(node_str(n, "reduction", "none"), "add") == 0;
    int nattrs = node_attr(n, "axis") ? 1 : 0;
    Attr axis = attr_int("axis", node_int(n, "axis", 0));
    TRY(expect_linear(ad, n, "gradient"));
    if (ad_wants(ad, n->in[0]))
        dx[0] = adds ? dy
                     : build(ad->g, n->op, IN(dy, n->in[1], ad_zeros_like(ad, n->in[2])), nattrs,
                             &axis);
    if (ad_wants(ad, n->in[2])) dx[2] = build(ad->g, gather, IN(dy, n->in[1]), nattrs, &axis);
    return 0;
}

int vjp_scatter_elements(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    return scatter_grad(ad, n, OP_GatherElements, dy[0], dx);
}

int vjp_scatter_nd(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    return scatter_grad(ad, n, OP_GatherND, dy[0], dx);
}

int jvp_scatter(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    TRY(expect_linear(ad, n, "tangent"));
    return jvp_linear(ad, n, dx, dy);
}

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* Axes of several values that are one, if all are of one size and some are open. */
static void pass_all(Lanes *l, int n, const Value *const *v, const int *axis)
{
    bool open = false;
    for (int i = 0; i < n; i++) {
        if (v[i]->type.dim[axis[i]] != v[0]->type.dim[axis[0]]) return;
        open |= lanes_open(l, v[i], axis[i]);
    }
    for (int i = 1; i < n && open; i++) lanes_tie_axis(l, v[0], axis[0], v[i], axis[i]);
}

/* All axes but the one that is searched; positions for removed lanes go, too. */
void rule_lanes_along(Lanes *l, const Node *n)
{
    const Value *v[4] = {n->out[0]};
    int rank = n->in[0]->type.rank;
    int64_t axis = node_int(n, "axis", 0);
    if (axis < 0) axis += rank;
    for (int i = 0; i < n->nin; i++) v[i + 1] = n->in[i];
    for (int k = 0; k < rank; k++)
        if (k != axis) pass_all(l, n->nin + 1, v, (int[]){k, k, k, k});
}

/* Axes of the batch, and those that positions leave whole. */
void rule_lanes_nd(Lanes *l, const Node *n)
{
    const Value *x = n->in[0], *index = n->in[1], *y = n->out[0];
    const Value *whole = n->op == OP_ScatterND ? n->in[2] : y;
    int rank = x->type.rank, batch = (int)node_int(n, "batch_dims", 0);
    if (rank < 0 || index->type.rank < 1 || whole->type.rank < 0) return;
    int64_t picked = batch + index->type.dim[index->type.rank - 1];
    for (int k = 0; k < batch; k++)
        pass_all(l, 3, (const Value *[]){x, index, y}, (int[]){k, k, k});
    for (int k = (int)picked; k < rank; k++)
        pass_all(l, 3, (const Value *[]){x, y, whole},
                 (int[]){k, k + y->type.rank - rank, k + whole->type.rank - rank});
}

/* ---- end of channels ---------------------------------------------------------------- */
