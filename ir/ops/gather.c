/* Ops that read or write elements at given positions: Gather, GatherElements, GatherND,
 * ScatterElements, ScatterND. Each gather is the transpose of the scatter that adds. */
#include <string.h>

#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

/* Elements of a 1-D input picked by constant indices. */
static int gather_elems(Node *n, Diag *d)
{
    int64_t e[MAX_ELEMS], index[MAX_ELEMS], out[MAX_ELEMS];
    int have = value_ints(n->in[0], e, MAX_ELEMS);
    int count = value_ints(n->in[1], index, MAX_ELEMS);
    if (have < 0 || count < 0 || n->in[0]->type.rank != 1) return 0;
    for (int i = 0; i < count; i++) {
        if (dim_is_sym(index[i])) return 0;
        if (index[i] < -have || index[i] >= have)
            return node_error(d, n, "index %lld is outside of %d elements", (long long)index[i],
                              have);
        out[i] = e[index[i] < 0 ? index[i] + have : index[i]];
    }
    infer_elems(n, 0, count, out);
    return 0;
}

int infer_gather(Node *n, Diag *d)
{
    Type x = input_type(n, 0), index = input_type(n, 1), t = {.dtype = x.dtype};
    int axis = 0;
    if (x.rank < 0 || index.rank < 0) return infer_out(n, 0, type_unknown(x.dtype), d);
    TRY(axis_of(n, node_int(n, "axis", 0), x.rank, &axis, d));
    if (x.rank - 1 + index.rank > MAX_RANK)
        return node_error(d, n, "result has more than %d dimensions", MAX_RANK);
    for (int i = 0; i < axis; i++) t.dim[t.rank++] = x.dim[i];
    for (int i = 0; i < index.rank; i++) t.dim[t.rank++] = index.dim[i];
    for (int i = axis + 1; i < x.rank; i++) t.dim[t.rank++] = x.dim[i];
    TRY(infer_out(n, 0, t, d));
    return gather_elems(n, d);
}

/* (dy, indices): dy's axes [axis, axis + rank of indices) become one of `dim`. */
int infer_gather_grad(Node *n, Diag *d)
{
    Type dy = input_type(n, 0), index = input_type(n, 1), t = {.dtype = dy.dtype};
    int64_t axis = node_int(n, "axis", 0);
    if (dy.rank < 0 || index.rank < 0) return infer_out(n, 0, type_unknown(dy.dtype), d);
    if (axis < 0 || axis > dy.rank - index.rank || dy.rank - index.rank + 1 > MAX_RANK)
        return node_error(d, n, "axis %lld does not exist in rank %d", (long long)axis, dy.rank);
    for (int i = 0; i < axis; i++) t.dim[t.rank++] = dy.dim[i];
    t.dim[t.rank++] = node_int(n, "dim", 0);
    for (int i = (int)axis + index.rank; i < dy.rank; i++) t.dim[t.rank++] = dy.dim[i];
    return infer_out(n, 0, t, d);
}

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
/* Indices pick along one axis; along the others each stands for the element beside it. */
static int expect_beside(const Node *n, int along, Diag *d)
{
    const Type x = input_type(n, 0), index = input_type(n, 1);
    for (int i = 0; i < x.rank && index.rank == x.rank; i++)
        if (i != along && x.dim[i] >= 0 && index.dim[i] > x.dim[i])
            return node_error(d, n, "'%s' has %lld on axis %d, '%s' only %lld", n->in[1]->name,
                              (long long)index.dim[i], i, n->in[0]->name, (long long)x.dim[i]);
    return 0;
}

int infer_gather_elements(Node *n, Diag *d)
{
    Type x = input_type(n, 0), t = input_type(n, 1);
    int axis;
    if (x.rank >= 0) {
        TRY(expect_rank(n, 1, x.rank, d));
        TRY(axis_of(n, node_int(n, "axis", 0), x.rank, &axis, d));
        TRY(expect_beside(n, axis, d));
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
        TRY(expect_beside(n, axis, d));
    }
    return infer_out(n, 0, x, d);
}

/* The shape that positions `index` [.., k] pick from x: the index's axes but the last, then what
 * of x the k numbers leave. *t has rank -1 if k is not known. */
static int picked_type(const Node *n, const Type *x, const Type *index, int64_t batch, Type *t,
                       Diag *d)
{
    int64_t k = index->rank < 1 ? DIM_UNKNOWN : index->dim[index->rank - 1], both;
    *t = type_unknown(x->dtype);
    if (index->rank == 0) return node_error(d, n, "'%s' is a scalar", n->in[1]->name);
    if (x->rank < 0 || k < 0) return 0;
    if (batch < 0 || batch >= index->rank || batch + k > x->rank)
        return node_error(d, n, "%lld batch axes and positions of %lld numbers do not fit rank %d",
                          (long long)batch, (long long)k, x->rank);
    if (index->rank - 1 + x->rank - batch - k > MAX_RANK)
        return node_error(d, n, "result has more than %d dimensions", MAX_RANK);
    for (int i = 0; i < batch; i++)
        if (!dim_agree(x->dim[i], index->dim[i], &both))
            return node_error(d, n, "'%s' has %lld on axis %d, '%s' %lld", n->in[1]->name,
                              (long long)index->dim[i], i, n->in[0]->name, (long long)x->dim[i]);
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

int vjp_gather(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    int64_t axis = axis_attr(n, 0, n->in[0]->type.rank);
    dx[0] = build(ad->g, OP_GatherGrad, IN(dy[0], n->in[1]),
                  ATTRS(attr_int("axis", axis), attr_int("dim", n->in[0]->type.dim[axis])));
    return 0;
}

int vjp_gather_grad(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    dx[0] = build(ad->g, OP_Gather, IN(dy[0], n->in[1]),
                  ATTRS(attr_int("axis", node_int(n, "axis", 0))));
    return 0;
}

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

/* What an index says: at its place p, of `axes` numbers, it names element index[p, j] of x's axis
 * first_x + j, for each j < `numbers`. `of`, the result of a gather or the updates of a scatter,
 * has the places as its axes from first_of on. The first `shared` axes of x are those of the index,
 * too. */
typedef struct Positions {
    const Value *index, *x, *of;
    int axes, numbers, first_x, first_of, shared;
} Positions;

static bool find_positions(const Node *n, Positions *p)
{
    const Value *x = n->in[0], *index = n->in[1];
    const bool nd = n->op == OP_GatherND || n->op == OP_ScatterND, rows = n->op == OP_Gather;
    *p = (Positions){.index = index, .x = x, .of = n->nin > 2 ? n->in[2] : n->out[0], .numbers = 1};
    if (x->type.rank < 0 || index->type.rank < nd || p->of->type.rank < 0) return false;
    p->axes = index->type.rank - nd;
    if (nd) p->numbers = (int)index->type.dim[p->axes];
    p->first_x = nd ? (int)node_int(n, "batch_dims", 0) : axis_attr(n, 0, x->type.rank);
    p->first_of = rows ? p->first_x : 0;
    p->shared = nd ? p->first_x : rows ? 0 : x->type.rank;
    return p->first_x + p->numbers <= x->type.rank;
}

/* Number j of a constant index at place k, counted from the front of an axis of `size`. */
static int64_t index_at(const Positions *p, int64_t k, int j, int64_t size)
{
    const int64_t e = k * p->numbers + j;
    const int64_t i = p->index->type.dtype == DT_I32 ? ((const int32_t *)p->index->data)[e]
                                                     : ((const int64_t *)p->index->data)[e];
    return i < 0 ? i + size : i;
}

/* How far apart neighbours along axis q of the places are. */
static int64_t place_stride(const Positions *p, int q)
{
    return dims_product(&p->index->type, q + 1, p->axes);
}

/* The axis of the places that number j goes with: of those that it differs along the longest, the
 * last if there are several; -1 if it is the same everywhere. */
static int place_axis(const Positions *p, int j)
{
    const int64_t *dim = p->index->type.dim, count = dims_product(&p->index->type, 0, p->axes);
    int best = p->axes == 1 && dim[0] == 1 ? 0 : -1;
    for (int q = 0; q < p->axes; q++) {
        const int64_t stride = place_stride(p, q);
        bool differs = false;
        for (int64_t k = 0; k < count && !differs; k++)
            differs = index_at(p, k, j, 0) != index_at(p, k - k / stride % dim[q] * stride, j, 0);
        if (differs && (best < 0 || dim[q] >= dim[best])) best = q;
    }
    return best;
}

/* A channel and the places where a constant index names it go together. */
static void tie_places(Lanes *l, const Node *n, const Positions *p, int j)
{
    const int axis = p->first_x + j, q = place_axis(p, j);
    const int64_t *dim = p->index->type.dim, count = dims_product(&p->index->type, 0, p->axes);
    if (!lanes_open(l, p->x, axis) && (q < 0 || !lanes_open(l, p->of, p->first_of + q))) return;
    for (int64_t k = 0; k < count; k++) {
        const int64_t i = index_at(p, k, j, p->x->type.dim[axis]);
        if (q < 0)
            lanes_pin_lane(l, p->x, axis, i, n);
        else
            lanes_tie(l, p->x, axis, i, p->of, p->first_of + q, k / place_stride(p, q) % dim[q]);
    }
}

/* Axis k of x, of whose elements `of` may have only the first. Positions that are computed lose
 * those of removed lanes, too. The rows of a constant table are embeddings, whose elements are
 * channels like those that a weight makes. */
static void pass_whole(Lanes *l, const Positions *p, int k, bool table)
{
    const Value *index = k < p->shared && !value_is_const(p->index) ? p->index : NULL;
    const int axis =
        k < p->first_x || k < p->shared ? k : p->first_of + p->axes + k - p->first_x - p->numbers;
    const int64_t size = p->of->type.dim[axis];
    const bool open = table || lanes_open(l, p->x, k) || lanes_open(l, p->of, axis) ||
                      (index && lanes_open(l, index, k));
    if (!open && !index && size == p->x->type.dim[k]) lanes_pass(l, p->x, k, p->of, axis);
    if (!open || size > p->x->type.dim[k] || (index && index->type.dim[k] != size)) return;
    for (int64_t i = 0; i < size; i++) {
        lanes_tie(l, p->x, k, i, p->of, axis, i);
        if (index) lanes_tie(l, p->x, k, i, index, k, i);
    }
}

void rule_lanes_positions(Lanes *l, const Node *n)
{
    Positions p;
    if (!find_positions(n, &p)) return;
    const bool known = value_is_const(p.index), scatters = n->nin > 2;
    const bool table = !scatters && value_is_const(p.x) && p.first_x == 0 && p.shared == 0 &&
                       dtype_is_float(p.x->type.dtype);
    for (int j = 0; j < p.numbers && known; j++) tie_places(l, n, &p, j);
    for (int k = 0; k < p.x->type.rank; k++) {
        const bool named = k >= p.first_x && k < p.first_x + p.numbers;
        if (!named) pass_whole(l, &p, k, table);
        if (scatters && (known || !named)) lanes_pass(l, p.x, k, n->out[0], k);
    }
}

/* Where the lanes of an axis of x are among its survivors. */
static const int64_t *new_numbers(Lanes *l, Arena *a, const Value *x, int axis)
{
    const int64_t size = lanes_size(l, x, axis);
    int64_t *to = NEW_ARRAY(a, int64_t, size + 1), left = 0;
    for (int64_t i = 0; i < size; i++) {
        to[i] = left;
        left += !lanes_removed(l, x, axis, i);
    }
    return to;
}

static bool place_removed(Lanes *l, const Positions *p, int64_t k)
{
    bool removed = false;
    for (int q = 0; q < p->axes; q++)
        removed |= lanes_removed(l, p->of, p->first_of + q,
                                 k / place_stride(p, q) % p->index->type.dim[q]);
    return removed;
}

/* A constant index without the places that are gone, its numbers as they are now. */
int shrink_positions(Lanes *l, Graph *g, Node *n, Diag *d)
{
    Positions p;
    const int64_t *to[MAX_RANK];
    if (!find_positions(n, &p) || !value_is_const(p.index)) return 0;
    Type t = p.index->type;
    const int64_t count = dims_product(&t, 0, p.axes);
    int64_t *at = NEW_ARRAY(g->arena, int64_t, type_count(&t) + 1), left = 0;
    bool changed = false;
    for (int j = 0; j < p.numbers; j++) to[j] = new_numbers(l, g->arena, p.x, p.first_x + j);
    for (int64_t k = 0; k < count; k++) {
        if (place_removed(l, &p, k)) {
            changed = true;
            continue;
        }
        for (int j = 0; j < p.numbers; j++) {
            const int64_t size = lanes_size(l, p.x, p.first_x + j), i = index_at(&p, k, j, size);
            if (i < 0 || i >= size)
                return node_error(d, n, "index %lld is outside of %lld elements", (long long)i,
                                  (long long)size);
            changed |= to[j][i] != index_at(&p, k, j, 0);
            at[left++] = to[j][i];
        }
    }
    for (int q = 0; q < p.axes; q++)
        t.dim[q] = lanes_survivors(l, p.of, p.first_of + q, 0, t.dim[q]);
    t.dtype = DT_I64;
    if (changed) n->in[1] = value_const(g, p.index->name, t, at);
    return 0;
}

/* ---- end of channels ---------------------------------------------------------------- */
