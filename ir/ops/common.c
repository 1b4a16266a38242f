/* Shared by the rules of op families: dimensions, output types, axes, broadcasting. */
#include "ir/ops/common.h"

#include <string.h>

int64_t dim_plus(int64_t dim, int64_t delta)
{
    int64_t sum;
    if (delta == 0) return dim;
    if (dim < 0) return dim == DIM_BAD ? DIM_BAD : DIM_UNKNOWN;
    return __builtin_add_overflow(dim, delta, &sum) || sum < 0 ? DIM_BAD : sum;
}

int64_t dim_sum(int64_t a, int64_t b)
{
    if (a == 0) return b;
    if (a == DIM_BAD || b == DIM_BAD) return DIM_BAD;
    return b == 0  ? a
           : b < 0 ? (dim_is_sym(b) || b == DIM_UNKNOWN ? DIM_UNKNOWN : DIM_BAD)
                   : dim_plus(a, b);
}

int64_t dim_times(int64_t a, int64_t b)
{
    int64_t product;
    if (a == DIM_BAD || b == DIM_BAD) return DIM_BAD;
    if (a == 0 || b == 0) return 0;
    if (a == 1) return b;
    if (b == 1) return a;
    if (a < 0 || b < 0) return DIM_UNKNOWN;
    return __builtin_mul_overflow(a, b, &product) ? DIM_BAD : product;
}

bool dim_agree(int64_t a, int64_t b, int64_t *out)
{
    *out = a >= 0 || b == DIM_UNKNOWN ? a : b;
    return a < 0 || b < 0 || a == b;
}

int infer_out(Node *n, int o, Type t, Diag *d)
{
    Value *v = o < n->nout ? n->out[o] : NULL;
    int64_t count = 1;
    if (!v) return 0;
    if (t.dtype == DT_NONE) t.dtype = v->type.dtype;
    if (t.rank < 0) {
        v->type.dtype = t.dtype;
        return 0;
    }
    for (int i = 0; i < t.rank; i++) {
        if (t.dim[i] == DIM_UNKNOWN)
            t.dim[i] = v->type.rank == t.rank ? v->type.dim[i] : graph_symbol(v->graph, NULL);
        if (dim_is_sym(t.dim[i]) && t.dim[i] - DIM_SYM_BASE < v->graph->nsymbols) continue;
        if (t.dim[i] < 0)
            return node_error(d, n, "axis %d of the output has a negative or overflowing size", i);
        if (t.dim[i] > 0 &&
            (__builtin_mul_overflow(count, t.dim[i], &count) || count > INT64_MAX / 16))
            return node_error(d, n, "output has too many elements");
    }
    v->type = t;
    return 0;
}

void infer_elems(Node *n, int o, int count, const int64_t *elems)
{
    Value *v = o < n->nout ? n->out[o] : NULL;
    if (!v || count < 0 || count > MAX_ELEMS || type_count(&v->type) != count) return;
    int64_t *copy = arena_memdup(v->graph->arena, elems, (size_t)count * sizeof *elems);
    for (int i = 0; i < count; i++)
        if (copy[i] == ELEM_UNKNOWN) copy[i] = graph_symbol(v->graph, NULL);
    v->elems = copy;
}

Type type_unknown(DType t) { return (Type){.dtype = t, .rank = -1}; }

void row_major_strides(const Type *t, int64_t *stride)
{
    int64_t size = 1;
    for (int k = t->rank - 1; k >= 0; k--) {
        stride[k] = size;
        size = mul_sat(size, t->dim[k]);
    }
}

void infer_moved_elems(Node *n, int64_t offset, const int64_t *stride)
{
    int64_t from[MAX_ELEMS], to[MAX_ELEMS];
    const Type *t = &n->out[0]->type;
    int64_t count = type_count(t);
    if (count < 0 || count > MAX_ELEMS || value_ints(n->in[0], from, MAX_ELEMS) < 0) return;
    for (int64_t i = 0; i < count; i++) {
        int64_t at = offset, rest = i;
        for (int k = t->rank - 1; k >= 0; k--) {
            at += rest % t->dim[k] * stride[k];
            rest /= t->dim[k];
        }
        to[i] = from[at];
    }
    infer_elems(n, 0, (int)count, to);
}

Type input_type(const Node *n, int i)
{
    const Value *v = node_in(n, i);
    return v ? v->type : type_unknown(DT_NONE);
}

int64_t mul_sat(int64_t a, int64_t b)
{
    int64_t product;
    return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
}

int64_t dims_product(const Type *t, int from, int to)
{
    int64_t n = 1;
    for (int i = from; i < to; i++)
        if (t->dim[i] >= 0) n = mul_sat(n, t->dim[i]);
    return n;
}

int expect_same_dtype(const Node *n, int i, int j, Diag *d)
{
    DType a = input_type(n, i).dtype, b = input_type(n, j).dtype;
    if (a == b || a == DT_NONE || b == DT_NONE) return 0;
    return node_error(d, n, "'%s' is %s, '%s' is %s", n->in[i]->name, dtype_name(a), n->in[j]->name,
                      dtype_name(b));
}

int expect_rank(const Node *n, int i, int rank, Diag *d)
{
    Type t = input_type(n, i);
    if (t.rank < 0 || t.rank == rank) return 0;
    return node_error(d, n, "'%s' has rank %d, needs %d", n->in[i]->name, t.rank, rank);
}

int expect_vector(const Node *n, int i, int64_t count, const char *what, Diag *d)
{
    Type t = input_type(n, i);
    int64_t both;
    if (t.rank < 0) return 0;
    TRY(expect_rank(n, i, 1, d));
    if (dim_agree(t.dim[0], count, &both)) return 0;
    return node_error(d, n, "%s '%s' has %lld elements, needs %lld", what, n->in[i]->name,
                      (long long)t.dim[0], (long long)count);
}

int count_input(const Node *n, int i, int64_t least, const char *what, int64_t *count, Diag *d)
{
    const Type t = input_type(n, i);
    if (value_ints(n->in[i], count, 1) != 1) *count = DIM_UNKNOWN;
    if (t.dtype != DT_I32 && t.dtype != DT_I64 && t.dtype != DT_NONE)
        return node_error(d, n, "the %s is %s, int32 or int64 is needed", what,
                          dtype_name(t.dtype));
    if (*count < least && *count != DIM_UNKNOWN && !dim_is_sym(*count))
        return node_error(d, n, "the %s is %lld", what, (long long)*count);
    return 0;
}

int axis_of(const Node *n, int64_t axis, int rank, int *out, Diag *d)
{
    if (axis < -rank || axis >= rank)
        return node_error(d, n, "axis %lld does not exist in rank %d", (long long)axis, rank);
    *out = (int)(axis < 0 ? axis + rank : axis);
    return 0;
}

int axis_attr(const Node *n, int64_t otherwise, int rank)
{
    int64_t axis = node_int(n, "axis", otherwise);
    return rank < 0 ? -1 : (int)(axis < 0 ? axis + rank : axis);
}

int axes_of(const Node *n, int i, int rank, bool mask[MAX_RANK], Diag *d)
{
    int64_t list[MAX_ELEMS];
    int count = value_ints(node_in(n, i), list, MAX_ELEMS), axis = 0;
    memset(mask, 0, MAX_RANK * sizeof *mask);
    if (count < 0) return 0;
    for (int k = 0; k < count; k++) {
        TRY(axis_of(n, list[k], rank, &axis, d));
        if (mask[axis]) return node_error(d, n, "axis %d is listed twice", axis);
        mask[axis] = true;
    }
    return 1;
}

/* One axis of two operands. Symbols equal to each other stay; a number above 1 decides over a
 * symbol; two different symbols (one may be 1) tell nothing. */
static bool broadcast_dim(int64_t a, int64_t b, int64_t *out)
{
    *out = a == 1 || a == b ? b : b == 1 ? a : a >= 0 ? a : b >= 0 ? b : DIM_UNKNOWN;
    return a == b || a == 1 || b == 1 || a < 0 || b < 0;
}

static int broadcast_two(const Node *n, Type *t, const Value *v, Diag *d)
{
    char a[128], b[128];
    Type x = v->type, old = *t;
    if (t->rank < 0) return 0;
    if (x.rank < 0) {
        t->rank = -1;
        return 0;
    }
    t->rank = old.rank > x.rank ? old.rank : x.rank;
    for (int k = 1; k <= t->rank; k++) {
        int64_t p = k <= old.rank ? old.dim[old.rank - k] : 1;
        int64_t q = k <= x.rank ? x.dim[x.rank - k] : 1;
        if (!broadcast_dim(p, q, &t->dim[t->rank - k]))
            return node_error(d, n, "cannot broadcast %s with '%s' of %s",
                              type_print(v->graph, &old, a, sizeof a), v->name,
                              type_print(v->graph, &x, b, sizeof b));
    }
    return 0;
}

int broadcast_inputs(const Node *n, int from, int to, Type *t, Diag *d)
{
    *t = input_type(n, from);
    for (int i = from + 1; i < to; i++)
        if (node_in(n, i)) TRY(broadcast_two(n, t, n->in[i], d));
    return 0;
}

/* The axis of v that lies on the k-th axis of `size` counted from the end (from skip on), or -1. */
static int aligned_axis(const Value *v, int k, int skip, int64_t size)
{
    int axis = v ? v->type.rank - skip - k : -1;
    return axis >= 0 && v->type.dim[axis] == size ? axis : -1;
}

void lanes_broadcast(Lanes *l, const Node *n, int nin, const Value *y, int skip_in, int skip_out)
{
    for (int k = 1; k <= y->type.rank - skip_out; k++) {
        int to = y->type.rank - skip_out - k;
        bool open = false;
        for (int i = 0; i < nin; i++)
            open |= lanes_open(l, n->in[i], aligned_axis(n->in[i], k, skip_in, y->type.dim[to]));
        for (int i = 0; i < nin && open; i++) {
            int from = aligned_axis(n->in[i], k, skip_in, y->type.dim[to]);
            if (from >= 0) lanes_tie_axis(l, n->in[i], from, y, to);
        }
    }
}
