/* Ops that pick, join or place parts of tensors: Concat, Split, Slice, Pad. */
#include "ir/select.h"

#include <string.h>

#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

static int concat_two(const Node *n, int i, int axis, Type *t, Diag *d)
{
    Type x = input_type(n, i);
    TRY(expect_same_dtype(n, 0, i, d));
    if (x.rank != t->rank)
        return node_error(d, n, "'%s' has rank %d, '%s' has %d", n->in[i]->name, x.rank,
                          n->in[0]->name, t->rank);
    for (int k = 0; k < x.rank; k++) {
        int64_t have = t->dim[k];
        if (k == axis)
            t->dim[k] = dim_sum(have, x.dim[k]);
        else if (!dim_agree(have, x.dim[k], &t->dim[k]))
            return node_error(d, n, "'%s' has %lld on axis %d, '%s' has %lld", n->in[i]->name,
                              (long long)x.dim[k], k, n->in[0]->name, (long long)have);
    }
    return 0;
}

static void concat_elems(Node *n)
{
    int64_t e[MAX_ELEMS];
    int have = 0;
    for (int i = 0; i < n->nin; i++) {
        int more = value_ints(n->in[i], e + have, MAX_ELEMS - have);
        if (more < 0) return;
        have += more;
    }
    infer_elems(n, 0, have, e);
}

int infer_concat(Node *n, Diag *d)
{
    Type t = input_type(n, 0);
    int axis = 0;
    if (!node_attr(n, "axis")) return node_error(d, n, "attribute 'axis' is missing");
    for (int i = 0; i < n->nin; i++) {
        if (!n->in[i]) return node_error(d, n, "input %d is missing", i);
        if (n->in[i]->type.rank < 0) return infer_out(n, 0, type_unknown(t.dtype), d);
    }
    TRY(axis_of(n, node_int(n, "axis", 0), t.rank, &axis, d));
    for (int i = 1; i < n->nin; i++) TRY(concat_two(n, i, axis, &t, d));
    TRY(infer_out(n, 0, t, d));
    if (t.rank == 1) concat_elems(n);
    return 0;
}

/* The size of each output: listed by input 1, or equal parts, the last one smaller. */
static int split_sizes(const Node *n, int64_t dim, int64_t *size, Diag *d)
{
    int64_t parts = node_int(n, "num_outputs", n->nout), sum = 0;
    if (node_in(n, 1)) {
        int count = value_ints(n->in[1], size, n->nout);
        for (int o = 0; o < n->nout && count < 0; o++) size[o] = DIM_UNKNOWN;
        if (count < 0) return expect_vector(n, 1, n->nout, "list of sizes", d);
        for (int o = 0; o < count; o++) sum = dim_sum(sum, size[o]);
        if (count == n->nout && dim_agree(sum, dim, &sum)) return 0;
        return node_error(d, n, "%d sizes sum up to %lld, the axis has %lld", count, (long long)sum,
                          (long long)dim);
    }
    if (parts != n->nout || parts < 1)
        return node_error(d, n, "'num_outputs' is %lld, the node has %d outputs", (long long)parts,
                          n->nout);
    int64_t each = dim < 0 ? DIM_UNKNOWN : dim / parts + (dim % parts != 0);
    for (int o = 0; o < n->nout; o++) size[o] = each;
    if (dim >= 0) size[parts - 1] = dim_plus(dim, -each * (parts - 1));
    return 0;
}

int infer_split(Node *n, Diag *d)
{
    Type t = input_type(n, 0);
    int axis = 0;
    if (t.rank >= 0) TRY(axis_of(n, node_int(n, "axis", 0), t.rank, &axis, d));
    Arena *scratch = arena_new();
    int64_t *size = NEW_ARRAY(scratch, int64_t, n->nout);
    int status = t.rank < 0 ? 0 : split_sizes(n, t.dim[axis], size, d);
    for (int o = 0; o < n->nout && status == 0; o++) {
        if (t.rank >= 0) t.dim[axis] = size[o];
        status = infer_out(n, o, t, d);
    }
    arena_free(scratch);
    return status;
}

/* Number of elements of start, start+step, … before end, in an axis of `dim`. */
static int64_t slice_size(int64_t dim, int64_t start, int64_t end, int64_t step)
{
    bool symbolic = dim < 0 || dim_is_sym(start) || dim_is_sym(end);
    if (symbolic && step == 1 && start == 0 && (end == dim || end >= INT32_MAX)) return dim;
    if (symbolic && step == -1 && (start == -1 || start >= INT32_MAX) && end <= -INT32_MAX &&
        !dim_is_sym(end))
        return dim;
    if (symbolic) return DIM_UNKNOWN;
    slice_clamp(dim, &start, &end, step);
    return slice_count(start, end, step);
}

static int slice_axis(const Node *n, Type *t, int axis, int64_t start, int64_t end, int64_t step,
                      Diag *d)
{
    if (step == 0 || dim_is_sym(step)) return node_error(d, n, "a step of 0");
    t->dim[axis] = slice_size(t->dim[axis], start, end, step);
    return 0;
}

/* The shape of a slice of t; unknown axes if starts, ends or steps are not constant. */
static int slice_type(const Node *n, Type *t, Diag *d)
{
    SliceArgs s;
    int known = slice_args(n, t->rank, &s, d);
    TRY(known);
    for (int i = 0; i < t->rank && !known; i++) t->dim[i] = DIM_UNKNOWN;
    for (int k = 0; k < s.n && known; k++)
        TRY(slice_axis(n, t, s.axis[k], s.start[k], s.end[k], s.step[k], d));
    return 0;
}

static void slice_elems(Node *n)
{
    const Type *x = &n->in[0]->type;
    int64_t stride[MAX_RANK], offset = 0;
    Diag quiet = {0};
    SliceArgs s;
    if (!n->out[0] || type_count(x) < 0 || slice_args(n, x->rank, &s, &quiet) != 1) return;
    row_major_strides(x, stride);
    for (int k = 0; k < s.n; k++) {
        if (dim_is_sym(s.start[k]) || dim_is_sym(s.end[k])) return;
        slice_clamp(x->dim[s.axis[k]], &s.start[k], &s.end[k], s.step[k]);
        offset += s.start[k] * stride[s.axis[k]];
        stride[s.axis[k]] = mul_sat(stride[s.axis[k]], s.step[k]);
    }
    infer_moved_elems(n, offset, stride);
}

int infer_slice(Node *n, Diag *d)
{
    Type t = input_type(n, 0);
    if (t.rank >= 0) TRY(slice_type(n, &t, d));
    TRY(infer_out(n, 0, t, d));
    slice_elems(n);
    return 0;
}

/* (dy, starts, ends, axes, steps) with the shape of what was sliced. */
int infer_slice_grad(Node *n, Diag *d)
{
    size_t rank = 0;
    const int64_t *dim = node_ints(n, "shape", &rank);
    int64_t both;
    if (!dim || rank > MAX_RANK) return node_error(d, n, "'shape' is missing or too long");
    Type x = type_of(input_type(n, 0).dtype, (int)rank, dim), t = x;
    TRY(slice_type(n, &t, d));
    TRY(expect_rank(n, 0, t.rank, d));
    for (int i = 0; i < n->in[0]->type.rank; i++)
        if (!dim_agree(t.dim[i], n->in[0]->type.dim[i], &both))
            return node_error(d, n, "dy has %lld on axis %d, the slice has %lld",
                              (long long)n->in[0]->type.dim[i], i, (long long)t.dim[i]);
    return infer_out(n, 0, x, d);
}

int infer_pad(Node *n, Diag *d)
{
    Type t = input_type(n, 0);
    int64_t before[MAX_RANK], after[MAX_RANK];
    TRY(expect_same_dtype(n, 0, 2, d));
    if (t.rank < 0) return infer_out(n, 0, t, d);
    int known = pad_amounts(n, t.rank, before, after, d);
    TRY(known);
    for (int i = 0; i < t.rank; i++) {
        int64_t sum = 0;
        if (known && (__builtin_add_overflow(before[i], after[i], &sum) ||
                      dim_plus(t.dim[i], sum) == DIM_BAD))
            return node_error(d, n, "axis %d of size %lld cannot be padded by %lld and %lld", i,
                              (long long)t.dim[i], (long long)before[i], (long long)after[i]);
        t.dim[i] = known ? dim_plus(t.dim[i], sum) : DIM_UNKNOWN;
    }
    return infer_out(n, 0, t, d);
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

/* The part [from, from + size) of an axis. */
static Value *part(Ad *ad, Value *v, int64_t axis, int64_t from, int64_t size)
{
    return build(
        ad->g, OP_Slice,
        IN(v, CONST_INTS(ad->g, from), CONST_INTS(ad->g, from + size), CONST_INTS(ad->g, axis)),
        NO_ATTRS);
}

int vjp_concat(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    int64_t axis = axis_attr(n, 0, n->out[0]->type.rank), at = 0;
    for (int i = 0; i < n->nin; i++) {
        int64_t size = n->in[i]->type.dim[axis];
        if (ad_wants(ad, n->in[i])) dx[i] = part(ad, dy[0], axis, at, size);
        at += size;
    }
    return 0;
}

int vjp_split(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    int64_t axis = axis_attr(n, 0, n->in[0]->type.rank);
    Value **parts = NEW_ARRAY(ad->g->arena, Value *, n->nout);
    for (int o = 0; o < n->nout; o++) {
        if (!n->out[o])
            return node_error(ad->diag, n, "has no gradient: its output %d is not named", o);
        parts[o] = dy[o] ? dy[o] : ad_zeros_like(ad, n->out[o]);
    }
    dx[0] = build(ad->g, OP_Concat, n->nout, parts, ATTRS(attr_int("axis", axis)));
    return 0;
}

int vjp_slice(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    const Type *x = &n->in[0]->type;
    dx[0] = build(ad->g, OP_SliceGrad, n->nin, ad_inputs(ad, n, dy[0]),
                  ATTRS(attr_ints("shape", (size_t)x->rank, x->dim)));
    return 0;
}

int vjp_slice_grad(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    dx[0] = build(ad->g, OP_Slice, n->nin, ad_inputs(ad, n, dy[0]), NO_ATTRS);
    return 0;
}

int64_t pad_source(const char *mode, int64_t i, int64_t size)
{
    if (i >= 0 && i < size) return i;
    if (strcmp(mode, "edge") == 0) return i < 0 ? 0 : size - 1;
    if (strcmp(mode, "wrap") == 0) return (i % size + size) % size;
    if (strcmp(mode, "reflect") == 0) {
        const int64_t period = size > 1 ? 2 * (size - 1) : 1;
        const int64_t r = (i % period + period) % period;
        return r < size ? r : period - r;
    }
    return -1;
}

/* Padding with what is there gathers, axis by axis. */
static int vjp_pad_gathered(Ad *ad, const Node *n, const char *mode, Value *dy, Value **dx)
{
    const Type *x = &n->in[0]->type;
    int64_t before[MAX_RANK], after[MAX_RANK];
    if (pad_amounts(n, x->rank, before, after, ad->diag) != 1)
        return node_error(ad->diag, n, "has no gradient: its pads are not constant");
    for (int axis = 0; axis < x->rank; axis++) {
        const int64_t size = x->dim[axis], padded = size + before[axis] + after[axis];
        if (before[axis] == 0 && after[axis] == 0) continue;
        int64_t *index = NEW_ARRAY(ad->g->arena, int64_t, padded);
        for (int64_t i = 0; i < padded; i++) index[i] = pad_source(mode, i - before[axis], size);
        dy = build(ad->g, OP_GatherGrad, IN(dy, const_ints(ad->g, (int)padded, index)),
                   ATTRS(attr_int("axis", axis), attr_int("dim", size)));
    }
    dx[0] = dy;
    return 0;
}

/* Padding by minus as much crops. */
int vjp_pad(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    int64_t pads[2 * MAX_RANK];
    const char *mode = node_str(n, "mode", "constant");
    int count = value_ints(n->in[1], pads, 2 * MAX_RANK);
    if (strcmp(mode, "constant") != 0) return vjp_pad_gathered(ad, n, mode, dy[0], dx);
    if (count < 0) return node_error(ad->diag, n, "has no gradient: its pads are not constant");
    for (int i = 0; i < count; i++) pads[i] = -pads[i];
    Value *axes = node_in(n, 3), *crop = const_ints(ad->g, count, pads);
    dx[0] = axes ? build(ad->g, OP_Pad, IN(dy[0], crop, NULL, axes), NO_ATTRS)
                 : build(ad->g, OP_Pad, IN(dy[0], crop), NO_ATTRS);
    return 0;
}

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* All axes but one, from input i to output o. */
static void pass_other_axes(Lanes *l, const Value *x, const Value *y, int but)
{
    for (int k = 0; k < x->type.rank; k++)
        if (k != but) lanes_pass(l, x, k, y, k);
}

/* Lanes [from, from + size of part) of `whole` are those of part. */
static void tie_part(Lanes *l, const Value *whole, int64_t from, const Value *part, int axis)
{
    for (int64_t i = 0; i < part->type.dim[axis]; i++)
        lanes_tie(l, whole, axis, from + i, part, axis, i);
}

void rule_lanes_concat(Lanes *l, const Node *n)
{
    const Value *y = n->out[0];
    int axis = axis_attr(n, 0, y->type.rank);
    bool open = false;
    int64_t at = 0;
    for (int i = 0; i < n->nin; i++)
        if (n->in[i]->type.rank < 0) return;
    for (int i = 0; i < n->nin; i++) open |= lanes_open(l, n->in[i], axis);
    for (int i = 0; i < n->nin; i++) pass_other_axes(l, n->in[i], y, axis);
    for (int i = n->nin - 1; i >= 0; i--) pass_other_axes(l, n->in[i], y, axis);
    for (int i = 0; i < n->nin; i++) open &= n->in[i]->type.dim[axis] >= 0;
    for (int i = 0; i < n->nin && open; i++) {
        tie_part(l, y, at, n->in[i], axis);
        at += n->in[i]->type.dim[axis];
    }
}

void rule_lanes_split(Lanes *l, const Node *n)
{
    const Value *x = n->in[0];
    int axis = axis_attr(n, 0, x->type.rank);
    bool open = x->type.rank > 0 && lanes_open(l, x, axis);
    int64_t at = 0;
    for (int o = 0; o < n->nout; o++) {
        if (!n->out[o] || x->type.rank < 0) return;
        pass_other_axes(l, x, n->out[o], axis);
        open &= n->out[o]->type.dim[axis] >= 0;
    }
    for (int o = 0; o < n->nout && open; o++) {
        tie_part(l, x, at, n->out[o], axis);
        at += n->out[o]->type.dim[axis];
    }
}

static void set_input(Graph *g, Node *n, int i, Value *v)
{
    if (i >= n->nin) {
        Value **in = NEW_ARRAY(g->arena, Value *, i + 1);
        memcpy(in, n->in, (size_t)n->nin * sizeof *in);
        n->in = in;
        n->nin = i + 1;
    }
    n->in[i] = v;
}

/* Parts that are no longer equal are listed. */
int shrink_split(Lanes *l, Graph *g, Node *n, Diag *d)
{
    const Value *x = n->in[0];
    int axis = axis_attr(n, 0, x->type.rank);
    (void)d;
    if (x->type.rank < 0 || !lanes_open(l, x, axis)) return 0;
    int64_t *size = NEW_ARRAY(g->arena, int64_t, n->nout);
    for (int o = 0; o < n->nout; o++)
        size[o] = lanes_survivors(l, n->out[o], axis, 0, lanes_size(l, n->out[o], axis));
    set_input(g, n, 1, const_ints(g, n->nout, size));
    node_remove_attr(n, "num_outputs");
    return 0;
}

/* Which of the slices is along `axis`, or -1. */
static int slice_along(const SliceArgs *s, int axis)
{
    for (int k = 0; k < s->n; k++)
        if (s->axis[k] == axis) return k;
    return -1;
}

void rule_lanes_slice(Lanes *l, const Node *n)
{
    const Value *x = n->in[0], *y = n->out[0];
    Diag quiet = {0};
    SliceArgs s;
    if (x->type.rank < 0 || slice_args(n, x->type.rank, &s, &quiet) != 1) return;
    for (int axis = 0; axis < x->type.rank; axis++) {
        int k = slice_along(&s, axis);
        if (k < 0) lanes_pass(l, x, axis, y, axis);
        if (k < 0 || !lanes_open(l, x, axis) || dim_is_sym(s.start[k]) || dim_is_sym(s.end[k]))
            continue;
        slice_clamp(x->type.dim[axis], &s.start[k], &s.end[k], s.step[k]);
        for (int64_t i = 0; i < y->type.dim[axis]; i++)
            lanes_tie(l, x, axis, s.start[k] + i * s.step[k], y, axis, i);
    }
}

/* Where the surviving lanes of y, lane i being lane start + i*step of x, are among the survivors
 * of x. Returns their number. */
static int64_t new_positions(Lanes *l, const Value *x, const Value *y, int axis, int64_t start,
                             int64_t step, int64_t *out)
{
    int64_t n = lanes_size(l, y, axis), left = 0;
    for (int64_t i = 0; i < n; i++)
        if (!lanes_removed(l, y, axis, i))
            out[left++] = lanes_survivors(l, x, axis, 0, start + i * step);
    return left;
}

static bool is_range(const int64_t *p, int64_t n)
{
    for (int64_t i = 1; i < n; i++)
        if (p[i] != p[0] + i) return false;
    return n > 0;
}

static void set_slice(Graph *g, Node *n, const SliceArgs *s)
{
    int64_t axes[MAX_RANK];
    for (int k = 0; k < s->n; k++) axes[k] = s->axis[k];
    set_input(g, n, 1, const_ints(g, s->n, s->start));
    set_input(g, n, 2, const_ints(g, s->n, s->end));
    set_input(g, n, 3, const_ints(g, s->n, axes));
    set_input(g, n, 4, const_ints(g, s->n, s->step));
}

/* Lanes that survive need not be evenly spaced: then a Gather in front picks them, and the slice
 * keeps its other axes. */
static void shrink_slice_axis(Lanes *l, Graph *g, Node *n, SliceArgs *s, int k)
{
    const Value *x = s->n ? n->in[0] : NULL, *y = n->out[0];
    int axis = s->axis[k];
    int64_t size = lanes_size(l, x, axis), start = s->start[k], end = s->end[k];
    int64_t *at = NEW_ARRAY(g->arena, int64_t, lanes_size(l, y, axis));
    slice_clamp(size, &start, &end, s->step[k]);
    int64_t left = new_positions(l, x, y, axis, start, s->step[k], at);
    if (!is_range(at, left)) {
        g->at = n;
        n->in[0] = build(g, OP_Gather, IN(n->in[0], const_ints(g, (int)left, at)),
                         ATTRS(attr_int("axis", axis)));
        g->at = NULL;
        at[0] = 0;
    }
    s->start[k] = at[0];
    s->end[k] = at[0] + left;
    s->step[k] = 1;
}

int shrink_slice(Lanes *l, Graph *g, Node *n, Diag *d)
{
    Value *x = n->in[0];
    SliceArgs s;
    bool changed = false;
    if (x->type.rank < 0) return 0;
    int known = slice_args(n, x->type.rank, &s, d);
    TRY(known);
    for (int k = 0; k < s.n; k++) {
        int64_t size = lanes_size(l, x, s.axis[k]);
        if (!lanes_open(l, x, s.axis[k]) || lanes_survivors(l, x, s.axis[k], 0, size) == size)
            continue;
        if (n->in[0] != x) return node_error(d, n, "channels on two sliced axes were removed");
        shrink_slice_axis(l, g, n, &s, k);
        changed = true;
    }
    if (changed) set_slice(g, n, &s);
    return 0;
}

/* Lanes that zero (constant) padding adds belong to nobody until something is added to them:
 * shortcuts padded with zero channels are pruned through. */
void rule_lanes_pad(Lanes *l, const Node *n)
{
    const Value *x = n->in[0], *y = n->out[0];
    int64_t before[MAX_RANK], after[MAX_RANK];
    Diag quiet = {0};
    bool constant = strcmp(node_str(n, "mode", "constant"), "constant") == 0;
    if (x->type.rank < 0 || pad_amounts(n, x->type.rank, before, after, &quiet) != 1) return;
    for (int axis = 0; axis < x->type.rank; axis++) {
        if (before[axis] == 0 && after[axis] == 0)
            lanes_pass(l, x, axis, y, axis);
        else if (lanes_open(l, x, axis) && constant)
            for (int64_t i = 0; i < y->type.dim[axis]; i++)
                if (i >= before[axis] && i - before[axis] < x->type.dim[axis])
                    lanes_tie(l, x, axis, i - before[axis], y, axis, i);
    }
}

/* Survivors among the lanes that the padding added, or (negative) cut off. */
static int64_t shrunk_pad(Lanes *l, const Node *n, int axis, int64_t amount, bool end)
{
    const Value *v = amount < 0 ? n->in[0] : n->out[0];
    int64_t count = amount < 0 ? -amount : amount, size = lanes_size(l, v, axis);
    int64_t left = end ? lanes_survivors(l, v, axis, size - count, size)
                       : lanes_survivors(l, v, axis, 0, count);
    return amount < 0 ? -left : left;
}

int shrink_pad(Lanes *l, Graph *g, Node *n, Diag *d)
{
    int64_t before[MAX_RANK], after[MAX_RANK], pads[2 * MAX_RANK];
    int rank = n->in[0]->type.rank;
    bool changed = false;
    if (rank < 0) return 0;
    int known = pad_amounts(n, rank, before, after, d);
    TRY(known);
    for (int k = 0; k < rank && known; k++) {
        bool open = lanes_open(l, n->out[0], k);
        pads[k] = open ? shrunk_pad(l, n, k, before[k], false) : before[k];
        pads[rank + k] = open ? shrunk_pad(l, n, k, after[k], true) : after[k];
        changed |= pads[k] != before[k] || pads[rank + k] != after[k];
    }
    if (!changed) return 0;
    n->in[1] = const_ints(g, 2 * rank, pads);
    if (n->nin > 3) n->in[3] = NULL;
    return 0;
}

/* ---- end of channels ---------------------------------------------------------------- */
