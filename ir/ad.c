/* Helpers of the differentiation rules: what linear ops share, and the transpose of
 * broadcasting. */
#include "ir/ad.h"

#include "ir/rules.h"

bool ad_wants(const Ad *ad, const Value *v)
{
    return v && v->id < ad->nactive && ad->active[v->id];
}

Value *ad_again(Ad *ad, const Node *n, Value *const *in)
{
    int nin = n->nin;
    while (nin > 0 && !in[nin - 1]) nin--;
    return build(ad->g, n->op, nin, in, n->nattrs, n->attrs);
}

Value **ad_inputs(Ad *ad, const Node *n, Value *first)
{
    Value **in = arena_memdup(ad->g->arena, n->in, (size_t)n->nin * sizeof *in);
    in[0] = first;
    return in;
}

Value *ad_zeros_like(Ad *ad, const Value *v)
{
    int64_t ones[MAX_RANK], bytes = (int64_t)dtype_size(v->type.dtype);
    for (int i = 0; i < v->type.rank; i++) ones[i] = 1;
    Type one = type_of(v->type.dtype, v->type.rank, ones);
    Value *zero = value_const(ad->g, "zero", one, arena_alloc(ad->g->arena, (size_t)bytes));
    return ad_fit(ad, zero, &v->type);
}

/* The op on (in[0], …, dx[i], …): the term of the i-th factor. */
static Value *term(Ad *ad, const Node *n, Value *const *in, int i, Value *dxi)
{
    Value **args = NEW_ARRAY(ad->g->arena, Value *, n->nin);
    for (int k = 0; k < n->nin; k++) args[k] = k == i ? dxi : in[k];
    return ad_again(ad, n, args);
}

int jvp_multilinear(Ad *ad, const Node *n, Value *const *dx, Value **dy, int nlinear)
{
    Value **in = NEW_ARRAY(ad->g->arena, Value *, n->nin);
    Value *sum = NULL;
    bool added = false; /* is there a tangent still to ride on the first term? */
    for (int i = 0; i < n->nin; i++) {
        in[i] = i < nlinear ? n->in[i] : dx[i];
        added |= i >= nlinear && dx[i];
    }
    for (int i = 0; i < nlinear; i++) {
        Value *dxi = dx[i];
        bool last = i == nlinear - 1;
        if (!dxi && !(added && last && !sum)) continue;
        Value *t = term(ad, n, in, i, dxi ? dxi : ad_zeros_like(ad, n->in[i]));
        sum = sum ? build(ad->g, OP_Add, IN(sum, t), NO_ATTRS) : t;
        for (int k = nlinear; k < n->nin; k++) in[k] = NULL;
    }
    dy[0] = sum;
    return 0;
}

/* Add, Sum and Sub with some tangents zero: those that remain. */
static Value *sum_of_present(Ad *ad, const Node *n, Value *const *dx)
{
    Value *sum = NULL;
    for (int i = 0; i < n->nin; i++) {
        bool minus = n->op == OP_Sub && i == 1;
        if (!dx[i]) continue;
        if (sum)
            sum = build(ad->g, minus ? OP_Sub : OP_Add, IN(sum, dx[i]), NO_ATTRS);
        else
            sum = minus ? build(ad->g, OP_Neg, IN(dx[i]), NO_ATTRS) : dx[i];
    }
    return sum;
}

int jvp_linear(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    if (n->op == OP_Add || n->op == OP_Sub || n->op == OP_Sum) {
        dy[0] = sum_of_present(ad, n, dx);
        return 0;
    }
    Value **in = NEW_ARRAY(ad->g->arena, Value *, n->nin);
    for (int i = 0; i < n->nin; i++) {
        bool real = n->in[i] && dtype_is_float(n->in[i]->type.dtype);
        in[i] = dx[i] ? dx[i] : real ? ad_zeros_like(ad, n->in[i]) : n->in[i];
    }
    Node *m = build_multi(ad->g, n->op, n->nout, n->nin, in, n->nattrs, n->attrs);
    for (int o = 0; o < n->nout; o++) dy[o] = m->out[o];
    return 0;
}

/* Dims of t aligned at the end with those of a value of rank `rank`; 1 where t has none. */
static int64_t aligned_dim(const Type *t, int rank, int i)
{
    int k = i - (rank - t->rank);
    return k < 0 ? 1 : t->dim[k];
}

Value *ad_unbroadcast(Ad *ad, Value *v, const Type *t)
{
    int64_t axes[MAX_RANK];
    int naxes = 0, rank = v->type.rank;
    for (int i = 0; i < rank; i++)
        if (v->type.dim[i] != 1 && aligned_dim(t, rank, i) == 1) axes[naxes++] = i;
    if (naxes)
        v = build(ad->g, OP_ReduceSum, IN(v, const_ints(ad->g, naxes, axes)),
                  ATTRS(attr_int("keepdims", 1)));
    if (rank > t->rank)
        v = build(ad->g, OP_Reshape, IN(v, const_ints(ad->g, t->rank, t->dim)), NO_ATTRS);
    return v;
}

Value *ad_fit(Ad *ad, Value *v, const Type *t)
{
    v = ad_unbroadcast(ad, v, t);
    bool same = v->type.rank == t->rank;
    for (int i = 0; i < t->rank && same; i++) same = v->type.dim[i] == t->dim[i];
    if (same) return v;
    return build(ad->g, OP_Expand, IN(v, const_ints(ad->g, t->rank, t->dim)), NO_ATTRS);
}

Value *ad_scale(Ad *ad, Value *v, double factor)
{
    if (factor == 1) return v;
    return build(ad->g, OP_Mul, IN(v, const_f32(ad->g, (float)factor)), NO_ATTRS);
}

static Value *binary(Ad *ad, Op op, Value *a, Value *b)
{
    return build(ad->g, op, IN(a, b), NO_ATTRS);
}

Value *ad_mul(Ad *ad, Value *a, Value *b) { return binary(ad, OP_Mul, a, b); }

Value *ad_sub(Ad *ad, Value *a, Value *b) { return binary(ad, OP_Sub, a, b); }

Value *ad_div(Ad *ad, Value *a, Value *b) { return binary(ad, OP_Div, a, b); }

Value *ad_plus(Ad *ad, Value *a, Value *b) { return a && b ? binary(ad, OP_Add, a, b) : a ? a : b; }

Value *ad_rsqrt(Ad *ad, Value *v, float epsilon)
{
    v = binary(ad, OP_Add, v, const_f32(ad->g, epsilon));
    return build(ad->g, OP_Reciprocal, IN(build(ad->g, OP_Sqrt, IN(v), NO_ATTRS)), NO_ATTRS);
}

Value *ad_mean(Ad *ad, Value *v, Value *axes)
{
    return build(ad->g, OP_ReduceMean, IN(v, axes), ATTRS(attr_int("keepdims", 1)));
}

Value *ad_sum(Ad *ad, Value *v, Value *axes, bool keep)
{
    return build(ad->g, OP_ReduceSum, IN(v, axes), ATTRS(attr_int("keepdims", keep)));
}

Value *ad_reshape(Ad *ad, Value *v, int rank, const int64_t *dim)
{
    return build(ad->g, OP_Reshape, IN(v, const_ints(ad->g, rank, dim)), NO_ATTRS);
}
