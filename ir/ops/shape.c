/* Ops that only change the shape: Reshape and its kin, Transpose, Expand, Shape. */
#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

static void copy_elems(Node *n)
{
    int64_t e[MAX_ELEMS];
    infer_elems(n, 0, value_ints(n->in[0], e, MAX_ELEMS), e);
}

/* The shape that input i describes: dims where known, else DIM_UNKNOWN; rank -1 if not even its
 * length is known. */
static int wanted_shape(const Node *n, int i, Type *t, Diag *d)
{
    Type s = input_type(n, i);
    TRY(expect_rank(n, i, 1, d));
    t->rank = -1;
    if (s.rank < 0 || s.dim[0] < 0) return 0;
    if (s.dim[0] > MAX_RANK)
        return node_error(d, n, "'%s' gives %lld dimensions, at most %d are supported",
                          n->in[i]->name, (long long)s.dim[0], MAX_RANK);
    t->rank = (int)s.dim[0];
    if (value_ints(n->in[i], t->dim, MAX_RANK) < 0)
        for (int k = 0; k < t->rank; k++) t->dim[k] = DIM_UNKNOWN;
    return 0;
}

/* The quotient of two products of dimensions after equal symbols cancel: a number, a symbol,
 * DIM_UNKNOWN, or DIM_BAD if it is no integer. */
static int64_t dims_quotient(Type num, Type den)
{
    int64_t a = 1, b = 1, sym = 1;
    for (int i = 0; i < den.rank; i++)
        for (int k = 0; k < num.rank && den.dim[i] < 0; k++)
            if (num.dim[k] == den.dim[i]) num.dim[k] = den.dim[i] = 1;
    for (int i = 0; i < den.rank; i++) {
        if (den.dim[i] < 0) return DIM_UNKNOWN;
        b = dim_times(b, den.dim[i]);
    }
    for (int k = 0; k < num.rank; k++)
        if (num.dim[k] >= 0)
            a = dim_times(a, num.dim[k]);
        else
            sym = dim_times(sym, num.dim[k]);
    if (a == DIM_BAD || b == DIM_BAD) return DIM_BAD;
    if (b == 0) return a == 0 ? DIM_UNKNOWN : DIM_BAD;
    if (sym != 1) return a == b ? sym : DIM_UNKNOWN;
    return a % b == 0 ? a / b : DIM_BAD;
}

static int reshape_error(const Node *n, const Type *x, const Type *t, Diag *d)
{
    char a[128], b[128];
    const Graph *g = n->in[0]->graph;
    return node_error(d, n, "cannot reshape %s to %s", type_print(g, x, a, sizeof a),
                      type_print(g, t, b, sizeof b));
}

/* Replaces 0 (copy) and -1 (what is left) in the target t of a reshape of x. */
static int resolve_target(const Node *n, const Type *x, Type *t, Diag *d)
{
    Type shown = *t, rest = *t;
    int open = -1;
    for (int i = 0; i < t->rank; i++) {
        if (t->dim[i] == 0 && node_int(n, "allowzero", 0) == 0) {
            if (i >= x->rank) return reshape_error(n, x, &shown, d);
            t->dim[i] = rest.dim[i] = x->dim[i];
        } else if (t->dim[i] == -1) {
            if (open >= 0) return node_error(d, n, "the target shape has -1 twice");
            open = i;
            rest.dim[i] = 1;
        } else if (t->dim[i] < 0 && !dim_is_sym(t->dim[i])) {
            return reshape_error(n, x, &shown, d);
        }
    }
    int64_t q = dims_quotient(*x, rest);
    if (q == DIM_BAD || (open < 0 && q >= 0 && q != 1)) return reshape_error(n, x, &shown, d);
    if (open >= 0) t->dim[open] = q;
    return 0;
}

int infer_reshape(Node *n, Diag *d)
{
    Type x = input_type(n, 0), t;
    int64_t probe[MAX_RANK];
    TRY(wanted_shape(n, 1, &t, d));
    t.dtype = x.dtype;
    bool known = t.rank >= 0 && value_ints(n->in[1], probe, MAX_RANK) >= 0;
    if (known && x.rank >= 0) TRY(resolve_target(n, &x, &t, d));
    if (known && x.rank < 0)
        for (int i = 0; i < t.rank; i++)
            if (t.dim[i] == 0) t.dim[i] = DIM_UNKNOWN;
    TRY(infer_out(n, 0, t, d));
    copy_elems(n);
    return 0;
}

static int64_t product_of(const Type *t, int from, int to)
{
    int64_t p = 1;
    for (int i = from; i < to; i++) p = dim_times(p, t->dim[i]);
    return p;
}

int infer_flatten(Node *n, Diag *d)
{
    Type x = input_type(n, 0), t = {.dtype = x.dtype, .rank = 2};
    int64_t axis = node_int(n, "axis", 1);
    if (x.rank < 0) return infer_out(n, 0, x, d);
    if (axis < -x.rank || axis > x.rank)
        return node_error(d, n, "axis %lld does not exist in rank %d", (long long)axis, x.rank);
    int at = (int)(axis < 0 ? axis + x.rank : axis);
    t.dim[0] = product_of(&x, 0, at);
    t.dim[1] = product_of(&x, at, x.rank);
    return infer_out(n, 0, t, d);
}

int infer_squeeze(Node *n, Diag *d)
{
    Type x = input_type(n, 0), t = {.dtype = x.dtype};
    bool mask[MAX_RANK];
    if (x.rank < 0) return infer_out(n, 0, x, d);
    int known = axes_of(n, 1, x.rank, mask, d);
    TRY(known);
    if (!known && (node_in(n, 1) || !type_is_static(&x)))
        return infer_out(n, 0, type_unknown(x.dtype), d);
    for (int i = 0; i < x.rank; i++) {
        if (!known) mask[i] = x.dim[i] == 1;
        if (mask[i] && x.dim[i] >= 0 && x.dim[i] != 1)
            return node_error(d, n, "axis %d has size %lld, needs 1", i, (long long)x.dim[i]);
        if (!mask[i]) t.dim[t.rank++] = x.dim[i];
    }
    TRY(infer_out(n, 0, t, d));
    copy_elems(n);
    return 0;
}

int infer_unsqueeze(Node *n, Diag *d)
{
    Type x = input_type(n, 0), axes = input_type(n, 1), t = {.dtype = x.dtype};
    bool mask[MAX_RANK];
    int from = 0;
    int64_t added = axes.rank < 0 ? DIM_UNKNOWN : axes.rank == 0 ? 1 : axes.dim[0];
    if (x.rank < 0 || added < 0) return infer_out(n, 0, type_unknown(x.dtype), d);
    if (added > MAX_RANK - x.rank)
        return node_error(d, n, "result has more than %d dimensions", MAX_RANK);
    t.rank = x.rank + (int)added;
    int known = axes_of(n, 1, t.rank, mask, d);
    TRY(known);
    for (int i = 0; i < t.rank; i++) t.dim[i] = !known ? DIM_UNKNOWN : mask[i] ? 1 : x.dim[from++];
    TRY(infer_out(n, 0, t, d));
    copy_elems(n);
    return 0;
}

int infer_transpose(Node *n, Diag *d)
{
    Type x = input_type(n, 0), t = x;
    size_t have = 0;
    const int64_t *perm = node_ints(n, "perm", &have);
    int64_t stride[MAX_RANK], moved[MAX_RANK] = {0};
    bool seen[MAX_RANK] = {0};
    if (x.rank < 0) return infer_out(n, 0, x, d);
    row_major_strides(&x, stride);
    if (perm && have != (size_t)x.rank)
        return node_error(d, n, "'perm' has %zu numbers, input has rank %d", have, x.rank);
    for (int i = 0; i < x.rank; i++) {
        int64_t from = perm ? perm[i] : x.rank - 1 - i;
        if (from < 0 || from >= x.rank || seen[from])
            return node_error(d, n, "'perm' is not a permutation");
        seen[from] = true;
        t.dim[i] = x.dim[from];
        moved[i] = type_count(&x) < 0 ? 0 : stride[from];
    }
    TRY(infer_out(n, 0, t, d));
    if (n->out[0]) infer_moved_elems(n, 0, moved);
    return 0;
}

int infer_expand(Node *n, Diag *d)
{
    Type x = input_type(n, 0), t;
    TRY(wanted_shape(n, 1, &t, d));
    if (x.rank < 0 || t.rank < 0) return infer_out(n, 0, type_unknown(x.dtype), d);
    for (int i = 0; i < t.rank; i++)
        if (t.dim[i] < 0 && t.dim[i] != DIM_UNKNOWN && !dim_is_sym(t.dim[i]))
            return node_error(d, n, "the target shape has %lld", (long long)t.dim[i]);
    Value vx = *n->in[0], vt = *n->in[1];
    Value *in[] = {&vx, &vt};
    Node both = *n;
    vt.type = t;
    both.in = in;
    TRY(broadcast_inputs(&both, 0, 2, &t, d));
    t.dtype = x.dtype;
    return infer_out(n, 0, t, d);
}

static int clamp_axis(int64_t axis, int rank)
{
    if (axis < 0) axis += rank;
    return axis < 0 ? 0 : axis > rank ? rank : (int)axis;
}

int infer_shape(Node *n, Diag *d)
{
    Type x = input_type(n, 0);
    if (x.rank < 0) return infer_out(n, 0, type_of(DT_I64, 1, (int64_t[]){DIM_UNKNOWN}), d);
    int start = clamp_axis(node_int(n, "start", 0), x.rank);
    int end = clamp_axis(node_int(n, "end", x.rank), x.rank);
    if (end < start) end = start;
    TRY(infer_out(n, 0, type_of(DT_I64, 1, (int64_t[]){end - start}), d));
    infer_elems(n, 0, end - start, x.dim + start);
    return 0;
}

/* `value` is a tensor of one element; zero in float32 if absent. */
int infer_constant_of_shape(Node *n, Diag *d)
{
    const Attr *value = node_attr(n, "value");
    Type t;
    int64_t x, e[MAX_ELEMS];
    TRY(wanted_shape(n, 0, &t, d));
    t.dtype = value ? value->type.dtype : DT_F32;
    if (value && type_count(&value->type) != 1)
        return node_error(d, n, "'value' needs one element");
    TRY(infer_out(n, 0, t, d));
    if (!value || value->s.n < dtype_size(t.dtype)) return 0;
    Value one = {.type = value->type, .data = value->s.p};
    int64_t count = type_count(&n->out[0]->type);
    if (count < 0 || count > MAX_ELEMS || value_ints(&one, &x, 1) != 1) return 0;
    for (int64_t i = 0; i < count; i++) e[i] = x;
    infer_elems(n, 0, (int)count, e);
    return 0;
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* Of all ops that keep the elements and their order. */
int vjp_reshape(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    dx[0] = ad_reshape(ad, dy[0], n->in[0]->type.rank, n->in[0]->type.dim);
    return 0;
}

int vjp_transpose(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    size_t rank = (size_t)n->in[0]->type.rank, np;
    int64_t inverse[MAX_RANK];
    const int64_t *perm = node_ints(n, "perm", &np);
    for (size_t i = 0; i < rank; i++) {
        size_t from = perm ? (size_t)perm[i] : rank - 1 - i;
        inverse[from] = (int64_t)i;
    }
    dx[0] = build(ad->g, OP_Transpose, IN(dy[0]), ATTRS(attr_ints("perm", rank, inverse)));
    return 0;
}

/* The sweep sums over what was repeated. */
int vjp_expand(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    (void)ad, (void)n;
    dx[0] = dy[0];
    return 0;
}

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* A reshape is cut into groups of axes with equal products: [a, b, c] -> [a, b*c] has the
 * groups a -> a and b, c -> b*c. Symbols only match themselves. */
typedef struct AxisGroup {
    int x, nx, y, ny; /* first axis and number of axes, of input and output */
    bool open;        /* what symbols leave: nobody knows how its axes meet */
} AxisGroup;

/* The next group from g->x + g->nx and g->y + g->ny on; false at the end or if the rest does not
 * divide into groups (symbols). */
static bool next_group(const Type *x, const Type *y, AxisGroup *g)
{
    int64_t a, b;
    *g = (AxisGroup){g->x + g->nx, 1, g->y + g->ny, 1, false};
    if (g->x >= x->rank || g->y >= y->rank) return false;
    while (x->dim[g->x + g->nx - 1] == 1 && y->dim[g->y] != 1 && g->x + g->nx < x->rank) g->nx++;
    while (y->dim[g->y + g->ny - 1] == 1 && x->dim[g->x] != 1 && g->y + g->ny < y->rank) g->ny++;
    a = x->dim[g->x + g->nx - 1];
    b = y->dim[g->y + g->ny - 1];
    while (a != b) {
        bool more_x = a < b;
        if (a <= 0 || b <= 0 || (more_x ? g->x + g->nx >= x->rank : g->y + g->ny >= y->rank))
            return false;
        if (more_x)
            a = dim_times(a, x->dim[g->x + g->nx++]);
        else
            b = dim_times(b, y->dim[g->y + g->ny++]);
    }
    /* Ones that follow go along, as those in front did, if only one side has them. */
    while (g->x + g->nx < x->rank && x->dim[g->x + g->nx] == 1 &&
           (g->y + g->ny >= y->rank || y->dim[g->y + g->ny] != 1))
        g->nx++;
    while (g->y + g->ny < y->rank && y->dim[g->y + g->ny] == 1 &&
           (g->x + g->nx >= x->rank || x->dim[g->x + g->nx] != 1))
        g->ny++;
    return true;
}

/* The axes from `from` on, last first. */
static Type reversed(const Type *t, int from)
{
    Type r = {.rank = t->rank - from};
    for (int i = 0; i < r.rank; i++) r.dim[i] = t->dim[t->rank - 1 - i];
    return r;
}

/* All groups, at most MAX_RANK and one: from the front, where symbols stop that from the back, and
 * what then remains as one. */
static int cut_reshape(const Type *x, const Type *y, AxisGroup *cut)
{
    AxisGroup g = {0}, b = {0};
    int n = 0;
    while (next_group(x, y, &g)) cut[n++] = g;
    if (g.x >= x->rank || g.y >= y->rank) return n;
    const Type rx = reversed(x, g.x), ry = reversed(y, g.y);
    while (next_group(&rx, &ry, &b))
        cut[n++] = (AxisGroup){x->rank - b.x - b.nx, b.nx, y->rank - b.y - b.ny, b.ny, false};
    if (b.x < rx.rank && b.y < ry.rank)
        cut[n++] = (AxisGroup){g.x, rx.rank - b.x, g.y, ry.rank - b.y, true};
    return n;
}

/* How lanes of axis `at`, one of [from, from + count), repeat in the product of those axes:
 * element k of the product has lane (k / stride) % size. */
static int64_t axis_stride(const Type *t, int at, int from, int count)
{
    int64_t stride = 1;
    for (int i = at + 1; i < from + count; i++) stride *= t->dim[i];
    return stride;
}

static void tie_blocks(Lanes *l, const Value *part, int axis, int64_t stride, const Value *whole,
                       int whole_axis)
{
    int64_t size = part->type.dim[axis], n = whole->type.dim[whole_axis];
    if (lanes_open(l, part, axis)) lanes_open_axis(l, whole, whole_axis);
    if (!lanes_open(l, whole, whole_axis)) return;
    for (int64_t k = 0; k < n; k++)
        lanes_tie(l, part, axis, k / stride % size, whole, whole_axis, k);
}

/* The axes of a split, best first, that may carry the channels on: the first if features unfold to
 * an image ([N, C*H*W] -> [N, C, H, W]) or if whole attention heads are wanted, else the longest,
 * and the last of those (positions in a group, of a channel shuffle or of heads). */
static int split_axes(const Lanes *l, const Type *x, const Type *y, const AxisGroup *g, int *axes)
{
    int last = g->y + g->ny - 1, best = last, n = 1;
    bool image = g->y == 1 && g->x == x->rank - 1 && y->rank == 4 && last == 3 && y->dim[1] > 1;
    bool heads = lanes_heads(l) && g->x + g->nx == x->rank && last == y->rank - 1;
    for (int i = last; i >= g->y; i--)
        if (y->dim[i] > (image || heads ? 1 : y->dim[best])) best = i;
    axes[0] = best;
    for (int i = g->y; i <= last; i++)
        if (i != best && y->dim[i] > 1) axes[n++] = i;
    return n;
}

static int only_axis(const Type *t, int from, int count)
{
    int found = -1, wide = 0;
    for (int i = from; i < from + count; i++)
        if (t->dim[i] != 1) {
            found = i;
            wide++;
        }
    return wide == 1 ? found : wide == 0 ? from : -1;
}

/* Both sides have several axes, the first of one side a multiple of the other's: its blocks are the
 * other's lanes (GroupNormalization as [N, C, H, W] -> [N, G, C/G*H*W] and back). */
static void tie_leading(Lanes *l, const Value *x, int i, const Value *y, int k)
{
    int64_t a = x->type.dim[i], b = y->type.dim[k];
    if (a <= 0 || b <= 0 || (a % b != 0 && b % a != 0)) return;
    if (a >= b)
        tie_blocks(l, y, k, a / b, x, i);
    else
        tie_blocks(l, x, i, b / a, y, k);
}

/* Likewise the last axes: the shorter one's lanes repeat along the longer one (heads beside the
 * batch, [T, N, H D] -> [T, N H, D]: a position of all heads). */
static void tie_trailing(Lanes *l, const Value *x, int i, const Value *y, int k)
{
    int64_t a = x->type.dim[i], b = y->type.dim[k];
    if (a <= 1 || b <= 1 || (a % b != 0 && b % a != 0)) return;
    if (a >= b)
        tie_blocks(l, y, k, 1, x, i);
    else
        tie_blocks(l, x, i, 1, y, k);
}

/* Several axes become several others. */
static void tie_ends(Lanes *l, const Value *x, const Value *y, const AxisGroup *g)
{
    tie_leading(l, x, g->x, y, g->y);
    tie_trailing(l, x, g->x + g->nx - 1, y, g->y + g->ny - 1);
}

static void lanes_group(Lanes *l, const Value *x, const Value *y, const AxisGroup *g)
{
    int one_x = only_axis(&x->type, g->x, g->nx), one_y = only_axis(&y->type, g->y, g->ny);
    if (g->open) {
        if (one_x < 0 && one_y < 0) tie_ends(l, x, y, g);
    } else if (one_x >= 0 && one_y >= 0) {
        lanes_pass(l, x, one_x, y, one_y);
    } else if (one_y >= 0) {
        for (int i = g->x; i < g->x + g->nx; i++)
            if (lanes_open(l, x, i))
                tie_blocks(l, x, i, axis_stride(&x->type, i, g->x, g->nx), y, one_y);
    } else if (one_x >= 0 && lanes_open(l, x, one_x)) {
        int axes[MAX_RANK], n = split_axes(l, &x->type, &y->type, g, axes);
        int i = axes[lanes_split(l, x, one_x, n)];
        tie_blocks(l, y, i, axis_stride(&y->type, i, g->y, g->ny), x, one_x);
    } else if (one_x < 0) {
        tie_ends(l, x, y, g);
    }
}

/* The target of a Reshape as a constant could say it: symbols that are known in place become 0,
 * one other -1. Its length, or -1 if more is unknown. */
static int constant_target(const Node *n, int64_t *target)
{
    const Type *x = &n->in[0]->type;
    bool copies = node_int(n, "allowzero", 0) == 0, open = false;
    int count = value_ints(n->in[1], target, MAX_RANK);
    for (int i = 0; i < count; i++) open |= target[i] == -1;
    for (int i = 0; i < count; i++) {
        if (!dim_is_sym(target[i])) continue;
        if (copies && i < x->rank && x->dim[i] == target[i]) {
            target[i] = 0;
        } else {
            if (open) return -1;
            target[i] = -1;
            open = true;
        }
    }
    return count;
}

/* Of Flatten, Squeeze and Unsqueeze too. */
void rule_lanes_reshape(Lanes *l, const Node *n)
{
    const Value *x = n->in[0], *y = n->out[0];
    AxisGroup cut[MAX_RANK + 1];
    int64_t target[MAX_RANK];
    if (n->op == OP_Reshape && value_ints(n->in[1], target, MAX_RANK) < 0) return;
    int groups = cut_reshape(&x->type, &y->type, cut);
    for (int i = 0; i < groups; i++) lanes_group(l, x, y, &cut[i]);
}

void rule_lanes_transpose(Lanes *l, const Node *n)
{
    const Value *x = n->in[0], *y = n->out[0];
    size_t have;
    const int64_t *perm = node_ints(n, "perm", &have);
    for (int i = 0; i < y->type.rank; i++)
        lanes_pass(l, x, perm ? (int)perm[i] : y->type.rank - 1 - i, y, i);
}

/* Axes along which all elements are equal, and those of constants, are offered. */
void rule_lanes_expand(Lanes *l, const Node *n)
{
    const Value *x = n->in[0], *y = n->out[0];
    int64_t target[MAX_RANK];
    if (value_ints(n->in[1], target, MAX_RANK) < 0 || x->type.rank < 0) return;
    lanes_broadcast(l, n, 1, y, 0, 0);
    for (int k = 0, skip = y->type.rank - x->type.rank; k < y->type.rank; k++) {
        int from = k - skip;
        if (lanes_open(l, y, k)) continue;
        if (from < 0 || x->type.dim[from] == 1) {
            lanes_offer(l, y, k);
            continue;
        }
        if (value_is_const(x)) lanes_offer(l, x, from);
        lanes_pass(l, x, from, y, k);
    }
}

void rule_lanes_constant_of_shape(Lanes *l, const Node *n)
{
    int64_t target[MAX_RANK];
    if (value_ints(n->in[0], target, MAX_RANK) < 0) return;
    for (int k = 0; k < n->out[0]->type.rank; k++) lanes_offer(l, n->out[0], k);
}

/* `target` as a tensor; its symbols are read from the tensor that it was. */
static Value *target_value(Graph *g, Value *old, int count, const int64_t *target)
{
    Value *parts[MAX_RANK];
    int n = 0, end;
    for (int i = 0; i < count; i = end) {
        bool open = dim_is_sym(target[i]);
        for (end = i + 1; end < count && dim_is_sym(target[end]) == open;) end++;
        parts[n++] =
            open ? build(g, OP_Slice, IN(old, CONST_INTS(g, i), CONST_INTS(g, end)), NO_ATTRS)
                 : const_ints(g, end - i, target + i);
    }
    return n == 1 ? parts[0] : build(g, OP_Concat, n, parts, ATTRS(attr_int("axis", 0)));
}

/* Corrects the sizes in a target shape, input i, that repeat those of channels. */
static void shrink_target(Lanes *l, Graph *g, Node *n, int i, int count, int64_t *target)
{
    const Value *y = n->out[0];
    bool changed = false;
    for (int k = 0; k < count; k++) {
        int64_t size = lanes_size(l, y, k), left;
        if (!lanes_open(l, y, k) || target[k] != size) continue;
        left = lanes_survivors(l, y, k, 0, size);
        changed |= left != size;
        target[k] = left;
    }
    if (!changed) return;
    g->at = n;
    n->in[i] = target_value(g, n->in[i], count, target);
    g->at = NULL;
}

int shrink_reshape(Lanes *l, Graph *g, Node *n, Diag *d)
{
    int64_t target[MAX_RANK];
    int count = constant_target(n, target);
    (void)d;
    shrink_target(l, g, n, 1, count < 0 ? value_ints(n->in[1], target, MAX_RANK) : count, target);
    return 0;
}

int shrink_expand(Lanes *l, Graph *g, Node *n, Diag *d)
{
    int64_t target[MAX_RANK];
    (void)d;
    shrink_target(l, g, n, 1, value_ints(n->in[1], target, MAX_RANK), target);
    return 0;
}

int shrink_constant_of_shape(Lanes *l, Graph *g, Node *n, Diag *d)
{
    int64_t target[MAX_RANK];
    (void)d;
    shrink_target(l, g, n, 0, value_ints(n->in[0], target, MAX_RANK), target);
    return 0;
}

/* ---- end of channels ---------------------------------------------------------------- */
