/* Matrix products: MatMul and Gemm. */
#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/ops/products.h"
#include "ir/rules.h"

/* ---- shapes and costs --------------------------------------------------------------- */

static int inner_error(const Node *n, const Value *a, int64_t columns, const Value *b, int64_t rows,
                       Diag *d)
{
    return node_error(d, n, "'%s' has %lld columns, '%s' has %lld rows", a->name,
                      (long long)columns, b->name, (long long)rows);
}

/* Broadcasts the batch dimensions (all but the last two). */
static int matmul_batch(const Node *n, Value va, const Type *a, Value vb, const Type *b, Type *t,
                        Diag *d)
{
    Value *in[] = {&va, &vb};
    Node batch = *n;
    va.type = *a;
    vb.type = *b;
    va.type.rank -= 2;
    vb.type.rank -= 2;
    batch.in = in;
    return broadcast_inputs(&batch, 0, 2, t, d);
}

/* [.., n, k] x [.., k, m] -> [.., n, m]; a 1-D operand is a row or a column, and its axis of 1
 * is dropped from the result. */
int matmul_type(const Node *n, int ia, int ib, Type *t, Diag *d)
{
    Type a = input_type(n, ia), b = input_type(n, ib);
    bool row = a.rank == 1, column = b.rank == 1;
    int64_t k;
    *t = type_unknown(a.dtype);
    if (a.rank < 0 || b.rank < 0) return 0;
    if (a.rank == 0 || b.rank == 0)
        return node_error(d, n, "'%s' is a scalar", n->in[a.rank ? ib : ia]->name);
    if (row) a = type_of(a.dtype, 2, (int64_t[]){1, a.dim[0]});
    if (column) b = type_of(b.dtype, 2, (int64_t[]){b.dim[0], 1});
    if (!dim_agree(a.dim[a.rank - 1], b.dim[b.rank - 2], &k))
        return inner_error(n, n->in[ia], a.dim[a.rank - 1], n->in[ib], b.dim[b.rank - 2], d);
    TRY(matmul_batch(n, *n->in[ia], &a, *n->in[ib], &b, t, d));
    if (!row) t->dim[t->rank++] = a.dim[a.rank - 2];
    if (!column) t->dim[t->rank++] = b.dim[b.rank - 1];
    return 0;
}

int infer_matmul(Node *n, Diag *d)
{
    Type t;
    TRY(expect_same_dtype(n, 0, 1, d));
    TRY(matmul_type(n, 0, 1, &t, d));
    return infer_out(n, 0, t, d);
}

/* A or A' [n, k] times B or B' [k, m] plus C broadcast to [n, m]. */
int infer_gemm(Node *n, Diag *d)
{
    Type a = input_type(n, 0), b = input_type(n, 1), c = input_type(n, 2);
    int ta = node_int(n, "transA", 0) != 0, tb = node_int(n, "transB", 0) != 0;
    int64_t k;
    TRY(expect_same_dtype(n, 0, 1, d));
    TRY(expect_rank(n, 0, 2, d));
    TRY(expect_rank(n, 1, 2, d));
    if (a.rank < 0 || b.rank < 0) return infer_out(n, 0, type_unknown(a.dtype), d);
    if (!dim_agree(a.dim[1 - ta], b.dim[tb], &k))
        return inner_error(n, n->in[0], a.dim[1 - ta], n->in[1], b.dim[tb], d);
    Type t = type_of(a.dtype, 2, (int64_t[]){a.dim[ta], b.dim[1 - tb]});
    if (c.rank > 2) return node_error(d, n, "'%s' has rank %d, at most 2", n->in[2]->name, c.rank);
    for (int i = 1; i <= c.rank; i++) {
        int64_t have = c.dim[c.rank - i], need = t.dim[2 - i], both;
        if (have != 1 && !dim_agree(have, need, &both))
            return node_error(d, n, "bias '%s' has %lld elements, needs %lld", n->in[2]->name,
                              (long long)have, (long long)need);
    }
    return infer_out(n, 0, t, d);
}

static int64_t product_flops(const Node *n, int64_t inner)
{
    const Type *t = &n->out[0]->type;
    if (t->rank < 0 || n->in[0]->type.rank < 1) return 0;
    return mul_sat(2, mul_sat(dims_product(t, 0, t->rank), inner));
}

int64_t flops_matmul(const Node *n)
{
    const Type *a = &n->in[0]->type;
    return a->rank < 1 ? 0 : product_flops(n, dims_product(a, a->rank - 1, a->rank));
}

int64_t flops_gemm(const Node *n)
{
    const Type *a = &n->in[0]->type;
    int k = node_int(n, "transA", 0) != 0 ? 0 : 1;
    return a->rank != 2 ? 0 : product_flops(n, dims_product(a, k, k + 1));
}

/* ---- end of shapes ------------------------------------------------------------------ */

/* ---- derivatives -------------------------------------------------------------------- */

int vjp_gemm(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    Value *a = n->in[0], *b = n->in[1];
    bool ta = node_int(n, "transA", 0), tb = node_int(n, "transB", 0);
    float alpha = node_float(n, "alpha", 1);
    if (ad_wants(ad, a))
        dx[0] = ta ? build_gemm(ad->g, b, dy[0], alpha, tb, true)
                   : build_gemm(ad->g, dy[0], b, alpha, false, !tb);
    if (ad_wants(ad, b))
        dx[1] = tb ? build_gemm(ad->g, dy[0], a, alpha, true, ta)
                   : build_gemm(ad->g, a, dy[0], alpha, !ta, false);
    if (ad_wants(ad, node_in(n, 2))) dx[2] = ad_scale(ad, dy[0], node_float(n, "beta", 1));
    return 0;
}

int jvp_gemm(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    Value *sum[3] = {NULL};
    bool ta = node_int(n, "transA", 0), tb = node_int(n, "transB", 0);
    float alpha = node_float(n, "alpha", 1);
    if (dx[0]) sum[0] = build_gemm(ad->g, dx[0], n->in[1], alpha, ta, tb);
    if (dx[1]) sum[1] = build_gemm(ad->g, n->in[0], dx[1], alpha, ta, tb);
    if (n->nin > 2 && dx[2]) sum[2] = ad_scale(ad, dx[2], node_float(n, "beta", 1));
    for (int i = 0; i < 3; i++)
        if (sum[i]) dy[0] = dy[0] ? build(ad->g, OP_Add, IN(dy[0], sum[i]), NO_ATTRS) : sum[i];
    return 0;
}

/* v with its last two axes exchanged. */
static Value *transposed(Graph *g, Value *v)
{
    int64_t perm[MAX_RANK];
    int rank = v->type.rank;
    for (int i = 0; i < rank; i++) perm[i] = i < rank - 2 ? i : 2 * rank - 3 - i;
    return build(g, OP_Transpose, IN(v), ATTRS(attr_ints("perm", (size_t)rank, perm)));
}

/* As [rows, last axis]. */
static Value *flat(Ad *ad, Value *v)
{
    const Type *t = &v->type;
    int64_t rows = 1;
    if (t->rank == 2) return v;
    for (int i = 0; i < t->rank - 1; i++) rows *= t->dim[i];
    return ad_reshape(ad, v, 2, (int64_t[]){rows, t->dim[t->rank - 1]});
}

/* Of x [.., m, k] times w [k, n] by w, all leading axes summed in one product. */
static Value *matmul_weight_grad(Ad *ad, Value *x, Value *dy)
{
    return build_gemm(ad->g, flat(ad, x), flat(ad, dy), 1, true, false);
}

/* numpy's rule for vectors: a [k] is [1, k], b [k] is [k, 1], and the 1 vanishes from y. */
int vjp_matmul(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    Value *a = n->in[0], *b = n->in[1], *d = dy[0];
    bool av = a->type.rank == 1, bv = b->type.rank == 1;
    const Type *y = &d->type;
    int64_t k = a->type.dim[a->type.rank - 1], shape[MAX_RANK];
    int rank = 0;
    for (int i = 0; i < y->rank - (av || bv ? !(av && bv) : 2); i++) shape[rank++] = y->dim[i];
    shape[rank++] = av ? 1 : a->type.dim[a->type.rank - 2];
    shape[rank++] = bv ? 1 : b->type.dim[b->type.rank - 1];
    if (av || bv) d = ad_reshape(ad, d, rank, shape);
    if (av) a = ad_reshape(ad, a, 2, (int64_t[]){1, k});
    if (bv) b = ad_reshape(ad, b, 2, (int64_t[]){k, 1});
    if (ad_wants(ad, n->in[0]))
        dx[0] = build(ad->g, OP_MatMul, IN(d, transposed(ad->g, b)), NO_ATTRS);
    if (ad_wants(ad, n->in[1]))
        dx[1] = b->type.rank == 2 ? matmul_weight_grad(ad, a, d)
                                  : build(ad->g, OP_MatMul, IN(transposed(ad->g, a), d), NO_ATTRS);
    if (av && dx[0]) dx[0] = ad_fit(ad, dx[0], &(Type){DT_F32, 2, {1, k}});
    if (av && dx[0]) dx[0] = ad_reshape(ad, dx[0], 1, &k);
    if (bv && dx[1]) dx[1] = ad_reshape(ad, dx[1], 1, &k);
    return 0;
}

int jvp_matmul(Ad *ad, const Node *n, Value *const *dx, Value **dy)
{
    return jvp_multilinear(ad, n, dx, dy, 2);
}

/* ---- end of derivatives ------------------------------------------------------------- */

/* ---- channels ----------------------------------------------------------------------- */

/* Rows of A and columns of B are those of the output, columns of A meet rows of B. A constant
 * opens its axes, an activation passes on what is open: so a weight makes channels on either
 * side, and in attention the channels of query and key are tied over their product. */
static void lanes_product(Lanes *l, const Node *n, const int axis[2], const int inner[2],
                          const int out[2])
{
    const Value *y = n->out[0];
    for (int i = 0; i < 2; i++) {
        if (axis[i] < 0) continue;
        if (value_is_const(n->in[i]))
            lanes_tie_axis(l, n->in[i], axis[i], y, out[i]);
        else
            lanes_pass(l, n->in[i], axis[i], y, out[i]);
    }
    if (value_is_const(n->in[0]) || value_is_const(n->in[1]))
        lanes_tie_axis(l, n->in[0], inner[0], n->in[1], inner[1]);
    else
        lanes_pass(l, n->in[0], inner[0], n->in[1], inner[1]);
}

void rule_lanes_matmul(Lanes *l, const Node *n)
{
    const Value *y = n->out[0];
    int a = n->in[0]->type.rank, b = n->in[1]->type.rank, t = y->type.rank;
    if (a < 1 || b < 1 || t < 0) return;
    int matrices = (a > 1) + (b > 1); /* axes at the end of y that are rows and columns */
    lanes_product(l, n, (int[]){a - 2, b > 1 ? b - 1 : -1}, (int[]){a - 1, b > 1 ? b - 2 : 0},
                  (int[]){t - matrices, t - 1});
    lanes_broadcast(l, n, 2, y, 2, matrices);
}

void rule_lanes_gemm(Lanes *l, const Node *n)
{
    int ta = node_int(n, "transA", 0) != 0, tb = node_int(n, "transB", 0) != 0;
    const Value *c = node_in(n, 2), *y = n->out[0];
    if (n->in[0]->type.rank != 2 || n->in[1]->type.rank != 2) return;
    lanes_product(l, n, (int[]){ta, 1 - tb}, (int[]){1 - ta, tb}, (int[]){0, 1});
    for (int i = 1; c && i <= c->type.rank; i++)
        if (c->type.dim[c->type.rank - i] == y->type.dim[2 - i])
            lanes_pass(l, c, c->type.rank - i, y, 2 - i);
}

/* ---- end of channels ---------------------------------------------------------------- */
